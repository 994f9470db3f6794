"""Schemathesis against the running service by its own `/openapi.json`, once for each kind of credential."""

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from tests import postgres
from tests.hosts import WireHost, event, make_key
from tests.service import Service, running_service
from tests.web import Browser

DEEP = bool(os.environ.get("BELFRY_TEST_DEEP"))
SECRET = "a secret that the host and the service share"
# Left out is its own idea of who may do what, which stumbles over addresses that two kinds of credential open:
# tests/test_credentials.py holds that. And valid data may be refused, for no schema can say all that makes a title.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,use_after_free"
)
RUN = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


@pytest.fixture
def service() -> Iterator[Service]:
    """A new one for each run, whose limits nobody has used up; one worker, for each allows its part of them only."""
    with running_service(WEB_CONCURRENCY="1", THREADS="8", JWT_KEY=SECRET) as service:
        yield service


def fill(service: Service) -> None:
    """Something for every address to find."""
    host = WireHost(service.url, make_key(service.database_url))
    for number in range(3):
        assert host.call("POST", "/events", event("alice", "bob", title=f"Number {number}")).status == 201


def nothing(service: Service) -> str:
    return "X-Nothing: at all"


def key(service: Service) -> str:
    return f"Authorization: Bearer {make_key(service.database_url)}"


def token(service: Service) -> str:
    return "Authorization: Bearer " + jwt.encode({"sub": "alice", "exp": int(time.time()) + 3600}, SECRET, "HS256")


def session(service: Service) -> str:
    host = WireHost(service.url, make_key(service.database_url))
    url = host.call("POST", "/tickets", {"user": "alice"}).json()["url"]
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", url[url.index("/tickets/") :], "", form)
    cookies = connection.getresponse().headers.get_all("Set-Cookie") or []
    connection.close()
    [cookie] = [cookie for cookie in cookies if not cookie.startswith("belfry=;")]
    return f"Cookie: {cookie.partition(';')[0]}"


# Each with what it gets from the sender's and from the reader's API, or the run would show nothing.
CREDENTIALS = [(nothing, 401, 401), (key, 200, 401), (token, 401, 200), (session, 401, 200)]


@pytest.mark.parametrize(("credential", "sender", "reader"), CREDENTIALS, ids=["nothing", "key", "token", "session"])
@pytest.mark.parametrize("seed", range(4) if DEEP else [1])
def test_the_service_keeps_its_own_description(
    service: Service, tmp_path: Path, credential: Callable[[Service], str], sender: int, reader: int, seed: int
) -> None:
    fill(service)
    header = credential(service)
    name, value = header.split(": ", 1)
    statuses = [
        Browser(service.url).open(path, **{name: value}).status
        for path in ("/api/v1/users/bob/export", "/notifications/unread")
    ]
    assert statuses == [sender, reader]

    done = subprocess.run(
        [
            *(sys.executable, "-c", RUN, "--no-color", "run", f"{service.url}/openapi.json"),
            # Whom the calls are meant for: with a name that is made up, every one of them would end there.
            *(
                "--header",
                header,
                "--header",
                "Belfry-User: alice",
                "--checks",
                CHECKS,
                "--seed",
                str(seed),
                "--no-shrink",
                "--continue-on-failure",
            ),
            *("--max-examples", "40" if DEEP else "3", "--request-timeout", "20"),
            *("--phases", "examples,coverage,fuzzing,stateful" if DEEP else "coverage,fuzzing"),
        ],
        cwd=tmp_path,
        env=postgres.environment(service.database_url),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"Tested: 23\b", done.stdout)
    assert Browser(service.url).open("/openapi.json").status == 200  # and is alive after all that
