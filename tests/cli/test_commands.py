"""The command line, run in this process: what each command prints, in both shapes, and how errors end."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result

from sessiondb import sync
from sessiondb.cli import program
from sessiondb.cli.terminal import (
    Column,
    at,
    cells,
    cut,
    duration,
    escape,
    escape_json,
    escape_lines,
    size,
    table_lines,
    wrap,
)
from sessiondb.errors import (
    CompactionRunning,
    ConstraintFailed,
    InvalidInput,
    InvalidKey,
    NewerSchema,
    NotFound,
    OpenError,
    SessionEnded,
    StoreBusy,
    StoreDamaged,
    StoreFull,
)

KEY = "agent:main:discord:channel:1"
EVIL = "\x1b[31mred\x1b[0m \x07 \x9b2J \u202egnp.exe \x7f"


def run(*args: object, stdin: str | bytes = b"") -> Result:
    """Run a command; a traceback that escapes it fails the test."""
    result = CliRunner().invoke(program, [str(arg) for arg in args], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ok(*args: object, stdin: str | bytes = b"") -> str:
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(code: int, *args: object, stdin: str | bytes = b"") -> str:
    """Run a command that must fail; return its one line of complaint."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("sessiondb: ")
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Make a database with a compacted conversation, an ended one, and one whose text is hostile."""
    with sync.open(tmp_db) as opened:
        session = opened.session(KEY)
        for number in range(12):
            session.append({"role": "user", "content": f"question {number} " * 20})
            session.append(
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": f"answer {number} " * 20}],
                }
            )
        with session.compact(keep_recent_tokens=300) as job:
            job.commit("they asked and were answered")
        session.append({"role": "user", "content": "and now?"})
        ended = opened.create_session("ended-one")
        ended.append({"role": "user", "content": "bye"})
        ended.end()
        evil = opened.session("agent:main:evil")
        evil.append({"role": "user", "content": EVIL})
        call = {"type": "toolCall", "id": "1", "name": "bash", "arguments": {"command": "seq 100"}}
        evil.append(
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm"}, call],
                "model": "m-1",
            }
        )
        lines = "\n".join(f"line {number}" for number in range(100))
        evil.append(
            {
                "role": "toolResult",
                "toolCallId": "1",
                "toolName": "bash",
                "content": [{"type": "text", "text": lines}],
            }
        )
    return tmp_db


def session_id(db: Path, key: str = KEY) -> str:
    with sync.open(db, readonly=True) as opened:
        return opened.session_by_id(key).id


# -- looking ------------------------------------------------------------------------------------------------


def test_sessions_lists_live_ones_and_with_all_the_ended_too(db: Path) -> None:
    assert KEY in ok("sessions", db)
    assert "ended-one" not in ok("sessions", db)
    assert "ended-one" in ok("sessions", db, "--all")
    found = json.loads(ok("sessions", db, "--all", "--json"))
    assert {info["session_id"] for info in found} == {
        session_id(db),
        session_id(db, "agent:main:evil"),
        "ended-one",
    }
    assert len(json.loads(ok("sessions", db, "--json", "-n", "1"))) == 1
    assert json.loads(ok("sessions", db, "--json", "--agent", "nobody")) == []


def test_a_list_of_nothing_is_an_empty_array_or_a_hint(tmp_db: Path) -> None:
    with sync.open(tmp_db):
        pass
    for command in ("sessions", "compactions"):
        assert json.loads(ok(command, tmp_db, "--json")) == []
        result = run(command, tmp_db)
        assert (result.stdout, result.exit_code) == ("", 0)
        assert result.stderr
    assert ok("query", tmp_db, "select 1 where 0", "--nl") == ""
    assert json.loads(ok("query", tmp_db, "select 1 where 0")) == []


def test_context_prints_messages_now_of_an_epoch_or_in_pis_shape(db: Path) -> None:
    now, before = (
        json.loads(ok("context", db, KEY)),
        json.loads(ok("context", db, KEY, "--epoch", "0")),
    )
    assert now[0]["role"] == "compactionSummary"
    assert [message["role"] for message in before] == ["user", "assistant"] * 12
    pi = json.loads(ok("context", db, KEY, "--format", "pi"))
    assert list(pi) == ["messages", "thinkingLevel", "model"]
    assert pi["messages"] == now
    with sync.open(db, readonly=True) as opened:
        assert (
            ok("context", db, KEY).encode() == opened.session_by_id(KEY).context().as_json() + b"\n"
        )


def test_compactions_are_listed_with_what_became_of_them(db: Path) -> None:
    [job] = json.loads(ok("compactions", db, "--json", "--session", KEY))
    assert (job["state"], job["epoch"], job["session_id"]) == ("committed", 1, session_id(db))
    assert "committed" in ok("compactions", db)
    assert json.loads(ok("compactions", db, "--json", "--session", "agent:main:evil")) == []


def test_verify_says_all_good_and_1_when_it_is_not(db: Path) -> None:
    assert "all good" in ok("verify", db)
    assert json.loads(ok("verify", db, "--json"))["ok"] is True
    broken = apsw.Connection(str(db))
    broken.execute(
        "UPDATE session SET last_seq = last_seq + 1 WHERE session_id = 'ended-one'"
    ).fetchall()
    broken.close()
    result = run("verify", db)
    assert result.exit_code == 1
    assert "ended-one" in result.stdout
    report = json.loads(run("verify", db, "--json").stdout)
    assert report["ok"] is False
    assert report["findings"]
    assert run("verify", db, "--session", KEY).exit_code == 0


def test_status_counts_and_names_what_runs(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session_by_id(KEY)
        with session.compact(keep_recent_tokens=0) as job:
            found = json.loads(ok("status", db, "--json"))
            text = ok("status", db)
            [running] = found["running"]
            assert (running["compaction_id"], running["owner_alive"], running["overdue"]) == (
                job.id,
                True,
                False,
            )
            assert job.id in text
            [process] = found["processes"]
            assert process["alive"] is True
    assert (found["sessions"], found["sessions_ended"]) == (3, 1)
    after = json.loads(ok("status", db, "--json"))
    assert after["compactions"] == {"committed": 1, "failed": 1}
    assert (after["running"], after["processes"], after["entries"]) == ([], [], 30)
    assert (after["schema_version"], after["sessions"], after["keys"]) == (3, 3, 2)
    assert after["file_bytes"] == db.stat().st_size


def test_status_names_a_compaction_that_is_overdue(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session_by_id(KEY)
        with session.compact(keep_recent_tokens=0, timeout_s=600) as job:
            late = apsw.Connection(str(db))
            late.execute(
                "UPDATE compaction SET begun_at_ms = 1, deadline_ms = 2 WHERE state = 'running'"
            ).fetchall()
            late.close()
            found = json.loads(ok("status", db, "--json"))
            assert [line["compaction_id"] for line in found["stuck"]] == [job.id]
            assert found["running"][0]["overdue"] is True
            text = ok("status", db)
    assert "compaction overdue" in text
    assert "overdue since 1970-01-01 00:00:00" in text


# -- transcripts --------------------------------------------------------------------------------------------


def test_show_marks_where_the_current_context_begins(db: Path) -> None:
    lines = ok("show", db, KEY).splitlines()
    [begins] = [
        index for index, line in enumerate(lines) if "the current context begins here" in line
    ]
    before, after = "\n".join(lines[:begins]), "\n".join(lines[begins:])
    assert "question 0" in before
    assert "question 11" in after
    assert "they asked and were answered" in after
    assert "and now?" in after


def test_show_prints_no_control_character_of_the_content(db: Path) -> None:
    for output in (ok("show", db, "agent:main:evil"), ok("tail", db, "agent:main:evil")):
        assert "\\x1b[31mred" in output
        assert [
            char
            for char in output
            if (ord(char) < 0x20 and char != "\n") or 0x7F <= ord(char) <= 0x9F or char == "\u202e"
        ] == []


def test_show_shortens_tool_results_unless_asked_for_all(db: Path) -> None:
    short, full = ok("show", db, "agent:main:evil"), ok("show", db, "agent:main:evil", "--full")
    assert "line 3\n" in short
    assert "line 50" not in short
    assert "96 more lines" in short
    assert "line 99" in full
    assert '-> bash {"command": "seq 100"}' in short
    assert "thinking: hm" in short


def test_show_marks_forks_and_branches(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session_by_id(KEY)
        entries = session.entries()
        fork = session.fork(entry_id=entries[3].entry_id)
        fork.append({"role": "user", "content": "elsewhere"})
        session.branch(entries[5].entry_id)
        session.append({"role": "user", "content": "another way"})
    forked = ok("show", db, fork.id)
    assert "forked here" in forked
    assert forked.index("answer 1") < forked.index("forked here") < forked.index("elsewhere")
    branched = ok("show", db, KEY)
    assert (
        branched.index("answer 2")
        < branched.index("1 other branch left here")
        < branched.index("another way")
    )


def test_show_as_json_carries_the_stored_text_itself(db: Path) -> None:
    shown = json.loads(ok("show", db, KEY, "--json"))
    with sync.open(db, readonly=True) as opened:
        entries = opened.session_by_id(KEY).entries()
    assert [one["payload"] for one in shown] == [json.loads(entry.payload) for entry in entries]
    assert [one["seq"] for one in shown] == [entry.seq for entry in entries]
    assert [one["seq"] for one in json.loads(ok("show", db, KEY, "--json", "--last", "3"))] == [
        entry.seq for entry in entries[-3:]
    ]


def test_show_pages_through_a_transcript_longer_than_a_page(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        session = opened.session(KEY)
        for _ in range(5):
            session.append_many([{"role": "user", "content": "x"}] * 123)
    assert [one["seq"] for one in json.loads(ok("show", tmp_db, KEY, "--json"))] == list(
        range(1, 616)
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"role": "user", "content": None},
        {"role": "user"},
        {
            "role": "assistant",
            "content": ["text", 7, None, {"type": "text"}, {"type": None}, {"type": "toolCall"}],
        },
        {"role": "user", "content": [{"type": "image", "data": 5}]},
        {"role": "toolResult", "content": "text", "isError": True},
        {"role": "bashExecution", "command": "ls", "output": None, "exitCode": 2},
        {"role": "custom", "customType": "note", "content": [{"type": "text", "text": "x"}]},
        {"role": "somebody", "content": {"a": 1}},
        {"type": "custom", "customType": "state", "data": {"deep": [1, 2]}},
        {"type": "custom", "data": None},
        {"type": "custom", "data": {"huge": 10**4000, "text": "half \ud83d"}},
        {"type": "label", "targetId": "x", "label": None},
        {"type": "model_change", "provider": None},
        {"type": "compaction", "summary": None},
        {"type": "branch_summary", "summary": 5},
        {"type": "custom_message", "content": 5},
        {"type": "session_info", "name": "名前"},
        {"type": "something of tomorrow", "x": "y"},
    ],
)
def test_whatever_shape_an_entry_has_it_can_be_shown(tmp_db: Path, entry: dict[str, Any]) -> None:
    ok("append", tmp_db, KEY, "--create", stdin=json.dumps(entry))
    assert "#1" in ok("show", tmp_db, KEY)
    assert ok("tail", tmp_db, KEY).startswith("#1")


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        ("2001-02-03T04:05:06.789Z", True),
        ("not a time", False),
        ("99999-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00Z", False),
    ],
)
def test_an_entry_is_shown_with_the_time_of_its_own_account(
    tmp_db: Path, stamp: str, shown: bool
) -> None:
    entry = {
        "type": "message",
        "id": "a",
        "parentId": None,
        "timestamp": stamp,
        "message": {"role": "user", "content": "x"},
    }
    ok("append", tmp_db, KEY, "--create", stdin=json.dumps(entry))
    with sync.open(tmp_db, readonly=True) as opened:
        stored = at(opened.session_by_id(KEY).entries()[0].appended_at_ms)
    for output in (ok("show", tmp_db, KEY), ok("tail", tmp_db, KEY)):
        assert ("2001-02-03 04:05:06" if shown else stored) in output


def test_tail_prints_the_end_and_with_json_one_object_a_line(db: Path) -> None:
    lines = ok("tail", db, KEY, "-n", "2").splitlines()
    assert len(lines) == 2
    assert "and now?" in lines[-1]
    assert [
        json.loads(line)["seq"] for line in ok("tail", db, KEY, "-n", "2", "--json").splitlines()
    ] == [25, 26]


# -- append -------------------------------------------------------------------------------------------------


def test_append_stores_each_line_and_says_how_many(tmp_db: Path) -> None:
    lines = '{"role":"user","content":"a"}\n\n{"type":"custom","customType":"t","data":1}\n{"role":"assistant","content":[]}'
    assert (
        ok("append", tmp_db, KEY, "--create", stdin=lines)
        == "3 appended, 0 stored before, 0 refused\n"
    )
    with sync.open(tmp_db, readonly=True) as opened:
        assert [entry.type for entry in opened.session_by_id(KEY).entries()] == [
            "message",
            "custom",
            "message",
        ]


def test_a_bad_line_is_named_and_does_not_stop_the_others(tmp_db: Path) -> None:
    lines = [json.dumps({"role": "user", "content": str(number)}) for number in range(300)]
    lines[7], lines[150], lines[299] = (
        "not json",
        '{"type":"message","id":"x","parentId":"nobody","message":{"role":"user"}}',
        "[1]",
    )
    result = run("append", tmp_db, KEY, "--create", stdin="\n".join(lines))
    assert result.exit_code == 1
    assert result.stdout == "297 appended, 0 stored before, 3 refused\n"
    assert [line.split(" was refused")[0] for line in result.stderr.splitlines()] == [
        f"sessiondb: line {n}" for n in (8, 151, 300)
    ]
    with sync.open(tmp_db, readonly=True) as opened:
        contents = [message["content"] for message in opened.session_by_id(KEY).context().messages]
    assert contents == [str(number) for number in range(300) if number not in (7, 150, 299)]


def test_lines_with_keys_may_be_sent_again(tmp_db: Path) -> None:
    own = '{"role":"user","content":"a","idempotencyKey":"k1"}\n{"type":"custom","customType":"t","idempotencyKey":"k2"}\n'
    ok("append", tmp_db, KEY, "--create", stdin=own)
    assert ok("append", tmp_db, KEY, stdin=own) == "0 appended, 2 stored before, 0 refused\n"
    plain = '{"role":"user","content":"b"}\n' * 3
    ok("append", tmp_db, KEY, "--idempotency-prefix", "batch", stdin=plain)
    receipts = [
        json.loads(line)
        for line in ok(
            "append", tmp_db, KEY, "--idempotency-prefix", "batch", "--json", stdin=plain
        ).splitlines()
    ]
    assert [(receipt["line"], receipt["duplicate"], receipt["seq"]) for receipt in receipts] == [
        (1, True, 3),
        (2, True, 4),
        (3, True, 5),
    ]


def test_a_line_that_is_too_long_is_refused_the_next_is_stored(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.cli.transfer.ENTRY_BYTES_MAX", 1000)
    monkeypatch.setattr("sessiondb.cli.transfer.READ_BYTES", 64)
    lines = (
        '{"role":"user","content":"a"}\n'
        + json.dumps({"role": "user", "content": "x" * 5000})
        + '\n{"role":"user","content":"b"}\n'
    )
    result = run("append", tmp_db, KEY, "--create", stdin=lines)
    assert result.exit_code == 1
    assert "line 2 was refused: longer than 1,000 bytes" in result.stderr
    assert result.stdout == "2 appended, 0 stored before, 1 refused\n"


def test_append_creates_only_when_asked(db: Path, tmp_path: Path) -> None:
    line = '{"role":"user","content":"a"}'
    assert "--create" in fails(3, "append", db, "agent:main:new", stdin=line)
    assert "--create" in fails(2, "append", db, "no-key", "--create", stdin=line)
    fails(4, "append", tmp_path / "none.db", "agent:main:new", stdin=line)
    assert not (tmp_path / "none.db").exists()
    assert "1 appended" in ok("append", db, session_id(db)[:9], stdin=line)
    ended = run("append", db, "ended-one", stdin=line)
    assert ended.exit_code == 1
    assert "has ended" in ended.stderr


# -- import and export --------------------------------------------------------------------------------------


def test_a_folder_goes_in_and_comes_out_byte_for_byte(
    tmp_db: Path, tmp_path: Path, sample: Path
) -> None:
    folder = sample / "openclaw-2026.5.18" / "agents" / "lab" / "sessions"
    dry = json.loads(run("import", tmp_db, folder, "--dry-run", "--json").stdout)
    assert not tmp_db.exists()
    assert {file["status"] for report in dry for file in report["files"]} == {"would-import"}
    result = run("import", tmp_db, folder, "--verify", "--json")
    [report] = json.loads(result.stdout)
    assert report["ok"] is True
    assert result.exit_code == (1 if any(file["damaged"] for file in report["files"]) else 0)
    again = run("import", tmp_db, folder)
    assert again.exit_code == 0
    assert "unchanged" in again.stdout
    ok("export", tmp_db, tmp_path / "out")
    originals = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".jsonl"
    }
    exported = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.jsonl")}
    assert exported == originals


def test_a_damaged_line_is_named_with_file_line_and_byte(tmp_db: Path, tmp_path: Path) -> None:
    header = '{"type":"session","version":3,"id":"one","timestamp":"2026-01-01T00:00:00.000Z","cwd":""}\n'
    (tmp_path / "one.jsonl").write_text(
        header + "torn {\n" + '{"type":"custom","id":"a","parentId":null,"customType":"x"}\n'
    )
    result = run("import", tmp_db, tmp_path / "one.jsonl")
    assert result.exit_code == 1
    assert f"one.jsonl, line 2, byte {len(header)}" in result.stdout
    assert "1 new entry, 1 damaged line" in result.stdout


def test_an_export_never_overwrites_another_file_unless_told_to(
    tmp_db: Path, tmp_path: Path
) -> None:
    with sync.open(tmp_db) as opened:
        opened.create_session("one").append({"role": "user", "content": "a"})
    out = tmp_path / "out"
    ok("export", tmp_db, out, "--session", "one")
    [file] = out.rglob("*.jsonl")
    file.write_text("somebody else's\n")
    assert run("export", tmp_db, out).exit_code == 1
    assert file.read_text() == "somebody else's\n"
    ok("export", tmp_db, out, "--overwrite")
    assert "somebody" not in file.read_text()


# -- query --------------------------------------------------------------------------------------------------


def test_query_prints_in_every_format(db: Path) -> None:
    sql = "select 1 as a, 'x,\"y' as b union all select 2, null"
    assert json.loads(ok("query", db, sql)) == [{"a": 1, "b": 'x,"y'}, {"a": 2, "b": None}]
    assert json.loads(ok("query", db, sql, "--json", "--arrays")) == [[1, 'x,"y'], [2, None]]
    assert [json.loads(line)["a"] for line in ok("query", db, sql, "--nl").splitlines()] == [1, 2]
    assert list(csv.reader(io.StringIO(ok("query", db, sql, "--csv")))) == [
        ["a", "b"],
        ["1", 'x,"y'],
        ["2", ""],
    ]
    assert list(
        csv.reader(io.StringIO(ok("query", db, sql, "--tsv", "--no-headers")), "excel-tab")
    ) == [["1", 'x,"y'], ["2", ""]]
    assert ok("query", db, sql, "--fmt", "github").startswith("|   a | b")
    assert ok("query", db, sql, "--table").splitlines()[0].split() == ["a", "b"]
    assert json.loads(ok("query", db, "select '[1]' as a", "--json-cols")) == [{"a": [1]}]
    assert json.loads(ok("query", db, "select :n as a", "-p", "n", "it's")) == [{"a": "it's"}]


def test_every_view_can_be_queried(db: Path) -> None:
    names = json.loads(
        ok("query", db, "select name from sqlite_schema where type = 'view'", "--arrays")
    )
    assert len(names) >= 8
    for [name] in names:
        json.loads(ok("query", db, f"select * from {name}"))


@pytest.mark.parametrize(
    "sql",
    [
        "delete from entry",
        "update session set name = 'x'",
        "insert into binding values ('a', 1, 'b', 1, null)",
        "create table x(a)",
        "create temp table x(a)",
        "create temp view v as select 1",
        "drop view stuck",
        "attach 'other.db' as other",
        "vacuum",
        "vacuum into 'copy.db'",
        "reindex",
        "analyze",
        "begin",
        "savepoint s",
        "select load_extension('x')",
        "pragma user_version = 9",
        "pragma query_only = off",
        "pragma journal_mode = delete",
        "pragma wal_checkpoint(truncate)",
        "pragma writable_schema = on",
        "delete from entry returning *",
        "explain delete from entry",
        "select 1; delete from entry",
        "select 1; -- and\ndelete from entry",
        "select 1 /* ; */; /* */ delete from entry",
        "",
        "-- nothing",
    ],
)
def test_query_does_nothing_but_read(
    db: Path, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    looks = ("select * from entry", "select * from session", "pragma user_version")
    dump = [ok("query", db, look) for look in looks]
    files = sorted(path.name for path in tmp_path.iterdir())
    fails(2, "query", db, sql)
    assert [ok("query", db, look) for look in looks] == dump
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_text_that_is_no_unicode_is_printed_all_the_same(tmp_db: Path, tmp_path: Path) -> None:
    header = '{"type":"session","version":3,"id":"one","timestamp":"2026-01-01T00:00:00.000Z","cwd":""}\n'
    message = [b"whole", b"half \\ud83d", b"after"]
    line = (
        b'{"type":"message","id":"%d","parentId":null,"message":{"role":"user","content":"%s"}}\n'
    )
    body = b"".join(line % pair for pair in enumerate(message))
    (tmp_path / "one.jsonl").write_bytes(header.encode() + body + b"\xff\xfe not a line\n")
    run("import", tmp_db, tmp_path / "one.jsonl")
    sql = "select text, text, 5 as n, x'00' as b from transcript where seq > 0 order by seq desc; -- a comment"
    rows = json.loads(ok("query", tmp_db, sql, "--arrays"))
    assert [row[0] for row in rows] == ["after", "half \ud83d", "whole"]
    assert [row[1:3] for row in rows] == [[row[0], 5] for row in rows]
    assert {row[3]["encoded"] for row in rows} == {"AA=="}
    assert "not a line" in ok("query", tmp_db, "select * from quarantined")
    for ending in ("", ";", " ;; ", "; -- ;", " -- ;", "; /* ; */ ;"):
        found = json.loads(
            ok(
                "query",
                tmp_db,
                f"select text, ';--x' as s from transcript where seq = 2 and ';--' = ';--'{ending}",
            )
        )
        assert found == [{"text": "half \ud83d", "s": ";--x"}]
        found = json.loads(
            ok(
                "query",
                tmp_db,
                f"select text from transcript where text glob 'h*' and 'x' <> ';--x'{ending}",
            )
        )
        assert [row["text"][:4] for row in found] == ["half"]
    for shape in ("--csv", "--table", "--nl"):
        assert "half \\ud83d" in ok("query", tmp_db, "select * from transcript", shape)


def test_a_wrong_name_is_answered_with_the_right_ones(db: Path) -> None:
    assert "the views are archive_log, compaction_log" in fails(
        2, "query", db, "select * from overview"
    )
    assert "no such column: nope" in fails(2, "query", db, "select nope from session_overview")
    fails(2, "query", db, "select :missing")
    assert "no table format 'x'" in fails(2, "query", db, "select 1", "--fmt", "x")
    fails(2, "query", db, "select 1", "--csv", "--nl")


def test_a_query_that_runs_too_long_is_stopped(db: Path) -> None:
    endless = (
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    )
    assert "stopped after 0.05 s" in fails(1, "query", db, endless, "--timeout", "0.05")


def test_a_large_result_comes_out_whole(db: Path) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) select i, 'text ' || i as t from n"
    lines = ok("query", db, sql, "--nl").splitlines()
    assert len(lines) == 50_000
    assert json.loads(lines[-1]) == {"i": 50_000, "t": "text 50000"}


# -- errors -------------------------------------------------------------------------------------------------


def test_each_failure_has_its_code_and_its_one_line(db: Path, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("not a database, and long enough to have a header " * 10)
    assert "--help" in fails(2, "show", db)
    assert "nonsense" in fails(2, "nonsense")
    fails(2, "sessions", db, "--nonsense")
    fails(2, "sessions", db, "-n", "0")
    assert "'nobody'" in fails(3, "show", db, "nobody")
    assert "agent:main:nobody" in fails(3, "tail", db, "agent:main:nobody")
    assert "epoch 7" in fails(3, "context", db, KEY, "--epoch", "7")
    for command in (["sessions"], ["show", KEY], ["query", "select 1"], ["status"], ["verify"]):
        assert "no such file" in fails(4, command[0], tmp_path / "none.db", *command[1:])
        assert "not a SQLite file" in fails(4, command[0], tmp_path / "other.db", *command[1:])
    assert list(tmp_path.glob("none*")) == []


def test_a_prefix_that_fits_two_sessions_names_both(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        opened.create_session("same-one")
        opened.create_session("same-two")
    message = fails(3, "show", tmp_db, "same")
    assert "same-one" in message
    assert "same-two" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), 3),
        (OpenError("x"), 4),
        (NewerSchema("x"), 4),
        (StoreDamaged("x"), 4),
        (StoreBusy("x", retry_after_ms=5), 5),
        (StoreFull("x"), 5),
        (CompactionRunning("x"), 5),
        (InvalidKey("x"), 2),
        (InvalidInput("x"), 1),
        (SessionEnded("x"), 1),
        (ConstraintFailed("x"), 1),
        (OSError("x"), 1),
        (ZeroDivisionError("x"), 70),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_every_kind_of_error_has_an_exit_code(
    db: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(sync.SessionDB, "status", fail)
    result = run("status", db)
    assert result.exit_code == code
    assert result.stderr.count("\n") <= 1
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback_in_either_place(db: Path) -> None:
    assert "Traceback" in run("--debug", "show", db, "nobody").stderr
    assert "Traceback" in run("show", db, "nobody", "--debug").stderr


def test_the_message_of_an_error_cannot_drive_the_terminal(db: Path) -> None:
    result = run("show", db, "no\x1b[31mbody")
    assert result.exit_code == 3
    assert "\x1b" not in result.stderr


def test_help_has_the_exit_codes_and_every_command_has_help() -> None:
    text = ok("--help")
    for code in (0, 1, 2, 3, 4, 5, 70, 130, 141):
        assert f" {code}  " in text
    for name in program.commands:
        assert ok(name, "--help").splitlines()[2].strip()
        assert "--json" in ok(name, "--help")
    assert set(program.commands) == {
        *(
            "import",
            "export",
            "sessions",
            "show",
            "context",
            "tail",
            "append",
            "compactions",
            "query",
            "verify",
            "status",
        ),
        *("events", "held", "inbox", "dead", "outbox", "resume"),
        *("gc", "restore", "pin", "unpin", "salvage"),
    }


def test_version_names_all_three() -> None:
    words = ok("--version").split()
    assert words[0] == "sessiondb"
    assert "apsw" in words
    assert "SQLite" in words


# -- what people see ----------------------------------------------------------------------------------------


def test_escapes_show_what_would_drive_a_terminal() -> None:
    assert escape("a\nb\t\x1b[0m\u202e\x9b") == "a\\nb\\t\\x1b[0m\\u202e\\x9b"
    assert escape_lines("a\r\nb\rc\x08") == "a\nb\\rc\\x08"
    assert json.loads(escape_json(json.dumps({"a": "\x9b\u202e"}, ensure_ascii=False))) == {
        "a": "\x9b\u202e"
    }
    assert escape("日本語 ünï 😀") == "日本語 ünï 😀"


def test_text_is_cut_and_wrapped_by_the_cells_it_takes() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cut("agent:main:discord:channel:1", 13, "middle") == "agent:…nnel:1"
    for where in ("end", "middle", "prefix"):
        for width in range(1, 20):
            assert cells(cut("日本語のとても長いテキスト", width, where)) <= width  # type: ignore[arg-type]
    for width in (5, 10, 33):
        assert all(
            cells(line) <= width
            for line in wrap(
                "a few words, and anextremelylongwordthatfitsnowhere 日本語日本語日本語", width
            )
        )
    assert "".join("".join(wrap("  indented text of words", 12)).split()) == "indentedtextofwords"
    assert list(wrap("a\n\nb", 10)) == ["a", "", "b"]


def test_a_table_fits_its_terminal_and_is_whole_elsewhere() -> None:
    columns = [
        Column("id", cut="prefix"),
        Column("key", cut="middle", width_min=12),
        Column("count", "right"),
        Column("owner", cut="end", spare=2),
        Column("note", spare=1),
    ]
    rows = [
        [
            "0123456789" * 3,
            "agent:main:discord:channel:12345678",
            "1,000",
            "pid 1234 on a host",
            "n" * 30,
        ],
        ["日本語" * 9, "k", "1", None, ""],
    ]
    whole = list(table_lines(columns, rows, None))
    assert "0123456789" * 3 in whole[2]
    assert "n" * 30 in whole[2]
    for width in (200, 80, 60, 50, 40):
        lines = list(table_lines(columns, rows, width))
        assert max(map(cells, lines)) <= width
        assert lines[2].startswith("01234567")
    assert list(table_lines(columns, rows, 200)) == whole
    assert "owner" not in next(iter(table_lines(columns, rows, 60)))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (340, "340 ms"),
        (1_000, "1 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time_are_short(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (16 * 1024 * 1024, "16.0 MiB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text
