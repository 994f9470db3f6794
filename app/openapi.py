"""What a route takes and answers, said beside it, and the OpenAPI document that is made from that."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import flask
from pydantic import BaseModel, TypeAdapter
from werkzeug.routing import Rule

from app import limits
from app.validation import BIGINT_MAX, Model

View = TypeVar("View", bound=Callable[..., Any])
Answer = Any  # a model, another type that pydantic knows, or None for an answer without a body


@dataclass(frozen=True)
class Description:
    """What the wire of a route looks like, apart from its path and method."""

    query: type[Model] | None
    body: type[Model] | None
    answers: Mapping[int, Answer]
    refusals: tuple[int, ...]
    headers: tuple[str, ...]
    conditional: bool
    idempotent: bool


class FieldProblem(Model):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemAnswer(Model):
    """Every refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem]


def described(
    *,
    answers: Mapping[int, Answer],
    query: type[Model] | None = None,
    body: type[Model] | None = None,
    refusals: tuple[int, ...] = (),
    headers: tuple[str, ...] = (),
    conditional: bool = False,
    idempotent: bool = False,
) -> Callable[[View], View]:
    """Says what a route takes and answers; its docstring is its summary.

    `refusals` are those that not every route has; `conditional` routes take `If-None-Match`, `idempotent` ones
    `Idempotency-Key`.
    """

    def describe(view: View) -> View:
        description = Description(query, body, answers, refusals, headers, conditional, idempotent)
        view.description = description  # type: ignore[attr-defined]
        return view

    return describe


def document(app: flask.Flask, server: str, cookie: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every described route."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for rule, method, description in described_routes(app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        view = app.view_functions[rule.endpoint]
        paths.setdefault(path, {})[method.lower()] = _operation(rule, view, description, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Belfry", "version": "1", "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": server}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _security(cookie)},
    }


def described_routes(app: flask.Flask) -> Iterator[tuple[Rule, str, Description]]:
    """Each route that says what it takes and answers, with its method."""
    for rule in app.url_map.iter_rules():
        description = getattr(app.view_functions[rule.endpoint], "description", None)
        if description is not None:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, description


def _security(cookie: str) -> dict[str, Any]:
    return {
        "session": {"type": "apiKey", "in": "cookie", "name": cookie},
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "blf_<prefix>_<secret>"},
    }


def _operation(
    rule: Rule, view: Callable[..., Any], description: Description, schemas: dict[str, Any]
) -> dict[str, Any]:
    blueprint, _, name = rule.endpoint.rpartition(".")
    is_readers = blueprint not in limits.SENDERS
    headers = _header_parameters(description, is_readers)
    operation: dict[str, Any] = {
        "operationId": name if blueprint != "inbox_api" else f"inbox_{name}",
        "tags": ["readers" if is_readers else "senders"],
        "summary": (view.__doc__ or name).strip().splitlines()[0],
        "security": [{"session": []}, {"token": []}] if is_readers else [{"key": []}],
        "parameters": [*_path_parameters(rule), *_query_parameters(description), *headers],
        "responses": _responses(description, schemas, is_readers),
    }
    if description.body is not None:
        content = {"application/json": {"schema": _schema(description.body, schemas, "validation")}}
        # Only where there is nothing to say may nothing be sent.
        operation["requestBody"] = {"required": bool(description.body.model_fields), "content": content}
    return operation


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", rule.rule):
        number = {"type": "integer", "minimum": 1, "maximum": BIGINT_MAX}
        schema = number if kind == "int" else {"type": "string", "minLength": 1, "maxLength": 255}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(description: Description) -> Iterator[dict[str, Any]]:
    if description.query is None:
        return
    schema = description.query.model_json_schema()
    for name, content in schema["properties"].items():
        # In a query string a parameter is there or not: there is no way to write null.
        variants = [variant for variant in content.pop("anyOf", []) if variant != {"type": "null"}]
        if variants:
            content = {**content, **variants[0]}
            content.pop("default", None)
        content.pop("title", None)
        yield {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": content}


def _header_parameters(description: Description, is_readers: bool) -> Iterator[dict[str, Any]]:
    if is_readers:
        said = "Whom the call is meant for, percent-encoded: 412 where somebody else is signed in."
        yield {"name": "Belfry-User", "in": "header", "description": said, "schema": {"type": "string"}}
    if description.conditional:
        yield {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}
    if description.idempotent:
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        yield {"name": "Idempotency-Key", "in": "header", "schema": schema}


def _responses(description: Description, schemas: dict[str, Any], is_readers: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    headers = {name: {"schema": {"type": "string"}} for name in description.headers}
    for status, answer in description.answers.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if headers:
            response["headers"] = headers
        if answer is not None:
            response["content"] = {"application/json": {"schema": _schema(answer, schemas, "serialization")}}
        responses[str(status)] = response
    problem = {"application/problem+json": {"schema": _schema(ProblemAnswer, schemas, "serialization")}}
    usual = {400, 401, 403, 422, 429, 503, *([412] if is_readers else [])}
    for status in sorted({*usual, *description.refusals, *_refusals_of_bodies(description)}):
        response = {"description": HTTPStatus(status).phrase, "content": problem}
        if status == 401:
            response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}
        if status in (429, 503):
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        responses[str(status)] = response
    return responses


def _refusals_of_bodies(description: Description) -> set[int]:
    return {413, 415} if description.body is not None else set()


def _schema(kind: Any, schemas: dict[str, Any], mode: Any) -> dict[str, Any]:
    schema: dict[str, Any] = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}", mode=mode)
    schemas.update(schema.pop("$defs", {}))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        schemas[kind.__name__] = schema
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    return schema
