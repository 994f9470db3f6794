"""Through Caddy, with the file that operators get: `deploy/Caddyfile`."""

import contextlib
import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import guard, publish_api
from tests import postgres, programs
from tests.dying import Dying
from tests.hosts import make_key, query
from tests.proxy import changed
from tests.readers import sign_in
from tests.service import Service, answers, free_port, running_service, wait_until
from tests.web import Answer


@contextlib.contextmanager
def caddy(folder: Path, port: int, upstream_port: int) -> Iterator[None]:
    made = changed(
        (postgres.ROOT / "deploy/Caddyfile").read_text(),
        ("bell.example.com {", f"http://127.0.0.1:{port} {{"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream_port}"),
        ("/var/log/caddy", str(folder)),
        ("\tservers {", "\tadmin off\n\tservers {"),  # several of these tests run at once
    )
    (folder / "Caddyfile").write_text(made)
    command = [programs.find("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "Caddy answers")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int, Path]]:
    port, folder = free_port(), tmp_path_factory.mktemp("caddy")
    with (
        running_service(PUBLIC_URL=f"http://127.0.0.1:{port}", TRUSTED_PROXIES="1") as service,
        caddy(folder, port, service.port),
    ):
        yield service, port, folder / "belfry.log"


def call(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def test_a_poll_passes_and_the_next_one_is_answered_by_its_tag(behind: tuple[Service, int, Path]) -> None:
    service, port, _ = behind
    cookie = sign_in(service, "ada")
    first = call(port, "GET", "/notifications/unread", Cookie=cookie)
    assert first.status == 200
    again = call(port, "GET", "/notifications/unread", Cookie=cookie, If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x", "//metrics", "/%6detrics", "/./metrics"])
def test_metrics_are_not_for_strangers(behind: tuple[Service, int, Path], path: str) -> None:
    answer = call(behind[1], "GET", path)
    assert (answer.status, answer.json()["detail"]) == (404, "There is nothing here.")


def test_who_claims_to_come_from_elsewhere_is_counted_where_they_are(behind: tuple[Service, int, Path]) -> None:
    service, port, _ = behind
    for forged in ({}, {"X_Forwarded_For": "203.0.113.7"}, {"X_Forwarded_For": "203.0.113.8, 198.51.100.1"}):
        headers = {**forged, "Content_Type": "application/x-www-form-urlencoded"}
        assert call(port, "POST", "/login", b"username=nobody&password=wrong", **headers).status in (401, 422)
    counters = query(service.database_url, "SELECT key FROM rate_limits WHERE starts_with(key, 'LIMITER/sign-in/')")
    assert len(counters) == 2  # the account's, the one address's


@pytest.mark.parametrize(
    ("path", "longest"),
    [
        ("/api/v1/tickets", guard.BODY_BYTES),
        ("/api/v1/events", publish_api.EVENT_BYTES),
        ("/api/v1/events/batch", publish_api.BATCH_BYTES),
    ],
)
def test_a_body_has_the_size_that_the_service_takes(behind: tuple[Service, int, Path], path: str, longest: int) -> None:
    service, port, _ = behind
    headers = {"Content_Type": "application/json", "Authorization": f"Bearer {make_key(service.database_url)}"}
    assert call(port, "POST", path, b" " * longest, **headers).status == 400
    too_large = call(port, "POST", path, b" " * (longest + 1), **headers)
    assert (too_large.status, too_large.headers["Content-Type"]) == (413, "application/problem+json")


def test_the_log_holds_no_link_query_or_cookie(behind: tuple[Service, int, Path]) -> None:
    _, port, log = behind
    for path in ("/tickets/secret-ticket", "/login?next=secret-ticket"):
        call(port, "GET", path, Cookie="x=secret-ticket", Referer="https://x/secret-ticket")

    def paths() -> set[str]:
        return {json.loads(line)["request"]["uri"] for line in log.read_text().splitlines()} if log.exists() else set()

    wait_until(lambda: {"/tickets/-", "/login?-"} <= paths(), "both requests are in the log")
    assert "secret-ticket" not in log.read_text()


def test_without_the_service_bells_are_told_when_to_come_back(tmp_path: Path) -> None:
    port = free_port()
    with caddy(tmp_path, port, free_port()):
        answer = call(port, "GET", "/notifications/unread")
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert (answer.headers["Retry-After"], answer.json()["status"]) == ("5", 503)


def test_what_caddy_refuses_is_protected_as_what_the_service_refuses(behind: tuple[Service, int, Path]) -> None:
    headers = call(behind[1], "GET", "/metrics").headers
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert (headers["X-Content-Type-Options"], headers["Cross-Origin-Resource-Policy"]) == ("nosniff", "same-origin")


@pytest.mark.parametrize(("method", "status", "heard"), [("GET", 200, 3), ("POST", 503, 1)])
def test_a_get_that_dies_with_its_worker_is_asked_again_and_a_post_never(
    tmp_path: Path, method: str, status: int, heard: int
) -> None:
    port = free_port()
    with contextlib.closing(Dying()) as upstream, caddy(tmp_path, port, upstream.port):
        call(port, "GET", "/")  # whoever looked whether Caddy answers has left a connection, which dies of this
        upstream.heard.clear()
        upstream.new_ones_to_die = 2
        assert call(port, method, "/").status == status
    assert upstream.heard[-heard:] == [method.encode()] * heard
    assert len(upstream.heard) <= heard + 1  # one by a connection that is kept
