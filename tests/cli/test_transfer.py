"""`append`, `import` and `export`: their counts, refused lines and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support.command_line import KEY, fails, ok, run, session_id

# -- append ----------------------------------------------------------------------------------------


def test_append_stores_each_line_and_says_how_many(tmp_db: Path) -> None:
    lines = (
        '{"role":"user","content":"a"}\n\n{"type":"custom","customType":"t","data":1}\n'
        '{"role":"assistant","content":[]}'
    )
    assert (
        ok("append", tmp_db, KEY, "--create", stdin=lines)
        == "3 appended, 0 stored before, 0 refused\n"
    )
    with sync.open(tmp_db, readonly=True) as opened:
        assert [entry.type for entry in opened.session(KEY, create=False).entries()] == [
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
        context = opened.session(KEY, create=False).context()
    contents = [message["content"] for message in context.messages]
    assert contents == [str(number) for number in range(300) if number not in (7, 150, 299)]


def test_lines_with_keys_may_be_sent_again(tmp_db: Path) -> None:
    own = (
        '{"role":"user","content":"a","idempotencyKey":"k1"}\n'
        '{"type":"custom","customType":"t","idempotencyKey":"k2"}\n'
    )
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


# -- import and export -----------------------------------------------------------------------------


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
    header = (
        '{"type":"session","version":3,"id":"one",'
        '"timestamp":"2026-01-01T00:00:00.000Z","cwd":""}\n'
    )
    (tmp_path / "one.jsonl").write_text(
        header + "torn {\n" + '{"type":"custom","id":"a","parentId":null,"customType":"x"}\n'
    )
    result = run("import", tmp_db, tmp_path / "one.jsonl")
    assert result.exit_code == 1
    assert f"one.jsonl, line 2, byte {len(header)}" in result.stdout
    assert "1 new entry, 1 damaged line" in result.stdout


def test_what_was_not_imported_is_named_counted_and_exits_with_1(
    tmp_db: Path, tmp_path: Path
) -> None:
    claude = '{"type":"user","uuid":"u","parentUuid":null,"sessionId":"s","message":{}}\n'
    for name in ("a", "b"):
        (tmp_path / "in" / "claude" / name).mkdir(parents=True)
        (tmp_path / "in" / "claude" / name / f"{name}.jsonl").write_text(claude)
    (tmp_path / "in" / "nano.jsonl").write_text('{"_type":"metadata","key":"cli:direct"}\n')
    (tmp_path / "in" / "notes.txt").write_text("x")
    result = run("import", tmp_db, tmp_path / "in", "--verify")
    assert result.exit_code == 1
    assert "not imported: claude/a/a.jsonl and 1 more: a transcript of Claude Code" in result.stdout
    assert "not imported: nano.jsonl: a transcript of nanobot" in result.stdout
    assert "conversations of other programs: 2 Claude Code, 1 nanobot\n" in result.stdout
    assert "no conversations: 1 other file\n" in result.stdout
    assert "equal" not in result.stdout
    [report] = json.loads(run("import", tmp_db, tmp_path / "in", "--json").stdout)
    assert report["ok"] is False
    assert report["not_imported"] == {
        "foreign": {"Claude Code": 2, "nanobot": 1},
        "skipped": {"other file": 1},
    }


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


# -- export to be read -----------------------------------------------------------------------------


def test_a_conversation_is_written_in_a_format_and_along_a_branch(db: Path, tmp_path: Path) -> None:
    page, one = tmp_path / "talk.html", tmp_path / "one.md"
    assert "1 written" in ok("export", db, page, "--format", "html", "--session", KEY)
    assert "question 11" in page.read_text()
    markdown = ("export", db, one, "--format", "markdown", "--session", KEY)
    assert "1 written" in ok(*markdown, "--branch", 2)
    assert "question 0" in one.read_text()
    assert "question 1 " not in one.read_text()
    assert "left alone" in run(*markdown).output
    assert "1 written" in ok(*markdown, "--overwrite")
    assert "question 11" in one.read_text()
    every = json.loads(ok("export", db, tmp_path / "all", "--format", "csv", "--json"))
    assert len(every["files"]) == 3
    assert every["ok"]


def test_options_of_a_format_are_refused_without_it(db: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--session" in fails(2, "export", db, out, "--format", "html", "--branch", 2)
    assert "--format" in fails(2, "export", db, out, "--session", KEY, "--branch", 2)
    assert "unarchive" in fails(2, "export", db, out, "--archived")
    assert not out.exists()
