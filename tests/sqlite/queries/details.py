"""Cases of queries/details.sql."""

from __future__ import annotations

from sessiondb.transcript import details
from tests.support.statement_cases import Change, Page, Read, run
from tests.support.world_build import NOW

A, NEW = details.Name("app", "a"), details.Name("app 2", "b")
DOCUMENT = {"changed_at_ms": NOW, "document": '{"a":1}'}

CHANGES = [
    Change(
        "details.set",
        "in the place of others",
        lambda w, tx: details.put(tx, w.no("session twin"), '{"a":1}', 1),
        {
            "session_details twin": {
                "revision": 2,
                "changed_at_ms": NOW,
                "document": '{"a":1}',
            }
        },
    ),
    Change(
        "details.set",
        "where there were none",
        lambda w, tx: details.put(tx, w.no("session twin-undone"), '{"a":1}', 0),
        {
            "+session_details twin-undone": {
                "revision": 1,
                "changed_at_ms": NOW,
                "document": '{"a":1}',
            }
        },
    ),
    Change(
        "details.forget",
        "those of one session",
        run("details.forget", session_no="session twin"),
        {"-session_details twin": {}},
    ),
    Change(
        "details.set_named",
        "in the place of others",
        lambda w, tx: details.put_named(tx, A, '{"a":1}', 1),
        {"named_details app/a": {"revision": 2, **DOCUMENT}},
    ),
    Change(
        "details.set_named",
        "where there were none",
        lambda w, tx: details.put_named(tx, NEW, '{"a":1}', 0),
        {"+named_details app 2/b": {**NEW._asdict(), "revision": 1, **DOCUMENT}},
    ),
    Change(
        "details.forget_named",
        "those of one name",
        lambda w, tx: details.forget_named(tx, A, 1),
        {"-named_details app/a": {}},
    ),
    Change(
        "details.forget_named",
        "of a name without",
        lambda w, tx: details.forget_named(tx, NEW, None),
        {},
    ),
    Change(
        "details.forget_namespace",
        "all of one namespace",
        run("details.forget_namespace", namespace="app", limit=9),
        {f"-named_details app/{name}": {} for name in "abc"},
    ),
    Change(
        "details.forget_namespace",
        "no more than a step",
        run("details.forget_namespace", namespace="app", limit=1),
        {"-named_details app/a": {}},
    ),
]
READS = [
    Read(
        "details.named",
        "one of several",
        {"namespace": "app", "name": "b"},
        [{"revision": 1, "document": '{"of":"app/b"}'}],
    ),
    Read("details.named", "of another namespace", {"namespace": "app 2", "name": "b"}, []),
    Read(
        "details.of_session",
        "one of several",
        lambda w: {"session_no": w.no("session twin")},
        [{"revision": 1, "document": '{"of":"twin"}'}],
    ),
    Read(
        "details.of_session",
        "a session without",
        lambda w: {"session_no": w.no("session twin-undone")},
        [],
    ),
]
PAGES = [
    Page(
        "details.in_namespace",
        {"namespace": "app", "after_name": ""},
        lambda row: {"after_name": row.name},
        "name",
        ["a", "b", "c"],
    ),
]
