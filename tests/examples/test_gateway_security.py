"""The reference gateway against other sites' pages, and against HTML in texts.

The application is called in this process, over ASGI, exactly as a server calls it.
Nothing of it is replaced. What the page does with text is proved in a browser by
`examples/test_gateway_page.py`. Here, that it has no other way to show any.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)

import httpx

import sessiondb
from examples.gateway import web
from examples.gateway.channels import append_line, target_of
from examples.gateway.gateway import Gateway, Settings
from examples.gateway.model import ScriptedModel

PAGES = {path.name: path.read_text(encoding="utf-8") for path in web.PAGE.iterdir()}
PAGE = "\n".join(PAGES.values())
HERE = "http://localhost:8765"


@pytest.fixture
def anyio_backend() -> str:
    """The gateway is written for asyncio."""
    return "asyncio"


@asynccontextmanager
async def gateway(path: Path) -> AsyncIterator[Any]:
    """Yield the application of a gateway whose loops do not run: messages are taken, and wait."""
    async with sessiondb.open(path) as db:
        yield web.make_app(Gateway(db, ScriptedModel(0, 0, ""), Settings()), asyncio.Event())


def client(app: Any, base: str = HERE) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base)


async def open_socket(app: Any, path: str = "/ws/lobby", **headers: str) -> dict[str, Any]:
    """Ask for a WebSocket. Return the first thing that the application says to it."""
    message: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    heard = iter([{"type": "websocket.connect"}])
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "ws",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return next(heard, {"type": "websocket.disconnect", "code": 1001})

    await app(scope, receive, message.put)
    return message.get_nowait()


# -- other sites -----------------------------------------------------------------------

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "localhost.evil.example:8765",
    "",
    "[::2]:8765",
    "user@evil.example",
]


@pytest.mark.anyio
@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_another_sites_name_for_this_host_is_refused(tmp_path: Path, host: str) -> None:
    """To the browser, page and gateway are then one site (DNS rebinding).

    Origin and Host agree.
    """
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        headers = {"host": host, "origin": f"http://{host}"}
        for method, path in (
            ("GET", "/"),
            ("GET", "/conversations/lobby"),
            ("GET", "/status"),
            ("GET", "/held"),
            ("POST", "/messages"),
        ):
            assert (
                await http.request(
                    method, path, headers=headers, json={"text": "x"} if method == "POST" else None
                )
            ).status_code == 421
        assert (await open_socket(app, **headers))["type"] == "websocket.close"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765", "LOCALHOST:8765"]
)
async def test_our_own_names_are_answered(tmp_path: Path, host: str) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        assert (await http.get("/", headers={"host": host})).status_code == 200
        assert (
            await http.post(
                "/messages", headers={"host": host, "origin": f"http://{host}"}, json={"text": "x"}
            )
        ).status_code == 202
        assert (await open_socket(app, host=host))["type"] == "websocket.accept"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:1",
        "null",
        "https://localhost.evil.example:8765",
        "file://",
    ],
)
async def test_a_page_of_another_site_can_neither_write_nor_listen(
    tmp_path: Path, origin: str
) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        sent = await http.post("/messages", headers={"origin": origin}, content=b'{"text": "x"}')
        assert sent.status_code == 403
        assert (await open_socket(app, host="localhost:8765", origin=origin))[
            "type"
        ] == "websocket.close"
        assert (await http.get("/conversations/lobby")).json()["said"] == []


@pytest.mark.anyio
async def test_without_the_check_of_host_names_rebinding_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def let_pass(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    monkeypatch.setattr(web.OnlyOurHosts, "__call__", let_pass)
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        headers = {"host": "evil.example", "origin": "http://evil.example"}
        assert (
            await http.post("/messages", headers=headers, json={"text": "x"})
        ).status_code == 202


@pytest.mark.anyio
async def test_without_the_check_of_origins_another_page_gets_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "is_foreign", lambda connection: False)
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        headers = {"origin": "http://evil.example"}
        assert (
            await http.post("/messages", headers=headers, json={"text": "x"})
        ).status_code == 202
        assert (await open_socket(app, host="localhost:8765", **headers))[
            "type"
        ] == "websocket.accept"


# -- limits ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_endless_body_is_read_up_to_its_bound(tmp_path: Path) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 64 * 1024
            yield b"x" * 64 * 1024

    async with gateway(tmp_path / "g.db") as app:
        sent: list[dict[str, Any]] = []
        body = endless()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(body), "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/messages",
            "raw_path": b"/messages",
            "query_string": b"",
            "root_path": "",
        }
        await app({**scope, "headers": [(b"host", b"localhost")], "scheme": "http"}, receive, send)
    assert sent[0]["status"] == 400
    assert read <= web.BODY_BYTES_MAX + 128 * 1024


NO_MESSAGES = {
    "nothing": b"",
    "a list": b"[]",
    "torn": b"{",
    "deep": b"[" * 100_000,
    "a number": b'{"text": 1}',
    "half an emoji": b'{"text": "\\ud800"}',
    "too long": b'{"text": "' + b"x" * 100_001 + b'"}',
    "not UTF-8": b"\xff",
    "no agent": b'{"text": "x", "agent": "nobody"}',
}


@pytest.mark.anyio
@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_a_body_that_is_no_message_is_refused_and_not_a_failure(
    tmp_path: Path, body: bytes
) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        answer = await http.post("/messages", content=body)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})


@pytest.mark.anyio
async def test_the_longest_text_fits_however_it_is_escaped(tmp_path: Path) -> None:
    text = "\\ud83d\\ude42" * web.TEXT_CHARS_MAX
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        assert (
            await http.post("/messages", content=f'{{"text": "{text}"}}'.encode())
        ).status_code == 202


@pytest.mark.anyio
async def test_hostile_names_of_conversations_are_names_or_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        for name in (
            "'; drop table entry; --",
            "../../etc/passwd",
            "<script>alert(1)</script>",
            "%00",
            "x" * 2_000,
            "a:b:c",
            "é漢🙂",
        ):
            message = await http.post("/messages", json={"text": "x", "conversation": name})
            assert message.status_code in (202, 400)
            assert (
                await http.get(f"/conversations/{name.replace('/', '%2F').replace('%0', '%250')}")
            ).status_code in (200, 400, 404)


# -- odd requests ----------------------------------------------------------------------

ODD = {
    "no entry": "/conversations/lobby?limit=0",
    "fewer than none": "/conversations/lobby?limit=-1",
    "more than a page": "/conversations/lobby?limit=1001",
    "more digits than Python reads": "/conversations/lobby?limit=" + "9" * 5_000,
    "a digit that is no number": "/conversations/lobby?limit=%C2%B2",
    "empty": "/conversations/lobby?limit=",
    "an entry of nobody": "/conversations/lobby?before=7",
    "an entry of another conversation": "/conversations/lobby?before={other}",
    "beyond 64 bits": "/conversations/lobby?before=9223372036854775808",
    "no such agent": "/conversations/lobby?agent=nobody",
    "an agent with a colon": "/conversations/lobby?agent=a:b",
    "a control character": "/conversations/%00",
}


@pytest.mark.anyio
async def test_an_odd_request_is_answered_with_a_sentence(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        web_of = app.routes[1].endpoint.__self__
        for name in ("lobby", "other"):
            session = await web_of.db.session(f"agent:main:web:direct:{name}")
            entry = await session.append({"role": "user", "content": "x"})
        for what, path in ODD.items():
            answer = await http.get(path.format(other=entry.entry_no))
            assert answer.status_code == 400, (what, answer.text)
            assert len(answer.json()["error"].split()) > 3, what
        with_entry = f"/conversations/other?before={entry.entry_no}"
        assert (await http.get(with_entry)).json()["said"] == []


@pytest.mark.anyio
async def test_an_odd_header_is_answered_with_a_sentence(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        answer = await http.get("/status", headers={"host": "[::1"})
        assert (answer.status_code, "Host" in answer.json()["error"]) == (400, True)
        assert (await open_socket(app, host="[::1"))["type"] == "websocket.close"
        for origin in ("http://[::1", "http://", "localhost:8765", "[", "http://localhost:8765/"):
            sent = await http.post("/messages", headers={"origin": origin}, json={"text": "x"})
            assert (sent.status_code, set(sent.json())) == (403, {"error"}), origin
            headers = {"host": "localhost:8765", "origin": origin}
            assert (await open_socket(app, **headers))["type"] == "websocket.close", origin


@pytest.mark.anyio
async def test_a_client_that_hangs_up_is_no_failure(tmp_path: Path) -> None:
    said = iter([{"type": "http.request", "body": b'{"text', "more_body": True}])

    async def receive() -> dict[str, Any]:
        return next(said, {"type": "http.disconnect"})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/messages", "query_string": b""}
    headers = [(b"host", b"localhost")]
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        await app({**scope, "headers": headers}, receive, send)  # an error would be raised here
        assert sent[0]["status"] == 400
        assert (await http.get("/conversations/lobby")).json()["said"] == []


@pytest.mark.anyio
async def test_a_conversation_with_a_slash_in_its_name_is_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        receipts = {
            name: (await http.post("/messages", json={"text": "x", "conversation": name})).json()
            for name in ("a", "a/b", "a/b/", "b")
        }
        assert len({receipt["session_id"] for receipt in receipts.values()}) == 4
        for name, receipt in receipts.items():
            answer = await http.get(f"/conversations/{name.replace('/', '%2F')}")
            assert answer.json()["session_id"] == receipt["session_id"], name
            greeted = await open_socket(app, host="localhost", path=f"/ws/{name}")
            assert greeted["type"] == "websocket.accept"


def test_the_channels_log_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    append_line(tmp_path / "sent", {"text": "in confidence"})
    assert (tmp_path / "sent").stat().st_mode & 0o777 == 0o600


# -- HTML ------------------------------------------------------------------------------

MAKES_HTML = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser"
    r"|createContextualFragment|setHTML|srcdoc|eval\(|new Function"
    r"|javascript:|setAttribute\(\s*[\"'](?:on|href|src)|\.src\s*="
)


def test_the_pages_show_text_as_text_only() -> None:
    assert MAKES_HTML.findall(PAGE) == []
    assert PAGE.count("textContent") >= 5
    assert (
        re.findall(r"\son\w+\s*=\s*[\"']", PAGE) == []
    )  # no handlers in attributes: the policy would not run them
    assert sorted(re.findall(r"[.]href = (.*?);", PAGE)) == [
        "`/?${new URLSearchParams({agent: one.agent, conversation: one.conversation})}`",
        "url.href",  # of a link that somebody wrote: http or https only
    ]


def test_a_page_that_makes_html_of_text_would_be_found() -> None:
    spoiled = PAGE.replace("time.textContent =", "time.innerHTML =")
    assert MAKES_HTML.findall(spoiled) == ["innerHTML"]


def test_a_page_loads_nothing_from_elsewhere() -> None:
    loads = re.findall(r"(?:src|href)=\"([^\"]*)\"|fetch\([`\"']([^`\"']*)", PAGE)
    places = [place for either in loads for place in either if place]
    assert len(places) >= 8
    assert [place for place in places if not re.match(r"/(?!/)|data:,$", place)] == []
    assert re.findall(r"@import|url\(", PAGES["style.css"]) == []


@pytest.mark.anyio
async def test_the_policy_allows_only_this_servers_scripts(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        paths = {"/": "index.html", **{f"/{name}": name for name in PAGES}}
        answers = {path: await http.get(path) for path in [*paths, "/conversations/lobby", "/no"]}
    for path, answer in answers.items():
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'", path
        assert (policy["script-src"], policy["style-src"]) == ("'self'", "'self'"), path
        assert policy["frame-ancestors"] == "'none'", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
    for path, name in paths.items():
        assert answers[path].text == PAGES[name]
    assert "<script>" not in PAGE  # the policy would not run it
    # What people wrote is never of a type that a browser takes for a script.
    assert answers["/conversations/lobby"].headers["content-type"] == "application/json"


# -- the list, what waits, and the operator's view -------------------------------------


@pytest.mark.anyio
async def test_the_list_names_each_conversation_of_the_pages_users(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        assert (await http.get("/conversations")).json() == []
        for agent, channel, name in (
            ("main", "web", "a/b"),
            ("coder", "web", "a/b"),
            ("main", "discord", "elsewhere"),
            ("main", "web", "c:d"),
        ):
            message = {"text": "x", "agent": agent, "channel": channel, "conversation": name}
            assert (await http.post("/messages", json=message)).status_code == 202
        listed = (await http.get("/conversations")).json()
    assert sorted((one["agent"], one["conversation"]) for one in listed) == [
        ("coder", "a/b"),
        ("main", "a/b"),
        ("main", "c:d"),
    ]
    changed = [one["changed_at_ms"] for one in listed]
    assert changed == sorted(changed, reverse=True)


@pytest.mark.anyio
async def test_a_page_is_told_which_messages_are_not_done(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        for name in ("alice", "bob"):
            for text in ("first", "second"):
                await http.post("/messages", json={"text": f"{name} {text}", "conversation": name})
        waiting = (await http.get("/conversations/alice")).json()["open"]
        assert [(one["text"], one["state"]) for one in waiting] == [
            ("alice first", "queued"),
            ("alice second", "queued"),
        ]


@pytest.mark.anyio
async def test_the_operators_view_has_the_librarys_verdict(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        status = (await http.get("/status")).json()
    levels = [alarm["level"] for alarm in status["database"]["alarms"]]
    assert status["verdict"] == (levels[0] if levels else "green")


def test_a_key_of_another_program_is_the_address_of_nobody() -> None:
    assert target_of("agent:main:main") is None
    assert target_of("agent:main:telegram:direct:7:8") == "telegram:7:8"


@pytest.mark.anyio
async def test_help_explains_each_command_and_each_word_of_the_demo(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g.db") as app, client(app) as http:
        told = (await http.get("/conversations/lobby")).json()["help"]
        text = (await http.post("/messages", json={"text": "/help"})).json()["text"]
    assert {"/status", "/compact", "/new", "/stop", "/help", "!long", "!half"} <= set(told)
    assert text.splitlines() == [f"{word}  {does}" for word, does in told.items()]
