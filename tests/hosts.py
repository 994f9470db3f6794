"""The hosts' back ends of the tests: they hold API keys and call the sender's API, in this process or over the wire."""

import contextlib
import http.client
import json
import random
from typing import Any
from urllib.parse import urlsplit

import flask
import sqlalchemy
from werkzeug.test import TestResponse

from app import db, keys
from tests import postgres
from tests.web import Answer


class Host:
    """A host's back end with a key of its own."""

    def __init__(self, app: flask.Flask, *scopes: str) -> None:
        self.key = db.write(keys.make, "a host", list(scopes or keys.SCOPES))
        self.prefix = self.key.split("_")[1]
        self.client = app.test_client()
        # An address of its own, for the calls of each are limited.
        self.client.environ_base["REMOTE_ADDR"] = f"10.{random.randrange(256)}.{random.randrange(256)}.1"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """Calls `/api/v1` + path; `body` is anything for JSON, or bytes as they are."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        options: dict[str, Any] = {"json": body} if body is not None else {}
        if isinstance(body, bytes):
            options = {"data": body, "content_type": "application/json"}
        return self.client.open(
            f"/api/v1{path}", method=method, headers={"Authorization": f"Bearer {self.key}", **named}, **options
        )

    def publish(self, *recipients: str, key: str | None = None, **fields: Any) -> TestResponse:
        """Publishes an event; `key` is its Idempotency-Key."""
        return self.call("POST", "/events", event(*recipients, **fields), **idempotent(key))

    def publish_to_everyone(self, key: str | None, **fields: Any) -> TestResponse:
        return self.call("POST", "/events", event(**{"recipients": "everyone", **fields}), **idempotent(key))

    def publish_batch(self, *events: Any, key: str | None = None) -> TestResponse:
        return self.call("POST", "/events/batch", {"events": list(events)}, **idempotent(key))


class WireHost:
    """The same over the wire, for the real service."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self.address = urlsplit(url).netloc

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """What came back; OSError or HTTPException where the service died meanwhile."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if raw is not None:
            named.setdefault("Content-Type", "application/json")
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            connection.request(method, f"/api/v1{path}", raw, {"Authorization": f"Bearer {self.key}", **named})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


def event(*recipients: str, **fields: Any) -> dict[str, Any]:
    """An event as a sender says it."""
    return {"type": "comment", "title": "A comment", "recipients": list(recipients), **fields}


def idempotent(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency_Key": key}


def errors_of(answer: TestResponse) -> dict[str, str]:
    """The fields that a problem names, each with what is wrong."""
    return {error["field"]: error["message"] for error in answer.get_json()["errors"]}


def make_key(database_url: str, *scopes: str) -> str:
    """A key on the real service's database."""
    engine = sqlalchemy.create_engine(database_url)
    try:
        with engine.begin() as connection:
            return keys.make(connection, "a host", list(scopes or keys.SCOPES))
    finally:
        engine.dispose()


def query(database_url: str, statement: str, *parameters: Any) -> list[Any]:
    """The rows of a query on the real service's database."""
    with postgres.connect(database_url) as connection:
        return connection.execute(statement, parameters).fetchall()  # type: ignore[call-overload]
