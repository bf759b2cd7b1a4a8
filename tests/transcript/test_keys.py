"""Session keys: OpenClaw's grammar, and where the case of an id is part of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sessiondb import InvalidKey
from sessiondb.limits import SESSION_KEY_CHARS_MAX
from sessiondb.transcript.keys import looks_like_key, may_name, parse_key

CASELESS = ["discord", "telegram", "whatsapp", "slack", "irc", "nostr", "imessage", "line"]
KEEPING = ["web", "matrix", "msteams", "googlechat", "feishu", "mine"]
WORDS = {"agent", "thread", "topic", "sender", "run", "heartbeat", "main", "global", "unknown"}
KINDS = {"direct", "dm", "group", "channel", "room"}

letters = st.text(alphabet="aAbBcC019_=+/@!$.-ß", min_size=1, max_size=12)
ids = st.lists(letters, min_size=1, max_size=3).map(":".join)
kinds = st.sampled_from(["direct", "group", "channel", "room"])
threads = st.one_of(st.just(""), letters.map(":thread:{}".format))


def spelled(text: str, flags: list[bool]) -> str:
    """Return a text with some of its letters in the other case."""
    return (
        "".join(
            char.swapcase() if flip and char.isascii() else char
            for char, flip in zip(text, flags, strict=False)
        )
        + text[len(flags) :]
    )


flips = st.lists(st.booleans(), max_size=60)


@pytest.mark.parametrize(
    ("text", "canonical", "agent_id", "kind"),
    [
        ("agent:main:main", "agent:main:main", "main", "main"),
        ("agent:main:discord:channel:1", "agent:main:discord:channel:1", "main", "channel"),
        ("agent:main:telegram:direct:42", "agent:main:telegram:direct:42", "main", "direct"),
        ("agent:main:feishu:group:oc_1", "agent:main:feishu:group:oc_1", "main", "group"),
        (
            "agent:main:slack:channel:c1:thread:17",
            "agent:main:slack:channel:c1:thread:17",
            "main",
            "thread",
        ),
        ("agent:main:main:thread:17", "agent:main:main:thread:17", "main", "thread"),
        ("agent:ops:cron:nightly", "agent:ops:cron:nightly", "ops", "cron"),
        ("agent:ops:subagent:7f", "agent:ops:subagent:7f", "ops", "subagent"),
        ("agent:ops:hook:x", "agent:ops:hook:x", "ops", "hook"),
        ("agent:ops:acp:x", "agent:ops:acp:x", "ops", "acp"),
        ("agent:main:whatever", "agent:main:whatever", "main", "other"),
        ("agent:main:Whatever", "agent:main:Whatever", "main", "other"),
        ("Agent:Main:MAIN:Thread:aB", "agent:main:main:thread:aB", "main", "thread"),
        ("agent:main:main:Heartbeat", "agent:main:main:heartbeat", "main", "main"),
        ("agent:ops:Cron:Nightly:Run:aB", "agent:ops:cron:Nightly:run:aB", "ops", "cron"),
        ("agent:main:Direct:aB", "agent:main:direct:aB", "main", "other"),
        # An id keeps its case, and so does an account's name.
        ("agent:main:WEB:Direct:V1StGXR8", "agent:main:web:direct:V1StGXR8", "main", "direct"),
        ("agent:main:web:Acme:DM:aB", "agent:main:web:Acme:dm:aB", "main", "other"),
        ("agent:main:web:Acme:Group:aB", "agent:main:web:Acme:group:aB", "main", "group"),
        (
            "agent:main:GoogleChat:group:spaces/aB",
            "agent:main:googlechat:group:spaces/aB",
            "main",
            "group",
        ),
        (
            "agent:main:msteams:channel:19:aB@Thread.tacv2:Thread:1",
            "agent:main:msteams:channel:19:aB@Thread.tacv2:thread:1",
            "main",
            "thread",
        ),
        # An id is no word of the grammar.
        ("agent:main:web:direct:Thread", "agent:main:web:direct:Thread", "main", "direct"),
        ("agent:main:web:direct:thread", "agent:main:web:direct:thread", "main", "direct"),
        (" agent:main:main ", "agent:main:main", "main", "main"),
        # These channels report one address in different cases.
        ("Agent:MAIN:Discord:Channel:AbC", "agent:main:discord:channel:abc", "main", "channel"),
        ("agent:main:telegram:group:AbC", "agent:main:telegram:group:abc", "main", "group"),
        # Signal: the group id, one part, is base64.
        ("agent:main:Signal:GROUP:AbC=", "agent:main:signal:group:AbC=", "main", "group"),
        (
            "agent:main:signal:group:AbC=:Thread:X",
            "agent:main:signal:group:AbC=:thread:X",
            "main",
            "thread",
        ),
        ("agent:main:signal:One:Group:AbC=", "agent:main:signal:One:group:AbC=", "main", "group"),
        ("agent:main:signal:direct:AbC", "agent:main:signal:direct:abc", "main", "direct"),
        ("agent:main:signal:One:Direct:AbC", "agent:main:signal:one:direct:abc", "main", "direct"),
        (
            "agent:main:Slack:Channel:C1:Thread:aB",
            "agent:main:slack:channel:c1:thread:ab",
            "main",
            "thread",
        ),
        # Matrix: everything behind the room, which has a colon of its own.
        (
            "agent:main:Matrix:Channel:!Room:Example.org",
            "agent:main:matrix:channel:!Room:Example.org",
            "main",
            "channel",
        ),
        (
            "agent:main:matrix:group:!Room:x:THREAD:$Ev",
            "agent:main:matrix:group:!Room:x:thread:$Ev",
            "main",
            "thread",
        ),
        ("agent:main:matrix:direct:@User:x", "agent:main:matrix:direct:@User:x", "main", "direct"),
    ],
)
def test_a_key_has_one_canonical_form(text: str, canonical: str, agent_id: str, kind: str) -> None:
    key = parse_key(text)
    assert (key.text, key.agent_id, key.kind) == (canonical, agent_id, kind)
    assert parse_key(key.text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "main",
        "agent",
        "agent:",
        "agent::",
        "agent:main",
        "agent:main:",
        "agent::main",
        "agents:main:main",
        "discord:channel:1",
        "a b c",
        "agent:main:ma\nin",
        "agent:main:\0",
        "agent:main:" + "x" * SESSION_KEY_CHARS_MAX,
        "agent:main:irc:direct:" + "İ" * (SESSION_KEY_CHARS_MAX - 30),  # longer in lower case
    ],
)
def test_a_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        parse_key(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("main", "agent:lab:main"),
        ("GLOBAL", "agent:lab:global"),
        ("unknown", "agent:lab:unknown"),
        ("discord:channel:AbC", "agent:lab:discord:channel:abc"),
        ("signal:group:AbC=", "agent:lab:signal:group:AbC="),
        ("cron:nightly", "agent:lab:cron:nightly"),
        ("subagent:x", "agent:lab:subagent:x"),
        ("agent:other:main", "agent:other:main"),
    ],
)
def test_an_old_stores_key_belongs_to_its_folders_agent(text: str, canonical: str) -> None:
    assert parse_key(text, agent_id="Lab").text == canonical


@pytest.mark.parametrize("text", ["", "hello", "cron:", "discord:room:1", "agent:lab:"])
def test_an_old_store_does_not_make_any_text_a_key(text: str) -> None:
    with pytest.raises(InvalidKey):
        parse_key(text, agent_id="lab")


def test_an_id_is_told_from_a_key_by_the_colon() -> None:
    assert looks_like_key("agent:main:main")
    assert not looks_like_key("7e458253-f1c9-4046-b0d2-9cb651209c7c")


# -- properties ------------------------------------------------------------------------------------


@given(text=st.one_of(st.text(max_size=30).map("agent:a:{}".format), ids.map("agent:a:{}".format)))
def test_a_canonical_key_is_its_own_canonical_form(text: str) -> None:
    try:
        key = parse_key(text)
    except InvalidKey:
        assume(False)
    assert parse_key(key.text) == key
    assert parse_key(key.lowered).lowered == key.lowered


@given(
    channel=st.sampled_from(KEEPING), kind=kinds, peer=ids, thread=threads, other=flips, words=flips
)
def test_two_ids_that_differ_in_case_are_two_conversations(
    channel: str, kind: str, peer: str, thread: str, other: list[bool], words: list[bool]
) -> None:
    assume(not WORDS & set(peer.lower().split(":")))
    head = f"agent:main:{channel}:{kind}:"
    key = parse_key(head + peer + thread)
    second = parse_key(spelled(head, words) + spelled(peer + thread, other))
    assert (second.text == key.text) == (second.ids == key.ids)
    if spelled(peer, other) != peer:
        assert second.text != key.text
    assert second.lowered == key.lowered, "they are one for who lower-cases all"


@given(channel=st.sampled_from(CASELESS), kind=kinds, peer=ids, thread=threads, other=flips)
def test_a_caseless_channel_has_one_conversation_for_all_spellings(
    channel: str, kind: str, peer: str, thread: str, other: list[bool]
) -> None:
    text = f"agent:main:{channel}:{kind}:{peer}{thread}"
    assert parse_key(spelled(text, other)) == parse_key(text)


@given(peer=ids, thread=threads, words=flips)
def test_words_fold_and_what_is_kept_stands_in_the_key(
    peer: str, thread: str, words: list[bool]
) -> None:
    assume(not WORDS & set(peer.lower().split(":")))
    key = parse_key(spelled("agent:main:web:direct:", words) + peer + thread)
    assert key.ids == (peer, *([thread.removeprefix(":thread:")] if thread else []))
    assert key.text == "agent:main:web:direct:" + peer + thread


# -- what has lost its case ------------------------------------------------------------------------

ROOM = "agent:main:matrix:channel:!AbC:x.org"


@pytest.mark.parametrize(
    ("row", "may"),
    [
        ({}, True),
        ({"sessionId": "!abc:x.org", "label": "!ABC:x.org"}, True),  # these are no addresses
        ({"deliveryContext": {"to": "room:!AbC:x.org"}}, True),
        ({"deliveryContext": {"to": "room:!abC:x.org"}}, False),
        ({"lastTo": "!abc:x.org"}, False),
        ({"lastTo": "!abc:x.org", "origin": {"to": "room:!AbC:x.org"}}, True),
        ({"origin": {"nativeChannelId": "!ABC:x.org"}}, False),
        ({"origin": {"from": "@someone:x.org"}}, True),
        ({"to": "agent:main:other"}, True),
        ({"to": 5, "lastTo": None, "origin": ["!ABC:x.org"]}, True),
        ({"a": {"b": {"to": "!ABC:x.org"}}}, False),
        ({"a": {"b": {"c": {"to": "!ABC:x.org"}}}}, True),  # not looked for so deep
        ([], True),
    ],
)
def test_the_address_of_a_row_tells_whose_key_it_is(row: Any, may: bool) -> None:
    assert may_name(json.dumps(row), parse_key(ROOM)) is may


def test_a_threads_id_is_compared_as_well() -> None:
    key = parse_key(ROOM + ":thread:$Ev")
    row = {"lastTo": "!AbC:x.org", "lastThreadId": "$Ev"}
    assert may_name(json.dumps(row), key)
    assert not may_name(json.dumps(row | {"lastThreadId": "$ev"}), key)
