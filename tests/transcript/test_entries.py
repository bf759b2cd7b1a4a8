"""The grammar of entries: kept character for character, understood, or refused. And their row."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import Any

import anyio
import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import InvalidInput
from sessiondb.clock import iso_from_ms, ms_from_iso
from sessiondb.json_text import NESTING_MAX, DamagedLine, dumps
from sessiondb.sqlite.connection import drain
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import statements
from sessiondb.transcript.entries import Draft, EntryRow, Projection, draft_entry, parse_line
from tests.support.core import user

pytestmark = pytest.mark.one_loop

NOW_MS = 1_800_000_000_000


def stored(draft: Draft, parent: str | None = "p") -> tuple[str, str]:
    """Return what is stored for a draft, and the part that is marked as its message."""
    front = draft.before + (dumps(parent) if draft.after else "")
    payload = front + draft.after
    start = draft.body_at + (len(front.encode()) if draft.after else 0)
    return payload, payload.encode()[start : start + draft.body_bytes].decode()


BODY = '{"role":"user","content":"hé 🙂"}'
LAYOUTS = {
    "usual": f'{{"type":"message","id":"a","parentId":null,"timestamp":"t","message":{BODY}}}',
    "message not last": f'{{"type":"message","message":{BODY},"id":"a"}}',
    "message first": f'{{"message":{BODY},"type":"message"}}',
    "an object before": f'{{"type":"message","d":{{"message":{{"a":1}}}},"message":{BODY}}}',
    "an array before it": f'{{"type":"message","x":[1,{{"message":2}}],"message":{BODY}}}',
    "white space": f' {{ "type" : "message" ,\t"message"\t:  {BODY} \r}} ',
    "wide text before it": f'{{"type":"message","id":"ñ日本🙂","message":{BODY}}}',
    "escapes before it": f'{{"type":"message","x":"a\\"}},\\\\","message":{BODY}}}',
    "an escaped key": f'{{"type":"message","mess\\u0061ge":{BODY}}}',
    "the key twice": f'{{"type":"message","message":{{"role":"x"}},"message":{BODY}}}',
    "the key twice, first as a text": f'{{"type":"message","message":"x","message":{BODY}}}',
    "numbers before": f'{{"type":"message","n":-1.5e3,"b":true,"z":null,"message":{BODY}}}',
}


@pytest.mark.parametrize("line", LAYOUTS.values(), ids=LAYOUTS)
def test_a_line_is_kept_and_its_message_found_in_any_layout(line: str) -> None:
    draft = parse_line(line, 3)
    payload, body = stored(draft)
    assert payload == line
    assert body == BODY
    assert (draft.type, draft.role, draft.projection) == ("message", "user", Projection.BODY)


@pytest.mark.parametrize("line", LAYOUTS.values(), ids=LAYOUTS)
def test_an_appended_text_is_kept_and_its_message_found(line: str) -> None:
    draft = draft_entry(line, now_ms=NOW_MS)
    payload, body = stored(draft)
    assert body == BODY
    assert payload.endswith(line.strip()[1:])
    assert json.loads(payload)["message"] == json.loads(BODY)
    assert json.loads(payload).get("parentId", "p") in ("p", None)


@pytest.mark.parametrize(
    "body",
    [
        '{"role":"user","content":"x"}',
        '{ "role" : "user", "content" : "\\u00e9\\/ \\ud83d\\ude42" }',
        '{"content":[],"role":"toolResult","x":1.0,"y":1E5,"z":-0}',
        '{"role":"user","role":"assistant","content":"the last role counts"}',
        '{"role":"user","content":"\\ud800 alone"}',
        '{"role":"user","n":123456789012345678901234567890}',
        '{"role":"user","n":' + "9" * 5000 + "}",
        '{"role":"user","n":1e999}',
        '{"role":"user","content":"line\u2028separator\u0085"}',
        '{"role":"user","deep":' + "[" * (NESTING_MAX - 3) + "]" * (NESTING_MAX - 3) + "}",
    ],
)
def test_a_raw_message_is_stored_character_for_character(body: str) -> None:
    for item in (body, body.encode(), f"  {body}\n"):
        payload, kept = stored(draft_entry(item, now_ms=NOW_MS))
        assert kept == body
        assert payload.startswith('{"type":"message","id":"')


REFUSED: dict[str, Any] = {
    "not JSON": "{nonsense",
    "NaN": '{"role":"user","content":"x","n":NaN}',
    "infinity": '{"role":"user","content":"x","n":-Infinity}',
    "NaN in an object": {"role": "user", "n": float("nan")},
    "a set in an object": {"role": "user", "n": {1}},
    "a list": "[]",
    "a text": '"hello"',
    "empty": "",
    "neither message nor entry": {"content": "x"},
    "an empty type": {"type": ""},
    "a type that is no text": {"type": 5},
    "a header": {"type": "session", "id": "x"},
    "a leaf": {"type": "leaf", "targetId": "x"},
    "a message entry without a message": {"type": "message", "role": "user"},
    "an id that is no text": {"type": "custom", "id": 5},
    "an id of null": {"type": "custom", "id": None},
    "an empty id": {"type": "custom", "id": ""},
    "half an emoji as id": {"type": "custom", "id": "\ud83d"},
    "half an emoji as parent": {"type": "custom", "parentId": "\ud83d"},
    "a parent that is no text": {"type": "custom", "parentId": 5},
    "several lines": '{"role":"user",\n"content":"x"}',
    "a raw control character": '{"role":"user","content":"\x01"}',
    "two objects": '{"role":"user"}{"role":"user"}',
    "a comma too many": '{"role":"user",}',
    "nested too deeply": '{"role":"user","n":' + "[" * NESTING_MAX + "]" * NESTING_MAX + "}",
    "nested beyond the interpreter": "[" * 100_000,
    "bytes that are not UTF-8": b'{"role":"user","content":"\xff"}',
    "a text with half an emoji": '{"role":"user","content":"\ud83d"}',
    "nested beyond the interpreter, as an object": None,
}


@pytest.mark.parametrize("item", REFUSED.values(), ids=REFUSED)
def test_an_item_that_cannot_be_stored_is_refused(item: Any) -> None:
    if item is None:
        item = {"role": "user"}
        for _ in range(5000):
            item = {"role": "user", "n": item}
    with pytest.raises(InvalidInput) as caught:
        draft_entry(item, now_ms=NOW_MS)
    assert len(str(caught.value)) < 500


def test_an_object_with_half_an_emoji_is_stored_with_its_escape() -> None:
    _, body = stored(draft_entry({"role": "user", "content": "🙂 \ud83d"}, now_ms=NOW_MS))
    assert body.isascii()
    assert json.loads(body) == {"role": "user", "content": "🙂 \ud83d"}


def test_brackets_inside_texts_are_not_nesting() -> None:
    _, body = stored(
        draft_entry({"role": "user", "content": "[{" * 10_000, "quote": '\\"['}, now_ms=NOW_MS)
    )
    assert json.loads(body)["content"] == "[{" * 10_000


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  ",
        "{",
        "nonsense",
        '"text"',
        "[1]",
        "5",
        "null",
        '{"id":"x"}',
        '{"type":null}',
        '{"type":""}',
        '{"type":"message"',
        "\x00",
        '{"type":"custom","n":NaN}',
        '{"type":"custom"} x',
    ],
)
def test_a_line_that_is_no_entry_has_a_reason(line: str) -> None:
    with pytest.raises(DamagedLine) as caught:
        parse_line(line, 3)
    assert str(caught.value)


def test_a_typed_entry_gets_missing_fields_in_front() -> None:
    draft = draft_entry('{"type":"custom","data":{"a":1}}', now_ms=NOW_MS)
    payload, _ = stored(draft, parent="before")
    assert payload == (
        f'{{"timestamp":"2027-01-15T08:00:00.000Z","id":"{draft.entry_id}",'
        '"parentId":"before","type":"custom","data":{"a":1}}'
    )


def test_a_typed_entry_that_has_everything_is_not_touched() -> None:
    text = '{"type":"custom","id":"a","parentId":"b","timestamp":"t"}'
    draft = draft_entry(text, now_ms=NOW_MS)
    assert (stored(draft)[0], draft.entry_id, draft.parent_id, draft.follows_head) == (
        text,
        "a",
        "b",
        False,
    )


def said_by(role: str, fields: str) -> str:
    """Return the line of a message with further fields."""
    return f'{{"type":"message","message":{{"role":"{role}",{fields}}}}}'


@pytest.mark.parametrize(
    ("line", "version", "expected"),
    [
        (
            '{"type":"message","message":{"role":"hookMessage","content":"x"}}',
            1,
            {"role": "custom", "projection": Projection.MADE},
        ),
        (
            '{"type":"message","message":{"role":"hookMessage","content":"x"}}',
            2,
            {"role": "custom", "projection": Projection.MADE},
        ),
        (
            '{"type":"message","message":{"role":"hookMessage","content":"x"}}',
            3,
            {"role": "hookMessage", "projection": Projection.BODY},
        ),
        (
            '{"type":"message","message":{"role":"user","content":""}}',
            1,
            {"follows_head": True, "parent_id": None},
        ),
        (
            '{"type":"message","message":{"role":"user","content":""}}',
            2,
            {"follows_head": True, "parent_id": None},
        ),
        (
            '{"type":"message","parentId":null,"message":{"role":"user","content":""}}',
            2,
            {"follows_head": False, "parent_id": None},
        ),
        (
            '{"type":"message","id":"a","parentId":"b","message":{"role":"user"}}',
            1,
            {"follows_head": True, "parent_id": None, "entry_id": "a"},
        ),
        (
            '{"type":"message","id":7,"parentId":6,"message":{"role":"user"}}',
            3,
            {"follows_head": False, "parent_id": "6", "entry_id": "7"},
        ),
        (
            '{"type":"compaction","summary":"abcd","firstKeptEntryIndex":3.0}',
            1,
            {"first_kept_seq": 3},
        ),
        (
            '{"type":"compaction","summary":"abcd","firstKeptEntryIndex":3}',
            2,
            {"first_kept_seq": None},
        ),
        (
            '{"type":"compaction","summary":"abcd","firstKeptEntryIndex":3}',
            1,
            {"first_kept_seq": 3, "tokens": 1},
        ),
        (
            '{"type":"compaction","summary":"s","firstKeptEntryIndex":0}',
            1,
            {"first_kept_seq": None},
        ),
        (
            '{"type":"compaction","summary":"s","firstKeptEntryIndex":true}',
            1,
            {"first_kept_seq": None},
        ),
        (
            '{"type":"compaction","firstKeptEntryId":"k","tokensBefore":9}',
            3,
            {"first_kept_id": "k", "tokens_before": 9, "tokens": 0},
        ),
        ('{"type":"compaction","tokensBefore":1e999}', 3, {"tokens_before": 0}),
        ('{"type":"reset","firstKeptEntryId":"k"}', 4, {"first_kept_id": "k"}),
        ('{"type":"leaf","targetId":"t"}', 4, {"target_id": "t"}),
        ('{"type":"leaf","targetId":null}', 4, {"target_id": None}),
        ('{"type":"custom","appendMode":"side"}', 4, {"side": True, "projection": Projection.NONE}),
        (
            '{"type":"custom_message","content":"abcd"}',
            3,
            {"projection": Projection.MADE, "tokens": 1},
        ),
        (
            '{"type":"branch_summary","summary":"abcd"}',
            3,
            {"projection": Projection.MADE, "tokens": 1},
        ),
        ('{"type":"branch_summary","summary":""}', 3, {"projection": Projection.NONE}),
        ('{"type":"session_info","name":"n"}', 3, {"name": "n"}),
        ('{"type":"session_info","name":"\\ud83d"}', 3, {"name": "\\ud83d"}),
        (
            '{"type":"message","message":"not an object"}',
            3,
            {"projection": Projection.NONE, "body_bytes": 0},
        ),
        (
            said_by("bashExecution", '"excludeFromContext":true,"command":"abcd"'),
            3,
            {"projection": Projection.EXCLUDED, "tokens": 0},
        ),
        (
            '{"type":"message","message":{"role":"user","content":"","excludeFromContext":"yes"}}',
            3,
            {"projection": Projection.BODY},
        ),
        (
            said_by(
                "assistant", '"content":[{"type":"toolCall"},{"type":"text"},7,{"type":"toolCall"}]'
            ),
            3,
            {"calls": 2},
        ),
        (
            said_by("assistant", '"content":[],"providerReplay":{"type":"anthropic-compaction"}'),
            4,
            {"projection": Projection.CHECKPOINT},
        ),
        (
            said_by("assistant", '"content":[],"providerReplay":{"type":"other"}'),
            4,
            {"projection": Projection.BODY},
        ),
        (
            '{"type":"message","message":{"role":"user","idempotencyKey":"k"}}',
            4,
            {"idempotency_key": "k"},
        ),
        (
            '{"type":"message","message":{"role":"user","idempotencyKey":""}}',
            4,
            {"idempotency_key": None},
        ),
        (
            '{"type":"from the future","message":{"role":"user"}}',
            9,
            {"projection": Projection.NONE, "role": None},
        ),
    ],
)
def test_every_version_is_understood(line: str, version: int, expected: dict[str, Any]) -> None:
    draft = parse_line(line, version)
    assert {name: getattr(draft, name) for name in expected} == expected
    assert draft.before == line


def test_entries_without_an_id_get_one_each() -> None:
    assert (
        parse_line('{"type":"custom"}', 1).entry_id != parse_line('{"type":"custom"}', 1).entry_id
    )


# -- the row ---------------------------------------------------------------------------

WHOLE_ROWS = {
    "archive.entries": r"SELECT (.*?)\s+FROM entry",
    "archive.put_entry": r"INSERT INTO entry \((.*?)\)",
    "salvage.put_entry": r"INSERT INTO entry \((.*?)\)",
    "transcript.insert_entry": r"INSERT INTO entry \((.*?)\)",
}


def schema_columns() -> dict[str, bool]:
    """Return the columns of table `entry`, in order. True: an insert may leave it out."""
    with closing(apsw.Connection(":memory:")) as connection:
        drain(connection, schema_text())
        rows = drain(
            connection,
            'SELECT name, NOT "notnull" OR dflt_value IS NOT NULL '
            "FROM pragma_table_info('entry')",
        )
    return {name: bool(may_be_left_out) for name, may_be_left_out in rows}


def names_in(text: str) -> list[str]:
    return [name.strip(" :\n") for name in text.split(",")]


@pytest.mark.parametrize("statement", WHOLE_ROWS)
def test_each_list_of_entry_columns_is_the_schemas(statement: str) -> None:
    columns = list(schema_columns())
    assert list(EntryRow.__annotations__) == columns
    sql = statements()[statement].sql
    found = re.match(WHOLE_ROWS[statement], sql, re.DOTALL)
    assert found is not None
    assert names_in(found[1]) == columns
    values = re.search(r"VALUES \((.*?)\)", sql, re.DOTALL)
    assert values is None or names_in(values[1]) == columns


def test_no_other_statement_inserts_entries_but_control_records() -> None:
    inserting = {name for name, found in statements().items() if "INTO entry " in found.sql}
    assert inserting - WHOLE_ROWS.keys() == {"transcript.insert_control_record"}
    found = re.match(
        WHOLE_ROWS["transcript.insert_entry"],
        statements()["transcript.insert_control_record"].sql,
        re.DOTALL,
    )
    assert found is not None
    left_out = schema_columns().keys() - names_in(found[1])
    assert left_out <= {name for name, may_be in schema_columns().items() if may_be}


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00.001Z", 1),
        ("2027-01-15T08:00:00.000Z", NOW_MS),
        ("2027-01-15T09:00:00+01:00", NOW_MS),
        ("2027-01-15T08:00:00", NOW_MS),
        ("yesterday", None),
        ("", None),
        (None, None),
        (NOW_MS, None),
    ],
)
def test_a_time_is_read_as_utc_or_not_at_all(text: Any, ms: int | None) -> None:
    assert ms_from_iso(text) == ms


def test_a_time_is_written_as_it_is_read() -> None:
    assert ms_from_iso(iso_from_ms(NOW_MS + 7)) == NOW_MS + 7


# -- any message -----------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(st.text(), json_values, max_size=5).map(
    lambda fields: {
        **{
            key: value
            for key, value in fields.items()
            if key not in ("type", "excludeFromContext", "idempotencyKey")
        },
        "role": "user",
    }
)


@given(
    message=messages,
    as_text=st.booleans(),
    ascii_only=st.booleans(),
    spaces=st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_any_message_is_marked_exactly(
    message: dict[str, Any], *, as_text: bool, ascii_only: bool, spaces: tuple[str, str]
) -> None:
    text = json.dumps(message, ensure_ascii=ascii_only, separators=spaces)
    payload, body = stored(draft_entry(text if as_text else message, now_ms=NOW_MS))
    assert json.loads(body) == message == json.loads(payload)["message"]
    if as_text:
        assert body == text


other_fields = st.dictionaries(
    st.text().filter(lambda key: key not in ("message", "type", "parentId", "id")), json_values
)


@given(message=messages, before=other_fields, ascii_only=st.booleans())
def test_any_entry_has_its_message_marked_exactly(
    message: dict[str, Any], before: dict[str, Any], *, ascii_only: bool
) -> None:
    line = json.dumps(
        {**before, "type": "message", "message": message, "id": "last"}, ensure_ascii=ascii_only
    )
    payload, body = stored(parse_line(line, 3))
    assert payload == line
    assert body == json.dumps(message, ensure_ascii=ascii_only)


@settings(max_examples=15)
@given(items=st.lists(st.tuples(messages, st.booleans()), min_size=1, max_size=20))
def test_any_messages_come_back_as_the_context(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[dict[str, Any], bool]]
) -> None:
    async def main() -> None:
        async with sessiondb.open(
            tmp_path_factory.mktemp("entries") / "gateway.db", durability="normal"
        ) as db:
            session = await db.create_session("s")
            given_as = [json.dumps(message) if as_text else message for message, as_text in items]
            await session.append_many(given_as)
            context = await session.context(raw=True)
            assert context.messages == [message for message, _ in items]
            exact = [item if isinstance(item, str) else dumps(item) for item in given_as]
            assert context.as_json().decode() == "[" + ",".join(exact) + "]"
            assert (await db.verify()).findings == ()

    anyio.run(main)


@pytest.mark.anyio
async def test_numbers_that_no_float_can_hold_do_not_close_a_context(tmp_db: Any) -> None:
    many = "9" * 5000
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append('{"role":"user","content":"x","n":' + many + "}")
        await session.append(
            '{"type":"custom_message","customType":"c","content":"y","details":{"n":[1e999,'
            + many
            + "]}}"
        )
        context = await session.context()
        assert (await db.verify()).findings == ()
    assert context.messages[0]["n"] == float("inf")
    assert context.messages[1]["details"] == {"n": [None, None]}, (
        "as JavaScript writes an infinite number"
    )
    assert many.encode() in context.as_json()


@pytest.mark.anyio
async def test_the_deepest_message_that_is_accepted_can_be_read(tmp_db: Any) -> None:
    levels = NESTING_MAX - 1
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append('{"role":"user","n":' + "[" * levels + "]" * levels + "}")
        assert (await session.context(raw=True)).messages[0]["role"] == "user"
        assert (await db.verify()).findings == ()
        with pytest.raises(InvalidInput):
            await session.append(
                '{"role":"user","n":' + "[" * NESTING_MAX + "]" * NESTING_MAX + "}"
            )


@pytest.mark.anyio
@pytest.mark.parametrize("field", ["type", "role", "name", "idempotencyKey"])
async def test_half_an_emoji_in_a_column_is_stored_as_its_escape(tmp_db: Any, field: str) -> None:
    entry = {
        "type": {"type": "\ud83d"},
        "role": {"role": "\ud83d", "content": "x"},
        "name": {"type": "session_info", "name": "\ud83d"},
        "idempotencyKey": {**user("x"), "idempotencyKey": "\ud83d"},
    }[field]
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append(entry)
        [stored_entry] = await session.entries(last=20)
        assert (
            json.loads(stored_entry.payload).get("message", json.loads(stored_entry.payload))[field]
            == "\ud83d"
        )
        assert "\\ud83d" in (
            stored_entry.type,
            stored_entry.role,
            stored_entry.idempotency_key,
            (await session.info()).name,
        )
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_half_an_emoji_in_an_argument_does_not_stop_the_writer(tmp_db: Any) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        for attempt in (
            lambda: session.append(user("x"), idempotency_key="\ud83d"),
            lambda: session.branch("\ud83d"),
            lambda: db.create_session("\ud83d"),
            lambda: db.session("agent:main:\ud83d"),
            lambda: db.session_by_id("\ud83d"),
        ):
            with pytest.raises(InvalidInput):
                await attempt()
        assert (await session.append(user("x"))).position == 1
