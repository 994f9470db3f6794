"""`POST /api/v1/events` and `GET /api/v1/events/ID`: what a sender says arrives, or each wrong field is named."""

import contextlib
import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import pytest

from tests import inboxes, rows
from tests.cast import Person
from tests.hosts import Host, errors_of, event, make_key
from tests.service import Service

YEAR = 365 * 24 * 3600


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def ahead(seconds: float) -> str:
    now: datetime = rows.one("SELECT now()")
    return (now + timedelta(seconds=seconds)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def test_an_event_arrives_with_everything_that_its_sender_said(host: Host, alice: Person) -> None:
    said = {
        "type": "issue.comment",
        "title": "Grace replied",
        "body": "<b>Yes</b>, <script>let us</script>",
        "url": "/issues/7#comment",
        "actor": {"name": "Grace", "url": "https://app.example/grace", "image": "/grace.png"},
        "data": {"issue": 7, "labels": ["a", None, 1.5, {"deep": True}]},
        "priority": "high",
        "group_key": "issue-7",
        "expires_in": 3600,
    }
    answer = host.publish("alice", **said)

    assert answer.status_code == 201
    assert answer.mimetype == "application/json"
    assert answer.get_json() == {
        "event_id": rows.one("SELECT id FROM events"),
        "recipients": 1,
        "created": 1,
        "muted": 0,
    }
    [shown] = alice.poll().get_json()["notifications"]
    assert {name: shown[name] for name in said if name not in ("body", "group_key", "expires_in")} == {
        name: value for name, value in said.items() if name not in ("body", "group_key", "expires_in")
    }
    assert shown["body_html"] == "<b>Yes</b>,"
    assert shown["body"] == "Yes,"
    lasts = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["created_at"])
    assert lasts == timedelta(hours=1)


def test_what_is_left_out_has_its_default(host: Host, alice: Person) -> None:
    host.publish("alice")

    [shown] = alice.poll().get_json()["notifications"]
    assert (shown["body"], shown["body_html"], shown["url"], shown["actor"]) == ("", "", None, None)
    assert (shown["data"], shown["priority"], shown["count"]) == ({}, "normal", 1)
    lasts = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["created_at"])
    assert lasts == timedelta(days=30)


def test_an_unknown_recipient_becomes_a_user_and_one_named_twice_counts_once(host: Host, alice: Person) -> None:
    answer = host.publish("alice", "Zoë 👋", "alice", "Zoë 👋", "ALICE")

    assert answer.get_json()["recipients"] == answer.get_json()["created"] == 3
    assert set(rows.column("SELECT subject FROM users")) == {"alice", "ALICE", "Zoë 👋"}
    assert rows.column("SELECT count(*) FROM notifications GROUP BY user_id") == [1, 1, 1]


def test_names_are_compared_byte_for_byte(host: Host) -> None:
    host.publish("caf\u00e9", "cafe\u0301", "Café", "café ")
    assert rows.count("users") == 4


def test_a_disabled_recipient_finds_it_when_enabled_again(host: Host, alice: Person) -> None:
    rows.change("UPDATE users SET is_active = false")
    assert host.publish("alice").get_json()["created"] == 1

    rows.change("UPDATE users SET is_active = true")
    assert len(alice.unread_ids()) == 1


AT_THE_LIMIT = [
    ("type", "a" * 50, "a" * 51),
    ("type", "0-._z", "_z"),
    ("type", "a", "A"),
    ("type", "a", ""),
    ("type", "a", "a\n"),
    ("title", "é" * 200, "é" * 201),
    ("title", "<b>" + "x" * 200 + "</b>", "<b>" + "x" * 201 + "</b>"),
    ("title", "x\u202e", "\u202e\u200f <b></b>"),
    ("title", "x" * 100 + "\n" * 1900, "x" * 100 + "\n" * 1901),
    ("body", "é" * 4000, "é" * 4001),
    ("body", "", None),
    ("url", "https://app.example/" + "x" * 1980, "https://app.example/" + "x" * 1981),
    ("url", "/" + "x" * 1999, "/" + "x" * 2000),
    ("url", "http://app.example", "javascript:alert(1)"),
    ("url", "/path", "//evil.example/path"),
    ("url", None, ""),
    ("actor.name", "é" * 100, "é" * 101),
    ("actor.name", "x", " \u200b "),
    ("actor.url", "https://app.example/" + "x" * 1980, "https://app.example/" + "x" * 1981),
    ("actor.image", "https://app.example/" + "x" * 1980, "https://app.example/" + "x" * 1981),
    ("actor.image", "/image.png", "data:image/png;base64,AAAA"),
    ("data", {"k": "x" * (10 * 1024 - 8)}, {"k": "x" * (10 * 1024 - 7)}),
    ("data", {}, []),
    ("data", {"": 0}, None),
    ("group_key", "é" * 255, "é" * 256),
    ("group_key", None, ""),
    ("priority", "low", "urgent"),
    ("expires_in", 1, 0),
    ("expires_in", YEAR, YEAR + 1),
    ("expires_in", 60, 60.5),
    ("expires_in", 60, True),
    ("expires_in", None, "60"),
    ("recipients", [f"user {number}" for number in range(1000)], [f"user {number}" for number in range(1001)]),
    ("recipients", ["alice"], []),
    ("recipients", ["alice"], "alice"),
    ("recipients", ["alice"], {"alice": 1}),
    ("recipients[0]", "é" * 255, "é" * 256),
    ("recipients[1]", "a b", "a/b"),
    ("recipients[1]", "...", ".."),
    ("recipients[1]", "%2e", "."),
    ("recipients[1]", "alice", "ali\u0007ce"),
    ("recipients[1]", "alice", ""),
    ("recipients[1]", "1", 1),
]


def with_field(path: str, value: Any) -> dict[str, Any]:
    """An event that has this value at this place."""
    if path.startswith("recipients["):
        return event(*["bob"] * int(path[11]), value)
    if path.startswith("actor."):
        return event("alice", actor={"name": "Grace", path[6:]: value})
    return {**event("alice"), path: value}


@pytest.mark.parametrize(
    ("path", "good", "bad"), AT_THE_LIMIT, ids=[f"{number}-{path}" for number, (path, _, _) in enumerate(AT_THE_LIMIT)]
)
def test_at_its_limit_a_field_is_accepted_and_past_it_refused_by_name(
    host: Host, path: str, good: Any, bad: Any
) -> None:
    accepted = host.call("POST", "/events", with_field(path, good))
    assert accepted.status_code == 201, accepted.get_json()
    events, users = rows.count("events"), rows.count("users")

    refused = host.call("POST", "/events", with_field(path, bad))

    assert refused.status_code == 422
    assert refused.mimetype == "application/problem+json"
    assert list(errors_of(refused)) == [path]
    assert (rows.count("events"), rows.count("users")) == (events, users)


@pytest.mark.parametrize(("seconds", "status"), [(30, 201), (YEAR - 30, 201), (0, 422), (-5, 422), (YEAR + 60, 422)])
def test_an_expiry_is_from_a_second_to_a_year_ahead(host: Host, seconds: int, status: int) -> None:
    answer = host.publish("alice", expires_at=ahead(seconds))

    assert answer.status_code == status
    if status == 422:
        assert list(errors_of(answer)) == ["expires_at"]
        assert rows.count("events") == rows.count("users") == 0  # nobody was made for nothing


@pytest.mark.parametrize("moment", ["2030-01-31", "2030-02-30T00:00:00Z", "2030-01-01T00:00:00", 1900000000, "", {}])
def test_an_expiry_that_is_no_time_is_refused_by_name(host: Host, moment: Any) -> None:
    assert list(errors_of(host.publish("alice", expires_at=moment))) == ["expires_at"]


def test_an_expiry_keeps_its_offset(host: Host, alice: Person) -> None:
    at = datetime.fromisoformat(ahead(7200).replace("Z", "+00:00")).replace(microsecond=0)
    host.publish("alice", expires_at=(at + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00"))
    [shown] = alice.poll().get_json()["notifications"]
    assert datetime.fromisoformat(shown["expires_at"]) == at


def test_two_expiries_are_one_too_many(host: Host) -> None:
    refused = host.publish("alice", expires_in=60, expires_at=ahead(60))
    assert list(errors_of(refused)) == ["expires_at"]


def test_all_that_is_wrong_is_said_at_once(host: Host) -> None:
    wrong = {
        "type": "Not A Type",
        "title": "",
        "url": "ftp://app.example",
        "actor": {"url": "x", "nickname": "G"},
        "prioritiy": "high",
        "expires_in": -1,
        "recipients": ["alice", "a/b"],
    }
    refused = host.call("POST", "/events", wrong)

    assert refused.status_code == 422
    fields = {"type", "title", "url", "actor.name", "actor.url", "actor.nickname", "prioritiy", "expires_in"}
    assert set(errors_of(refused)) == fields | {"recipients[1]"}
    assert rows.count("events") == 0


@pytest.mark.parametrize("missing", ["type", "title", "recipients"])
def test_what_is_required_is_asked_for(host: Host, missing: str) -> None:
    given = event("alice")
    del given[missing]
    assert errors_of(host.call("POST", "/events", given)) == {missing: "is required"}


def padded(given: Any, size: int) -> bytes:
    """The JSON with as many blanks as make it this long."""
    return json.dumps(given).encode().ljust(size)


@pytest.mark.parametrize(
    ("path", "given", "longest"),
    [("/events", event("alice"), 512 * 1024), ("/events/batch", {"events": [event("alice")]}, 4 * 1024 * 1024)],
)
def test_a_body_at_its_limit_is_read_and_a_byte_more_is_413(host: Host, path: str, given: Any, longest: int) -> None:
    assert host.call("POST", path, padded(given, longest)).status_code == 201

    refused = host.call("POST", path, padded(given, longest + 1))

    assert refused.status_code == 413
    assert refused.mimetype == "application/problem+json"
    assert rows.count("events") == 1


@pytest.mark.parametrize("path", ["/users/alice", "/tickets"])
def test_the_other_bodies_are_64_kib(host: Host, alice: Person, path: str) -> None:
    method, given = ("PUT", {}) if path == "/users/alice" else ("POST", {"user": "alice"})
    assert host.call(method, path, padded(given, 64 * 1024)).status_code in (200, 201)
    assert host.call(method, path, padded(given, 64 * 1024 + 1)).status_code == 413


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b'"alice"',
    b"{",
    b'{"type": "a", "type": "b"}',
    b'{"data": {"a": 1, "a": 2}}',
    b'{"title": NaN}',
    b'{"data": {"n": Infinity}}',
    b'{"data": {"n": 1e999}}',
    b'{"data": {"n": ' + b"9" * 5000 + b"}}",
    b'{"data": {"n": 9223372036854775808}}',
    b'{"title": "\\u0000"}',
    b'{"data": {"\\u0000": 1}}',
    b'{"title": "\\ud800"}',
    b'{"title": "\xff"}',
    b"\xef\xbb\xbf{}",
    '{"title": "x"}'.encode("utf-16"),
    b'{"data": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    b'{"data": ' + b'{"a":' * 20 + b"1" + b"}" * 20 + b"}",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_what_is_no_clean_json_object_is_400(host: Host, path: str, raw: bytes) -> None:
    refused = host.call("POST", path, raw)

    assert refused.status_code == 400
    assert refused.mimetype == "application/problem+json"
    assert rows.count("events") == 0


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_a_body_that_is_not_called_json_is_415(host: Host, content_type: str) -> None:
    headers = {"Authorization": f"Bearer {host.key}", "Content-Type": content_type}
    answer = host.client.post("/api/v1/events", data=json.dumps(event("alice")), headers=headers)
    assert answer.status_code == 415


def test_data_comes_back_as_it_was_sent(host: Host, alice: Person) -> None:
    data = {
        "big": 2**63 - 1,
        "small": -(2**63),
        "tiny": 5e-324,
        "huge": 1.7976931348623157e308,
        "text": "\u2028\\u0041",
    }
    host.publish("alice", data=data)
    assert alice.poll().get_json()["notifications"][0]["data"] == data


def test_the_state_counts_who_received_saw_and_read(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice")
    event_id = host.publish("alice", "mallory", "bob").get_json()["event_id"]
    alice.post(f"/notifications/{inboxes.version(alice)}/read")
    mallory.post("/notifications/seen", {"ids": [inboxes.version(mallory)]})

    answer = host.call("GET", f"/events/{event_id}")

    assert answer.status_code == 200
    state = answer.get_json()
    assert {name: state[name] for name in ("received", "held", "seen", "read")} == {
        "received": 3,
        "held": 3,
        "seen": 1,
        "read": 1,
    }
    assert (state["event_id"], state["type"], state["retracted_at"]) == (event_id, "comment", None)
    assert datetime.fromisoformat(state["expires_at"]) > datetime.fromisoformat(state["created_at"])


def test_what_expired_or_moved_on_with_its_group_is_held_no_more(host: Host, alice: Person, mallory: Person) -> None:
    event_id = host.publish("alice", "mallory", group_key="k").get_json()["event_id"]
    host.publish("alice", group_key="k")
    inboxes.expire(mallory, 1)

    state = host.call("GET", f"/events/{event_id}").get_json()
    assert (state["received"], state["held"]) == (2, 0)


def test_recipients_who_muted_the_type_are_counted_and_get_nothing(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice")
    assert alice.browser.put("/preferences/comment", json={"muted": True}).status_code == 200
    version = inboxes.version(alice)

    answer = host.publish("alice", "mallory").get_json()

    assert (answer["recipients"], answer["created"], answer["muted"]) == (2, 1, 1)
    assert inboxes.version(alice) == version
    assert host.call("GET", f"/events/{answer['event_id']}").get_json()["received"] == 1
    assert host.publish("alice", type="mention").get_json()["muted"] == 0  # another type


def test_an_event_for_muted_ears_only_is_accepted_and_received_by_nobody(host: Host, alice: Person) -> None:
    host.publish("alice")
    alice.browser.put("/preferences/comment", json={"muted": True})

    answer = host.publish("alice")

    assert answer.status_code == 201
    assert (answer.get_json()["created"], answer.get_json()["muted"]) == (0, 1)
    assert host.call("GET", f"/events/{answer.get_json()['event_id']}").get_json()["received"] == 0


def test_another_senders_event_is_as_unknown_as_one_that_never_was(app: flask.Flask, host: Host, publish: Any) -> None:
    event_id = host.publish("alice").get_json()["event_id"]
    from_the_command_line = publish("alice").event_id
    other = Host(app)

    bodies = []
    for path in (event_id, from_the_command_line, event_id + 1000, 0, 2**63 - 1, 2**63, 10**30):
        for method in ("GET", "DELETE"):
            answer = other.call(method, f"/events/{path}")
            assert answer.status_code == 404
            bodies.append({**answer.get_json(), "request_id": ""})
    assert all(body == bodies[0] for body in bodies)
    assert rows.count("notifications") == 2
    assert host.call("GET", f"/events/{event_id}").status_code == 200


def test_an_id_that_is_no_number_is_404(host: Host) -> None:
    for number in ("-1", "abc", "1.5", "1e3", "%00", "1%20"):
        assert host.call("GET", f"/events/{number}").status_code == 404


def test_a_method_that_a_route_has_not_is_405_with_those_it_has(host: Host) -> None:
    answer = host.call("PUT", "/events")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_a_call_is_few_statements(host: Host, queries: list[str]) -> None:
    host.publish("alice", "bob")
    del queries[:]

    host.publish("alice", "bob")

    # key, limit, users, event, lock, deliver
    assert len(queries) == 6, queries


@pytest.mark.parametrize(
    ("path", "longest"), [("/events", 512 * 1024), ("/events/batch", 4 * 1024 * 1024), ("/tickets", 64 * 1024)]
)
def test_a_body_in_chunks_has_the_same_limit(service: Service, path: str, longest: int) -> None:
    headers = {"Authorization": f"Bearer {make_key(service.database_url)}", "Content-Type": "application/json"}
    statuses = []
    for size in (longest, longest + 1):
        chunks = [b" " * 1024] * (size // 1024) + [b" " * (size % 1024)] * bool(size % 1024)
        with contextlib.closing(http.client.HTTPConnection(service.url.removeprefix("http://"))) as connection:
            connection.request("POST", f"/api/v1{path}", iter(chunks), headers, encode_chunked=True)
            statuses.append(connection.getresponse().status)
    assert statuses == [400, 413]  # blanks are no JSON, and were read to their end to find that out
