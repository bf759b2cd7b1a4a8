"""Write clients/node/records.d.ts: what `sessiondb serve` takes and answers, as types.

They come from the OpenAPI document, so they cannot differ from it. The methods of the client are
written by hand. `make node-types` writes the file, and a test compares it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sessiondb.server.openapi import document
from sessiondb.server.routes import TABLE

TARGET = Path(__file__).parent.parent / "clients" / "node" / "records.d.ts"
HEAD = """\
// Written by tools/node_types.py from the OpenAPI document. Do not edit.
"""
PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


def type_of(schema: dict[str, Any]) -> str:
    """Return a JSON schema as a type."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        inner = type_of(schema.get("items", {}))
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"Record<string, {type_of(values) if isinstance(values, dict) else 'unknown'}>"
    return "null" if kind == "null" else PLAIN.get(str(kind), "unknown")


def interface(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an interface, with its description."""
    if text := " ".join(schema.get("description", "").split("\n\n")[0].split()):
        yield f"/** {text} */"
    yield f"export interface {name} {{"
    for field, value in schema["properties"].items():
        must = "" if field in schema.get("required", ()) else "?"
        yield f"  {field}{must}: {type_of(value)};"
    yield "}\n"


def query(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a query as a schema."""
    found = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return {
        "properties": {one["name"]: one["schema"] for one in found},
        "required": [one["name"] for one in found if one["required"]],
    }


def title(operation_id: str) -> str:
    """Return the name of an operation's query."""
    return "".join(map(str.capitalize, operation_id.split("_"))) + "Query"


def records() -> str:
    """Return the file."""
    found = document(TABLE)
    interfaces = dict(found["components"]["schemas"])
    for methods in found["paths"].values():
        for operation in methods.values():
            if (asked := query(operation))["properties"]:
                interfaces[title(operation["operationId"])] = asked
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    schema = content["schema"]
                    if status.startswith("2") and "title" in schema and "properties" in schema:
                        interfaces[schema["title"]] = schema
    return HEAD + "".join(
        "\n" + "\n".join(interface(name, schema)) for name, schema in sorted(interfaces.items())
    )


if __name__ == "__main__":
    TARGET.write_text(records(), "utf-8")
