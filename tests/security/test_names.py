"""Names in sessions, indexes and arguments lead to no file outside of the folder."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.transfer import export_files, export_plan
from tests.support.transfer import header, transcript, write

NAMES = [
    "../outside.jsonl",
    "../../../../../../tmp/sessiondb-outside.jsonl",
    "/outside.jsonl",
    "a/../../outside.jsonl",
    "a\x00b.jsonl",
    "a\nb.jsonl",
    "..\\outside.jsonl",
    "C:\\outside.jsonl",
    "CON.jsonl",
    "a:stream.jsonl",
    "linked/outside.jsonl",
    "precious.jsonl",
    "PRECIOUS.jsonl",
    ".",
    "..",
    "",
    "x" * 300 + ".jsonl",
    "/".join(["d"] * 3_000) + ".jsonl",
    "sessions.json",
    "gateway.db",
    "-rf.jsonl",
    ".bashrc",
]


def world(tmp_path: Path) -> dict[str, bytes]:
    """Return every file below a folder that no export may touch."""
    return {
        str(path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and "home" not in path.parts
    }


def export_names(
    db: Path, tmp_path: Path, names: list[str], *, overwrite: bool = False
) -> tuple[list[str], sessiondb.ExportReport]:
    """Give recorded files hostile names, and export them.

    Returns the effects on all but new files in the destination, and the report.
    """
    out, elsewhere = tmp_path / "deep" / "out", tmp_path / "elsewhere"
    for folder in (out, elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "outside.jsonl").write_bytes(b"not ours")
    (tmp_path / "deep" / "outside.jsonl").write_bytes(b"not ours")
    (out / "linked").symlink_to(elsewhere)
    (out / "precious.jsonl").write_bytes(b"there before")
    write(
        tmp_path / "in",
        {f"{number}.jsonl": header(f"s-{number}").encode() + b"\n" for number in range(len(names))},
    )
    with sessiondb.sync.open(db) as opened:
        opened.import_path(tmp_path / "in")
    for number, name in enumerate(names):
        with closing(apsw.Connection(str(db))) as raw:
            raw.execute(
                "update import_file set name = ? where path like ?", (name, f"%/{number}.jsonl")
            ).fetchall()
    before = world(tmp_path)
    with sessiondb.sync.open(db) as opened:
        report = opened.export(out, overwrite=overwrite)
    after = world(tmp_path)
    kept = {
        path: content
        for path, content in before.items()
        if not (overwrite and path.startswith(str(out)))
    }
    message = [f"{path} changed" for path, content in kept.items() if after.get(path) != content]
    message += [
        f"{path} is new"
        for path in after.keys() - before.keys()
        if not os.path.realpath(path).startswith(f"{out}/")
    ]
    message += [
        f"{path} is no regular file"
        for path in out.rglob("*")
        if not path.is_symlink() and not (path.is_file() or path.is_dir())
    ]
    return message, report


def test_no_name_leads_an_export_out_of_its_folder(db: Path, tmp_path: Path) -> None:
    message, report = export_names(db, tmp_path, NAMES)
    assert message == []
    assert report.count("written") >= len(NAMES) - 4
    assert all(file.status in ("written", "refused", "failed") for file in report.files)
    assert all(file.notes for file in report.files if file.status in ("refused", "failed"))
    assert len({file.name.casefold() for file in report.files}) == len(report.files)


def test_overwriting_stays_within_the_folder_too(db: Path, tmp_path: Path) -> None:
    assert export_names(db, tmp_path, NAMES, overwrite=True)[0] == []


def test_without_the_check_of_names_that_export_leads_out(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_plan, "safe_name", lambda name: name)
    monkeypatch.setattr(
        export_files, "_make_below", lambda top, folder: folder.mkdir(parents=True, exist_ok=True)
    )
    message, _ = export_names(db, tmp_path, ["../new.jsonl", "linked/new.jsonl"])
    assert [one.rpartition("/")[2] for one in message] == ["new.jsonl is new", "new.jsonl is new"]


def test_session_and_agent_ids_make_no_paths(tmp_path: Path) -> None:
    ids = [
        "../up",
        "..",
        "/root",
        "a/b",
        "a\\b",
        ".hidden",
        "con",
        "CON",
        "é" * 200,
        "x" * 255,
        "~",
        "-",
        "a\u202eb",
    ]
    with sessiondb.sync.open(tmp_path / "home" / "g.db") as db:
        for number, text in enumerate(ids):
            session = db.create_session(text)
            db.bind(f"agent:{text.replace(':', '')}:k{number}", session)
        report = db.export(tmp_path / "deep" / "out")
    assert len(report.files) >= len(ids)
    # A name that is too long for the disk fails by itself.
    assert {file.status for file in report.files} <= {"written", "failed"}
    assert report.count("written") >= len(ids) - 2
    assert {path.name for path in tmp_path.iterdir()} == {"home", "deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


def test_no_name_in_an_index_leads_an_import_out_of_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "outside.jsonl": transcript(3, "outside", text="SECRET"),
            "in/agents/main/sessions/s-1.jsonl": transcript(2),
        },
    )
    files = [
        "../../../../outside.jsonl",
        str(tmp_path / "outside.jsonl"),
        "..\\outside.jsonl",
        "file:///etc/passwd",
        "s-1.jsonl\x00x",
        "/",
        "",
    ]
    rows = {
        f"agent:main:k{number}": {"sessionId": "../outside", "sessionFile": name}
        for number, name in enumerate(files)
    }
    folder = tmp_path / "in/agents/main/sessions"
    (folder / "sessions.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "linked.jsonl").symlink_to(tmp_path / "outside.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    with sessiondb.sync.open(tmp_path / "home" / "g.db") as db:
        report = db.import_path(tmp_path / "in")
        assert {file.name.rpartition("/")[2]: file.status for file in report.files} == {
            "s-1.jsonl": "imported",
            "sessions.json": "imported",
            "linked.jsonl": "failed",
            "outside.jsonl": "failed",  # a row of the index leads there
            "pipe.jsonl": "skipped",
        }
        assert [info.session_id for info in db.sessions()] == ["s-1"]
    assert b"SECRET" not in (tmp_path / "home" / "g.db").read_bytes()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-alive"])
@pytest.mark.parametrize("name", ["evil.jsonl", "sessions.json"])
def test_a_hard_link_to_the_live_database_is_not_opened(
    db: Path, tmp_path: Path, suffix: str, name: str
) -> None:
    """Opening and closing it would drop the locks of this process. The guard would raise."""
    (tmp_path / "in").mkdir()
    with sessiondb.sync.open(db, guard="raise") as opened:
        session = opened.session("agent:main:web:direct:jo")
        session.append({"role": "user", "content": "x"})
        (tmp_path / "in" / name).hardlink_to(f"{db}{suffix}")
        report = opened.import_path(tmp_path / "in")
        assert [(file.status, file.note) for file in report.files] == [
            ("failed", "this is the database's own file under another name")
        ]
        out = tmp_path / "out" / "agents" / "main" / "sessions"
        out.mkdir(parents=True)
        (out / f"{session.id}.jsonl").hardlink_to(f"{db}{suffix}")
        (out / "sessions.json").hardlink_to(f"{db}{suffix}")
        exported = opened.export(tmp_path / "out")
        assert {
            file.status
            for file in exported.files
            if file.name.endswith((f"{session.id}.jsonl", "sessions.json"))
        } == {"refused"}
        assert opened.stats()["guard_violations"] == 0
