"""Writes docs/reference.md from what /openapi.json says: `make docs`. `--check` fails where the page is stale."""

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import create_app, openapi

PAGE = Path(__file__).parent / "reference.md"

BEGINNING = """# Reference

Every request of the API and every object in it, as `/openapi.json` (OpenAPI 3.1) of your installation has them too.
What they mean and how to use them: [publishing.md](publishing.md) for senders, [api.md](api.md) for readers.

Every request may also be refused with {refusals}: always a [ProblemAnswer](#problemanswer).

This page is made from the routes and their models by `make docs`.
"""

TITLES = {
    "senders": "For senders, with an API key",
    "readers": "For readers, with a session or a host's token",
}


def page() -> str:
    # No database is asked: routes and models say it all.
    app = create_app(database_url="postgresql://nobody/nothing", secret_key=secrets.token_hex())
    with app.app_context():
        document = openapi.document(app, "", "belfry")
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in sorted(methods.items())
    ]
    usual = set.intersection(*({*_refusals(operation)} for _, _, operation in operations))
    lines = [BEGINNING.format(refusals=_listed(sorted(usual)))]
    for tag, title in TITLES.items():
        lines.append(f"## {title}\n")
        for method, path, operation in operations:
            if tag in operation["tags"]:
                lines += _operation(method, path, operation, usual)
    lines.append("## Objects\n")
    for name, schema in document["components"]["schemas"].items():
        lines += _object(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: dict[str, Any], usual: set[str]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"{operation['summary']}\n"
    if operation["parameters"]:
        yield "| parameter | in | type | |"
        yield "| --- | --- | --- | --- |"
        for one in operation["parameters"]:
            required = "required" if one.get("required") else ""
            yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {required} |"
        yield ""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        yield f"Body: {_type(schema)}{'' if operation['requestBody']['required'] else ', or none'}.\n"
    for status, response in operation["responses"].items():
        if status < "400":
            content = response.get("content", {}).get("application/json")
            headers = ", ".join(f"`{name}`" for name in response.get("headers", {}))
            answer = _type(content["schema"]) if content else "no body"
            yield f"{status}: {answer}{f', with {headers}' if headers else ''}.\n"
    more = sorted({*_refusals(operation)} - usual)
    if more:
        yield f"Refused also with {_listed(more)}.\n"


def _object(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if schema.get("description"):
        yield " ".join(schema["description"].split()) + "\n"
    if not schema.get("properties"):
        return
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for field, content in schema["properties"].items():
        yield f"| `{field}` | {_type(content)} | {'required' if field in schema.get('required', []) else ''} |"
    yield ""


def _refusals(operation: dict[str, Any]) -> list[str]:
    return [status for status in operation["responses"] if status >= "400"]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list{_limits(schema, 'Items', 'items')} of {_type(schema['items'])}"
    word = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}
    if schema.get("format") == "date-time":
        return "time (RFC 3339)"
    if "pattern" in schema:
        pattern = schema["pattern"].replace("|", "\\|")
        return f"text matching `{pattern}`"
    if schema.get("type") == "integer":
        return word["integer"] + _limits(schema, "imum", "")
    if schema.get("type") == "string":
        return word["string"] + _limits(schema, "Length", "characters")
    return word.get(schema.get("type", ""), "object")


def _limits(schema: dict[str, Any], kind: str, unit: str) -> str:
    least, most = schema.get(f"min{kind}"), schema.get(f"max{kind}")
    unit = f" {unit}" if unit else ""
    if least is None and most is None:
        return ""
    if least is None:
        return f" (up to {int(most):,}{unit})"
    return f" (from {int(least):,}{unit})" if most is None else f" ({int(least):,} to {int(most):,}{unit})"


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == page() else "docs/reference.md is stale: make docs")
    PAGE.write_text(page())
