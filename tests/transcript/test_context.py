"""The context of the model: at every epoch, after every kind of boundary, and through forks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import NotFound, NothingToCompact, NothingToUndo
from tests.support.core import load_file, load_lines, reply, result, texts, user

pytestmark = pytest.mark.one_loop

HEADER = '{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}'


def line(
    entry_id: str, parent: str | None, message: dict[str, Any] | None = None, **fields: Any
) -> str:
    """Return one line of a file: a message, or an entry with these fields."""
    entry = {"id": entry_id, "parentId": parent, "timestamp": "2026-01-01T00:00:00.000Z", **fields}
    return json.dumps(
        {"type": "message", **entry, "message": message} if message is not None else entry
    )


async def compact(session: sessiondb.Session, summary: str, *, keep: int = 1) -> None:
    """Commit a compaction."""
    async with session.compact(keep_recent_tokens=keep) as job:
        assert (await job.commit(summary)).outcome == "committed"


# -- real transcripts ------------------------------------------------------------------


def with_expectations(folder: Path) -> list[tuple[Path, Any]]:
    """Return pi's files with their contexts. The import's tests read the large ones."""
    small = [
        path
        for path in sorted(folder.glob("pi-*/sessions/*.jsonl"))
        if path.stat().st_size < 2_000_000
    ]
    # pi starts a headerless file anew, and shows nothing of it.
    known = [path for path in small if path.name != "damaged-no-header.jsonl"]
    return [
        (
            path,
            json.loads(
                (path.parent.parent / "expected" / f"{path.name}.context.json").read_bytes()
            ),
        )
        for path in known
    ]


@pytest.mark.anyio
async def test_a_real_transcript_has_the_context_of_its_own_reader(
    tmp_db: Path, transcripts: Path
) -> None:
    checked = 0
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for path, expected in with_expectations(transcripts):
            session, _ = await load_file(db, path)
            context = await session.context()
            found = json.loads(context.as_pi_json())
            assert (found["model"], found["thinkingLevel"]) == (
                expected["model"],
                expected["thinkingLevel"],
            ), path.name
            if "messages" in expected:
                assert found["messages"] == expected["messages"], path.name
            else:
                shown = [
                    json.dumps(message, ensure_ascii=False, separators=(",", ":"))
                    for message in found["messages"]
                ]
                assert [hashlib.sha256(text.encode()).hexdigest() for text in shown] == expected[
                    "messagesSha256"
                ], path.name
            checked += 1
        assert (await db.verify()).findings == ()
    assert checked >= 10


# -- epochs ----------------------------------------------------------------------------

moves = st.lists(
    st.sampled_from(
        ["user", "reply", "compact", "undo", "reset", "keep", "branch", "root", "fork"]
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=25)
@given(moves=moves)
def test_every_epoch_stays_readable_for_ever(
    tmp_path_factory: pytest.TempPathFactory, moves: list[str]
) -> None:
    """A past epoch's context is read as it was when the epoch ended, whatever happened since."""

    async def move(session: sessiondb.Session, kind: str, number: int) -> sessiondb.Session:
        path = await session.entries(limit=1000)
        chosen = path[number * 7 % len(path)].entry_id if path else None
        match kind:
            case "user":
                await session.append(user(f"{number} " + "x" * 400))
            case "reply":
                await session.append(reply(f"{number} " + "y" * 400, tokens=number * 100))
            case "compact":
                try:
                    await compact(session, f"summary {number}")
                except NothingToCompact:
                    await session.append(reply("z" * 400))
            case "undo":
                try:
                    await session.undo_compaction()
                except NothingToUndo:
                    await session.append(user("z" * 400))
            case "reset":
                await session.reset()
            case "keep":
                await session.reset(keep_from=chosen)
            case "branch":
                await session.branch(chosen)
            case "root":
                await session.branch(None)
            case "fork":
                return await session.fork(session_id=f"fork-{number}")
        return session

    async def main() -> None:
        async with sessiondb.open(
            tmp_path_factory.mktemp("context") / "gateway.db", durability="normal"
        ) as db:
            session = await db.create_session("s")
            ends: dict[tuple[str, int], tuple[sessiondb.Session, bytes]] = {}
            for number, kind in enumerate(moves):
                before, epoch = await session.context(), (await session.info()).epoch
                moved = await move(session, kind, number)
                if moved.id != session.id or (await moved.info()).epoch > epoch:
                    ends[session.id, epoch] = (session, before.as_json())
                if moved.id != session.id:
                    assert (await moved.context()).as_json() == before.as_json(), (
                        "a fork begins with the context that it left"
                    )
                session = moved
            for (_, epoch), (owner, expected) in ends.items():
                assert (await owner.context(epoch=epoch)).as_json() == expected
                assert (await (await owner.fork(epoch=epoch)).context()).as_json() == expected
            assert (await db.verify()).findings == ()

    anyio.run(main)


@pytest.mark.anyio
async def test_an_epoch_that_never_was_is_named(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.reset()
        for epoch in (2, -1):
            with pytest.raises(NotFound, match="its current epoch is 1"):
                await session.context(epoch=epoch)
        assert [
            (info.epoch, info.reason, info.closed_at_ms is None) for info in await session.epochs()
        ] == [
            (0, "start", False),
            (1, "reset", True),
        ]


@pytest.mark.anyio
async def test_undo_restores_summarised_messages(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("a" * 3000), reply("b"), user("c"), reply("d")])
        await compact(session, "sum")
        await session.append(user("e"))
        compacted = texts(await session.context())
        assert compacted[0] == "<sum>"
        assert "e" in compacted
        assert await session.undo_compaction() == 2
        assert texts(await session.context()) == ["a" * 3000, "b", "c", "d", "e"]
        with pytest.raises(NothingToUndo):
            await session.undo_compaction()
        assert texts(await session.context(epoch=1)) == compacted


# -- resets ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_reset_keeps_conversation_and_answered_tools_only(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("old"), reply("call before", calls=["lost"])])
        kept = await session.append(user("kept"))
        await session.append_many(
            [
                result("lost", "its call is not kept"),
                reply("two calls", calls=["x", "y"]),
                result("x", "answered"),
                result("x", "answered twice"),
                {"role": "bashExecution", "command": "ls", "output": ""},
                {"type": "custom_message", "customType": "n", "content": "a note", "display": True},
                {**user("excluded by its author"), "excludeFromContext": True},
                {"type": "custom", "customType": "d", "data": {}},
            ]
        )
        await session.reset(keep_from=kept.entry_id)
        await session.append(user("new"))
        assert texts(await session.context(raw=True)) == [
            "kept",
            "two calls",
            "answered",
            "excluded by its author",
            "new",
        ]
        await session.reset()
        assert texts(await session.context()) == []
        with pytest.raises(NotFound):
            await session.reset(keep_from="nowhere")
        assert (await db.verify()).findings == ()


# -- what is sent, and what is not -----------------------------------------------------


@pytest.mark.anyio
async def test_an_excluded_message_is_not_sent_and_pi_still_sees_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many(
            [user("a"), {**user("secret"), "excludeFromContext": True}, user("b")]
        )
        context = await session.context()
        assert texts(context) == ["a", "b"]
        assert b"secret" not in context.as_json()
        assert [message["content"] for message in json.loads(context.as_pi_json())["messages"]] == [
            "a",
            "secret",
            "b",
        ]
        assert context.tokens == 2
        await session.reset("new")
        assert (await session.context(epoch=0)).tokens == 2, "as it was, counted anew"


@pytest.mark.anyio
async def test_a_kept_reply_loses_its_provider_checkpoint(tmp_db: Path) -> None:
    replay = {"providerReplay": {"type": "anthropic-compaction", "data": "x"}}
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append(user("a" * 4000))
        await session.append_many([reply("early", **replay), user("b"), reply("late", **replay)])
        assert (await session.context()).messages[1]["providerReplay"] == replay["providerReplay"]
        await compact(session, "sum")
        await session.append_many([user("c"), reply("new", **replay)])
        sent = (await session.context()).messages
        assert [
            ("providerReplay" in message) for message in sent if message["role"] == "assistant"
        ][-1]
        assert not any("providerReplay" in message for message in sent[:-1])
        entries = await session.entries(limit=100)
        assert sum("providerReplay" in entry.payload for entry in entries) == 3, (
            "the entries themselves are not touched"
        )


@pytest.mark.anyio
async def test_messages_are_made_of_summaries_and_custom_entries(tmp_db: Path) -> None:
    lines = [
        HEADER,
        line("a", None, user("a")),
        line(
            "c",
            "a",
            type="custom_message",
            customType="note",
            content="hello",
            display=True,
            details={"k": 1},
        ),
        line(
            "d",
            "c",
            type="custom_message",
            customType="bare",
            content=[{"type": "text", "text": "x"}],
        ),
        line("b", "d", type="branch_summary", summary="was there", fromId="z"),
        line("e", "b", type="branch_summary", summary="", fromId="z"),
        line("f", "e", type="custom", customType="state", data={"k": 1}),
        line("g", "f", type="label", targetId="a", label="here"),
    ]
    at = 1_767_225_600_000
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(db, "s", lines)
        assert notes == []
        assert (await session.context()).messages == [
            user("a"),
            {
                "role": "custom",
                "customType": "note",
                "content": "hello",
                "display": True,
                "details": {"k": 1},
                "timestamp": at,
            },
            {
                "role": "custom",
                "customType": "bare",
                "content": [{"type": "text", "text": "x"}],
                "timestamp": at,
            },
            {"role": "branchSummary", "summary": "was there", "fromId": "z", "timestamp": at},
        ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("b", ["<sum>", "b", "c", "d"]),
        ("a", ["<sum>", "a", "b", "c", "d"]),
        ("x", ["<sum>", "d"]),  # itself: keeps nothing
        ("nowhere", ["<sum>", "d"]),
        ("off", ["<sum>", "d"]),  # an entry of another branch
    ],
)
async def test_an_imported_compaction_keeps_only_its_own_path(
    tmp_db: Path, kept: str, expected: list[str]
) -> None:
    lines = [
        HEADER,
        line("a", None, user("a")),
        line("off", "a", user("off")),
        line("b", "a", user("b")),
        line("c", "b", reply("c")),
        line("x", "c", type="compaction", summary="sum", firstKeptEntryId=kept, tokensBefore=9),
        line("d", "x", user("d")),
    ]
    async with sessiondb.open(tmp_db) as db:
        session, _ = await load_lines(db, "s", lines)
        assert texts(await session.context()) == expected
        assert (await session.info()).compactions == 1
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_the_model_and_thinking_level_are_those_of_the_head(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        context = await session.context()
        assert (context.model, context.thinking_level, context.head_id) == (None, "off", None)
        first = await session.append({"type": "model_change", "provider": "p1", "modelId": "m1"})
        await session.append({"type": "thinking_level_change", "thinkingLevel": "high"})
        context = await session.context()
        assert (context.model, context.thinking_level) == (
            {"provider": "p1", "modelId": "m1"},
            "high",
        )
        last = await session.append(reply("x"))
        context = await session.context()
        assert (context.model, context.head_id) == (
            {"provider": "p", "modelId": "m"},
            last.entry_id,
        ), "a reply names its own model"
        await session.branch(first.entry_id)
        context = await session.context()
        assert (context.model, context.thinking_level) == (
            {"provider": "p1", "modelId": "m1"},
            "off",
        )


# -- tokens ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_tokens_rest_on_the_provider_until_the_context_moves(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")

        async def tokens() -> tuple[int, bool]:
            context = await session.context()
            return context.tokens, context.tokens_fresh

        first = await session.append(user("x" * 400))
        assert await tokens() == (100, False)
        await session.append(reply("y" * 40, tokens=5000))
        assert await tokens() == (5000, True)
        await session.append(user("z" * 40))
        assert await tokens() == (5010, True)
        await session.append(reply("y" * 40, tokens=9000, stopReason="aborted"))
        assert await tokens() == (5020, True)
        await session.branch(first.entry_id)
        assert await tokens() == (100, False)
        await session.reset()
        assert await tokens() == (0, False)


# -- forks -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_fork_goes_on_by_itself_and_copies_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        a, b = await session.append_many([user("a"), user("b")])
        at_entry = await session.fork(entry=a.entry_id, session_id="at-entry")
        await at_entry.append(user("c"))
        deeper = await at_entry.fork(session_id="deeper")
        await deeper.append(user("d"))
        back = await deeper.fork(entry=a.entry_id, session_id="back")
        await session.append(user("e"))
        assert texts(await session.context()) == ["a", "b", "e"]
        assert texts(await at_entry.context()) == ["a", "c"]
        assert texts(await deeper.context()) == ["a", "c", "d"]
        assert texts(await back.context()) == ["a"]
        assert [(await fork.info()).entries for fork in (at_entry, deeper, back)] == [1, 1, 0]
        assert (await deeper.info()).forked_from == "at-entry"
        await deeper.branch(a.entry_id)
        assert texts(await deeper.context()) == ["a"], "a fork can go back along its inherited path"
        with pytest.raises(NotFound):
            await deeper.branch(b.entry_id)
        with pytest.raises(NotFound):
            await at_entry.fork(entry=b.entry_id)
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_fork_inherits_a_compaction_and_can_compact_by_itself(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("a" * 4000), reply("b"), user("c" * 400), reply("d" * 400)])
        await compact(session, "first")
        fork = await session.fork()
        before = await session.context()
        assert (await fork.context()).as_json() == before.as_json()
        at_head = await session.fork(entry=before.head_id)
        assert (await at_head.context()).as_json() == before.as_json(), (
            "what the compaction kept is kept for a fork at an entry too"
        )
        with pytest.raises(NothingToUndo):
            await fork.undo_compaction()
        await fork.append_many([user("e" * 4000), reply("f")])
        await compact(fork, "second")
        sent = texts(await fork.context())
        assert sent[0] == "<second>"
        assert "<first>" not in sent
        assert (await session.context()).as_json() == before.as_json()
        await fork.undo_compaction()
        assert texts(await fork.context())[0] == "<first>"
        at_start = await session.fork(epoch=0)
        assert texts(await at_start.context())[0] == "a" * 4000
        assert (await db.verify()).findings == ()
