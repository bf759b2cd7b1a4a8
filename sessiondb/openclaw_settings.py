"""Read OpenClaw's settings as sessiondb's policies.

Each function takes the decoded settings of OpenClaw's file, either the whole object or its
`session` part, and reads only the keys listed here. An impossible value is an error that
names its key. An absent key leaves the policy's default.

    session.reset.mode, atHour, idleMinutes       ResetPolicy.mode, at_hour, idle_minutes
    session.resetByType.<direct|group|thread>     ResetPolicy.by_type  (`dm`: old for direct)
    session.resetByChannel.<channel>              ResetPolicy.by_channel
    session.idleMinutes                           ResetPolicy(mode="idle")  (old)
    session.threadBindings.maxAgeHours            ResumePolicy.max_age_hours
    session.threadBindings.idleHours              ResumePolicy.idle_hours
    session.maintenance.mode                      RetentionPolicy.enforce
    session.maintenance.pruneAfter                RetentionPolicy.max_age_days, prune_days
    session.maintenance.maxEntries                RetentionPolicy.max_sessions
    session.maintenance.preserveRecent            RetentionPolicy.idle_days
    session.maintenance.resetArchiveRetention     RetentionPolicy.archive_days
    session.maintenance.maxDiskBytes              RetentionPolicy.max_bytes
    session.maintenance.highWaterBytes            RetentionPolicy.high_water

The old `session.idleMinutes` counts only without `session.reset`. 0 hours of a thread mean
no limit, in both. Maintenance in mode "warn" decides and reports only.

There are two differences. A reset without a `mode` follows its other keys: `atHour` means
daily, otherwise `idleMinutes` means idle. And `mode: "idle"` needs its `idleMinutes`. What
OpenClaw has no setting for (budget, resumes at once, breaker) keeps sessiondb's default.
`archiveDashboardAfter` and `rotateBytes` have no counterpart. Source of names and meaning:
openclaw docs, concepts/session and `session.maintenance`.

The command line writes durations and sizes in the same way, and they are parsed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InvalidInput
from .gateway.recovery import ResumePolicy
from .maintenance.retention_plan import DAY_MS, RetentionPolicy
from .transcript.reset_policy import ResetPolicy

P = TypeVar("P", bound=BaseModel)

_RESET_NAMES = {"mode": "mode", "atHour": "at_hour", "idleMinutes": "idle_minutes"}
_THREAD_NAMES = {"maxAgeHours": "max_age_hours", "idleHours": "idle_hours"}
_OPENCLAW_NAMES = {mine: theirs for theirs, mine in (_RESET_NAMES | _THREAD_NAMES).items()}
_TYPES = {"direct": "direct", "dm": "direct", "group": "group", "thread": "thread"}
_MAINTENANCE = "session.maintenance"
_MAINTENANCE_NAMES = frozenset(
    {
        "mode",
        "pruneAfter",
        "maxEntries",
        "maxDiskBytes",
        "highWaterBytes",
        "resetArchiveRetention",
        "preserveRecent",
        "archiveDashboardAfter",
        "rotateBytes",
    }
)
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
_DURATIONS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_SIZES = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}


def reset_policy(settings: Mapping[str, Any], *, time_zone: str | None = None) -> ResetPolicy:
    """Make the reset policy from `session.reset`, `resetByType` and `resetByChannel`.

    Hours are of `time_zone`, by default the machine's.

    Raises:
        InvalidInput: a value is impossible. The message names its key.
    """
    session = _session_part(settings)
    own = session.get("reset")
    if own is None and session.get("idleMinutes") is not None:
        own = {"mode": "idle", "idleMinutes": session["idleMinutes"]}
    fields = _reset_fields(own or {}, "session.reset", time_zone)
    by_type = _parts(session, "resetByType", time_zone)
    unknown = sorted(by_type.keys() - _TYPES.keys())
    if unknown:
        raise InvalidInput(
            f"session.resetByType.{unknown[0]}: there is no such type of conversation. "
            "Use direct, group or thread"
        )
    by_type = {_TYPES[name]: policy for name, policy in by_type.items()}
    by_channel = {
        name.lower(): policy
        for name, policy in _parts(session, "resetByChannel", time_zone).items()
    }
    return _checked(
        ResetPolicy, "session.reset", {**fields, "by_type": by_type, "by_channel": by_channel}
    )


def resume_policy(settings: Mapping[str, Any]) -> ResumePolicy:
    """Make the resume policy from `session.threadBindings`. The rest keeps its default.

    Raises:
        InvalidInput: a value is impossible. The message names its key.
    """
    found = _object(_session_part(settings).get("threadBindings"), "session.threadBindings")
    fields = {
        mine: found[theirs]
        for theirs, mine in _THREAD_NAMES.items()
        if found.get(theirs) is not None
    }
    return _checked(ResumePolicy, "session.threadBindings", fields)


def retention_policy(settings: Mapping[str, Any]) -> RetentionPolicy:
    """Make the retention policy from `session.maintenance`. A limit that is false or 0 is off.

    Raises:
        InvalidInput: a value is impossible. The message names its key.
    """
    found = _object(_session_part(settings).get("maintenance"), _MAINTENANCE)
    unknown = sorted(found.keys() - _MAINTENANCE_NAMES)
    if unknown:
        raise InvalidInput(
            f"{_MAINTENANCE}.{unknown[0]}: there is no such setting. Known settings: "
            f"{', '.join(sorted(_MAINTENANCE_NAMES))}"
        )
    if found.get("mode", "enforce") not in ("enforce", "warn"):
        raise InvalidInput(f'{_MAINTENANCE}.mode is "enforce" or "warn", not {found["mode"]!r}')
    fields: dict[str, Any] = {
        "enforce": found.get("mode", "enforce") == "enforce",
        "max_age_days": _days(found, "pruneAfter"),
        "prune_days": _days(found, "pruneAfter"),
        "archive_days": _days(found, "resetArchiveRetention"),
        "max_sessions": _limit(found, "maxEntries"),
        "max_bytes": _bytes(found, "maxDiskBytes"),
    }
    if "preserveRecent" in found:
        fields["idle_days"] = _days(found, "preserveRecent") or 0.0
    if found.get("highWaterBytes") is not None and fields["max_bytes"] is not None:
        fields["high_water"] = _high_water(found["highWaterBytes"], fields["max_bytes"])
    try:
        return RetentionPolicy(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{_MAINTENANCE}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        ) from error


def parse_days(text: str, name: str = "duration") -> float:
    """Parse a duration such as 30d, 12h or 90m, into days. A bare number is days.

    Raises:
        InvalidInput: the text is not a number with a known unit.
    """
    return _amount(text, name, {**_DURATIONS, "": DAY_MS}, "ms, s, m, h, d, w", "30d") / DAY_MS


def parse_bytes(text: str, name: str = "size") -> int:
    """Parse a size such as 10gb or 500mb, into bytes. A bare number is bytes, and 1 kb is 1024.

    Raises:
        InvalidInput: the text is not a number with a known unit.
    """
    return int(_amount(text, name, {**_SIZES, "": 1}, "b, kb, mb, gb, tb", "10gb"))


def _session_part(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    whole = _object(settings, "the settings")
    return _object(whole["session"], "session") if "session" in whole else whole


def _parts(session: Mapping[str, Any], name: str, time_zone: str | None) -> dict[str, ResetPolicy]:
    """Make a policy for each name in an object of reset settings."""
    policies: dict[str, ResetPolicy] = {}
    for part, value in _object(session.get(name), f"session.{name}").items():
        where = f"session.{name}.{part}"
        if value is not None:
            policies[part] = _checked(ResetPolicy, where, _reset_fields(value, where, time_zone))
    return policies


def _reset_fields(value: Any, where: str, time_zone: str | None) -> dict[str, Any]:
    """Translate one reset object.

    An unknown key is an error, because a mistyped one would reset never, or daily.
    """
    found = _object(value, where)
    unknown = sorted(found.keys() - _RESET_NAMES.keys())
    if unknown:
        raise InvalidInput(
            f"{where}.{unknown[0]}: there is no such setting. Known settings: "
            f"{', '.join(_RESET_NAMES)}"
        )
    fields = {
        mine: found[theirs]
        for theirs, mine in _RESET_NAMES.items()
        if found.get(theirs) is not None
    }
    if "mode" not in fields:
        fields["mode"] = (
            "daily" if "at_hour" in fields else "idle" if "idle_minutes" in fields else "none"
        )
    return {**fields, "time_zone": time_zone}


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} is an object, not {type(value).__name__}")
    return value


def _checked(policy: type[P], where: str, fields: Mapping[str, Any]) -> P:
    for mine, value in fields.items():
        if isinstance(value, bool):  # pydantic would read it as 0 or 1
            raise InvalidInput(
                f"{where}.{_OPENCLAW_NAMES.get(mine, mine)}: must be a number, "
                f"not {str(value).lower()}"
            )
    try:
        return policy(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = "".join(f".{_OPENCLAW_NAMES.get(str(part), str(part))}" for part in first["loc"])
        raise InvalidInput(f"{where}{at}: {first['msg']}") from error


# -- durations and sizes ---------------------------------------------------------------


def _amount(text: str, name: str, units: Mapping[str, int], known: str, such_as: str) -> float:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"{name}: {text!r} is not a number with a unit ({known}), such as {such_as!r}"
        )
    unit = match[2].lower()
    if unit not in units:
        raise InvalidInput(
            f"{name}: the unit {match[2]!r} of {text!r} is unknown. Known units: {known}"
        )
    return float(match[1]) * units[unit]


def _off(value: Any) -> bool:
    return value is None or value is False or value == 0


def _days(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if _off(value):
        return None
    return parse_days(_as_text(value, f"{_MAINTENANCE}.{key}"), f"{_MAINTENANCE}.{key}") or None


def _bytes(found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if _off(value):
        return None
    return parse_bytes(_as_text(value, f"{_MAINTENANCE}.{key}"), f"{_MAINTENANCE}.{key}") or None


def _limit(found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if _off(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{_MAINTENANCE}.{key} is a number of sessions, not {value!r}")
    return value


def _high_water(value: Any, max_bytes: int) -> float:
    name = f"{_MAINTENANCE}.highWaterBytes"
    text = _as_text(value, name)
    share = (
        float(text.strip()[:-1]) / 100
        if re.fullmatch(r"\s*\d+(\.\d+)?%\s*", text)
        else parse_bytes(text, name) / max_bytes
    )
    if not 0 < share <= 1:
        raise InvalidInput(
            f"{name}: {value!r} is not between 0 and maxDiskBytes ({max_bytes:,} bytes)"
        )
    return share


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{name} is a text such as '30d' or '10gb', or a number, not {value!r}")
    return str(value)
