"""A bot for Telegram, with long polling, against a server of its own that acts as Telegram.

    python -m examples.telegram_bot

Shown: an update is acknowledged (the next `offset`) once it is on disk. An address is kept that no
model sees (`details`), and what a group says among itself (`answer=False`). An edit, `/stop`, a
channel that says when to try again, and a stop in good order.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import anyio.to_thread

import sessiondb
from sessiondb import Answer, RefusedBySender, Reply, SessionDB, Turn

CHANNEL = "telegram:bot1"


# -- the bot --------------------------------------------------------------------------------


class Telegram:
    """The calls of the bot's interface that it needs."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def call(self, method: str, **fields: Any) -> Any:
        request = partial(self._request, method, fields)
        return await anyio.to_thread.run_sync(request, abandon_on_cancel=True)

    def _request(self, method: str, fields: dict[str, Any]) -> Any:
        body = json.dumps(fields).encode()
        with urllib.request.urlopen(f"{self._url}/{method}", body, timeout=30) as answer:
            return json.load(answer)["result"]


async def poll(telegram: Telegram, db: SessionDB) -> None:
    offset = 0
    while True:
        for update in await telegram.call("getUpdates", offset=offset):
            while True:
                try:
                    await take(update, db)
                    break
                except sessiondb.StoreBusy as busy:  # nothing was stored: once more
                    await anyio.sleep(busy.retry_after_ms / 1000)
                except (sessiondb.InvalidInput, sessiondb.SessionEnded) as never:
                    print(f"refused for good: {never}")
                    break
            offset = update["update_id"] + 1


async def take(update: dict[str, Any], db: SessionDB) -> None:
    """Put an update on disk. Whatever comes twice is one."""
    sent = update.get("message") or update["edited_message"]
    chat, text = sent["chat"]["id"], sent["text"]
    is_group = chat < 0
    key = f"agent:main:telegram:{'group' if is_group else 'direct'}:{chat}"
    event_id = f"{chat}:{sent['message_id']}"
    message = {"role": "user", "content": text}
    if text == "/stop":
        session = await db.session(key)
        print("stopped" if await session.abort("its user said stop") else "nothing ran")
    elif "edited_message" in update:
        await db.edit(key, message, channel=CHANNEL, event_id=event_id, version=sent["edit_date"])
    else:
        address = {"chat": chat, "answers": sent["message_id"]}
        await db.accept(
            key,
            message,
            channel=CHANNEL,
            event_id=event_id,
            details=address,
            answer=not is_group or "@bot" in text,
        )


async def answer(turn: Turn) -> Answer:
    context = await turn.session.context()
    text = f"{len(context.messages)}: {turn.text}"  # a model would be asked here
    return Answer(
        entries=[{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        replies=[("telegram", {"text": text})],
    )


async def send(telegram: Telegram, reply: Reply) -> str:
    try:
        sent = await telegram.call(
            "sendMessage",
            chat_id=reply.details["chat"],
            reply_to_message_id=reply.details["answers"],
            **reply.message,
        )
    except urllib.error.HTTPError as error:
        with error:
            said = json.load(error)
        after_s = said.get("parameters", {}).get("retry_after")
        raise RefusedBySender(
            said["description"], retry=error.code >= 429, retry_after_s=after_s
        ) from error
    return str(sent["message_id"])


async def main() -> None:
    with FakeTelegram() as fake:
        telegram = Telegram(fake.url)
        async with sessiondb.temporary(program="telegram-bot") as db:
            async with anyio.create_task_group() as group:
                group.start_soon(db.run_recovery)
                for lane in ("main", "resume"):
                    group.start_soon(db.run_lane, lane, answer)
                group.start_soon(db.run_outbox, partial(send, telegram))
                group.start_soon(poll, telegram, db)
                # A program of its own would wait for a signal here.
                await anyio.to_thread.run_sync(fake.answered.wait, abandon_on_cancel=True)
                left = await db.drain()
                group.cancel_scope.cancel()
            print(*sorted(fake.said), f"interrupted: {len(left.held)}", sep="\n")


# -- the server that acts as Telegram -------------------------------------------------------


def said_in(chat: int, message_id: int, text: str) -> dict[str, Any]:
    return {"message_id": message_id, "chat": {"id": chat}, "text": text}


UPDATES: list[dict[str, Any]] = [
    {"update_id": 1, "message": said_in(7, 1, "/stop")},
    {"update_id": 2, "message": said_in(7, 2, "hello")},
    {"update_id": 3, "message": said_in(8, 2, "good day")},
    {"update_id": 4, "message": said_in(7, 2, "hello")},  # Telegram delivers it once more
    {"update_id": 5, "edited_message": {**said_in(8, 2, "good evening"), "edit_date": 1_700}},
    {"update_id": 6, "message": said_in(-5, 1, "Is it red?")},  # a group's, and not for the bot
    {"update_id": 7, "message": said_in(-5, 2, "@bot what do you think?")},
    {"update_id": 8, "message": said_in(9, 1, "bye")},
]


class FakeTelegram(ThreadingHTTPServer):
    """Gives its updates until they are acknowledged, and refuses the first answer for a moment."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeCalls)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.refused = False
        self.said: list[str] = []
        self.answered = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def send_message(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if not self.refused:
                self.refused = True
                wait = {"description": "Too Many Requests", "parameters": {"retry_after": 0.2}}
                return 429, wait
            self.said.append(f"to {fields['chat_id']}: {fields['text']}")
            # The edit may come before its message's turn, or after: two answers then.
            texts = " ".join(self.said)
            if all(text in texts for text in ("hello", "good evening", "@bot", "bye")):
                self.answered.set()
            return 200, {"result": {"message_id": 1_000 + len(self.said)}}


class FakeCalls(BaseHTTPRequestHandler):
    server: FakeTelegram

    def do_POST(self) -> None:  # the name that http.server calls
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/sendMessage":
            status, answer = self.server.send_message(fields)
        else:
            new = [update for update in UPDATES if update["update_id"] >= fields["offset"]]
            if not new:
                self.server.answered.wait(0.2)  # a long poll, which is short here
            status, answer = 200, {"result": new[:2]}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


if __name__ == "__main__":
    anyio.run(main)
