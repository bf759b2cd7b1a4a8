"""The reference gateway shows how to use sessiondb, in one small process with a web chat.

    python -m examples.gateway DATABASE        or        make gateway

    gateway.py   accept, lanes, outbox, events, compaction, start-up: read this first
    web.py       HTTP and WebSocket. A message is acknowledged after `db.accept` returned
    model.py     a scripted model that needs no network, or any OpenAI-compatible endpoint
    channels.py  open pages, and channels that are simulated
    load.py      simulated channels, with a ledger of what was acknowledged to them

It uses sessiondb's public API only. Nothing in its memory is needed after a crash.
"""
