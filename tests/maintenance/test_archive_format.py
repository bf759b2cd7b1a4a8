"""A chunk of an archive is data: any content, with any hash, is at worst reported as damage.

The chunks here are planted. Their hash is right, and so is their number of rows where that
matters, as in a database that an attacker made.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from sessiondb import sync
from sessiondb.errors import StoreDamaged
from sessiondb.limits import (
    ARCHIVE_BINDINGS_MAX,
    ARCHIVE_PAGE_BYTES_MAX,
    ARCHIVE_ROW_BYTES_MAX,
    ENTRY_VALUES_MAX,
)
from sessiondb.maintenance import archive_format, archive_small
from sessiondb.maintenance.archive_dictionary import DICTIONARY
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import statements
from tests import ROOT
from tests.support.command_line import run
from tests.support.core import change, query, user
from tests.support.damage import copy_of, salvaged

KEPT = "agent:main:web:kept"


@pytest.fixture(scope="module", params=["many steps", "one step"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with two archived sessions of six entries, and one that is not.

    Archives that were made in many steps have a chunk for each table. The others are one chunk.
    """
    path = tmp_path_factory.mktemp("sound") / "gateway.db"
    with pytest.MonkeyPatch.context() as patch, sync.open(path) as db:
        if request.param == "many steps":
            patch.setattr(archive_small, "ARCHIVE_CHUNK_ROWS", 0)
        for key in ("agent:main:web:gone", "agent:main:web:gone-too", KEPT):
            db.session(key).append_many([user(f"{key} says {number}") for number in range(5)])
        report = db.gc(RetentionPolicy(max_sessions=1, idle_days=0))
        assert [created.outcome for created in report.decisions] == ["done", "done"]
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    """Return a copy to plant something in."""
    return copy_of(sound, tmp_path / "gateway.db")


def lines_of(path: Path, what: str = "entry") -> list[list[Any]]:
    """Return the lines of a table in the first archive, decoded: its columns, and its rows."""
    [text] = [text for table, text in texts_of(path) if table == what]
    return [json.loads(line) for line in text.splitlines()]


def texts_of(path: Path) -> list[tuple[str, bytes]]:
    """Return the texts of the first archive by table, each as a chunk of its own has it."""
    chunks_of = (
        "SELECT what, c.content, a.encoding FROM archive_chunk AS c "
        "JOIN archive AS a USING (archive_no) WHERE archive_no = 1 ORDER BY chunk_no"
    )
    found: list[tuple[str, bytes]] = []
    for what, content, encoding in query(path, chunks_of):
        dictionary = DICTIONARY if what == "whole" else b""
        text = b"".join(archive_format._parts(content, encoding, dictionary))
        if what != "whole":
            found.append((what, text))
            continue
        for line in text.splitlines(keepends=True):
            if line.startswith(b"{"):
                [(table, columns)] = json.loads(line).items()
                found.append((table, json.dumps(columns).encode() + b"\n"))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def is_whole(path: Path) -> bool:
    return query(path, "SELECT what FROM archive_chunk WHERE archive_no = 1") == ["whole"]


def as_section(what: str, text: bytes) -> bytes:
    """Return the text of a table's chunk as a part of a chunk of all tables."""
    first, end, rest = text.partition(b"\n")
    named = b'{"%s":%s}' % (what.encode(), first) if first.startswith(b"[") else first
    return named + end + rest


COUNT = """UPDATE archive SET (rows, bytes_stored) =
    (SELECT sum(rows), sum(length(content)) FROM archive_chunk AS c
     WHERE c.archive_no = archive.archive_no)"""


def id_of(path: Path) -> str:
    """Return the id of the session whose archive is planted in."""
    [session_id] = query(
        path, "SELECT session_id FROM archive JOIN session USING (session_no) WHERE archive_no = 1"
    )
    return str(session_id)


def plant(
    path: Path, text: bytes, what: str = "entry", *, rows: int | None = None, times: int = 1
) -> str:
    """Put a text into the first archive in place of that of a table, with its hash.

    Return the session's id. With `times` the text ends with that many MiB of its last byte.
    """
    [encoding] = query(path, "SELECT encoding FROM archive WHERE archive_no = 1")
    rows = text.count(b"\n") - 1 if rows is None else rows
    before, after, chunk = b"", b"", what
    if is_whole(path):
        others = [(table, other) for table, other in texts_of(path) if table != what]
        at = list(archive_format.TABLES).index
        before = b"".join(as_section(*one) for one in others if at(one[0]) < at(what))
        after = b"".join(as_section(*one) for one in others if at(one[0]) > at(what))
        rows += sum(other.count(b"\n") - 1 for _, other in others)
        text, chunk = as_section(what, text), "whole"
    packer = packer_of(encoding, DICTIONARY if chunk == "whole" else b"")
    content = (
        packer.compress(before + text)
        + b"".join(packer.compress(text[-1:] * 2**20) for _ in range(times - 1))
        + packer.compress(after)
        + packer.flush()
    )
    text, what = before + text + after, chunk
    values = (content, hashlib.sha256(text).hexdigest(), rows, what)
    with closing(apsw.Connection(str(path))) as connection:
        put = (
            "UPDATE archive_chunk SET content = ?, sha256 = ?, rows = ? "
            "WHERE archive_no = 1 AND what = ?"
        )
        connection.execute(put, values).fetchall()
        connection.execute(COUNT).fetchall()
    return id_of(path)


def packer_of(encoding: str, dictionary: bytes) -> Any:
    if encoding == "zlib":
        return zlib.compressobj(zdict=dictionary) if dictionary else zlib.compressobj()
    return (
        importlib.import_module("zstandard")
        .ZstdCompressor(dict_data=archive_format._zstd_dictionary(dictionary))
        .compressobj()
    )


def as_text(lines: list[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


HEAD = json.dumps(list(archive_format.COLUMNS["entry"])).encode() + b"\n"
HOSTILE: dict[str, bytes] = {
    "not JSON": HEAD + b"not json\n",
    "not JSON, nor its columns": b'["a"]\nnot json\n',
    "nested a hundred thousand deep": HEAD + b"[" * 100_000 + b"\n",
    "columns nested a hundred thousand deep": b"[" * 100_000 + b"\n[]\n",
    "numbers for lines": b"5\n6\n",
    "other columns": b'["entry_no"]\n' + b"[1]\n" * 6,
    "an object for columns": b'{"entry_no": 1}\n[1]\n',
    "an object for a row": HEAD + b"{}\n",
    "a short row": HEAD + b"[1, 2, 3]\n",
    "NULL": HEAD + b"null\n",
    "not UTF-8": HEAD + b'["\xff"]\n',
    "UTF-16": HEAD.decode().encode("utf-16-le"),
    "nothing": b"",
    "one line end": b"\n",
    "no line end": HEAD + b"[]",
    "a number of five thousand digits": HEAD + b"[" + b"9" * 5_000 + b"]\n",
    "a million lists": HEAD + b"[" + b"[]," * 1_000_001 + b"0]\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_chunk_is_damage_and_salvage_gets_the_rest(
    path: Path, tmp_path: Path, name: str
) -> None:
    session_id = plant(path, HOSTILE[name], rows=1 if HOSTILE[name].count(b"\n") < 2 else None)
    is_noticed(path, session_id, tmp_path / "new.db")


@pytest.mark.parametrize(
    "name", ["not JSON, nor its columns", "columns nested a hundred thousand deep", "other columns"]
)
def test_commands_name_the_damage_and_exit_as_documented(
    path: Path, tmp_path: Path, name: str
) -> None:
    session_id = plant(path, HOSTILE[name])
    done = run("verify", path)
    assert (done.exit_code, session_id[:8] in done.output) == (1, True)
    done = run("unarchive", path, session_id)
    assert (done.exit_code, session_id in done.stderr, "sessiondb salvage" in done.stderr) == (
        4,
        True,
        True,
    )
    done = run("salvage", path, tmp_path / "new.db")
    assert (
        done.exit_code,
        "everything was salvaged" in done.stdout,
        "archive opened" in done.stdout,
    ) == (1, False, True)


def is_noticed(path: Path, session_id: str, new: Path) -> None:
    """Require that this archive is reported, is not restored, and that salvage gets the rest."""
    with sync.open(path) as db:
        findings = db.verify().findings
        assert {(finding.check, finding.session_id) for finding in findings} == {
            ("archive", session_id)
        }, findings
        with pytest.raises(StoreDamaged, match=session_id) as caught:
            db.unarchive(session_id)
        assert "Run `sessiondb verify`" in str(caught.value) or "sessiondb salvage" in str(
            caught.value
        )
        unfinished = "SELECT 1 FROM archive WHERE state <> 'archived' OR finished_at_ms IS NULL"
        assert query(path, unfinished) == []
        assert query(
            path,
            "SELECT count(*) FROM branch JOIN session USING (session_no) WHERE session_id = ?",
            session_id,
        ) == [0]
    report = salvaged(path, new)
    assert (report.findings, report.complete) == ([], False)
    assert [(one.session_id, one.outcome) for one in report.damaged_sessions] == [
        (session_id, "archive opened")
    ]
    with sync.open(new) as db:
        assert len(db.session(KEPT).entries()) == 5
        [other] = [
            info.session_id
            for info in db.sessions(with_ended=True)
            if info.archived_at_ms is not None
        ]
        assert db.unarchive(other).entries == 5
        assert db.verify().findings == ()


def changed(column: str, value: Any, line: int = 3) -> Callable[[list[Any]], None]:
    def change_it(lines: list[Any]) -> None:
        lines[line][lines[0].index(column)] = value

    return change_it


def swap(lines: list[Any]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def twice(lines: list[Any]) -> None:
    lines.insert(3, lines[3])


def same_key(lines: list[Any]) -> None:
    at = lines[0].index("idempotency_key")
    lines[2][at] = lines[4][at] = "the same"


def leaves_from(lines: list[Any], parent_branch_no: int) -> None:
    for column, value in (
        ("parent_branch_no", parent_branch_no),
        ("fork_no", lines[1][lines[0].index("first_no")]),
    ):
        lines[1][lines[0].index(column)] = value


def from_nowhere(lines: list[Any]) -> None:
    leaves_from(lines, 12_345)


def from_itself(lines: list[Any]) -> None:
    leaves_from(lines, lines[1][0])


def leave_out(lines: list[Any]) -> None:
    del lines[3]


MANY_VALUES = f"[{'0,' * ENTRY_VALUES_MAX}0]"
ROWS: dict[str, tuple[str, Callable[[list[Any]], None]]] = {
    "a text for a number": ("entry", changed("position", "1")),
    "a fraction for a number": ("entry", changed("tokens", 1.5)),
    "true for a number": ("entry", changed("body_at", True)),
    "a number past 64 bits": ("entry", changed("parent_no", 1 << 63)),
    "NULL where there must be something": ("entry", changed("payload", None)),
    "a list for a text": ("entry", changed("payload", [])),
    "half an emoji": ("entry", changed("entry_id", "\ud83d")),
    "an entry of another session": ("entry", changed("entry_no", 3 << 32 | 3)),
    "a negative entry": ("entry", changed("entry_no", -1)),
    "an unknown projection": ("entry", changed("projection", 5)),
    "a negative projection": ("entry", changed("projection", -1)),
    "entries out of order": ("entry", swap),
    "an entry twice": ("entry", twice),
    "another session's branch": ("branch", changed("session_no", 3, 1)),
    "half a parent": ("branch", changed("fork_no", 1, 1)),
    "another session's epoch": ("epoch", changed("session_no", 3, 1)),
    "an epoch without a known reason": ("epoch", changed("reason", "whim", 1)),
    "another session's row": ("session", changed("session_id", "other", 1)),
    "a text for a time": ("session", changed("ended_at_ms", "now", 1)),
    "another session's key": ("binding", changed("session_no", 3, 1)),
    "an idempotency key twice": ("entry", same_key),
    "a branch that leaves from one that is not there": ("branch", from_nowhere),
    "a branch that leaves from itself": ("branch", from_itself),
    "details that are not JSON": ("binding", changed("details", "{", 1)),
    "details of too many values": ("binding", changed("details", MANY_VALUES, 1)),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_cannot_be_put_back_is_noticed_in_time(
    path: Path, tmp_path: Path, name: str
) -> None:
    what, spoil = ROWS[name]
    lines = lines_of(path, what)
    spoil(lines)
    is_noticed(path, plant(path, as_text(lines), what), tmp_path / "new.db")


@pytest.mark.parametrize("projection", [0, 4])
def test_a_row_at_the_edge_of_its_rules_is_restored(path: Path, projection: int) -> None:
    lines = lines_of(path)
    changed("projection", projection)(lines)
    session_id = plant(path, as_text(lines))
    with sync.open(path) as db:
        assert db.verify().findings == ()
        assert db.unarchive(session_id).entries == 5


@pytest.mark.parametrize(
    ("what", "rows", "expected"),
    [
        ("entry", 1, ARCHIVE_ROW_BYTES_MAX),
        ("entry", 2, ARCHIVE_PAGE_BYTES_MAX),
        ("session", 2, ARCHIVE_ROW_BYTES_MAX),
        ("binding", 2, ARCHIVE_ROW_BYTES_MAX),
        ("whole", 2, ARCHIVE_ROW_BYTES_MAX),
    ],
)
def test_only_a_chunk_of_one_row_may_be_long(what: str, rows: int, expected: int) -> None:
    assert archive_format.bytes_max(what, rows) == expected


def test_a_missing_entry_is_found_and_the_rest_can_be_restored(path: Path, tmp_path: Path) -> None:
    lines = lines_of(path)
    leave_out(lines)
    session_id = plant(path, as_text(lines))
    with sync.open(path) as db:
        assert [
            "entries 2 to 2 are missing in its archive" in finding.message
            for finding in db.verify().findings
        ] == [True]
    report = salvaged(path, tmp_path / "new.db")
    assert [(one.session_id, one.missing) for one in report.damaged_sessions] == [
        (session_id, ((2, 2),))
    ]
    with sync.open(path) as db:
        db.unarchive(session_id)
        assert [entry.seq for entry in db.session_by_id(session_id).all_entries()] == [
            0,
            1,
            3,
            4,
            5,
        ]


@pytest.mark.parametrize(
    "keys",
    ["", "{}", "[1]", '["a"]', '"agent:main:web:1"', "[" * 100_000, "[" + "[]," * 1_000_001 + "0]"],
)
def test_a_damaged_list_of_keys_is_found_before_a_restore(
    path: Path, tmp_path: Path, keys: str
) -> None:
    session_id = id_of(path)
    change(path, f"UPDATE archive SET session_keys = '{keys}' WHERE archive_no = 1")
    with sync.open(path) as db, pytest.raises(StoreDamaged, match=session_id):
        db.unarchive(session_id)
    assert query(path, "SELECT state FROM archive WHERE archive_no = 1") == ["archived"]
    is_noticed_without_loss(path, session_id, tmp_path / "new.db")


def is_noticed_without_loss(path: Path, session_id: str, new: Path) -> None:
    with sync.open(path) as db:
        assert {finding.session_id for finding in db.verify().findings} == {session_id}
    report = salvaged(path, new)
    assert (report.findings, report.missing_entries, report.complete) == ([], 0, False)
    with sync.open(new) as db:
        assert [entry.seq for entry in db.session_by_id(session_id).all_entries()] == list(range(6))


@pytest.mark.parametrize(
    ("sound", "statement"),
    [
        ("many steps", "UPDATE archive_chunk SET what = 'sqlite_schema' WHERE what = 'entry'"),
        ("many steps", "UPDATE archive_chunk SET what = 'branch' WHERE what = 'epoch'"),
        ("many steps", "UPDATE archive_chunk SET what = 'whole' WHERE what = 'entry'"),
        ("many steps", "UPDATE archive_chunk SET rows = -6 WHERE what = 'entry'"),
        ("many steps", "UPDATE archive_chunk SET rows = 1000000000 WHERE what = 'entry'"),
        ("many steps", "UPDATE archive_chunk SET chunk_no = chunk_no + 100 WHERE what = 'branch'"),
        ("many steps", "DELETE FROM archive_chunk WHERE what = 'session'"),
        ("one step", "UPDATE archive_chunk SET what = 'sqlite_schema' WHERE what = 'whole'"),
        ("one step", "UPDATE archive_chunk SET what = 'entry' WHERE what = 'whole'"),
        ("one step", "UPDATE archive_chunk SET rows = rows - 1 WHERE what = 'whole'"),
        ("one step", "UPDATE archive_chunk SET rows = 1000000000 WHERE what = 'whole'"),
        ("one step", "UPDATE archive_chunk SET chunk_no = 100 WHERE what = 'whole'"),
        (
            "one step",
            (
                "INSERT INTO archive_chunk SELECT archive_no, 1, what, rows, sha256, content"
                " FROM archive_chunk WHERE what = 'whole'"
            ),
        ),
    ],
    indirect=["sound"],
)
def test_a_chunk_with_wrong_columns_of_its_own_row_is_noticed(
    path: Path, tmp_path: Path, statement: str
) -> None:
    session_id = id_of(path)
    change(path, f"{statement} AND archive_no = 1", COUNT)
    is_noticed(path, session_id, tmp_path / "new.db")


# -- bounds ----------------------------------------------------------------------------

LIMITED = """
import sys, resource
from sessiondb import database, sync
from sessiondb.errors import StoreDamaged
path, new, session_id, mib = sys.argv[1:]
with sync.open(path) as db:
    db.session_by_id(session_id).info()
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + int(mib) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(len(db.verify().findings))
    try:
        db.unarchive(session_id)
    except StoreDamaged:
        print("damaged")
print(database.salvage(path, new).complete)
"""


BOMBS = [(b"[" + b"[]," * 6_000_000 + b"0]\n", 1, 250), (b" ", 2_000, 600)]


@pytest.mark.parametrize("what", ["entry", "session"])
@pytest.mark.parametrize(("text", "times", "mib"), BOMBS, ids=["lists", "blanks"])
def test_memory_does_not_follow_the_size_that_a_chunk_claims(
    path: Path, tmp_path: Path, what: str, text: bytes, times: int, mib: int
) -> None:
    """A kilobyte that unpacks to 18 MiB of lists took 573 MiB.

    One that unpacks to 2 GB may cost no more than the largest row does.
    """
    session_id = plant(path, HEAD + text, what, rows=1 if what == "session" else 6, times=times)
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(path),
        str(tmp_path / "new.db"),
        session_id,
        str(mib),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.split()) == (0, ["1", "damaged", "False"]), done.stderr


def test_zstd_allocates_nothing_for_the_window_a_frame_claims() -> None:
    pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x04, (27 - 10) << 3]) + b"\x01\x00\x00" + bytes(4)
    with pytest.raises(archive_format.Wrong, match="memory"):
        archive_format._unpacked(frame, "zstd", ARCHIVE_PAGE_BYTES_MAX)


# -- written chunks stay within the bounds of reading ----------------------------------


def test_a_chunk_has_the_columns_of_the_schema_and_statements() -> None:
    of_index = {"search_behind"}  # which has no archived session
    with closing(apsw.Connection(":memory:")) as db:
        db.execute(schema_text()).fetchall()
        for table, columns in archive_format.COLUMNS.items():
            info = db.execute(
                'SELECT name, type, "notnull" OR pk FROM pragma_table_info(?)', (table,)
            ).fetchall()
            assert {
                name: kind + ("" if required else "?")
                for name, kind, required in info
                if name not in of_index
            } == columns, table
            putting = {"session": "salvage.put_session", "binding": "archive.rebind"}.get(
                table, f"archive.put_{table}"
            )
            assert statements()[putting].parameters - of_index == set(columns), table


def test_a_page_of_escapes_and_long_ids_stays_within_its_bound(
    tmp_path: Path,
) -> None:
    path = tmp_path / "escapes.db"
    quotes = '"' * 2_000
    with sync.open(path) as db:
        session = db.session(KEPT)
        for number in range(250):
            item = {"type": "custom", "id": f"{number}{quotes}", "customType": quotes}
            session.append(item, idempotency_key=f"{number}".ljust(512, "\x01"))
        session.append(user("\\" * 3_000_000))
        assert db.gc(RetentionPolicy(max_sessions=0, idle_days=0)).ok
        assert db.verify().findings == ()
        assert db.unarchive(session.id).entries == 251


def test_a_session_with_too_many_keys_is_kept_with_a_reason(path: Path) -> None:
    rows = f"""WITH n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ARCHIVE_BINDINGS_MAX})
        INSERT INTO binding
        SELECT 'agent:main:many:' || i, session_no, 'main', 0, NULL FROM n, binding"""
    change(path, rows)
    with sync.open(path) as db:
        report = db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
        assert any("10,001 keys point at it" in created.note for created in report.decisions), (
            report
        )


def test_a_chunk_is_lines_of_plain_text_whatever_the_language() -> None:
    """An archive is read with other tools, too, and a text in it takes its own bytes."""
    row = NamedRow("ñ日本🙂", '{"a":1}', None)
    chunk = archive_format.encode("entry", [row, row], "zlib", 0)
    line = '["ñ日本🙂","{\\"a\\":1}",null]\n'
    text = f'["name","payload","nothing"]\n{line}{line}'.encode()
    assert zlib.decompress(chunk.content) == text
    assert (chunk.rows, chunk.size) == (2, len(text))
    assert chunk.sha256 == hashlib.sha256(text).hexdigest()


# Chunks of two entries, as they were written when there was first a dictionary.
WRITTEN = {
    "zlib": (
        "78bbd647f329c3dea8c15acd9b03abf6cc5405a00b4aac14d28b0eef393c5fc13dbfa40425b62d80"
        "919a97a2509caf006c01c4720100e01a1e26"
    ),
    "zstd": (
        "28b52ffd205fad01007402372c2273696520736167743a206772c3bcc39f20476f7474382c22616e"
        "6420736f206f6e225d0a0300c4af63d4cf9f61438141"
    ),
}


@pytest.mark.parametrize("encoding", WRITTEN)
def test_chunks_that_were_written_with_the_dictionary_can_be_read_for_ever(encoding: str) -> None:
    if encoding == "zstd":
        pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    text = bytes(
        archive_format._unpacked(bytes.fromhex(WRITTEN[encoding]), encoding, 10**6, DICTIONARY)
    )
    assert [json.loads(line) for line in text.splitlines()] == [
        {"entry": [*ENTRY_COLUMNS]},
        [4294967297, "sie sagt: grüß Gott"],
        [4294967298, "and so on"],
    ]


ENTRY_COLUMNS = ("entry_no", "payload")


def test_the_rows_of_all_tables_are_one_text_that_names_them() -> None:
    tables: dict[str, list[Any]] = {what: [] for what in archive_format.TABLES}
    tables |= {"branch": [(7, 1, None, None, 1)], "epoch": [(1, 0, "start", 5, *[None] * 4)]}
    chunk = archive_format.encode_whole(tables, "zlib", 0)
    columns = {
        what: json.dumps([*archive_format.COLUMNS[what]], separators=(",", ":"))
        for what in ("branch", "epoch")
    }
    text = (
        f'{{"branch":{columns["branch"]}}}\n[7,1,null,null,1]\n'
        f'{{"epoch":{columns["epoch"]}}}\n[1,0,"start",5,null,null,null,null]\n'
    ).encode()
    assert bytes(archive_format._unpacked(chunk.content, "zlib", 10**6, DICTIONARY)) == text
    assert (chunk.what, chunk.rows, chunk.size) == ("whole", 2, len(text))


class NamedRow(NamedTuple):
    name: str
    payload: str
    nothing: None
