"""OpenClaw's settings as sessiondb's policies.

Each function takes the settings as OpenClaw's file holds them, decoded: the whole object or just its `session` part,
and reads only the keys named here. A value that cannot be meant is an error that names its key; a key that is
absent leaves the policy's default.

    session.reset.mode, atHour, idleMinutes       ResetPolicy.mode, at_hour, idle_minutes
    session.resetByType.<direct|group|thread>     ResetPolicy.by_type          (`dm` is an old word for direct)
    session.resetByChannel.<channel>              ResetPolicy.by_channel
    session.idleMinutes                           ResetPolicy(mode="idle")     (old; only without `session.reset`)
    session.threadBindings.maxAgeHours, idleHours ResumePolicy.max_age_hours, idle_hours; 0 means no limit, there as here

Two differences. A reset without a `mode` means what its other keys say: `atHour` daily, else `idleMinutes` idle. And
`mode: "idle"` needs its `idleMinutes`. What OpenClaw has no setting for (budget, resumes at once, breaker) keeps
sessiondb's defaults. Source of names and meaning: openclaw docs, concepts/session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InvalidInput
from .freshness import ResetPolicy
from .resume import ResumePolicy

P = TypeVar("P", bound=BaseModel)

_RESET_NAMES = {"mode": "mode", "atHour": "at_hour", "idleMinutes": "idle_minutes"}
_THREAD_NAMES = {"maxAgeHours": "max_age_hours", "idleHours": "idle_hours"}
_OPENCLAWS_NAMES = {mine: theirs for theirs, mine in (_RESET_NAMES | _THREAD_NAMES).items()}
_TYPES = {"direct": "direct", "dm": "direct", "group": "group", "thread": "thread"}


def reset_policy(settings: Mapping[str, Any], *, time_zone: str | None = None) -> ResetPolicy:
    """Make the reset policy from `session.reset`, `resetByType` and `resetByChannel`. Hours are of `time_zone`.

    Raises:
        InvalidInput: a setting that cannot be meant; the message names it.
    """
    session = _session_part(settings)
    own = session.get("reset")
    if own is None and session.get("idleMinutes") is not None:
        own = {"mode": "idle", "idleMinutes": session["idleMinutes"]}
    fields = _reset_fields(own or {}, "session.reset", time_zone)
    by_type = _parts(session, "resetByType", time_zone)
    unknown = sorted(by_type.keys() - _TYPES.keys())
    if unknown:
        raise InvalidInput(f"session.resetByType.{unknown[0]}: there is no such type of conversation; one of direct, group, thread")
    by_type = {_TYPES[name]: policy for name, policy in by_type.items()}
    by_channel = {name.lower(): policy for name, policy in _parts(session, "resetByChannel", time_zone).items()}
    return _checked(ResetPolicy, "session.reset", {**fields, "by_type": by_type, "by_channel": by_channel})


def resume_policy(settings: Mapping[str, Any]) -> ResumePolicy:
    """Make the resume policy from `session.threadBindings`; what OpenClaw does not set keeps its default.

    Raises:
        InvalidInput: a setting that cannot be meant; the message names it.
    """
    found = _object(_session_part(settings).get("threadBindings"), "session.threadBindings")
    fields = {mine: found[theirs] for theirs, mine in _THREAD_NAMES.items() if found.get(theirs) is not None}
    return _checked(ResumePolicy, "session.threadBindings", fields)


def _session_part(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    whole = _object(settings, "the settings")
    return _object(whole["session"], "session") if "session" in whole else whole


def _parts(session: Mapping[str, Any], name: str, time_zone: str | None) -> dict[str, ResetPolicy]:
    """Make the policies of an object that holds one for each of several names."""
    made: dict[str, ResetPolicy] = {}
    for part, value in _object(session.get(name), f"session.{name}").items():
        where = f"session.{name}.{part}"
        if value is not None:
            made[part] = _checked(ResetPolicy, where, _reset_fields(value, where, time_zone))
    return made


def _reset_fields(value: Any, where: str, time_zone: str | None) -> dict[str, Any]:
    """Translate one reset object; a key that is not known is an error, because a mistyped one would reset never or daily."""
    found = _object(value, where)
    unknown = sorted(found.keys() - _RESET_NAMES.keys())
    if unknown:
        raise InvalidInput(f"{where}.{unknown[0]}: there is no such setting; {', '.join(_RESET_NAMES)} are")
    fields = {mine: found[theirs] for theirs, mine in _RESET_NAMES.items() if found.get(theirs) is not None}
    if "mode" not in fields:
        fields["mode"] = "daily" if "at_hour" in fields else "idle" if "idle_minutes" in fields else "none"
    return {**fields, "time_zone": time_zone}


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} is an object, not {type(value).__name__}")
    return value


def _checked(policy: type[P], where: str, fields: Mapping[str, Any]) -> P:
    for mine, value in fields.items():
        if isinstance(value, bool):  # which pydantic would take for 0 or 1
            raise InvalidInput(f"{where}.{_OPENCLAWS_NAMES.get(mine, mine)}: a number is meant, not {str(value).lower()}")
    try:
        return policy(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = "".join(f".{_OPENCLAWS_NAMES.get(str(part), str(part))}" for part in first["loc"])
        raise InvalidInput(f"{where}{at}: {first['msg']}") from error
