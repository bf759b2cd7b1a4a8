"""An import costs memory and disk in proportion to its files, whatever they claim to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessiondb.limits import ENTRY_BYTES_MAX, MIB
from tests import TESTS
from tests.proofs.fuzz.properties import INPUTS
from tests.proofs.fuzz.storm import long_only
from tests.support.transfer import header, message, write

pytestmark = pytest.mark.usefixtures("nothing_left")


ROOM_MIB = 768
ARCHIVE = "jsonl.deleted.2026-01-01T00-00-00.000Z.zst"
SIZE_MIB = 60 if INPUTS else 2
TINY_LINES = 100_000 if INPUTS else 4_000
TINY_ENTRIES = 1_000_000
HUGE_LINE_BYTES = 100_000_000
BOMB_MIB = 2_000 if INPUTS else 100
# Of all kinds in one folder. A line of 60 MiB or 20 million values takes 3 times its size. An
# importer that reserves a claim takes 256 MiB more.
PEAK_MIB = 4 * SIZE_MIB + 32 if INPUTS else 96


def cost_of(
    tmp_path: Path, files: dict[str, bytes], *, broken: str = "", export_to: str = ""
) -> dict[str, Any]:
    """Import files in a process of its own, under a limit of memory, and return its report."""
    folder = write(tmp_path / "in", files)
    arguments = [
        sys.executable,
        str(TESTS / "proofs/fuzz/import_child.py"),
        str(tmp_path / "one.db"),
        str(folder),
        str(ROOM_MIB),
    ]
    done = subprocess.run(
        [*arguments, broken, export_to], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["findings"] == []
    assert [message["content"] for message in found["said"]] == ["hello"]
    assert found["files"].keys() == files.keys()
    cost = f"memory {found['peak_mib']:.0f} MiB, database {found['db_mib']:.0f} MiB"
    print(f"\nfuzz: {', '.join(files)}: {cost}")
    return found


def zstd(piece: bytes, count: int) -> bytes:
    """Compress repetitions of a piece without holding all of them."""
    packer = pytest.importorskip("zstandard").ZstdCompressor(level=1).compressobj()
    block = piece * (MIB // len(piece))
    return b"".join(packer.compress(block) for _ in range(count)) + bytes(packer.flush())


def zstd_frame(*, window: int, claims: int, holds: bytes) -> bytes:
    """Return a frame whose header claims a size and asks for a window of 2 to the power given."""
    block = (len(holds) << 3 | 1).to_bytes(3, "little") + holds
    return (
        b"\x28\xb5\x2f\xfd"
        + bytes([0b11000000, (window - 10) << 3])
        + claims.to_bytes(8, "little")
        + block
    )


def long_line() -> dict[str, bytes]:
    return {
        "long.jsonl": f"{header('long')}\n{message('a', None, 'x' * SIZE_MIB * MIB)}\n".encode()
    }


def dense_line() -> dict[str, bytes]:
    return {
        "dense.jsonl": b'{"type":"custom","data":['
        + b"[]," * (max(SIZE_MIB, 5) * MIB // 3)
        + b"0]}\n"
    }


def tiny_lines() -> dict[str, bytes]:
    return {"tiny.jsonl": b'\n{"type":"x"}\n{\n\n' * (TINY_LINES // 4)}


def bombs(size_mib: int = BOMB_MIB) -> dict[str, bytes]:
    return {
        f"{name}.{ARCHIVE}": zstd(piece, size_mib)
        for name, piece in (("text", b"x"), ("zeros", b"\0"))
    }


def claims() -> dict[str, bytes]:
    return {
        f"claim-{window}.{ARCHIVE}": zstd_frame(window=window, claims=2**40, holds=b"hello\n")
        for window in (10, 27, 31, 41)
    }


def check_cost(found: dict[str, Any], peak_mib: float) -> None:
    """Check each kind of file, and that memory and disk do not follow the claim of a file."""
    assert found["peak_mib"] < peak_mib, "memory"
    assert found["db_mib"] < 6 * found["bytes_mib"] + 64, "disk"
    for name, file in found["files"].items():
        kind = name.partition(".")[0].partition("-")[0]
        report = {key: file[key] for key in ("status", "entries", "damaged", "blank")}
        if kind == "long":
            assert report == {"status": "imported", "entries": 1, "damaged": 0, "blank": 0}
        elif kind == "dense":
            assert report == {"status": "imported", "entries": 0, "damaged": 1, "blank": 0}
        elif kind == "tiny":
            quarter = TINY_LINES // 4
            assert report == {
                "status": "imported",
                "entries": quarter,
                "damaged": quarter,
                "blank": 2 * quarter,
            }
        else:
            assert report["status"] == "failed"
            assert (
                "its compression is damaged" if kind == "claim" else "it unpacks to more than"
            ) in file["note"]


@pytest.mark.slow
def test_a_folder_of_long_lines_and_bombs_costs_little(
    tmp_path: Path,
) -> None:
    pytest.importorskip("zstandard")
    check_cost(
        cost_of(tmp_path, long_line() | dense_line() | tiny_lines() | bombs() | claims()), PEAK_MIB
    )


@long_only
@pytest.mark.parametrize(
    ("make", "peak_mib"),
    [
        (long_line, 8 * SIZE_MIB + 32),
        (dense_line, 8 * SIZE_MIB + 32),
        (tiny_lines, 64),
        (bombs, 64),
        (claims, 64),
    ],
)
def test_each_kind_alone_at_full_size(tmp_path: Path, make: Any, peak_mib: int) -> None:
    check_cost(cost_of(tmp_path, make()), peak_mib)


@long_only
def test_a_line_above_the_limit_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    found = cost_of(
        tmp_path,
        {
            "one.jsonl": f"{header()}\n".encode()
            + b"x" * 150 * MIB
            + f"\n{message('a', None)}\n".encode()
        },
    )
    assert (found["files"]["one.jsonl"]["entries"], found["files"]["one.jsonl"]["damaged"]) == (
        1,
        1,
    )
    assert found["peak_mib"] < 4 * ENTRY_BYTES_MAX / MIB


@long_only
def test_a_million_entries_and_a_line_of_100_mb_round_trip(
    tmp_path: Path,
) -> None:
    tiny = b'{"type":"x"}\n' * TINY_ENTRIES
    huge = (
        message("a", None, "x" * HUGE_LINE_BYTES).encode()
        + b"\n"
        + message("b", "a").encode()
        + b"\n"
    )
    for name, content, entries_, damaged, peak_mib in (
        ("tiny.jsonl", tiny, TINY_ENTRIES, 0, 64),
        # Longer than an entry may be, so it is kept beside the entries.
        ("huge.jsonl", huge, 1, 1, 4 * ENTRY_BYTES_MAX // MIB),
    ):
        folder = tmp_path / name
        folder.mkdir()
        found = cost_of(folder, {name: content}, export_to=str(folder / "out"))
        report = found["files"][name]
        assert (report["status"], report["entries"], report["damaged"]) == (
            "imported",
            entries_,
            damaged,
        )
        assert (folder / "out" / name).read_bytes() == content
        assert found["peak_mib"] < peak_mib


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        "reserves what an archive claims to hold",
        pytest.param("unpacks without a bound", marks=long_only),
        pytest.param("holds a whole file", marks=long_only),
    ],
)
def test_an_importer_without_a_bound_is_found_out(tmp_path: Path, broken: str) -> None:
    pytest.importorskip("zstandard")
    # The bound is the sound importer's. An importer that unpacks everything gets bombs that fit on
    # the disk, and one that holds whole files gets a large file.
    if broken == "unpacks without a bound":
        files = bombs(100)
    elif broken == "holds a whole file":
        files = {"a.jsonl": b"x" * 300 * MIB}
    else:
        files = long_line() | dense_line() | tiny_lines() | bombs() | claims()
    found = cost_of(tmp_path, files, broken=broken)
    with pytest.raises(AssertionError, match=r"memory|disk"):
        check_cost(found, PEAK_MIB)
