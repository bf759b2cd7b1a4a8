"""The reference gateway: how a gateway should use sessiondb, in one small process with
a web chat.

    python -m examples.gateway DATABASE        or        make gateway

    gateway.py   accept, lanes, outbox, events, compaction, start-up: what there is to learn
    web.py       HTTP and WebSocket; acknowledges a message after `db.accept` returned, and not before
    model.py     a scripted model that needs no network, or any OpenAI-compatible endpoint
    channels.py  open pages, and channels that are simulated
    load.py      simulated channels, with a ledger of what was acknowledged to them

It uses sessiondb's public API only, and keeps nothing in memory that a crash may not
take.
"""
