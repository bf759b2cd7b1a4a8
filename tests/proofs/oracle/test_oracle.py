"""The judge of imports is judged: what it makes, what it notices, and where it may look away.

Where node and the readers are (`readers.py` says how to get them), a few transcripts meet them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.transfer.test_reader_findings import FOUND

from . import transcripts
from .departures import DEPARTURES, Departure
from .judge import compare, import_all, judge
from .readers import Missing, Readers, decoded, find
from .transcripts import Transcript, generate

SEED = 20261130


@pytest.fixture(scope="module")
def readers() -> Readers:
    """Return the real readers, or skip with a message that says how to get them."""
    try:
        return find()
    except Missing as why:
        pytest.skip(str(why))


def test_a_seed_and_a_number_make_one_transcript() -> None:
    made = [generate(SEED, number) for number in range(40)]
    assert made == [generate(SEED, number) for number in range(40)]
    assert len({transcript.content for transcript in made}) == 40
    assert {transcript.by for transcript in made} == set(transcripts.READERS)


def test_what_happens_to_real_files_happens_to_these() -> None:
    moves = {move for number in range(60) for move in generate(SEED, number).moves}
    assert {"a branch", "a side append", "a header in the middle"} <= moves


def _lose(context: dict[str, Any]) -> None:
    del context["messages"][-1]


def _swap(context: dict[str, Any]) -> None:
    context["messages"].reverse()


def _change(context: dict[str, Any]) -> None:
    context["messages"][0]["timestamp"] += 1


def _null(context: dict[str, Any]) -> None:
    context["messages"][0]["details"] = None


def _model(context: dict[str, Any]) -> None:
    context["model"]["modelId"] += "-mini"


def _level(context: dict[str, Any]) -> None:
    del context["thinkingLevel"]


@pytest.mark.parametrize("spoil", [_lose, _swap, _change, _null, _model, _level])
def test_a_wrong_context_is_noticed(spoil: Callable[[dict[str, Any]], None]) -> None:
    right = {
        "messages": [{"role": "user", "timestamp": 1}, {"role": "assistant", "timestamp": 2}],
        "thinkingLevel": "off",
        "model": {"provider": "p", "modelId": "m"},
    }
    wrong = copy.deepcopy(right)
    spoil(wrong)
    transcript = generate(SEED, 0)
    assert compare(transcript, right, right) == []
    assert len(compare(transcript, right, wrong)) == len(compare(transcript, wrong, right)) == 1


def test_numbers_are_compared_as_javascript_holds_them() -> None:
    exact = [2**53, None, None, 1000, 0, 10**30]
    read = decoded("[9007199254740993, 1e999, -1e999, 1e3, -0.0, 1" + 30 * "0" + "]")
    assert read == [float(one) if one is not None else None for one in exact]


class _Canned(Readers):
    """A reader that answers as the import does, but for one message."""

    def read(self, files: Any) -> list[dict[str, Any]]:
        made = [Transcript(by, by, content, frozenset()) for by, content in files]
        contexts, _ = anyio.run(import_all, made)
        answers = list(contexts)
        del answers[1]["messages"][0]
        return answers


def test_each_transcript_meets_its_own_reader() -> None:
    made = [generate(SEED, number) for number in (1, 2, 3)]
    assert made[1].by != "sdk"
    canned = _Canned((), dict.fromkeys(("pi", "openclaw"), "canned"))
    [difference] = anyio.run(judge, made, canned)
    assert difference.transcript == made[1]


def test_real_readers_find_no_difference(readers: Readers) -> None:
    made = [generate(SEED, number) for number in range(60)]
    assert [str(one) for one in anyio.run(judge, made, readers)] == []


def test_each_finding_is_what_its_reader_reads(readers: Readers) -> None:
    programs = {"(pi's SDK)": "sdk", "(OpenClaw)": "openclaw"}
    found = [
        Transcript(
            name,
            next((by for end, by in programs.items() if name.endswith(end)), "pi"),
            content,
            frozenset(),
        )
        for name, (content, _) in FOUND.items()
    ]
    assert [str(one) for one in anyio.run(judge, found, readers)] == []


def test_each_departure_is_one(readers: Readers) -> None:
    known = [departure for departure in DEPARTURES if departure.by in readers.found]
    found = anyio.run(judge, [departure.transcript for departure in known], readers)
    differing = {difference.transcript.name for difference in found}
    agreed = [one.name for one in known if one.transcript.name not in differing]
    assert agreed == [], "these are no departures any more"


@pytest.mark.parametrize("departure", DEPARTURES, ids=lambda departure: departure.name)
def test_a_departure_has_a_reason(departure: Departure) -> None:
    assert departure.reason
