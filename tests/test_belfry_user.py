"""`Belfry-User`: a call that names whom it is meant for never acts for anybody else, whoever is signed in by now."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from flask import Flask

from tests import routes, rows
from tests.cast import Person

NAMES = "SELECT string_agg(concat_ws(' ', seen_at, read_at, archived_at), ';') FROM notifications"


def named(subject: str) -> dict[str, str]:
    return {"Belfry-User": quote(subject, safe="")}


@pytest.mark.parametrize("route", routes.API)
def test_a_call_meant_for_somebody_else_is_refused_and_changes_nothing(
    publish: Callable[..., Any], alice: Person, mallory: Person, route: str
) -> None:
    publish("alice", "mallory")
    publish("alice", "mallory")
    before = rows.one(NAMES)

    answer = routes.call(mallory.browser, route, headers=named("alice"))

    assert answer.status_code == 412
    assert answer.get_json()["detail"] == "Somebody else is signed in now."
    assert rows.one(NAMES) == before
    assert b"A comment" not in answer.data


@pytest.mark.parametrize("route", routes.API)
def test_a_call_meant_for_its_reader_is_answered_as_without(
    publish: Callable[..., Any], alice: Person, mallory: Person, route: str
) -> None:
    publish("alice", "mallory")

    without = routes.call(mallory.browser, route)
    answer = routes.call(alice.browser, route, headers=named("alice"))

    assert answer.status_code == without.status_code != 412


@pytest.mark.parametrize("subject", ["Grace Hopper", "غريس", "%41lice", "a+b@example.org", "🔔"])
def test_any_name_can_be_said(app: Flask, publish: Callable[..., Any], subject: str) -> None:
    person = Person(app, subject)
    publish(subject)

    answer = person.browser.post("/notifications/1/read", headers=named(subject))

    assert (answer.status_code, answer.get_json()["changed"]) == (200, 1)


@pytest.mark.parametrize("said", ["", "Alice", "alice ", "alice%", "%FF", "alic%00e", '"alice"'])
def test_what_is_not_the_readers_name_to_the_byte_is_refused(alice: Person, said: str) -> None:
    assert alice.get("/notifications", headers={"Belfry-User": said.replace(" ", "%20")}).status_code == 412


def test_a_token_is_held_to_it_too(
    app: Flask, another_app: Callable[..., Flask], publish: Callable[..., Any], alice: Person
) -> None:
    secret = "a secret that the host and the service share"
    token = jwt.encode({"sub": "mallory", "exp": int(time.time()) + 60}, secret, "HS256")
    publish("mallory")
    browser = another_app(jwt_key=secret).test_client()
    headers = {"Authorization": f"Bearer {token}"}

    assert browser.post("/notifications/1/read", headers={**headers, **named("alice")}).status_code == 412
    assert browser.post("/notifications/1/read", headers={**headers, **named("mallory")}).status_code == 200


def test_who_is_signed_out_is_told_that_first(alice: Person) -> None:
    alice.browser.post("/logout", data={})
    assert alice.get("/notifications", headers=named("mallory")).status_code == 401


def test_a_session_that_was_ended_elsewhere_learns_nothing(alice: Person, mallory: Person) -> None:
    rows.change("UPDATE users SET session_epoch = session_epoch + 1 WHERE subject = 'alice'")
    assert alice.get("/notifications", headers=named("mallory")).status_code == 401


def test_a_call_that_names_nobody_costs_no_query_more(alice: Person, queries: list[str]) -> None:
    alice.get("/notifications")
    usual = len(queries)
    alice.get("/notifications", headers=named("alice"))
    assert len(queries) - usual > usual
