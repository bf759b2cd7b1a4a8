"""Session keys: OpenClaw's grammar, and where the case of an id is part of it."""

from __future__ import annotations

import pytest

from sessiondb import InvalidKey
from sessiondb.limits import SESSION_KEY_CHARS_MAX
from sessiondb.transcript.keys import looks_like_key, parse_key


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
        (" agent:main:main ", "agent:main:main", "main", "main"),
        # Channels report one address in different cases.
        ("Agent:MAIN:Discord:Channel:AbC", "agent:main:discord:channel:abc", "main", "channel"),
        ("agent:main:telegram:group:AbC", "agent:main:telegram:group:abc", "main", "group"),
        # Signal: the group id, one part, is base64.
        ("agent:main:Signal:GROUP:AbC=", "agent:main:signal:group:AbC=", "main", "group"),
        (
            "agent:main:signal:group:AbC=:Thread:X",
            "agent:main:signal:group:AbC=:thread:x",
            "main",
            "thread",
        ),
        ("agent:main:signal:direct:AbC", "agent:main:signal:direct:abc", "main", "direct"),
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
        ("agent:main:matrix:direct:@User:x", "agent:main:matrix:direct:@user:x", "main", "direct"),
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
