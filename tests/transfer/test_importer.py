"""An import of folders: nothing is lost when it is killed, cancelled, doubled or disturbed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.errors import NotExecuted, StoreBusy
from sessiondb.limits import IMPORT_BATCH_ENTRIES, MIB
from sessiondb.sqlite import throttle
from sessiondb.transfer import import_run
from tests.support import warm
from tests.support.core import texts
from tests.support.transfer import (
    by_name,
    differing,
    header,
    message,
    tables,
    transcript,
    write,
)

pytestmark = pytest.mark.anyio

ID = "11111111-2222-4333-8444-555555555555"
TIME = "2026-05-17T07-35-46.420Z"
UUID = "99999999-8888-4777-8666-555555555555"


# -- whole folders ------------------------------------------------------------------------------


def state_folder(folder: Path) -> Path:
    """Write an OpenClaw state folder with two agents, and every kind of file seen in one."""
    index = {
        "agent:main:discord:channel:1": {
            "sessionId": "live",
            "updatedAt": 5,
            "sessionFile": "/gone/agents/main/sessions/live.jsonl",
        },
        "agent:main:discord:channel:2": {
            "sessionId": "other-name",
            "sessionFile": "C:\\gone\\wrong.jsonl",
        },
        "agent:main:by-header": {"sessionId": "by-header"},
        "agent:main:cron:stub": {"updatedAt": 7, "label": "no session"},
        "agent:main:missing": {"sessionId": "missing"},
        "main": {"sessionId": "old-key"},
        "not a key": {"sessionId": "live"},
        "agent:main:odd": ["not", "an", "object"],
    }
    sessions = {
        "sessions.json": json.dumps(index, indent=2).encode(),
        "live.jsonl": transcript(3, "live"),
        "wrong.jsonl": transcript(2, "header-says-this"),
        "renamed-by-hand.jsonl": transcript(2, "by-header"),
        "old-key.jsonl": transcript(2, "old-key"),
        "orphan.jsonl": transcript(2, "orphan"),
        f"live.jsonl.reset.{TIME}": transcript(4, "live", "older"),
        "live.jsonl.bak.1763631205123": transcript(1, "live", "oldest"),
        f"gone.jsonl.deleted.{TIME}": transcript(1, "gone"),
        f"live.checkpoint.{UUID}.jsonl": transcript(2, "live", "twin"),
        f"live.corrupt-{TIME}-0badf00d.jsonl": b"{torn\n" + transcript(1, "live", "bad"),
        "live.jsonl.lock": b'{"pid":1}',
        "live.trajectory.jsonl": b"{}\n",
        "live.trajectory-path.json": b"{}",
    }
    write(folder / "agents/main/sessions", sessions)
    ops_index = b'{"agent:ops:main":{"sessionId":"live"}}'
    write(
        folder / "agents/ops/sessions",
        {"live.jsonl": transcript(2, "live", "ops"), "sessions.json": ops_index},
    )
    write(folder, {"openclaw.json": b"{}", "agents/ops/agent/openclaw.sqlite": b"not opened"})
    return folder


async def test_a_state_folder_round_trips_with_its_keys(tmp_path: Path) -> None:
    folder = state_folder(tmp_path / "state")
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder, verify=True)
        files = by_name(report)
        sessions = "agents/main/sessions"
        ids = {name: file.session_id for name, file in files.items() if file.session_id is not None}
        assert ids == {
            f"{sessions}/live.jsonl": "live",
            f"{sessions}/wrong.jsonl": "other-name",
            f"{sessions}/renamed-by-hand.jsonl": "by-header",
            f"{sessions}/old-key.jsonl": "old-key",
            f"{sessions}/orphan.jsonl": "orphan",
            f"{sessions}/live.jsonl.reset.{TIME}": f"live.reset.{TIME}",
            f"{sessions}/live.jsonl.bak.1763631205123": "live.bak.1763631205123",
            f"{sessions}/gone.jsonl.deleted.{TIME}": "gone",
            f"{sessions}/live.checkpoint.{UUID}.jsonl": f"live.checkpoint.{UUID}",
            f"{sessions}/live.corrupt-{TIME}-0badf00d.jsonl": f"live.corrupt-{TIME}-0badf00d",
            "agents/ops/sessions/live.jsonl": ids["agents/ops/sessions/live.jsonl"],
        }
        assert ids["agents/ops/sessions/live.jsonl"].startswith("live~")
        assert "stored as other-name, as the index says" in files[f"{sessions}/wrong.jsonl"].note
        assert "which is not its file name" in files[f"{sessions}/renamed-by-hand.jsonl"].note
        for key, session_id in {
            "agent:main:discord:channel:1": "live",
            "agent:main:discord:channel:2": "other-name",
            "agent:main:by-header": "by-header",
            "agent:main:main": "old-key",
            "agent:ops:main": ids["agents/ops/sessions/live.jsonl"],
        }.items():
            assert (await db.session(key)).id == session_id, key
        notes = files[f"{sessions}/sessions.json"].notes
        for expected in (
            "agent:main:cron:stub: not bound: the row names no session",
            (
                "agent:main:missing: not bound: OpenClaw has no transcript missing.jsonl. Its next "
                "message begins a conversation, as it would there"
            ),
            "agent:main:odd: not bound: the row names no session",
        ):
            assert expected in notes
        assert any(note.startswith("not a key: not bound: ") for note in notes)
        assert len(notes) == 4
        skipped = {
            name.rsplit("/", 1)[-1]: file.note
            for name, file in files.items()
            if file.status == "skipped"
        }
        assert skipped == {
            "live.jsonl.lock": "a lock file",
            "live.trajectory.jsonl": "a trajectory, not a transcript",
            "live.trajectory-path.json": "a trajectory's pointer",
            "openclaw.json": "not a transcript by its name",
            "openclaw.sqlite": "no SQLite database, whatever its name says",
        }
        ended = {
            info.session_id
            async for info in db.sessions(with_ended=True)
            if info.ended_at_ms is not None
        }
        assert ended == {
            file.session_id
            for file in files.values()
            if file.kind in ("reset", "bak", "deleted", "checkpoint", "corrupt")
        }
        await db.export(tmp_path / "out")
        assert (await db.verify()).ok
    assert {Path(name).name for name in differing(folder, tmp_path / "out")} == set(skipped)
    before = tables(tmp_path / "one.db")
    async with sessiondb.open(tmp_path / "one.db") as db:
        again = await db.import_path(folder, verify=True)
    assert {file.status for file in again.files} == {"unchanged", "skipped"}
    assert tables(tmp_path / "one.db") == before


@pytest.mark.parametrize(
    "args",
    [
        "agents/main/sessions",
        "agents/main/sessions/live.jsonl",
        "agents/main/sessions/sessions.json",
    ],
)
async def test_a_part_of_a_state_folder_is_known_when_the_whole_comes(
    tmp_path: Path, args: str
) -> None:
    folder = state_folder(tmp_path / "state")
    async with sessiondb.open(tmp_path / "one.db") as db:
        part = await db.import_path(folder / args)
        whole = by_name(await db.import_path(folder))
    assert part.entries_new > 0
    for file in part.files:
        if file.status == "imported":
            relative = str(Path(file.path).relative_to(folder))
            assert whole[relative].status == "unchanged", relative


async def test_copies_at_any_depth_get_ids_of_their_own(
    tmp_path: Path,
) -> None:
    name = f"2026-01-01T00-00-00-000Z_{ID}.jsonl"
    copies = {f"--home-x-{at}--/{name}": transcript(2, ID, f"copy {at}") for at in "ab"}
    folder = write(tmp_path / "sessions", copies)
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
        await db.export(tmp_path / "out")
    first, second = (file.session_id for file in report.files)
    assert first == ID
    assert second == name.removesuffix(".jsonl")
    assert differing(folder, tmp_path / "out") == []


async def test_one_bad_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    folder = write(
        tmp_path / "in",
        {
            "a.jsonl.deleted.2026-01-01T00-00-00.zst": b"not zstd",
            "b.jsonl": transcript(),
            "c.jsonl": b"\xff\n",
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
        assert (await (await db.session_by_id("s-1")).info()).entries == 5
    bad, good, odd = report.files
    assert (bad.status, good.status, odd.status) == ("failed", "imported", "imported")
    assert "compression is damaged" in bad.note
    assert not report.ok


async def test_a_path_with_nothing_there_is_refused_with_its_name(
    tmp_db: Path, tmp_path: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.InvalidInput, match=r"nowhere.*No such file.*Check the path"):
            await db.import_path(tmp_path / "nowhere")


async def test_a_database_opened_for_reading_refuses_an_import(tmp_path: Path) -> None:
    write(tmp_path / "in", {"one.jsonl": transcript(2)})
    async with sessiondb.open(tmp_path / "one.db"):
        pass
    async with sessiondb.open(tmp_path / "one.db", readonly=True) as db:
        assert (await db.import_path(tmp_path / "in", dry_run=True)).count("would-import") == 1
        with pytest.raises(sessiondb.SessionDBError, match="readonly"):
            await db.import_path(tmp_path / "in")


def counts(report: sessiondb.ImportReport) -> list[tuple[object, ...]]:
    return [
        (file.name, file.bytes, file.lines, file.entries, file.damaged, file.blank)
        for file in report.files
    ]


async def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    sample: Path, tmp_db: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        before = (await db.stats())["writer"]
        dry = await db.import_path(sample, dry_run=True)
        after = (await db.stats())["writer"]
        assert [info async for info in db.sessions(with_ended=True)] == []
        real = await db.import_path(sample)
    assert before["commits"] == after["commits"]
    assert dry.dry_run
    assert {file.status for file in dry.files} == {"would-import", "skipped"}
    assert counts(dry) == counts(real)


async def test_progress_ends_at_the_whole(sample: Path, tmp_db: Path) -> None:
    seen: list[tuple[int, int, int, int, str]] = []
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(sample, progress=lambda *step: seen.append(step))
    assert seen == sorted(seen, key=lambda step: (step[0], step[2]))
    files_done, files_total, bytes_done, bytes_total, _ = seen[-1]
    assert files_done == files_total > 0
    assert bytes_done == bytes_total > 0


# -- interrupted, doubled, disturbed --------------------------------------------------------------


CHILD = """
import os, signal, sys
import anyio, sessiondb

async def main(database, source, packs):
    done = 0
    def progress(*step):
        nonlocal done
        done += 1
        if done == packs:
            os.kill(os.getpid(), signal.SIGKILL)
    async with sessiondb.open(database) as db:
        await db.import_path(source, progress=progress)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def big_folder(folder: Path) -> Path:
    long = b"x" * (2 * MIB)
    damaged = b"\n".join([header("s-2").encode(), long, message("a", None).encode(), b""])
    big = transcript(IMPORT_BATCH_ENTRIES * 3 + 7)
    return write(
        folder, {"big.jsonl": big, "long.jsonl": damaged, "small.jsonl": transcript(3, "s-3")}
    )


@pytest.mark.parametrize("packs", [1, 2, 4, 6])
def test_a_killed_import_resumes_and_ends_like_a_whole_one(tmp_path: Path, packs: int) -> None:
    source = big_folder(tmp_path / "in")
    killed = warm.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed.db"), str(source), str(packs)],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    async def finish() -> tuple[sessiondb.ImportReport, bool]:
        async with sessiondb.open(tmp_path / "whole.db") as db:
            await db.import_path(source)
        async with sessiondb.open(tmp_path / "killed.db") as db:
            report = await db.import_path(source, verify=True)
            return report, (await db.verify()).ok

    report, ok = anyio.run(finish)
    assert ok
    assert report.ok
    assert {file.status for file in report.files} <= {"imported", "unchanged"}
    killed_rows, whole_rows = (
        tables(tmp_path / name, times=False) for name in ("killed.db", "whole.db")
    )
    assert killed_rows == whole_rows


async def test_a_cancelled_import_resumes_later(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(IMPORT_BATCH_ENTRIES * 6)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        with anyio.CancelScope() as scope:
            await db.import_path(source, progress=lambda *_: scope.cancel())
        assert scope.cancelled_caught
        [receipt] = (await db.import_path(source, verify=True)).files
        assert (receipt.status, receipt.entries, receipt.verified) == (
            "imported",
            IMPORT_BATCH_ENTRIES * 6,
            True,
        )


async def test_two_imports_of_one_file_at_once_store_it_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(IMPORT_BATCH_ENTRIES * 4)})
    reports: list[sessiondb.ImportReport] = []
    async with sessiondb.open(tmp_path / "one.db") as db:

        async def run() -> None:
            reports.append(await db.import_path(source))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            group.start_soon(run)
        final = await db.import_path(source, verify=True)
        assert (await db.verify()).ok
        assert (await (await db.session_by_id("s-1")).info()).entries == IMPORT_BATCH_ENTRIES * 4
    assert final.files[0].status in ("unchanged", "imported")
    assert final.files[0].verified
    for report in reports:
        assert (
            report.files[0].status in ("imported", "unchanged")
            or "another import is reading it too" in report.files[0].note
        )


async def test_an_append_goes_between_the_batches_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: an append begins after every batch, and appends keep up with batches."""
    # The order counts, not the pauses.
    monkeypatch.setattr(throttle, "SHARE_BESIDE_CALLERS", 0.25)
    source = write(tmp_path / "in", {"big.jsonl": transcript(IMPORT_BATCH_ENTRIES * 24)})
    order: list[str] = []
    async with sessiondb.open(tmp_path / "one.db") as db:
        session = await db.session("agent:main:live:channel:1")

        async def append(number: int) -> None:
            await session.append({"role": "user", "content": f"live {number}"})
            order.append("append")

        async with anyio.create_task_group() as group:

            def progress(*_: Any) -> None:
                order.append("batch")
                group.start_soon(append, len(order))

            await db.import_path(source, progress=progress)
    batches = order.count("batch")
    assert batches >= 24
    assert order.count("append") == batches
    # The writer takes requests in their order, so an append waits for one pack. The event loop may
    # count its answer a few steps late.
    answered = stored = 0
    for step in order:
        answered, stored = answered + (step == "append"), stored + (step == "batch")
        assert answered >= stored - 4, order


async def test_a_file_that_vanishes_while_the_import_runs_is_a_note(tmp_path: Path) -> None:
    long = transcript(IMPORT_BATCH_ENTRIES * 4)
    folder = write(
        tmp_path / "in",
        {"a.jsonl": long, "b.jsonl": transcript(2, "s-2"), "c.jsonl": transcript(2, "s-3")},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(
            await db.import_path(
                folder, progress=lambda *_: (folder / "b.jsonl").unlink(missing_ok=True)
            )
        )
    assert files["a.jsonl"].status == files["c.jsonl"].status == "imported"
    assert (files["b.jsonl"].status, files["b.jsonl"].notes) in [
        ("failed", ("it vanished while the import was running; import again",)),
        ("imported", ()),  # read ahead before it was removed
    ]


async def test_no_imported_file_is_opened_for_writing(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": transcript(3), "sessions.json": b"{}"})
    opened: list[tuple[str, int]] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and str(arguments[0]).startswith(str(folder)):
            opened.append((str(arguments[0]), arguments[2]))

    active = False
    sys.addaudithook(watch)
    async with sessiondb.open(tmp_path / "one.db") as db:
        active = True
        await db.import_path(folder, verify=True)
        active = False
    assert {Path(path).name for path, _ in opened} == {"a.jsonl", "sessions.json"}
    assert all(
        flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) == 0 for _, flags in opened
    )


@pytest.mark.parametrize("trouble", [StoreBusy("busy", retry_after_ms=1), NotExecuted("too late")])
@pytest.mark.parametrize("times", [2, 3])
async def test_a_database_without_room_is_asked_again_and_then_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: sessiondb.SessionDBError, times: int
) -> None:
    monkeypatch.setattr(import_run, "RETRIES_MAX", 3)
    source = write(tmp_path / "in", {"one.jsonl": transcript(2), "two.jsonl": transcript(2, "s-2")})
    async with sessiondb.open(tmp_path / "one.db") as db:
        step, refused = db.backend.step, []

        async def busy(fn: Any, **options: Any) -> Any:
            if len(refused) < times:
                refused.append(1)
                raise trouble
            return await step(fn, **options)

        monkeypatch.setattr(db.backend, "step", busy)
        report = await db.import_path(source)
        ids = {info.session_id async for info in db.sessions()}
    # After the third time the pack is refused, and each of its files is tried alone.
    assert (ids, len(refused), report.ok) == ({"s-1", "s-2"}, times, True)


async def test_a_second_header_is_an_entry_in_a_dry_run_too(tmp_path: Path) -> None:
    lines = [header(), message("a", None), header("again"), message("b", "a"), ""]
    files = {
        "twice.jsonl": "\n".join(lines).encode(),
        "late.jsonl": "\n".join([message("a", None), header("late"), ""]).encode(),
        "once.jsonl": transcript(2, "once"),
    }
    source = write(tmp_path / "in", files)
    async with sessiondb.open(tmp_path / "one.db") as db:
        dry = await db.import_path(source, dry_run=True)
        real = await db.import_path(source)
    assert counts(dry) == counts(real)
    assert [file.entries for file in real.files] == [2, 2, 3]


def latin(line: str) -> bytes:
    """Return a line in Latin-1, with a character that is none in UTF-8."""
    return line.replace("said", "caf\xe9").encode("latin-1")


async def test_a_line_that_is_not_utf8_is_read_and_exported_as_it_was(tmp_path: Path) -> None:
    lines = [header(), message("a", None, "said a"), message("b", "a", "said b")]
    first = b"\n".join([lines[0].encode(), latin(lines[1]), lines[2].encode(), b""])
    grown = first + latin(message("c", "b", "said c")) + b"\n" + latin(message("d", "c", "said d"))
    source = write(tmp_path / "in", {"one.jsonl": first, "two.jsonl": transcript(2, "s-2")})
    async with sessiondb.open(tmp_path / "one.db") as db:
        for content, read_now, wanted in (
            (first, {2}, ["caf\ufffd a", "said b"]),
            (grown, {4, 5}, ["caf\ufffd a", "said b", "caf\ufffd c", "caf\ufffd d"]),
            (grown + b"\n", set(), ["caf\ufffd a", "said b", "caf\ufffd c", "caf\ufffd d"]),
            (
                grown + b"\n" + message("e", "d", "said e").encode(),
                set(),
                ["caf\ufffd a", "said b", "caf\ufffd c", "caf\ufffd d", "said e"],
            ),
        ):
            write(tmp_path / "in", {"one.jsonl": content})
            report = await db.import_path(source, verify=True)
            again = await db.import_path(source, verify=True)
            assert {file.verified for file in report.files} == {True}, report
            assert {file.status for file in again.files} == {"unchanged"}
            session = await db.session_by_id("s-1")
            assert texts(await session.context()) == wanted
            assert (await db.verify()).findings == ()
            out = tmp_path / f"out {len(content)}"
            await db.export(out)
            assert (out / "one.jsonl").read_bytes() == content
            named = {line.line for line in report.files[0].quarantined if "U+FFFD" in line.reason}
            assert named == read_now, "each import names the lines that it read"
