"""`/api/v1/users/SUBJECT…` and `/api/v1/tickets`: a host names its people, lets them in, hands out or erases."""

import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import flask
import pytest
import sqlalchemy

from app import auth, db, limits, personal_data
from tests import inboxes, rows
from tests.cast import Person
from tests.hosts import Host, WireHost, errors_of, event, make_key, query
from tests.service import Service
from tests.test_sign_in import sign_in
from tests.variants import another_app


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def path(subject: str) -> str:
    return f"/users/{quote(subject, safe='')}"


def test_putting_creates_a_person_and_then_changes_what_is_given(host: Host) -> None:
    created = host.call("PUT", "/users/ada", {"display_name": "Ada"})
    assert created.status_code == 201
    assert created.get_json() == {"subject": "ada", "display_name": "Ada", "is_active": True}

    for body, expected in [
        ({}, ("Ada", True)),
        ({"is_active": False}, ("Ada", False)),
        ({"display_name": "Ada L."}, ("Ada L.", False)),
        ({"display_name": None}, (None, False)),
        ({"is_active": True, "display_name": "A"}, ("A", True)),
    ]:
        changed = host.call("PUT", "/users/ada", body)
        assert changed.status_code == 200
        assert (changed.get_json()["display_name"], changed.get_json()["is_active"]) == expected
    assert rows.count("users") == 1


def test_a_person_can_be_made_disabled(host: Host) -> None:
    assert host.call("PUT", "/users/ada", {"is_active": False}).get_json()["is_active"] is False


@pytest.mark.parametrize(
    "subject", ["Zoë 👋", "a b", "100%", "a+b", "ada@example.org", "...", "é" * 255, "?x=1#y", "\\"]
)
def test_any_name_that_an_event_can_go_to_is_an_address(host: Host, subject: str) -> None:
    assert host.publish(subject).status_code == 201
    assert host.call("PUT", path(subject), {"display_name": "A"}).status_code == 200
    assert host.call("GET", f"{path(subject)}/export").get_json()["subject"] == subject
    assert host.call("POST", f"{path(subject)}/sign-out").status_code == 204
    assert host.call("DELETE", path(subject)).status_code == 204
    assert rows.count("users") == 0


@pytest.mark.parametrize("address", ["é" * 256, "a%00b", "a%0Ab", "%C2%85", "a%2Fb"])
def test_what_is_no_name_is_404_and_makes_nobody(host: Host, address: str) -> None:
    there = quote(address) if "%" not in address else address
    for method, end in [("PUT", ""), ("DELETE", ""), ("GET", "/export"), ("POST", "/sign-out")]:
        assert host.call(method, f"/users/{there}{end}", {} if method == "PUT" else None).status_code == 404
    assert rows.count("users") == 0


@pytest.mark.parametrize("address", ["%FF", "%ED%A0%80", "%C0%AF", "a%"])
def test_two_addresses_that_are_not_utf8_never_become_one_name(service: Service, address: str) -> None:
    host = WireHost(service.url, make_key(service.database_url))
    assert host.call("PUT", "/users/%EF%BF%BD", {}).status == 201
    for method, end in [("PUT", ""), ("GET", "/export"), ("POST", "/sign-out"), ("DELETE", "")]:
        answer = host.call(method, f"/users/{address}{end}", {} if method == "PUT" else None)
        assert answer.status in ({201, 200, 204} if address == "a%" else {404})
    assert query(service.database_url, "SELECT subject FROM users") == [("\ufffd",)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"display_name": "x" * 201}, "display_name"),
        ({"display_name": ""}, "display_name"),
        ({"display_name": 1}, "display_name"),
        ({"is_active": None}, "is_active"),
        ({"is_active": "false"}, "is_active"),
        ({"is_active": 0}, "is_active"),
        ({"password": "correct horse"}, "password"),
        ({"subject": "eve"}, "subject"),
    ],
)
def test_a_wrong_field_of_a_person_is_named(host: Host, body: dict[str, Any], field: str) -> None:
    refused = host.call("PUT", "/users/ada", body)
    assert refused.status_code == 422
    assert list(errors_of(refused)) == [field]
    assert rows.count("users") == 0


def test_a_name_at_its_limit_is_accepted(host: Host) -> None:
    assert host.call("PUT", "/users/ada", {"display_name": "é" * 200}).status_code == 201


def test_disabling_ends_sessions_for_good(host: Host, alice: Person, mallory: Person) -> None:
    host.call("PUT", "/users/alice", {"is_active": False})
    assert alice.poll().status_code == 401
    host.call("PUT", "/users/alice", {"is_active": True})
    assert alice.poll().status_code == 401
    assert Person(host.client.application, "alice").poll().status_code == 200
    assert mallory.poll().status_code == 200


def test_changing_a_name_ends_no_session(host: Host, alice: Person) -> None:
    host.call("PUT", "/users/alice", {"display_name": "Alice", "is_active": True})
    assert alice.poll().status_code == 200


def test_signing_out_ends_all_sessions_of_that_person_only(host: Host, alice: Person, mallory: Person) -> None:
    other = alice.signed_in_browser()
    assert host.call("POST", "/users/alice/sign-out").status_code == 204

    assert alice.poll().status_code == 401
    assert other.get("/notifications/unread").status_code == 401
    assert mallory.poll().status_code == 200
    assert Person(host.client.application, "alice").poll().status_code == 200  # and may come back


@pytest.mark.parametrize(("method", "end"), [("DELETE", ""), ("GET", "/export"), ("POST", "/sign-out")])
def test_nobody_is_404(host: Host, alice: Person, method: str, end: str) -> None:
    assert host.call(method, f"/users/nobody{end}").status_code == 404
    assert alice.poll().status_code == 200


SECRETS = ["Muriel Zebra", "MZ-SUBJECT", "private-title", "private-body", "private-data", "private.example"]


@pytest.fixture
def muriel(app: flask.Flask, host: Host) -> Person:
    """Somebody who has left a trace in every table that can hold one."""
    host.call("PUT", "/users/MZ-SUBJECT", {"display_name": "Muriel Zebra"})
    person = Person(app, "MZ-SUBJECT")
    private: dict[str, Any] = {
        "title": "private-title",
        "body": "private-body",
        "data": {"private-data": 1},
        "url": "https://private.example/",
        "actor": {"name": "Muriel Zebra", "url": "https://private.example/", "image": "/private.example"},
    }
    host.publish("MZ-SUBJECT", **private, type="plain")
    host.publish("MZ-SUBJECT", **private, group_key="MZ-SUBJECT", key="once")
    host.publish("MZ-SUBJECT", **private, group_key="MZ-SUBJECT")  # the one before has no row any more
    host.publish_batch(event("MZ-SUBJECT", **private), event("MZ-SUBJECT", "MZ-SUBJECT", **private))
    host.publish("MZ-SUBJECT", "bob", title="for two")
    retracted = host.publish("MZ-SUBJECT", **private).get_json()["event_id"]
    host.call("DELETE", f"/events/{retracted}")
    host.publish("MZ-SUBJECT", **private, expires_in=1)
    inboxes.expire(person, inboxes.version(person))
    # One of two recipients muted it: what is left went to one person only.
    bob = Person(app, "bob")
    host.publish("bob", type="muted-by-bob")
    bob.browser.put("/preferences/muted-by-bob", json={"muted": True})
    host.publish("MZ-SUBJECT", "bob", **private, type="muted-by-bob", group_key="moves on")
    host.publish("MZ-SUBJECT", **private, group_key="moves on")
    person.post("/notifications/read", {"ids": [1]})
    person.post("/notifications/seen", {"through": inboxes.version(person)})
    person.browser.put("/preferences/plain", json={"muted": True})
    host.call("POST", "/tickets", {"user": "MZ-SUBJECT", "return_to": "http://127.0.0.1:8000/private.example"})
    sign_in(app.test_client(), "MZ-SUBJECT", "wrong password")
    return person


def traces(words: list[str]) -> list[str]:
    """The columns, of every table, in which one of these words stands."""
    columns = inboxes.run(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name <> 'alembic_version' ORDER BY 1, 2"
    )
    found = []
    for table, column in columns:
        kind = f"CASE WHEN pg_typeof({column}) = 'bytea'::regtype THEN encode({column}::text::bytea, 'escape') END"
        text = f"concat({column}::text, {kind})"
        if inboxes.run(f"SELECT FROM {table} WHERE {text} ~* :words LIMIT 1", words="|".join(words)):
            found.append(f"{table}.{column}")
    return found


def test_erasing_leaves_nothing_of_the_person_in_any_table(host: Host, muriel: Person) -> None:
    assert len(traces(SECRETS)) > 10
    counters = limits._account_key("MZ-SUBJECT")
    assert rows.one("SELECT count(*) FROM rate_limits WHERE key LIKE :key", key=f"%{counters}%") == 1

    assert host.call("DELETE", "/users/MZ-SUBJECT").status_code == 204

    assert traces(SECRETS) == []
    assert rows.one("SELECT count(*) FROM rate_limits WHERE key LIKE :key", key=f"%{counters}%") == 0
    for table in ("notifications", "undos", "tickets", "preferences"):
        assert rows.one(f"SELECT count(*) FROM {table} WHERE user_id = :id", id=muriel.id) == 0
    assert muriel.poll().status_code == 401
    assert host.call("DELETE", "/users/MZ-SUBJECT").status_code == 404


def test_erasing_leaves_everybody_else_as_they_were(app: flask.Flask, host: Host, muriel: Person) -> None:
    bob = Person(app, "bob")
    before, shown = inboxes.rows(bob), bob.poll().get_json()
    host.call("DELETE", "/users/MZ-SUBJECT")
    assert inboxes.rows(bob) == before
    assert bob.poll().get_json() == shown
    assert {one["title"] for one in shown["notifications"]} == {"for two", "A comment"}


def test_erasing_and_exporting_one_of_two_who_did_the_same_tells_them_apart(
    app: flask.Flask, host: Host, muriel: Person
) -> None:
    twin = Person(app, "twin")
    host.publish("twin", title="of-the-twin", type="of-the-twin")
    host.publish("twin", title="of-the-twin", group_key="g")
    host.publish("twin", title="of-the-twin", group_key="g")
    twin.post("/notifications/read", {"ids": [1]})
    twin.browser.put("/preferences/of-the-twin", json={"muted": True})
    host.call("POST", "/tickets", {"user": "twin"})
    tables = ("undos", "tickets", "preferences", "notifications")
    count = "SELECT count(*) FROM {} WHERE user_id = :id"
    before = [rows.one(count.format(table), id=twin.id) for table in tables]
    own = rows.one("SELECT count(*) FROM events WHERE only_user_id = :id", id=twin.id)
    assert min(before) > 0
    assert own == 3
    exported = host.call("GET", "/users/twin/export").get_json()
    assert [len(exported[name]) for name in ("undos", "sign_in_links", "preferences")] == before[:3]
    assert {one["title"] for one in exported["notifications"]} == {"of-the-twin"}
    assert len(exported["former_events"]) == 1

    assert host.call("DELETE", "/users/MZ-SUBJECT").status_code == 204

    assert [rows.one(count.format(table), id=twin.id) for table in tables] == before
    assert rows.one("SELECT count(*) FROM events WHERE only_user_id = :id", id=twin.id) == own
    assert rows.one("SELECT count(*) FROM users WHERE id = :id", id=twin.id) == 1


def test_who_is_erased_and_comes_again_begins_anew(host: Host, muriel: Person) -> None:
    tag = muriel.poll().headers["ETag"]
    host.call("DELETE", "/users/MZ-SUBJECT")
    host.publish("MZ-SUBJECT", title="Hello again")

    again = Person(host.client.application, "MZ-SUBJECT")
    assert again.id != muriel.id
    assert [one["title"] for one in again.poll(tag).get_json()["notifications"]] == ["Hello again"]


def test_the_export_holds_everything_but_the_secrets(host: Host, muriel: Person) -> None:
    answer = host.call("GET", "/users/MZ-SUBJECT/export")

    assert answer.status_code == 200
    told = answer.get_json()
    assert (told["subject"], told["display_name"], told["is_active"]) == ("MZ-SUBJECT", "Muriel Zebra", True)
    assert told["has_password"] is False
    assert len(told["notifications"]) == rows.one(
        "SELECT count(*) FROM notifications WHERE user_id = :id", id=muriel.id
    )
    every_event = set(rows.column("SELECT id FROM events WHERE only_user_id = :id", id=muriel.id))
    shown = set(rows.column("SELECT event_id FROM notifications WHERE user_id = :id", id=muriel.id))
    assert len(told["former_events"]) == len(every_event - shown) == 3
    assert told["preferences"] == [{"type": "plain", "muted": True}]
    assert len(told["undos"]) == 2
    assert [link["return_to"] for link in told["sign_in_links"]] == ["http://127.0.0.1:8000/private.example"]
    for events in (told["notifications"], told["former_events"]):
        private = [one for one in events if one["title"] == "private-title"]
        assert private
        for one in private:
            assert one["data"] == {"private-data": 1}
            assert one["actor_image"] == "/private.example"
            assert one["body_html"] == "private-body"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", told["created_at"])
    for secret in ("password_hash", "digest", "session"):
        assert secret not in answer.get_data(as_text=True)


def test_an_export_is_of_one_moment_whoever_is_erased_meanwhile(host: Host, muriel: Person) -> None:
    whole = host.call("GET", "/users/MZ-SUBJECT/export").get_json()
    to_erase = ["MZ-SUBJECT"]

    def erase_in_between(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if "FROM notifications" in statement and to_erase:
            db.write(personal_data.erase, to_erase.pop())

    engine = db.engine()
    sqlalchemy.event.listen(engine, "before_cursor_execute", erase_in_between)
    try:
        assert host.call("GET", "/users/MZ-SUBJECT/export").get_json() == whole
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", erase_in_between)
    assert to_erase == []
    assert host.call("GET", "/users/MZ-SUBJECT/export").status_code == 404


def test_an_export_holds_nothing_of_anybody_else(host: Host, muriel: Person) -> None:
    told = host.call("GET", "/users/bob/export").get_data(as_text=True)
    assert "for two" in told
    for word in SECRETS:
        assert word not in told


def test_an_erased_recipient_of_a_publish_that_waited_comes_again(host: Host, alice: Person) -> None:
    host.publish("alice")
    assert host.call("DELETE", "/users/alice").status_code == 204
    assert host.publish("alice").status_code == 201
    assert rows.count("users") == 1


def test_a_ticket_signs_its_person_in_once(app: flask.Flask, host: Host, alice: Person) -> None:
    answer = host.call("POST", "/tickets", {"user": "alice"})

    assert answer.status_code == 201
    assert list(answer.get_json()) == ["url"]
    url = urlsplit(answer.get_json()["url"])
    assert f"{url.scheme}://{url.netloc}" == "http://127.0.0.1:8000"
    browser = app.test_client()
    assert browser.get(url.path).status_code == 200
    assert browser.post(url.path, data={}).status_code == 303
    assert browser.get("/notifications/unread").get_json()["user"] == "alice"
    assert app.test_client().post(url.path, data={}).status_code == 404


def test_a_ticket_is_good_for_a_minute(app: flask.Flask, host: Host, alice: Person) -> None:
    url = urlsplit(host.call("POST", "/tickets", {"user": "alice"}).get_json()["url"])
    left: timedelta = rows.one("SELECT expires_at - now() FROM tickets")
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)

    rows.change("UPDATE tickets SET expires_at = now()")
    assert app.test_client().post(url.path, data={}).status_code == 404


@pytest.mark.parametrize(
    ("return_to", "is_good"),
    [
        ("http://127.0.0.1:8000/inbox?x=1#y", True),
        ("https://app.example", True),
        ("https://app.example/page", True),
        ("HTTPS://APP.example/page", True),
        (None, True),
        ("https://app.example:8443/", False),
        ("http://app.example/", False),
        ("https://evil.example/", False),
        ("https://app.example.evil.example/", False),
        ("https://app.example@evil.example/", False),
        ("https://evil.example\\@app.example/", False),
        ("//app.example/", False),
        ("/page", False),
        ("javascript:alert(1)", False),
        (" https://app.example/", False),
        ("https://app.example/\r\nSet-Cookie: a=b", False),
        ("https://app.example/" + "x" * 1981, False),
        ("", False),
        (1, False),
    ],
)
def test_a_ticket_leads_to_our_own_origin_or_a_hosts(
    app: flask.Flask, alice: Person, return_to: Any, is_good: bool
) -> None:
    with another_app(cors_origins=["https://app.example"]) as other, other.app_context():
        host = Host(other)
        answer = host.call("POST", "/tickets", {"user": "alice", "return_to": return_to})
        if not is_good:
            assert answer.status_code == 422
            assert list(errors_of(answer)) == ["return_to"]
            assert rows.count("tickets") == 0
            return
        assert answer.status_code == 201
        link = urlsplit(answer.get_json()["url"]).path
        assert other.test_client().post(link, data={}).headers["Location"].lower() == (return_to or "/").lower()


@pytest.mark.parametrize("subject", ["nobody", "disabled"])
def test_who_cannot_sign_in_gets_no_ticket(host: Host, subject: str) -> None:
    host.call("PUT", "/users/disabled", {"is_active": False})
    assert host.call("POST", "/tickets", {"user": subject}).status_code == 404
    assert rows.count("tickets") == 0


@pytest.mark.parametrize("body", [{}, {"user": ""}, {"user": "a/b"}, {"user": 1}, {"user": "alice", "valid": 600}])
def test_a_wrong_field_of_a_ticket_is_named(host: Host, alice: Person, body: dict[str, Any]) -> None:
    refused = host.call("POST", "/tickets", body)
    assert refused.status_code == 422
    assert set(errors_of(refused)) <= {"user", "valid"}


def test_an_address_under_a_prefix_is_in_the_link(app: flask.Flask, alice: Person) -> None:
    with another_app(public_url="https://app.example/belfry") as other, other.app_context():
        host = Host(other)
        answer = host.client.post(
            "/belfry/api/v1/tickets", json={"user": "alice"}, headers={"Authorization": f"Bearer {host.key}"}
        )
        assert answer.get_json()["url"].startswith("https://app.example/belfry/tickets/")
        assert auth.cookie_name(other.extensions["settings"]) == "__Secure-belfry"


def test_erasing_beside_everything_else_goes_right_or_can_be_repeated(service: Service) -> None:
    """Publishers, a fan-out, a retraction and two erasers on the same few people."""
    key = make_key(service.database_url)
    people = [f"person {number}" for number in range(6)]
    statuses: Counter[tuple[str, int]] = Counter()

    def work(what: str, number: int) -> None:
        host = WireHost(service.url, key)
        for turn in range(25):
            subject = quote(random.choice(people))
            if what == "erase":
                answer = host.call("DELETE", f"/users/{subject}")
            elif what == "publish":
                answer = host.call("POST", "/events", event(*people, group_key=f"{turn % 3}"))
            elif what == "batch":
                batch = [event(*random.sample(people, 3), group_key="b") for _ in range(5)]
                answer = host.call("POST", "/events/batch", {"events": batch})
            elif what == "everyone":
                headers = {"Idempotency-Key": f"{number}-{turn}"}
                answer = host.call("POST", "/events", event(recipients="everyone"), **headers)
            else:
                answer = host.call("POST", "/events", event(*people))
                statuses["publish", answer.status] += 1
                if answer.status == 201:
                    answer = host.call("DELETE", f"/events/{answer.json()['event_id']}")
            statuses[what, answer.status] += 1

    kinds = ["erase", "erase", "publish", "publish", "batch", "everyone", "retract"]
    with ThreadPoolExecutor(len(kinds)) as pool:
        list(pool.map(work, kinds, range(len(kinds))))

    expected = {("erase", 204), ("erase", 404), ("publish", 201), ("batch", 201), ("everyone", 201), ("retract", 200)}
    # Who lost the race to an eraser three times over is told to come again.
    assert set(statuses) <= expected | {(kind, 503) for kind in kinds}, statuses
    assert expected <= set(statuses), statuses
    ahead = "SELECT count(*) FROM notifications n JOIN users u ON u.id = n.user_id WHERE n.id > u.inbox_version"
    assert query(service.database_url, ahead) == [(0,)]
