"""`/openapi.json`: every route of the API is in it and nothing else, and it is what it says, OpenAPI 3.1."""

import re
import time
from typing import Any

import flask
import jsonschema_rs
import pytest
from flask.testing import FlaskClient
from schemathesis.specs.openapi import definitions

from tests.variants import another_app

# What people look at, and the document itself: everything else is the API.
NOT_THE_API = {"pages", "ops", "mirror", "static", "types_page"}


@pytest.fixture
def document(anonymous: FlaskClient) -> Any:
    answer = anonymous.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    return answer.get_json()


def operations(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def nodes(value: Any) -> list[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, list):
        return [node for item in value for node in nodes(item)]
    if isinstance(value, dict):
        return [value, *(node for item in value.values() for node in nodes(item))]
    return []


def test_every_route_of_the_api_is_in_it_and_nothing_else(app: flask.Flask, document: Any) -> None:
    routes = {
        method + " " + re.sub(r"<(?:[a-z]+:)?([a-z]+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.split(".")[0] not in NOT_THE_API
    }
    assert set(operations(document)) == routes
    assert len(routes) == 23


def test_it_is_made_once_for_nobody_needs_a_key_to_ask_for_it(app: flask.Flask) -> None:
    with another_app() as other:
        anybody = other.test_client()
        started = time.process_time()
        first = anybody.get("/openapi.json").data
        making = time.process_time() - started

        started = time.process_time()
        assert {anybody.get("/openapi.json").data for _time in range(10)} == {first}
        assert time.process_time() - started < making * 3


def test_it_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    definitions.OPENAPI_31_VALIDATOR.validate(document)
    # The specification's own schema leaves the schemas inside to JSON Schema's.
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_the_validator_tells_a_wrong_document(document: Any) -> None:
    """Or the test above would show nothing."""
    del document["info"]["title"]
    assert not definitions.OPENAPI_31_VALIDATOR.is_valid(document)


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: Any) -> None:
    used = {node["$ref"].rpartition("/")[2] for node in nodes(document) if "$ref" in node}
    assert used == set(document["components"]["schemas"])


def test_every_operation_says_what_it_does_and_who_may(document: Any) -> None:
    found = operations(document)
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    for name, operation in found.items():
        assert operation["summary"], name
        expected = [{"key": []}] if "/api/v1/" in name else [{"session": []}, {"token": []}]
        assert operation["security"] == expected, name
        assert {"401", "429"} <= set(operation["responses"]), name
        parameters = re.findall(r"{(\w+)}", name)
        assert [one["name"] for one in operation["parameters"] if one["in"] == "path"] == parameters, name
        if parameters:
            assert "404" in operation["responses"], name


def test_only_a_body_that_says_nothing_may_be_left_out(document: Any) -> None:
    optional = [
        name for name, one in operations(document).items() if one.get("requestBody", {}).get("required") is False
    ]
    assert sorted(optional) == [f"POST /notifications/{{id}}/{v}" for v in ("archive", "read", "unarchive", "unread")]


def test_the_limits_are_in_it(document: Any) -> None:
    schemas = document["components"]["schemas"]
    event = schemas["EventBody"]["properties"]
    listed, everyone = event["recipients"]["anyOf"]
    assert (listed["minItems"], listed["maxItems"], listed["items"]["maxLength"]) == (1, 1000, 255)
    assert everyone["const"] == "everyone"
    assert event["type"]["pattern"] == "^[a-z0-9][a-z0-9_.-]{0,49}$"
    assert event["body"]["maxLength"] == 4000
    assert event["priority"]["enum"] == ["low", "normal", "high"]
    assert event["expires_in"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 31_536_000}
    assert schemas["BatchBody"]["properties"]["events"]["maxItems"] == 1000
    assert "anyOf" not in schemas["AddressedEvent"]["properties"]["recipients"]
    assert schemas["EventBody"]["additionalProperties"] is False


def test_every_refusal_has_the_one_shape(document: Any) -> None:
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemAnswer"}, name
    for name in ("POST /api/v1/events", "POST /api/v1/events/batch"):
        assert {"409", "413", "415", "422"} <= set(operations(document)[name]["responses"])


def test_what_may_be_sent_twice_says_by_which_header(document: Any) -> None:
    named = {
        name: [one["name"] for one in operation["parameters"] if one["in"] == "header"]
        for name, operation in operations(document).items()
    }
    others = {name: [header for header in headers if header != "Belfry-User"] for name, headers in named.items()}
    assert {name: headers for name, headers in others.items() if headers} == {
        "POST /api/v1/events": ["Idempotency-Key"],
        "POST /api/v1/events/batch": ["Idempotency-Key"],
        "GET /notifications/unread": ["If-None-Match"],
    }


def test_every_call_of_a_reader_may_say_whom_it_is_meant_for(document: Any) -> None:
    for name, operation in operations(document).items():
        headers = [one["name"] for one in operation["parameters"]]
        is_readers = not name.split(" ")[1].startswith("/api/v1/")
        assert ("Belfry-User" in headers) == ("412" in operation["responses"]) == is_readers, name


def test_it_names_the_address_and_the_cookie_that_are_set(app: flask.Flask) -> None:
    with another_app(public_url="https://app.example/belfry") as other:
        document = other.test_client().get("/belfry/openapi.json").get_json()
    assert document["servers"] == [{"url": "https://app.example/belfry"}]
    assert document["components"]["securitySchemes"]["session"]["name"] == "__Secure-belfry"
    assert "/notifications/unread" in document["paths"]


def test_it_costs_no_query_and_sets_no_cookie(anonymous: FlaskClient, queries: list[str]) -> None:
    answer = anonymous.get("/openapi.json")
    assert queries == []
    assert "Set-Cookie" not in answer.headers


def test_there_is_no_page_for_trying_it_out(anonymous: FlaskClient) -> None:
    for path in ("/docs", "/redoc", "/swagger", "/api", "/api/v1", "/openapi.yaml"):
        assert anonymous.get(path).status_code == 404
