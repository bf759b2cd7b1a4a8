"""The OpenAPI document and the reference page say what the table has, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from sessiondb.limits import APPEND_BYTES_MAX
from sessiondb.server import state
from sessiondb.server.failures import REFUSALS, STATUS
from sessiondb.server.openapi import document
from sessiondb.server.routes import TABLE
from sessiondb.server.table import Route, Router
from tests import ROOT
from tests.support.command_line import ok

PAGE = (ROOT / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
DOCUMENT = document(TABLE)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", TABLE, ids=name_of)
def test_each_route_is_found_by_its_path_and_described(route: Route) -> None:
    filled = re.sub(r"\{\w+\}", "x%2Fy", route.path)
    found, path = Router(TABLE).find(route.method, filled.encode())
    assert found is route
    assert path == dict.fromkeys(route.parameters, "x/y")
    described = DOCUMENT["paths"][route.path][route.method.lower()]
    assert described["summary"] == route.does != ""
    parameters = {(each["in"], each["name"]) for each in described["parameters"]}
    query = route.query.model_fields if route.query is not None else {}
    assert parameters == {("path", each) for each in route.parameters} | {
        ("query", each) for each in query
    }
    assert ("requestBody" in described) == (route.body is not None)
    codes = {int(each) for each in described["responses"]}
    assert codes >= {route.status, *route.also, *(STATUS[each] for each in route.errors)}
    assert codes <= {route.status, *route.also, *STATUS.values()} | {
        status for status, _ in REFUSALS.values()
    }
    assert f"| `{name_of(route)}` | {route.does} |" in PAGE


def test_the_document_has_no_other_route() -> None:
    described = {
        f"{method.upper()} {path}" for path, of in DOCUMENT["paths"].items() for method in of
    }
    assert described == {name_of(route) for route in TABLE}
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]+)` \|", PAGE, re.MULTILINE)) == described
    names = [of["operationId"] for paths in DOCUMENT["paths"].values() for of in paths.values()]
    assert len(set(names)) == len(names)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_schema_that_is_referred_to_is_there() -> None:
    wanted = {each.removeprefix("#/components/schemas/") for each in references(DOCUMENT)}
    assert wanted <= set(DOCUMENT["components"]["schemas"])
    assert "Error" in wanted


def test_the_page_has_each_error_with_its_status() -> None:
    rows = dict(re.findall(r"^\| (\d{3}) \| (.*) \|$", PAGE, re.MULTILINE))
    told = {(int(status), name) for status, of in rows.items() for name in re.findall(r"\w+", of)}
    known = {(status, each.__name__) for each, status in STATUS.items()}
    known |= {(status, kind) for kind, (status, _) in REFUSALS.items()}
    assert told == known - {(500, "SessionDBError")}


def test_the_page_has_the_limits_as_they_are() -> None:
    assert state.BODY_BYTES_MAX == APPEND_BYTES_MAX + state.MIB
    for limit in (
        f"| connections | {state.CONNECTIONS_MAX} |",
        f"| {state.HEAD_BYTES_MAX // 1024} KiB, {state.HEAD_S_MAX:g} s |",
        f"| {state.BODY_BYTES_MAX // state.MIB} MiB, {state.BODY_S_MAX:g} s |",
        f"| {state.BODIES_BYTES_MAX // state.MIB} MiB |",
        f"| {state.STALLED_S_MAX:g} s |",
        f"| {state.WAIT_S_MAX:g} s |",
    ):
        assert limit in PAGE, limit


def test_the_server_and_the_command_have_the_document(client: httpx.Client) -> None:
    assert client.get("/v1/openapi.json").raise_for_status().json() == DOCUMENT
    assert json.loads(ok("serve", "any.db", "--openapi")) == DOCUMENT


def test_a_number_of_a_path_is_one_in_the_document() -> None:
    found = {
        each["name"]: each["schema"]["type"]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for each in operation["parameters"]
        if each["in"] == "path"
    }
    assert {name for name, kind in found.items() if kind == "integer"} == {
        "inbox_no",
        "outbox_no",
        "turn_no",
    }
    assert found["session"] == found["lane"] == "string"
