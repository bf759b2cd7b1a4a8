"""Folders and names that survive a power cut. What the disk does is in `tests/proofs/power`."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sessiondb import durable_files


@pytest.mark.parametrize(
    ("number", "lacks"),
    [
        (errno.EPERM, True),
        (errno.ENOTSUP, True),
        (errno.ENOSYS, True),
        (errno.EEXIST, False),
        (errno.ENOSPC, False),
        (errno.EACCES, False),
    ],
)
def test_a_file_system_without_hard_links_is_told_from_other_errors(
    number: int, lacks: bool
) -> None:
    assert durable_files.lacks_links(OSError(number, "no")) is lacks


def test_a_new_folder_and_an_empty_one_are_synced_with_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable_files, "sync_folder", synced.append)
    folder = tmp_path / "a/b"
    durable_files.make_folder(folder)
    assert synced[-2:] == [tmp_path, tmp_path / "a"], "each name is in the folder above"
    assert folder.stat().st_mode & 0o777 == 0o700
    synced.clear()
    durable_files.make_folder(folder)
    assert synced == [tmp_path / "a"], "its creator may have been killed before it synced it"
    (folder / "file").touch()
    synced.clear()
    durable_files.make_folder(folder)
    assert synced == []


def test_other_errors_of_a_sync_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[bool] = []
    monkeypatch.setattr(durable_files.os, "sync", lambda: whole.append(True))

    def failing(number: int) -> None:
        def fail(folder: Path) -> None:
            raise OSError(number, "no", str(folder))

        monkeypatch.setattr(durable_files, "_sync", fail)

    failing(errno.EINVAL)
    durable_files.sync_folder(tmp_path)
    assert whole == [True], "everything is synced where one folder cannot be"
    failing(errno.EIO)
    with pytest.raises(OSError, match="no"):
        durable_files.sync_folder(tmp_path)
    assert whole == [True]
