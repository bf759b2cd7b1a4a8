"""Start the gateway, print the URL, serve until SIGTERM or Ctrl-C.

A gateway that stops drains first: it claims no more, finishes and sends what it began.
What still runs after `--drain` seconds, or at a second signal, is interrupted, so that the
next start (or another process) takes it over at once. The turns of a killed one are found by
the next start. Nothing here depends on the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import uvicorn

import sessiondb
from sessiondb import LaneSettings, ResumePolicy
from sessiondb.openclaw_settings import reset_policy, resume_policy, retention_policy

from .gateway import Gateway, Settings
from .model import ChatEndpoint, Model, ScriptedModel
from .web import CONNECTIONS_MAX, LOOPBACK, SOCKET_MESSAGE_BYTES_MAX, make_app

log = logging.getLogger("gateway")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line.

    Every option may also come from the environment: --model-delay from
    GATEWAY_MODEL_DELAY.
    """
    parser = argparse.ArgumentParser(
        prog="python -m examples.gateway", description="A web chat that runs on sessiondb."
    )

    def option(name: str, kind: type, default: object, text: str) -> None:
        known = os.environ.get("GATEWAY_" + name.upper().replace("-", "_"), default)
        parser.add_argument(
            f"--{name}", type=kind, default=known, help=f"{text} (default: %(default)s)"
        )

    parser.add_argument(
        "database", metavar="DB", help="the database. It is made when there is none"
    )
    option("host", str, "127.0.0.1", "where to listen")
    option("port", int, 8765, "0: any that is free")
    option(
        "allow-host",
        str,
        "",
        (
            "names that it may be called by besides localhost, with commas: of a proxy, or of "
            "this machine"
        ),
    )
    option(
        "endpoint",
        str,
        None,
        "base URL of an OpenAI-compatible endpoint; its key comes from GATEWAY_API_KEY",
    )
    option("model", str, "scripted", "the endpoint's model")
    option("model-delay", float, 0.8, "seconds that the scripted model takes to answer")
    option("summary-delay", float, 4.0, "seconds that the scripted model takes to summarise")
    option(
        "summary-script",
        str,
        "",
        "what the scripted summariser does each time: !fail, !hang, !empty, !slow 9",
    )
    option("threshold", int, 4_000, "compact a context of more tokens than this")
    option("keep", int, 1_000, "tokens that a compaction keeps as they are")
    option("compaction-timeout", float, 60.0, "seconds that a compaction's block may take")
    option("late", float, 600.0, "seconds after that in which a summary is still committed")
    option("summaries", int, 2, "summarisers at work at once")
    option(
        "compaction-pause",
        float,
        60.0,
        "seconds after a compaction that failed in which no other one begins by itself",
    )
    option(
        "openclaw",
        Path,
        None,
        "OpenClaw's settings (JSON): its session.reset*, maintenance and threadBindings hold",
    )
    option(
        "gc-every",
        float,
        3_600.0,
        "seconds between two runs of retention, if the settings have a session.maintenance",
    )
    option("turn-timeout", float, 120.0, "seconds after which a turn is cut off")
    option("lease", float, 30.0, "seconds after which a silent turn is taken over")
    option("delayed-after", float, 5.0, "seconds after which a waiting user is told so")
    option("attempts", int, 5, "how often a message is tried whose turn fails")
    option("care-every", float, 2.0, "seconds between looks for what other processes left behind")
    option("resume-timeout", float, 60.0, "seconds after which a resumed turn is cut off")
    option("resumes", int, 1, "resumes at once")
    option("resume-budget", int, 20, "resumes per start")
    option(
        "resume-age",
        float,
        24.0,
        "hours after which an interrupted message is not resumed; 0: never",
    )
    option(
        "resume-idle",
        float,
        0.0,
        "hours of idleness after which a session is not resumed; 0: never",
    )
    option("breaker", int, 3, "this many unclean ends within five minutes stop all resuming")
    option("channel-log", Path, None, "where the simulated channels note what they were sent")
    option("drain", float, 30.0, "seconds that a stop waits for turns and replies under way")
    option("send-delay", float, 0.0, "seconds that a simulated channel takes")
    return parser.parse_args(arguments)


def openclaw_settings(file: Path | None) -> dict[str, Any]:
    """Read OpenClaw's settings: the `session` part, whether the file is that or the whole."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
        session: dict[str, Any] = found.get("session", found)
    except (ValueError, AttributeError) as error:
        raise sessiondb.InvalidInput(f"{file} is not an object in JSON: {error}") from error
    return session


def settings_from(options: argparse.Namespace) -> Settings:
    """Put the command line, and OpenClaw's settings, into the gateway's words."""
    openclaw = openclaw_settings(options.openclaw)
    return Settings(
        threshold_tokens=options.threshold,
        keep_tokens=options.keep,
        compaction_timeout_s=options.compaction_timeout,
        late_s=options.late,
        summaries_max=options.summaries,
        lane=LaneSettings(
            lease_s=options.lease,
            timeout_s=options.turn_timeout,
            delayed_after_s=options.delayed_after,
            attempts_max=options.attempts,
        ),
        resume=ResumePolicy(
            max_concurrent_resumes=options.resumes,
            budget_per_start=options.resume_budget,
            max_age_hours=options.resume_age,
            idle_hours=options.resume_idle,
            deadline_s=options.resume_timeout,
            breaker_unclean_starts=options.breaker,
        ).model_copy(update=resume_policy(openclaw).model_dump(exclude_unset=True)),
        compaction_pause_s=options.compaction_pause,
        reset=reset_policy(openclaw) if openclaw else None,
        retention=retention_policy(openclaw) if "maintenance" in openclaw else None,
        gc_every_s=options.gc_every,
        care_every_s=options.care_every,
        channel_log=options.channel_log,
        send_delay_s=options.send_delay,
    )


def model_from(options: argparse.Namespace) -> Model:
    """Return the model that the command line asks for."""
    if options.endpoint:
        return ChatEndpoint.at(options.endpoint, options.model)
    return ScriptedModel(options.model_delay, options.summary_delay, options.summary_script)


async def serve(options: argparse.Namespace) -> None:
    """Run until a signal.

    If a loop of the gateway fails, so does the process: a supervisor starts it again.
    """
    model, settings = model_from(options), settings_from(options)
    listener = socket.create_server((options.host, options.port))
    async with sessiondb.open(options.database, program="gateway") as db:
        try:
            async with anyio.create_task_group() as tasks:
                gateway, closing = Gateway(db, model, settings), asyncio.Event()
                await gateway.start(tasks)
                hosts = LOOPBACK | {
                    name.strip().lower()
                    for name in (options.host, *options.allow_host.split(","))
                    if name.strip()
                }
                server = Server(
                    uvicorn.Config(
                        make_app(gateway, closing, hosts),
                        log_level="warning",
                        lifespan="off",
                        timeout_graceful_shutdown=3,
                        limit_concurrency=CONNECTIONS_MAX,
                        ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
                    )
                )
                drain = anyio.CancelScope()
                stop_on_signal(server, closing, drain)
                host, port = listener.getsockname()[:2]
                print(
                    (
                        f"gateway: http://{host}:{port}/  (model {model.name}, database "
                        f"{options.database}; Ctrl-C stops it)"
                    ),
                    flush=True,
                )
                await server.serve(sockets=[listener])
                with drain:
                    left = await db.drain(timeout_s=options.drain)
                    for held in left.held:
                        log.warning("interrupted: %s %s, %s", held.what, held.name, held.operation)
                tasks.cancel_scope.cancel()
        finally:
            await model.close()
    if not server.should_exit:
        # A task group takes a cancellation that nobody asked for as the end of its work.
        raise sessiondb.StrayCancellation(
            "the gateway ended because one of its tasks was cancelled, and nobody asked for "
            "that. Start it again"
        )
    if unsigned := db.unsigned():
        print("gateway: stopped, and could not sign off:", *unsigned, sep="\n  ", flush=True)
    else:
        print("gateway: stopped in good order", flush=True)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers.

    They would end the process before the database is closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def stop_on_signal(server: Server, closing: asyncio.Event, drain: anyio.CancelScope) -> None:
    """Accept no more messages, close the pages, and let `serve` return.

    The rest of the stop follows it. A second signal ends the drain.
    """

    def stop() -> None:
        if closing.is_set():
            drain.cancel()
        closing.set()
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def main(arguments: list[str]) -> int:
    """Run the gateway. Return its exit code."""
    options = parse(arguments)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(options))
    except (sessiondb.SessionDBError, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
