"""Cases of queries/session_ids.sql."""

from __future__ import annotations

from tests.support.statement_cases import Read

READS = [
    *(
        Read(
            "session_ids.by_prefix",
            prefix,
            {"prefix": prefix, "prefix_end": f"{prefix}\U0010ffff", "tail": tail, "limit": 2},
            [{"session_id": name} for name in names],
        )
        for prefix, tail, names in (
            ("live", "", ["live", "live-ended"]),
            ("live-u", "", ["live-undone"]),
            ("live-z", "", []),
            ("live", "undone", ["live-undone"]),
            ("live-un", "undone", []),
        )
    ),
    *(
        Read(
            "session_ids.id_neighbours",
            session_id,
            {"session_id": session_id},
            [{"previous": previous, "following": following}],
        )
        for session_id, previous, following in (
            ("live", "leaf", "live-ended"),
            ("0", None, "aborted-old"),
            ("zz", "writing-too", None),
        )
    ),
    Read(
        "session_ids.by_prefix",
        "not what the end itself names",
        {"prefix": "live", "prefix_end": "live-ended", "tail": "", "limit": 2},
        [{"session_id": "live"}],
    ),
]
