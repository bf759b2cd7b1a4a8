"""The gateway of nanobot on sessiondb: `nanobot gateway`, with another store of its sessions.

    python -m examples.adapters.nanobot_gateway FOLDER

Chats come in by nanobot's own WebSocket channel, at the socket FOLDER/gateway.sock. The sessions
are in FOLDER/gateway.db. The model is scripted: it says how many questions it was shown.

nanobot's command makes its `SessionManager` itself, and takes no store. So its name is replaced
here before the gateway starts. That is all that is changed.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from pathlib import Path
from typing import Any

import nanobot.providers.factory as providers
import nanobot.session.manager as sessions
from loguru import logger
from nanobot.cli.gateway_runtime import _run_gateway
from nanobot.config.loader import load_config, set_config_path
from nanobot.providers.base import LLMProvider, LLMResponse

import sessiondb.sync
from sessiondb.adapters.nanobot import SessionDBStore

MODEL = "scripted"


class ScriptedModel(LLMProvider):
    """A model that counts the questions of a conversation."""

    async def chat(self, messages: list[dict[str, Any]], *args: Any, **kwargs: Any) -> LLMResponse:
        """Answer. Nothing ends a turn of the question "hang" but a kill."""
        if str(messages[-1]["content"]).endswith("hang"):
            logger.info("the model hangs")
            await asyncio.Event().wait()
        count = sum(message["role"] == "user" for message in messages)
        return LLMResponse(f"I was asked {count} questions.")

    def get_default_model(self) -> str:
        """Return its name."""
        return MODEL


def main(folder: Path) -> None:
    """Run the gateway until it is stopped."""
    channel = {
        "enabled": True,
        "unix_socket_path": str(folder / "gateway.sock"),
        "websocket_requires_token": False,
    }
    written = {
        "agents": {"defaults": {"workspace": str(folder / "workspace")}},
        "channels": {"websocket": channel},
    }
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    set_config_path(folder / "config.json")
    config = load_config()
    model = providers.ProviderSnapshot(ScriptedModel(provider_name=MODEL), MODEL, 100_000, (MODEL,))
    with sessiondb.sync.open(folder / "gateway.db", program="nanobot") as db:
        store = SessionDBStore(db)
        sessions.SessionManager = functools.partial(sessions.SessionManager, store=store)
        for name in ("build_provider_snapshot", "load_provider_snapshot"):
            setattr(providers, name, lambda *_, **__: model)
        _run_gateway(config, health_server_enabled=False, webui_static_dist=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
