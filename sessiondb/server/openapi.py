"""The table of routes as an OpenAPI 3.1 document.

Schemas of answers are made of the library's records, and those of requests of `bodies.py`, so
neither can differ from what is sent.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from sessiondb import errors

from .failures import REFUSALS, STATUS
from .table import Route

_REF = "#/components/schemas/{model}"
_ERROR = {"$ref": "#/components/schemas/Error"}
_EVERY: Sequence[type[errors.SessionDBError]] = (
    errors.InvalidInput,
    errors.StoreBusy,
    errors.NotExecuted,
    errors.StoreClosed,
    errors.StoreFull,
    errors.StoreFailed,
    errors.StoreDamaged,
    errors.OutcomeUnknown,
)
"""What any route may meet."""


def document(table: Sequence[Route]) -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {"Error": _error_schema()}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sessiondb",
            "version": importlib.metadata.version("sessiondb"),
            "description": "Durable conversation storage for agent gateways. What is answered "
            "with 2xx is on disk.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.does,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        _, defined = models_json_schema([(route.body, "validation")], ref_template=_REF)
        schemas.update(defined.get("$defs", {}))
        found["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model=route.body.__name__)}}
            },
        }
    return found


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in route.parameters
    ]


def _path_schema(name: str) -> dict[str, Any]:
    if name.endswith("_no"):
        return {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    return {"type": "string", "minLength": 1}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = _schema_of_model(route.query)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": _without_null(described),
        }
        for name, described in schema["properties"].items()
    ]


def _schema_of_model(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=_REF)


def _without_null(described: dict[str, Any]) -> dict[str, Any]:
    """Leave null out: a parameter that is not given is not there at all."""
    kinds = [each for each in described.get("anyOf", ()) if each.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else described


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.does}
    if route.answer is not None:
        schema = TypeAdapter(route.answer).json_schema(mode="serialization", ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        answer["content"] = {route.media: {"schema": schema}}
    found = {str(route.status): answer}
    for status, means in route.also.items():
        found[str(status)] = {"description": means}
    for status, names in sorted(errors_of(route).items()):
        found[str(status)] = {
            "description": "; ".join(names),
            "content": {"application/json": {"schema": _ERROR}},
        }
    return found


def errors_of(route: Route) -> dict[int, list[str]]:
    """Return the types of errors of a route, by status."""
    found: dict[int, list[str]] = {}
    for error in dict.fromkeys((*route.errors, *_EVERY)):
        found.setdefault(STATUS[error], []).append(error.__name__)
    for kind, (status, _) in REFUSALS.items():
        has_none = kind in ("BodyTooSlow", "BodyTooLarge") and route.body is None
        if kind not in ("NoSuchRoute", "MethodNotAllowed") and not has_none:
            found.setdefault(status, []).append(kind)
    return found


def _error_schema() -> dict[str, Any]:
    kinds = sorted({*(each.__name__ for each in STATUS), *REFUSALS})
    return {
        "type": "object",
        "required": ["type", "message", "retry_after_ms", "outcome", "data"],
        "properties": {
            "type": {"type": "string", "enum": kinds},
            "message": {"type": "string"},
            "retry_after_ms": {"type": ["integer", "null"]},
            "outcome": {"enum": ["not_executed", "committed", "unknown", None]},
            "data": {"type": "object"},
        },
    }
