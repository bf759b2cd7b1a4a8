"""A batch that compacts every conversation that has grown large, some at a time.

    python -m examples.compact_all

Shown: a walk over all sessions that holds no snapshot, compactions beside one another and beside
a gateway's turns, refusals that are no failures, and a batch that may be run again at any time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio

import sessiondb
from sessiondb import CompactionRefused, CompactionTimeout, Session, SessionDB

TOKENS_MAX = 1_000
KEEP_TOKENS = 200
AT_ONCE = 2


async def summarise(messages: list[dict[str, Any]]) -> str:
    return f"They exchanged {len(messages)} messages."  # a model would be asked here


async def compact(session: Session) -> str:
    try:
        async with session.compact(
            trigger="threshold", keep_recent_tokens=KEEP_TOKENS, threshold_tokens=TOKENS_MAX
        ) as job:
            result = await job.commit(await summarise(job.messages))
    except CompactionRefused as refused:  # one runs, it cools down, or nothing is to be done
        return type(refused).__name__
    except CompactionTimeout:
        return "timeout"
    return result.outcome


async def compact_all(db: SessionDB) -> Counter[str]:
    """Compact what is large. Return how often each outcome came."""
    found: Counter[str] = Counter()
    room = anyio.Semaphore(AT_ONCE)

    async def work(session_id: str) -> None:
        async with room:
            found[await compact(await db.session_by_id(session_id))] += 1

    async with anyio.create_task_group() as group:
        async for info in db.sessions():
            if info.context_tokens > TOKENS_MAX:
                group.start_soon(work, info.session_id)
            else:
                found["small"] += 1
    return found


async def fill(db: SessionDB) -> None:
    for number in range(6):
        session = await db.session(f"agent:main:web:direct:{number}")
        for _ in range(number * 4):
            question = {"role": "user", "content": "How do bees find their way? " * 20}
            text = {"type": "text", "text": "By the sun, and by what they remember. " * 20}
            await session.append_many([question, {"role": "assistant", "content": [text]}])


async def main() -> None:
    async with sessiondb.temporary(program="compact-all") as db:
        await fill(db)
        before = [info.context_tokens async for info in db.sessions()]
        for _ in range(2):
            found = await compact_all(db)
            print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))
        after = [info.context_tokens async for info in db.sessions()]
        print("smaller" if sum(after) < sum(before) / 4 else "as large as before")
        print(max(after) <= TOKENS_MAX, (await db.verify()).ok)


if __name__ == "__main__":
    anyio.run(main)
