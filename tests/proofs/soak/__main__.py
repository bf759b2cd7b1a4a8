"""Run a soak: `python -m tests.proofs.soak`, or `make soak`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path

from .finish import finish
from .judge import (
    judge_alive,
    judge_lag,
    judge_processes,
    judge_space,
    judge_transactions,
    judge_troubles,
    judge_wal,
)
from .load import Soak
from .plan import BREAKABLE, Plan
from .processes import GatewayFailed
from .report import record, table


async def run(plan: Plan) -> Soak:
    """Run a soak to its end, and judge it."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(plan)
    try:
        await soak.load()
        await finish(soak)
    except GatewayFailed as failed:
        soak.fail("gateway", str(failed))
    except Exception as failed:  # noqa: BLE001  # it is told, with its end
        # Nothing is worth more than what was seen until then: it is reported, and the
        # run counts as broken.
        soak.fail("harness", "".join(traceback.format_exception(failed))[-1_000:])
    finally:
        for member in (soak.elder, soak.mortal):
            if member.pid is not None and member.is_ready:
                await member.kill()
    judge(soak)
    return soak


def judge(soak: Soak) -> None:
    """Add the bounds that are judged from the series."""
    began_s, ended_s = soak.load_began_s, soak.load_ended_s
    for broken in (
        *judge_wal(soak.plan, soak.series, soak.readers),
        *judge_processes(soak.plan, soak.series, began_s, ended_s),
        *judge_space(soak.plan, soak.series, began_s, ended_s),
        *judge_lag(soak.plan, soak.lags.get("load", {}), soak.lags.get("control", {}), ended_s),
        *judge_alive(soak.counted["processes found dead"], soak.ended_unsigned(), ended_s),
        *judge_troubles(soak.plan, soak.met, ended_s),
        *judge_transactions(soak.plan, soak.held, soak.lags.get("control", {}), ended_s),
    ):
        soak.broken.append(broken)


def main(arguments: list[str]) -> int:
    """Run, print the table, write the series. 1 if a bound was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES", "20"))
    )
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SOAK_SEED", "20261120")))
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="where its files go; a new temporary one by default",
    )
    parser.add_argument(
        "--series",
        type=Path,
        default=None,
        help="where the JSON goes; soak.json in the folder by default",
    )
    parser.add_argument(
        "--break",
        dest="broken",
        action="append",
        default=[],
        choices=BREAKABLE,
        help="break the gateways on purpose",
    )
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    plan = Plan(folder, seconds=options.minutes * 60, seed=options.seed, people=options.people)
    soak = asyncio.run(run(replace(plan, broken=tuple(options.broken))))
    written = options.series or folder / "soak.json"
    written.write_text(json.dumps(record(soak), default=str), "utf-8")
    print(table(soak) + f"series: {written}")
    return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
