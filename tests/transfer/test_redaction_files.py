"""Redacted imports and exports leave no secret in any file, and change nothing else.

`leaks` searches every byte of a database's files, free pages and WAL included.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("re2", reason="the extra `redact` is not installed")

import sessiondb
from sessiondb.cli.program import program
from sessiondb.transfer import import_packs, importer, jsonl_reader
from sessiondb.transfer.redaction import Redactor, mark_in
from sessiondb.transfer.redaction_rules import rule_from
from tests.support.core import one_loop
from tests.support.redaction import (
    JWT,
    SECRETS,
    WHOLE,
)
from tests.support.transfer import (
    by_name,
    header,
    message,
    write,
)

pytestmark = pytest.mark.one_loop

PLANTED = [
    SECRETS["github-token"][0],
    SECRETS["sk-key"][0],
    SECRETS["aws-access-key"][0],
    JWT,
    SECRETS["slack-token"][0],
]


def secret_transcript(count: int = 6) -> bytes:
    """Return a transcript with secrets in entries, its header, a damaged line and a torn one."""
    lines = [header("s-1", title=f"about {PLANTED[0]}")]
    lines += [
        message(
            f"m{at}",
            f"m{at - 1}" if at else None,
            f"say {PLANTED[at % 3]} é" if at % 2 else "nothing",
        )
        for at in range(count)
    ]
    lines[3:3] = ["", '{"damaged": "' + PLANTED[3], ""]
    return (
        "\n".join(lines) + "\n"
    ).encode() + f'{{"type":"message","id":"last","parentId":"m1","x":"{PLANTED[4]}'.encode()


def index_of() -> bytes:
    return json.dumps(
        {"agent:main:main": {"sessionId": "s-1", "origin": {"label": PLANTED[1]}}}, indent=2
    ).encode()


def state_folder(folder: Path) -> Path:
    return write(
        folder,
        {
            "agents/main/sessions/s-1.jsonl": secret_transcript(),
            "agents/main/sessions/sessions.json": index_of(),
        },
    )


def leaks(*folders: Path) -> list[str]:
    """Return the planted secrets that some file of some folders holds."""
    files = [
        path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()
    ]
    return [secret for secret in PLANTED if any(secret.encode() in content for content in files)]


def redacted_file(content: bytes) -> bytes:
    """Redact a file the simple way: line by line."""
    return b"\n".join(WHOLE.line(one, Counter()) for one in content.split(b"\n"))


# -- import ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_redacted_import_leaves_no_secret_in_the_database(
    tmp_path: Path,
) -> None:
    source, home = state_folder(tmp_path / "in"), tmp_path / "db"
    name = "agents/main/sessions/s-1.jsonl"
    async with sessiondb.open(home / "g.db") as db:
        report = await db.import_path(source, redactor=Redactor(), verify=True)
        file = by_name(report)[name]
        assert (file.status, file.verified, file.damaged, file.entries) == ("imported", True, 2, 6)
        assert file.redacted == {
            "aws-access-key": 1,
            "github-token": 2,
            "jwt": 1,
            "sk-key": 1,
            "slack-token": 1,
        }
        assert by_name(report)["agents/main/sessions/sessions.json"].redacted == {"sk-key": 1}
        assert (file.bytes, file.sha256) == (
            len(secret_transcript()),
            hashlib.sha256(secret_transcript()).hexdigest(),
        )
        again = await db.import_path(source, redactor=Redactor())
        assert {one.status for one in again.files} == {"unchanged"}
        assert (await db.verify()).findings == ()
        assert (await db.export(tmp_path / "out")).ok
        assert leaks(home) == []  # the WAL too, while the database is open
    assert leaks(home, tmp_path / "out") == []
    assert (tmp_path / "out" / name).read_bytes() == redacted_file(secret_transcript())
    assert leaks(source) == PLANTED


@pytest.mark.anyio
async def test_a_redactor_that_lets_damaged_lines_pass_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = jsonl_reader._Reader._kept
    monkeypatch.setattr(
        jsonl_reader._Reader,
        "_kept",
        lambda self, raw, *rest, stored=None: kept(self, raw, *rest, stored=raw),
    )
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        await db.import_path(state_folder(tmp_path / "in"), redactor=Redactor())
    assert leaks(tmp_path / "db") == [PLANTED[3], PLANTED[4]]


@pytest.mark.anyio
async def test_without_a_redactor_the_search_finds_every_secret(
    tmp_path: Path,
) -> None:
    source = state_folder(tmp_path / "in")
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        assert all(not file.redacted for file in (await db.import_path(source)).files)
        await db.export(tmp_path / "out")
    assert leaks(tmp_path / "db") == PLANTED
    assert (tmp_path / "out/agents/main/sessions/s-1.jsonl").read_bytes() == secret_transcript()


@pytest.mark.anyio
async def test_a_file_that_grows_is_redacted_torn_line_included(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "in", {"a.jsonl": secret_transcript()})
    whole = (
        secret_transcript()
        + b'"}\n'
        + message("m7", "m5", f"and {PLANTED[0]}").encode()
        + b" behind "
        + PLANTED[1].encode()
        + b"\n\n"
    )
    whole += message("m8", "m5", PLANTED[2]).encode()
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        for end in (
            10,
            len(secret_transcript()) - 20,
            len(secret_transcript()),
            len(secret_transcript()) + 3,
            len(whole) - 30,
            len(whole),
        ):
            (source / "a.jsonl").write_bytes(whole[:end])
            report = await db.import_path(source, redactor=Redactor(), verify=True)
            assert report.ok, report
        assert (await db.export(tmp_path / "out")).ok
        assert (await db.verify()).findings == ()
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == redacted_file(whole)
    assert leaks(tmp_path / "db", tmp_path / "out") == []


@pytest.mark.anyio
async def test_bytes_behind_a_redacted_entry_come_back_there(
    tmp_path: Path,
) -> None:
    whole = header("s-1").encode() + b"\n" + message("m0", None, PLANTED[0]).encode()
    source = write(tmp_path / "in", {"a.jsonl": whole})
    async with sessiondb.open(tmp_path / "g.db") as db:
        for more in (
            b"",
            b" and " + PLANTED[1].encode(),
            b" more",
            b"\n",
            b"\n\n" + message("m1", "m0", "hi").encode() + b"\n",
        ):
            whole += more
            (source / "a.jsonl").write_bytes(whole)
            assert (await db.import_path(source, redactor=Redactor())).ok
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == redacted_file(whole)


@pytest.mark.anyio
@pytest.mark.parametrize("extra", range(-3, 4))
async def test_a_blank_line_behind_a_redacted_entry_stays_a_line(
    tmp_path: Path, extra: int
) -> None:
    """The mark is longer or shorter than the secret, so no sum of lengths may stand for a place."""
    rule = rule_from("r", f"X[0-9]{{{len('[redacted:r]') - 1 + extra}}}")
    secret = "X" + "1" * (len("[redacted:r]") - 1 + extra)
    content = "\n".join(
        [
            header("s-1"),
            message("m0", None, secret),
            "",
            " ",
            message("m1", "m0", secret),
            "torn {",
            "",
            "",
        ]
    ).encode()
    source = write(tmp_path / "in", {"a.jsonl": content})
    async with sessiondb.open(tmp_path / "g.db") as db:
        assert (await db.import_path(source, redactor=Redactor(rules=[rule]), verify=True)).ok
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == content.replace(
        secret.encode(), b"[redacted:r]"
    )


@pytest.mark.anyio
async def test_a_redacted_file_takes_nothing_new_without_a_redactor(
    tmp_path: Path,
) -> None:
    source, home = state_folder(tmp_path / "in"), tmp_path / "db"
    file, index = "agents/main/sessions/s-1.jsonl", "agents/main/sessions/sessions.json"
    async with sessiondb.open(home / "g.db") as db:
        await db.import_path(source, redactor=Redactor())
        assert {one.status for one in (await db.import_path(source)).files} == {"unchanged"}
        with (source / file).open("ab") as grown:
            grown.write(b'"}\n' + message("m9", "m5", PLANTED[0]).encode() + b"\n")
        (source / index).write_bytes(index_of() + b"\n")
        refused = by_name(await db.import_path(source))
        for name in (file, index):
            assert refused[name].status == "failed"
            assert "import with --redact again" in refused[name].note
        assert not (await db.import_path(source, verify=True)).ok
        taken = by_name(await db.import_path(source, redactor=Redactor(), verify=True))
        assert (taken[file].status, taken[file].verified, taken[index].status) == (
            "grown",
            True,
            "imported",
        )
    assert leaks(home) == []


@pytest.mark.anyio
async def test_a_file_imported_as_it_is_can_be_redacted_from_there(
    tmp_path: Path,
) -> None:
    first, second = (
        secret_transcript(2).rpartition(b"\n")[0] + b"\n",
        message("m8", "m1", PLANTED[4]).encode() + b"\n",
    )
    source = write(tmp_path / "in", {"a.jsonl": first})
    async with sessiondb.open(tmp_path / "g.db") as db:
        await db.import_path(source)
        (source / "a.jsonl").write_bytes(first + second)
        report = await db.import_path(source, redactor=Redactor(), verify=True)
        assert (report.files[0].status, report.files[0].verified, report.files[0].redacted) == (
            "grown",
            True,
            {"slack-token": 1},
        )
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == first + redacted_file(second)


@pytest.mark.anyio
async def test_importing_again_names_the_secrets_that_are_stored_already(tmp_path: Path) -> None:
    source, home = state_folder(tmp_path / "in"), tmp_path / "db"
    write(source, {"clean.jsonl": header("c").encode() + b"\n" + message("m", None, "hi").encode()})
    name = "agents/main/sessions/s-1.jsonl"
    async with sessiondb.open(home / "g.db") as db:
        assert (await db.import_path(source)).ok
        for _ in range(2):  # to say it once is not to have done it
            again = await db.import_path(source, redactor=Redactor(), verify=True)
            assert not again.ok
            assert by_name(again)[name].unredacted == {
                "aws-access-key": 1,
                "github-token": 2,
                "jwt": 1,
                "sk-key": 1,
                "slack-token": 1,
            }
            assert "(in the lines s-1, m1, m3, " in by_name(again)[name].note
            assert "`sessiondb redact DB s-1 ENTRY`" in by_name(again)[name].note
            assert by_name(again)["clean.jsonl"].unredacted == {}
        dry = await db.import_path(source, redactor=Redactor(), dry_run=True)
        assert by_name(dry)[name].unredacted == by_name(again)[name].unredacted
        with (source / name).open("ab") as file:  # torn line and new part come in redacted
            file.write(b'"}\n' + message("m9", "m5", PLANTED[0]).encode() + b"\n")
        grown = by_name(await db.import_path(source, redactor=Redactor()))[name]
        assert (grown.status, grown.redacted, grown.unredacted["github-token"]) == (
            "grown",
            {"slack-token": 1, "github-token": 1},
            2,
        )
        # One way that the note names: another name.
        await db.delete(await db.session_by_id("s-1"))
        copy = tmp_path / "copy.jsonl"
        copy.write_bytes((source / name).read_bytes())
        assert (await db.import_path(copy, redactor=Redactor(), verify=True)).ok
        assert (await db.export(tmp_path / "out")).ok
    assert leaks(tmp_path / "out") == []


@pytest.mark.anyio
async def test_importing_again_is_content_once_the_named_entries_are_redacted(
    tmp_path: Path,
) -> None:
    lines = [header("s-1"), message("m1", None, PLANTED[0]), message("m2", "m1", "fine")]
    source = write(tmp_path / "in", {"a.jsonl": "\n".join([*lines, ""]).encode()})
    async with sessiondb.open(tmp_path / "g.db") as db:
        assert (await db.import_path(source)).ok
        report = await db.import_path(source, redactor=Redactor())
        assert "(in the line m1)" in report.files[0].note
        await (await db.session_by_id("s-1")).redact("m1")
        assert (await db.import_path(source, redactor=Redactor())).ok


@pytest.mark.anyio
async def test_importing_again_with_more_rules_looks_once_more(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        {"a.jsonl": header("s-1").encode() + b"\n" + message("m", None, "jo@example.org").encode()},
    )
    async with sessiondb.open(tmp_path / "g.db") as db:
        assert (await db.import_path(source, redactor=Redactor())).ok
        assert (await db.import_path(source, redactor=Redactor())).ok
        report = await db.import_path(source, redactor=Redactor(emails=True))
        assert (report.ok, report.files[0].unredacted) == (False, {"email": 1})
        assert (await db.import_path(source, redactor=Redactor())).ok


@pytest.mark.anyio
async def test_importing_again_says_that_an_archive_was_not_searched(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        {"a.jsonl": header("s-1").encode() + b"\n" + message("m", None, PLANTED[0]).encode()},
    )
    async with sessiondb.open(tmp_path / "g.db") as db:
        assert (await db.import_path(source)).ok
        await db.delete(await db.session_by_id("s-1"), archive=True)
        report = await db.import_path(source, redactor=Redactor())
    assert not report.ok
    assert "`sessiondb unarchive DB s-1`" in report.files[0].note


@pytest.mark.anyio
async def test_an_import_stopped_after_any_batch_resumes_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\n".join(
        [
            header("s-1").encode(),
            *(message(f"m{at}", None, PLANTED[at % 5]).encode() for at in range(23)),
            b"",
        ]
    )
    source = write(tmp_path / "in", {"a.jsonl": content})
    monkeypatch.setattr(jsonl_reader, "IMPORT_BATCH_ENTRIES", 5)
    monkeypatch.setattr(import_packs, "IMPORT_BATCH_ENTRIES", 5)
    store, stored = importer.store_batch, 0

    def stop_after_one(*arguments: Any) -> Any:
        nonlocal stored
        stored += 1
        if stored % 2 == 0:
            raise sessiondb.StoreFull
        return store(*arguments)

    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        monkeypatch.setattr(importer, "store_batch", stop_after_one)
        stops = 0
        while True:
            try:
                report = await db.import_path(source, redactor=Redactor(), verify=True)
                break
            except sessiondb.StoreFull:
                stops += 1
        assert stops >= 3
        assert report.files[0].verified
        notes = await db.read(
            "test", lambda tx: tx.first("import_file.by_path", path=report.files[0].path).note
        )
        mark = mark_in(notes)
        assert mark is not None
        assert (mark.from_byte, mark.counts.total()) == (0, 23)
    assert leaks(tmp_path / "db") == []


@pytest.mark.anyio
@one_loop
async def test_real_transcripts_import_as_well_with_a_redactor(
    tmp_path: Path, sample: Path
) -> None:
    async with sessiondb.open(tmp_path / "plain.db") as db:
        plain = await db.import_path(sample, verify=True)
    async with sessiondb.open(tmp_path / "redacted.db") as db:
        found = await db.import_path(sample, verify=True, redactor=Redactor(emails=True))
        assert (await db.verify()).ok
    assert [
        (one.name, one.status, one.entries, one.damaged, one.verified, one.sha256)
        for one in found.files
    ] == [
        (one.name, one.status, one.entries, one.damaged, one.verified, one.sha256)
        for one in plain.files
    ]


# -- export ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_redacted_export_holds_no_secret(
    tmp_path: Path,
) -> None:
    source = state_folder(tmp_path / "in")
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        await db.import_path(source)
        native = await db.session("agent:main:web:direct:jo")
        await native.append({"role": "user", "content": f"mine is {PLANTED[2]}"})
        report = await db.export(tmp_path / "out", redactor=Redactor())
        assert report.ok
        by_file = {file.name: file for file in report.files}
        assert by_file["agents/main/sessions/s-1.jsonl"].redacted["jwt"] == 1
        assert by_file[f"agents/main/sessions/{native.id}.jsonl"].redacted == {"aws-access-key": 1}
        assert {
            file.status for file in (await db.export(tmp_path / "out", redactor=Redactor())).files
        } == {"unchanged"}
        assert (await db.export(tmp_path / "plain")).ok
    assert leaks(tmp_path / "out") == []
    assert leaks(tmp_path / "plain") == PLANTED
    for name in ("agents/main/sessions/s-1.jsonl", "agents/main/sessions/sessions.json"):
        assert (
            len(json.loads((tmp_path / "out/agents/main/sessions/sessions.json").read_bytes())) == 2
        )
        assert (tmp_path / "out" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_an_export_whose_redactor_does_nothing_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Redactor, "line", lambda self, raw, counts, shape="entry": raw)
    async with sessiondb.open(tmp_path / "g.db") as db:
        await db.import_path(state_folder(tmp_path / "in"))
        await db.export(tmp_path / "out", redactor=Redactor())
    assert leaks(tmp_path / "out") == PLANTED


@pytest.mark.anyio
async def test_a_redacted_export_is_imported_again_like_any_other(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(state_folder(tmp_path / "in"))
        await db.export(tmp_path / "out", redactor=Redactor())
    async with sessiondb.open(tmp_path / "two.db") as db:
        report = await db.import_path(tmp_path / "out", verify=True, redactor=Redactor())
        assert report.ok
        assert all(not file.redacted for file in report.files)


# -- the command line ------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        program, [str(argument) for argument in arguments], prog_name="sessiondb"
    )


def test_the_commands_redact_and_name_rules_but_no_secret(
    tmp_path: Path,
) -> None:
    source, db = state_folder(tmp_path / "in"), tmp_path / "db" / "g.db"
    imported = run("import", db, source, "--redact", "--verify")
    assert imported.exit_code == 1  # its damaged lines are damaged all the same
    assert (
        "redacted: 1 aws-access-key, 2 github-token, 1 jwt, 2 sk-key, 1 slack-token"
        in imported.output
    )
    machine = json.loads(run("import", db, source, "--redact", "--json").output)
    assert [file["redacted"] for file in machine[0]["files"]] == [{}, {}]
    rules = tmp_path / "rules"
    rules.write_text("nothing-special = nothing\n", encoding="utf-8")
    exported = run("export", db, tmp_path / "out", "--redact-rules", rules)
    assert (exported.exit_code, exported.output.rpartition("; ")[2]) == (
        0,
        "redacted: 3 nothing-special\n",
    )
    assert leaks(tmp_path / "db", tmp_path / "out") == []
    assert not [secret for secret in PLANTED if secret in imported.output + exported.output]


def test_the_command_says_what_is_still_stored_and_exits_with_1(tmp_path: Path) -> None:
    whole = header("s-1").encode() + b"\n" + message("m", None, PLANTED[0]).encode() + b"\n"
    source, db = write(tmp_path / "in", {"a.jsonl": whole}), tmp_path / "g.db"
    assert run("import", db, source).exit_code == 0
    again = run("import", db, source, "--redact")
    assert again.exit_code == 1
    assert "not redacted: a.jsonl: an earlier import stored 1 github-token" in again.output
    assert PLANTED[0] not in again.output
    machine = run("import", db, source, "--redact", "--json")
    assert machine.exit_code == 1
    report = json.loads(machine.output)[0]
    assert (report["ok"], report["files"][0]["unredacted"]) == (False, {"github-token": 1})


def test_a_bad_rule_file_ends_the_command_before_it_opens(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "rules"
    rules.write_text("ahead = a(?=b)\n", encoding="utf-8")
    for command in (
        ("import", tmp_path / "g.db", tmp_path),
        ("export", tmp_path / "g.db", tmp_path / "out"),
    ):
        result = run(*command, "--redact-rules", rules)
        assert result.exit_code == 1
        assert f"{rules}, line 1: rule ahead: 'a(?=b)' is not a regular" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules"]
