"""What strangers send: every door answers 4xx in the one shape, changes nothing, and never fails."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.test import TestResponse

from tests import inboxes, routes
from tests.cast import Person
from tests.service import Service

Publish = Callable[..., Any]

TAKING_JSON = [route for route in routes.API if route.startswith("POST")]
MARKING = "POST /<any(read, unread, archive, unarchive, seen):verb>"
TAKING_FORMS = [MARKING, "POST /login"]
LIMIT = 64 * 1024

DEEP = 20_000
LONG_NUMBER = b"9" * 5_000

# What is no JSON object that anything could be done with.
MALFORMED = {
    "lists nested deep": b"[" * DEEP + b"]" * DEEP,
    "lists nested deep, never closed": b"[" * DEEP,
    "objects nested deep": b'{"ids":' * (LIMIT // 8),
    "lists nested deep in a field": b'{"ids":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nested 21 deep": b'{"ids":' + b"[" * 20 + b"]" * 20 + b"}",
    "a number of 5,000 digits": b'{"through":' + LONG_NUMBER + b"}",
    "a negative number of 5,000 digits": b'{"through":-' + LONG_NUMBER + b"}",
    "a fraction of 5,000 digits": b'{"through":1.' + LONG_NUMBER + b"}",
    "an exponent of 5,000 digits": b'{"through":1e' + LONG_NUMBER + b"}",
    "a number of 5,000 digits among ids": b'{"ids":[1,' + LONG_NUMBER + b"]}",
    "a number of 60,000 digits": b'{"undo":' + b"1" * 60_000 + b"}",
    "2^63": b'{"through":9223372036854775808}',
    "2^63 among ids": b'{"ids":[9223372036854775808]}',
    "10^30": b'{"undo":1000000000000000000000000000000}',
    "10^30 as an exponent": b'{"through":1e30}',
    "below -2^63": b'{"through":-9223372036854775809}',
    "NaN": b'{"through":NaN}',
    "NaN among ids": b'{"ids":[NaN]}',
    "Infinity": b'{"through":Infinity}',
    "-Infinity": b'{"undo":-Infinity}',
    "an overflow to infinity": b'{"through":1e999}',
    "a duplicate key": b'{"ids":[1],"ids":[1]}',
    "a duplicate key, written otherwise": b'{"ids":[1],"\\u0069ds":[1]}',
    "a duplicate key further in": b'{"ids":[{"a":1,"a":2}]}',
    "an escaped NUL": b'{"ids":["\\u0000"]}',
    "an escaped NUL in a key": b'{"\\u0000":1}',
    "a NUL": b'{"ids":["\x00"]}',
    "nothing but NUL": b"\x00",
    "an escaped lone surrogate": b'{"ids":["\\ud800"]}',
    "an escaped lone surrogate in a key": b'{"\\udfff":1}',
    "surrogates in the wrong order": b'{"ids":["\\udc00\\ud800"]}',
    "a lone surrogate in UTF-8": b'{"ids":["\xed\xa0\x80"]}',
    "broken UTF-8": b'{"ids":["\xff"]}',
    "overlong UTF-8": b'{"ids":["\xc0\x80"]}',
    "UTF-16 with a mark": '{"ids":[1]}'.encode("utf-16"),
    "UTF-16 without one": '{"ids":[1]}'.encode("utf-16-le"),
    "UTF-32": '{"ids":[1]}'.encode("utf-32"),
    "UTF-8 with a mark": b'\xef\xbb\xbf{"ids":[1]}',
    "Latin-1": b'{"ids":["\xe9"]}',
    "a list at the top": b"[1]",
    "an empty list at the top": b"[]",
    "an object in a list": b'[{"ids":[1]}]',
    "a number": b"1",
    "a big number": LONG_NUMBER,
    "text": b'"ids"',
    "true": b"true",
    "null": b"null",
    "blanks": b"   \r\n\t ",
    "half an object": b'{"ids":[1',
    "two objects": b'{"ids":[1]}{"ids":[1]}',
    "single quotes": b"{'ids':[1]}",
    "a comment": b'{"ids":[1]/**/}',
    "a comma too many": b'{"ids":[1,]}',
    "a form": b"ids=1&through=1",
    "XML": b"<?xml version='1.0'?><ids>1</ids>",
}

# Objects, and good JSON, but nothing that any of the routes takes.
MISUNDERSTOOD: dict[str, Any] = {
    "id 0": {"ids": [0]},
    "id -1": {"ids": [-1]},
    "id -2^63": {"ids": [-(2**63)]},
    "true as an id": {"ids": [True]},
    "false as an id": {"ids": [False]},
    "null as an id": {"ids": [None]},
    "text as an id": {"ids": ["5"]},
    "empty text as an id": {"ids": [""]},
    "a fraction as an id": {"ids": [1.0]},
    "a list as an id": {"ids": [[1]]},
    "an object as an id": {"ids": [{"id": 1}]},
    "no ids": {"ids": []},
    "201 ids": {"ids": list(range(1, 202))},
    "10,000 wrong ids": {"ids": [0] * 10_000},
    "an object for a list": {"ids": {"0": 1}},
    "text for a number": {"through": "5", "undo": "5"},
    "true for a number": {"through": True, "undo": True},
    "a fraction for a number": {"through": 1.0, "undo": 1.0},
    "a list for a number": {"through": [1], "undo": [1]},
    "a number below 0": {"through": -1, "undo": -1},
    "an unknown field": {"ids": [1], "colour": "red"},
    "an unknown field beside a number": {"through": 1, "colour": "red"},
    "an unknown field beside an action": {"undo": 2, "colour": "red"},
    "a known field in capitals": {"IDS": [1]},
    "a known field with a blank": {"ids ": [1]},
    "10,000 unknown fields": {f"f{number}": 1 for number in range(5_000)},
    "an unknown field with a name of 60,000": {"x" * 60_000: 1},
    "an unknown field that looks like markup": {"<script>alert(1)</script>": 1},
    "an unknown field that steers terminals": {"\x1b[2J\u202e": 1},
    "Python's own names": {"__class__": 1, "__proto__": 1, "model_config": 1},
}


@pytest.fixture
def reader(alice: Person, publish: Publish) -> Iterator[Person]:
    """Alice with notifications 1 to 3 and an action number 4 that she could undo; whatever is sent changes nothing."""
    for _ in range(3):
        publish("alice")
    alice.post("/notifications/seen", {"ids": [1]})
    before = inboxes.everything()
    yield alice
    assert inboxes.everything() == before


def refused(answer: TestResponse, *statuses: int) -> dict[str, Any]:
    """The problem that the answer tells of."""
    assert answer.status_code in statuses, answer.get_data(as_text=True)[:500]
    assert answer.mimetype == "application/problem+json"
    content: dict[str, Any] = json.loads(answer.data)
    assert set(content) == {"type", "title", "status", "detail", "request_id", "errors"}
    assert content["status"] == answer.status_code
    assert len(answer.data) < 16 * 1024  # a small question cannot cause a large answer
    return content


def send(person: Person, route: str, body: bytes, content_type: str | None = "application/json") -> TestResponse:
    return person.browser.post(routes.path_of(route), data=body, content_type=content_type)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_body_that_is_no_sound_json_object_is_refused(reader: Person, name: str) -> None:
    for route in TAKING_JSON:
        # 422 where a part that is sound JSON is of the wrong type as well.
        refused(send(reader, route, MALFORMED[name]), 400, 422)


@pytest.mark.parametrize("name", MISUNDERSTOOD)
def test_a_body_that_says_something_else_is_refused_by_field(reader: Person, name: str) -> None:
    for route in TAKING_JSON:
        content = refused(send(reader, route, json.dumps(MISUNDERSTOOD[name]).encode()), 422)
        assert 1 <= len(content["errors"]) <= 50
        for error in content["errors"]:
            assert set(error) == {"field", "message"}
            assert error["message"]
            assert len(error["field"]) <= 200
            assert error["field"].isprintable()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/plain; charset=utf-8",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/problem+json",
        "application/json-patch+json",
        "application/octet-stream",
        "application",
        "*/*",
        ";",
        "\xff",
        "text/plain, application/json",
        "x/" + "y" * 10_000,
    ],
)
def test_a_body_that_is_not_called_json_is_415(reader: Person, content_type: str | None) -> None:
    for route in TAKING_JSON:
        refused(send(reader, route, json.dumps(routes.API[route] or {}).encode(), content_type), 415)


def padded(route: str, length: int) -> bytes:
    return json.dumps(routes.API[route] or {}).encode().ljust(length)


def test_a_body_over_64_kib_is_413(reader: Person) -> None:
    for route in TAKING_JSON:
        refused(send(reader, route, padded(route, LIMIT + 1)), 413)
        refused(send(reader, route, padded(route, LIMIT + 1024)), 413)
        refused(send(reader, route, padded(route, LIMIT + 1), "text/plain"), 413, 415)
    for route in TAKING_FORMS:
        body = b"username=alice&password=x&id=1&through=1&next=" + b"x" * LIMIT
        refused(send(reader, route, body, "application/x-www-form-urlencoded"), 413)


def test_a_body_of_64_kib_is_taken(alice: Person, publish: Publish) -> None:
    publish("alice")

    assert send(alice, "POST /notifications/read", padded("POST /notifications/read", LIMIT)).status_code == 200


def test_a_body_where_none_belongs_does_no_harm(reader: Person) -> None:
    for route in routes.API:
        if route.startswith("GET"):
            answer = reader.browser.get(
                routes.path_of(route), data=b"\x00" * (LIMIT + 1), content_type="application/json"
            )
            assert answer.status_code == 200


QUERIES = [
    "colour=red",
    "limit=20&limit=20",
    "LIMIT=20",
    "limit[]=20",
    "limit=" + "9" * 3_000,
    "limit=-" + "9" * 3_000,
    "limit=NaN",
    "limit=1e1",
    "limit=True",
    "limit=%00",
    "limit=20%00",
    "%00=20",
    "%00",
    "=",
    "=20",
    "limit",
    "limit=%ff",
    "limit=%ed%a0%80",
    "limit=\u0665",
    "limit=%D9%A5",
    "%ff%fe=1",
    "limit=%",
    "limit=%zz",
    "limit=20;state=all",
    "a" * 3_000 + "=1",
    "&".join(f"f{number}=1" for number in range(1_000)),
    "<script>alert(1)</script>=1",
    "__class__=1",
]


@pytest.mark.parametrize("route", ["GET /notifications", "GET /notifications/unread"])
def test_a_query_that_makes_no_sense_is_422(reader: Person, route: str) -> None:
    for query in QUERIES:
        content = refused(reader.get(f"{routes.path_of(route)}?{query}"), 422)
        assert content["errors"], query[:100]
        assert all(error["field"].isprintable() for error in content["errors"])


PATHS = [
    "/%00",
    "/notifications/%00",
    "/notifications/1%00",
    "/notifications/1%00/read",
    "/notifications/%ff%fe",
    "/notifications/%ed%a0%80",
    "/notifications/..%2f..%2fetc%2fpasswd",
    "/notifications/%2e%2e/%2e%2e",
    "/notifications/1/../../etc/passwd",
    "/notifications/0x1",
    "/notifications/1 ",
    "/notifications/" + "9" * 5_000,
    "/notifications/-1",
    "/notifications/1/read/",
    "/" + "a" * 10_000,
    "/" + "a/" * 2_000,
    "/static/%00",
    "/static/js/poller.js%00",
    "/static/..%2fwsgi.py",
    "/static/%2e%2e/wsgi.py",
    "/static/../app/settings.py",
    "/static/..\\wsgi.py",
    "/static/" + "a" * 5_000,
    "/static/js",
    "/static/",
    "/tickets/%00",
    "/tickets/%ff",
    "/tickets/" + "a" * 5_000,
    "/tickets/'; DROP TABLE users; --",
]


def test_a_path_that_leads_nowhere_is_404(reader: Person) -> None:
    for path in PATHS:
        refused(reader.get(path), 404)


def test_a_change_at_a_path_that_leads_nowhere_is_404(reader: Person) -> None:
    for number in ("%00", "1%00", "%ff", "-1", "0", "9" * 30, "9" * 5_000):
        refused(reader.post(f"/notifications/{number}/read"), 404)


HEADERS = [
    "",
    "\x00",
    "a\x00b",
    "\xff\xfe",
    "\xed\xa0\x80",
    "\x7f\x1b[2J",
    "http://[",
    "http://[::1",
    "http://]",
    "http://[not an address]",
    "http://a:b:c",
    "http://a:99999999",
    "http://" + "a" * 30_000,
    '"' * 10_000,
    ", " * 10_000,
    '"0.' + "9" * 20_000 + '.1.0.20"',
    "W/" * 10_000,
    "text/html;q=" + "9" * 5_000,
    "*/*;q=NaN",
    "Bearer",
    "Bearer \x00",
    "Basic " + "=" * 1_000,
    "Bearer " + "." * 10_000,
]


@pytest.mark.parametrize("header", ["If-None-Match", "Origin", "Sec-Fetch-Site", "Accept", "Authorization"])
def test_no_header_makes_it_fail(reader: Person, header: str) -> None:
    expected = 403 if header in ("Origin", "Sec-Fetch-Site") else 200

    for value in HEADERS:
        # Who shows a token is known by it alone, and not by a cookie that comes along.
        shows_token = header == "Authorization" and value.startswith("Bearer")
        polled = reader.get("/notifications/unread", headers={header: value})
        assert polled.status_code == (401 if shows_token else 200), value[:100]
        answer = reader.browser.post("/notifications/read", headers={header: value}, json={"ids": [99]})
        assert answer.status_code == (401 if shows_token else expected), value[:100]


COOKIES = [
    "",
    "=",
    ";",
    "belfry",
    "belfry=",
    "belfry=\x00",
    "belfry=a\x00b",
    "belfry=\xff\xfe",
    "belfry=.",
    "belfry=..",
    "belfry=...",
    "belfry=.eJx.a.b",
    "belfry=." + "A" * 30_000,
    "belfry=e30.a.b",
    'belfry="quoted"',
    'belfry="\\000\\377"',
    "belfry=garbage; belfry=rubbish",
    "; ".join(f"cookie{number}=1" for number in range(2_000)),
]


def test_a_cookie_that_makes_no_sense_is_nobodys(reader: Person) -> None:
    stranger = reader.app.test_client(use_cookies=False)

    for value in COOKIES:
        refused(stranger.get("/notifications/unread", headers={"Cookie": value}), 401)
        refused(stranger.post("/notifications/read", headers={"Cookie": value}, json={"ids": [1]}), 401)
        assert stranger.get("/", headers={"Cookie": value}).status_code == 303, value[:100]


# Forms


@pytest.mark.parametrize("route", TAKING_FORMS)
@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/json", "multipart/form-data; boundary=x", "\xff"]
)
def test_a_form_that_is_not_called_one_is_415(reader: Person, route: str, content_type: str | None) -> None:
    refused(send(reader, route, b"id=1&username=alice&password=x", content_type), 415)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"through=",
        b"through=0x1",
        b"through=-1",
        b"through=1.0",
        b"through=%00",
        b"through=1%00",
        b"through=%ff",
        b"through=%D9%A3",
        b"through=" + LONG_NUMBER,
        b"through=9223372036854775808",
        b"through=9223372036854775807",
        b"through=5",
        b"id=",
        b"id=one",
        b"id=9223372036854775808",
        b"id=" + LONG_NUMBER,
        b"\x00=\x00",
        b"&" * 10_000,
        b"colour=red",
    ],
)
def test_the_pages_form_refuses_what_is_no_number_of_the_inbox(reader: Person, body: bytes) -> None:
    form = b"reader=%d&" % reader.id + body
    content = refused(send(reader, MARKING, form, "application/x-www-form-urlencoded"), 422)

    assert {error["field"] for error in content["errors"]} <= {"id", "through"}


def test_the_pages_form_passes_over_an_id_that_leads_nowhere(reader: Person) -> None:
    for body in (b"id=99", b"id=9223372036854775807", b"id=99&through=3"):
        form = b"reader=%d&" % reader.id + body
        answer = send(reader, MARKING, form, "application/x-www-form-urlencoded")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/?done=gone")


# Through gunicorn


@pytest.fixture
def connection(service: Service) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    yield connection
    connection.close()


@pytest.fixture
def cookie(service: Service, connection: http.client.HTTPConnection) -> str:
    """The cookie of alice, who has signed in by a link and has notification 1."""
    service.send("alice", title="One")
    connection.request("POST", urlsplit(service.link("alice")).path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 303
    return answer.headers["Set-Cookie"].split(";")[0]


def pieces(body: bytes, size: int = 1_000) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def exchange(
    connection: http.client.HTTPConnection,
    cookie: str,
    body: Any,
    path: str = "/notifications/read",
    content_type: str = "application/json",
) -> tuple[int, dict[str, Any]]:
    """Sends a body in chunks, without its length."""
    headers = {"Cookie": cookie, "Content-Type": content_type, "Transfer-Encoding": "chunked"}
    connection.request("POST", path, body=body, headers=headers, encode_chunked=True)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    assert answer.headers["Content-Type"] == f"application/{'json' if answer.status == 200 else 'problem+json'}"
    return answer.status, content


def test_a_body_in_chunks_is_measured_as_it_comes(connection: http.client.HTTPConnection, cookie: str) -> None:
    assert exchange(connection, cookie, pieces(b'{"ids":[1]}', 3))[1]["changed"] == 1
    assert exchange(connection, cookie, pieces(b'{"ids":[1]}'.ljust(LIMIT)))[1]["changed"] == 0
    for body in (b'{"ids":[1]}'.ljust(LIMIT + 1), b'{"ids":[1]}'.ljust(LIMIT * 4), b"[" * (LIMIT * 2)):
        connection.close()  # the service may close it on what is too large
        status, content = exchange(connection, cookie, pieces(body))
        assert (status, content["status"]) == (413, 413)
    connection.close()
    form = "application/x-www-form-urlencoded"
    assert exchange(connection, cookie, pieces(b"id=1&x=".ljust(LIMIT + 1, b"x")), "/read", form)[0] == 413
    for name in ("lists nested deep", "a number of 5,000 digits", "UTF-16 with a mark", "NaN"):
        connection.close()
        status, content = exchange(connection, cookie, pieces(MALFORMED[name]))
        assert (status, content["status"]) == (400, 400), name


def say(service: Service, request: bytes) -> bytes:
    """What the service answers to these bytes; it closes the connection after them."""
    address = urlsplit(service.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as wire:
        wire.sendall(request)
        wire.shutdown(socket.SHUT_WR)
        answer = b""
        while received := wire.recv(65536):
            answer += received
    return answer


ON_THE_WIRE = [
    b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /notifications/unread?limit=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /notifications/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /notifications/unread HTTP/1.1\r\nHost: localhost\r\nCookie: belfry=\xff\xfe\r\n\r\n",
    b"GET /notifications/unread HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \x00\r\n\r\n",
    b"POST /notifications/read HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[\r\nContent-Length: 0\r\n\r\n",
    b"POST /notifications/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /notifications/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n",
    b"POST /notifications/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    b"POST /notifications/read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nz\r\n",
    b"GET /notifications/unread HTTP/1.1\r\nHost: evil.com\r\n\r\n",
    b"GET /notifications/unread HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
    b"BREW /notifications HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 1_000,
]


def test_no_bytes_on_the_wire_make_it_fail(service: Service) -> None:
    for request in ON_THE_WIRE:
        answer = say(service, request)
        # gunicorn itself answers what is no HTTP, or says nothing to it; never is it an error on this side.
        assert not answer or 400 <= int(answer.split(b" ", 2)[1]) < 500, (request[:100], answer[:200])

    assert say(service, b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")
