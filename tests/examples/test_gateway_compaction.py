"""Compaction of the reference gateway: beside its turns, late, lost, and left alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)


import sessiondb
import sessiondb.sync
from examples.gateway.model import ScriptedModel, assistant
from tests.support.reference_gateway import LONG, GatewayProcess, Start, fill, until


def test_a_large_context_is_compacted_while_turns_run(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02, summary_delay=0.5, threshold=60, keep=10)
    with gateway.page() as page:
        fill(gateway)
        page.next("compacting", trigger="threshold")
        assert gateway.ask("meanwhile").startswith("You said: meanwhile")
        compacted = page.next("compacted")
    assert (compacted["outcome"], compacted["late"]) == ("committed", False)
    kinds = [notice["type"] for notice in page.notices]
    assert "reply" in kinds[kinds.index("compacting") : kinds.index("compacted")]
    assert "with a summary of earlier ones" in gateway.ask("do you remember?")


def test_compact_and_status_are_answered_while_a_turn_runs(
    gateway: GatewayProcess,
) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.say("!hang")
        page.next("thinking")
        assert "message from web" in gateway.command("/status")
        assert gateway.command("/compact the lock").startswith("Earlier messages are being")
        assert page.next("compacted", trigger="manual")["outcome"] == "committed"
    assert re.search(r"Summarised so far: 1 ", gateway.command("/status"))
    assert "/compact" in gateway.command("/help")


def lose_a_summary(gateway: GatewayProcess, script: str, outcome: str) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command(f"/compact {script}")
        page.next("compacting")
        assert gateway.ask("meanwhile").startswith("You said: meanwhile")
        assert page.next("compacted")["outcome"] == outcome
        gateway.command("/compact")
        page.next("compacted", outcome="committed")


@pytest.mark.parametrize(
    ("script", "outcome"), [("!fail", "failed"), ("!empty", "rejected")], ids=["raises", "empty"]
)
def test_a_summary_that_goes_wrong_costs_nothing_but_itself(
    gateway: GatewayProcess, script: str, outcome: str
) -> None:
    lose_a_summary(gateway, script, outcome)


def test_a_summary_that_hangs_costs_nothing_but_itself(gateway_process: Start) -> None:
    options = {"compaction_timeout": 1, "late": 1}
    gateway = gateway_process(model_delay=0.02, summary_delay=0.02, **options)
    lose_a_summary(gateway, "!hang", "expired")


def test_a_summary_that_outlasts_its_block_is_committed_late(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, compaction_timeout=0.2)
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command("/compact !slow 0.6")
        assert page.next("compacted")["outcome"] == "expired"
        gateway.ask("said in between")
        late = page.next("compacted")
    assert (late["trigger"], late["outcome"], late["late"]) == ("late", "committed", True)
    assert "with a summary of earlier ones" in gateway.ask("do you remember?")


def test_stop_cancels_a_compaction(gateway: GatewayProcess) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command("/compact !hang")
        page.next("compacting")
        gateway.wait_for(lambda: [held["what"] for held in gateway.held()] == ["compaction"])
        assert gateway.command("/stop") == "Stopped."
        assert page.next("compacted")["outcome"] == "cancelled"
    gateway.wait_for(lambda: gateway.held() == [])


@pytest.mark.parametrize("word", ["/new", "/reset"])
def test_new_waits_for_earlier_messages_and_starts_empty(
    gateway: GatewayProcess, word: str
) -> None:
    before = gateway.say("before")["event_id"]
    gateway.say(word)
    after = gateway.ask("after")
    assert "shown 1 message." in after
    assert gateway.answer_to(before)
    assert [item["what"] for item in gateway.said()] == [
        "user",
        "assistant",
        "user",
        "reset",
        "user",
        "assistant",
    ]


class Summariser(ScriptedModel):
    """Takes its time, and counts how many of it are at work."""

    working = most = begun = 0

    async def summarise(self, messages: list[dict[str, Any]], focus: str) -> str:
        self.working, self.begun = self.working + 1, self.begun + 1
        self.most = max(self.most, self.working)
        try:
            return await super().summarise(messages, focus)
        finally:
            self.working -= 1


async def gateway_with_conversations(
    db: sessiondb.SessionDB, model: ScriptedModel, tasks: Any, **settings: Any
) -> tuple[Any, list[Any]]:
    """Start a gateway in this process beside three conversations that are worth compacting."""
    from examples.gateway.gateway import Gateway, Settings

    gateway = Gateway(db, model, Settings(keep_tokens=10, **settings))
    await gateway.start(tasks)
    sessions = [
        await db.session(f"agent:main:web:direct:{name}") for name in ("alice", "bob", "carol")
    ]
    for session in sessions:
        for number in range(4):
            await session.append({"role": "user", "content": f"{LONG} {number}"})
            await session.append(assistant(f"{LONG} {number}"))
    return gateway, sessions


def test_an_abandoned_summariser_counts_against_the_limit(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        model = Summariser(0.0, 0.2)
        async with (
            sessiondb.open(tmp_path / "gateway.db") as db,
            anyio.create_task_group() as tasks,
        ):
            gateway, sessions = await gateway_with_conversations(
                db, model, tasks, compaction_timeout_s=0.02, summaries_max=1
            )
            assert all(gateway.compact_soon(session, "manual") for session in sessions)
            await until(lambda: model.begun == 3 and not model.working)
            assert model.most == 1, (
                "the limit holds, though each block was left long before its summary came"
            )
            tasks.cancel_scope.cancel()

    anyio.run(run)


def test_a_summariser_that_fails_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        model = Summariser(0.0, 0.0, summary_script="!fail")
        async with (
            sessiondb.open(tmp_path / "gateway.db") as db,
            anyio.create_task_group() as tasks,
        ):
            gateway, (alice, bob, _) = await gateway_with_conversations(
                db, model, tasks, compaction_pause_s=3_600.0
            )
            assert gateway.compact_soon(alice, "threshold")
            await until(lambda: not gateway.compacting)
            assert not gateway.compact_soon(alice, "threshold"), "not on every message"
            assert gateway.compact_soon(bob, "threshold"), "another conversation is another matter"
            await until(lambda: not gateway.compacting)
            assert gateway.compact_soon(alice, "manual"), "a person may try"
            await until(lambda: not gateway.compacting)
            assert model.begun == 3
            gateway.settings = replace(gateway.settings, compaction_pause_s=0.0)
            assert gateway.compact_soon(bob, "manual")
            await until(lambda: not gateway.compacting)
            assert gateway.compact_soon(bob, "threshold"), "when the pause is over"
            tasks.cancel_scope.cancel()

    anyio.run(run)
