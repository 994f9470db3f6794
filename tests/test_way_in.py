"""`flask doctor` comes in through real proxies, good ones and those that are set up wrong."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from itsdangerous import URLSafeSerializer

from app import checkup_way_in
from tests import postgres
from tests.programs import find
from tests.proxy import write_certificate
from tests.service import Service, answers, free_port, running_service, wait_until
from tests.test_doctor import Findings, findings
from tests.variants import another_app

GOOD = """
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
"""
# What stands in nginx's `location /`, beside the address of the service.
PROXIES = {
    "good": GOOD,
    "sets the address anew": GOOD.replace("$proxy_add_x_forwarded_for", "$remote_addr"),
    "adds no address": GOOD.replace("$proxy_add_x_forwarded_for", "$http_x_forwarded_for"),
    "keeps the host to itself": GOOD.replace("Host $http_host", "X-Nothing $http_host"),
    "has another host": GOOD.replace("$http_host", "elsewhere.example"),
    "passes any scheme": GOOD.replace("$scheme", "$http_x_forwarded_proto"),
    "drops a header": GOOD + 'proxy_set_header Belfry-User "";',
    "is closed": "return 503;",
    "leads elsewhere": "return 302 https://elsewhere.example/;",
    "has a page for everything": "return 200 welcome;",
    "has JSON for everything": 'return 200 \'{"status": "ok"}\';',
    "has figures": "return 200 1;",
    "tells figures": GOOD,
    "hangs up on figures": GOOD,
    "speaks TLS": GOOD,
}


# Nobody may ask for figures from here.
SETTINGS = {"TRUSTED_PROXIES": "1", "WEB_CONCURRENCY": "1", "METRICS_ALLOW": "192.0.2.99"}


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[Service, dict[str, str], Path]]:
    """The service with one trusted proxy, the addresses of the proxies in front of it, and their certificate."""
    with running_service(**SETTINGS) as service, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_certificate(folder)
        ports = {name: free_port() for name in [*PROXIES, "is one of two"]}
        servers = [server(folder, name, ports[name], service.url) for name in PROXIES]
        plain = f"http://127.0.0.1:{ports['good']}"
        servers.append(
            f"server {{ listen 127.0.0.1:{ports['is one of two']}; location / {{ {GOOD} proxy_pass {plain}; }} }}"
        )
        with nginx(folder, "\n".join(servers)):
            wait_until(lambda: answers(f"{plain}/login"), "nginx answers")
            urls = {name: f"http{'s' * (name == 'speaks TLS')}://127.0.0.1:{port}" for name, port in ports.items()}
            yield service, urls, folder / "fullchain.pem"


def server(folder: Path, name: str, port: int, url: str) -> str:
    passed_on = "" if "return" in PROXIES[name] else f"proxy_pass {url};"
    status = {"tells figures": "200 figures", "hangs up on figures": "444"}.get(name, "404")
    figures = f"location = /metrics {{ return {status}; }}"
    tls = (
        f"ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem;"
        if name == "speaks TLS"
        else ""
    )
    listens = f"listen 127.0.0.1:{port}{' ssl' if tls else ''};"
    return f"server {{ {listens} {tls} {figures} location / {{ {PROXIES[name]} {passed_on} }} }}"


@contextlib.contextmanager
def nginx(folder: Path, servers: str) -> Iterator[None]:
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr crit; events {{}}"
        f"http {{ access_log off; {places} {servers} }}"
    )
    process = subprocess.Popen([find("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf")])
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def coming_in(app: flask.Flask, url: str | None, **settings: Any) -> Findings:
    """What doctor finds through that address, its own subjects only."""
    with another_app(
        public_url=url, **{"trusted_proxies": 1, "metrics_allow": "192.0.2.99", **settings}
    ) as installation:
        with installation.app_context():
            known = set(findings(installation, "--no-network"))
        found = findings(installation, "--json")
    return {subject: finding for subject, finding in found.items() if subject not in known}


Ways = tuple[Service, dict[str, str], Path]


@pytest.mark.parametrize("name", ["good", "sets the address anew", "hangs up on figures"])
def test_behind_a_good_proxy_nothing_forged_is_believed(app: flask.Flask, ways: Ways, name: str) -> None:
    found = coming_in(app, ways[1][name])

    assert set(found) == {"way in", "addresses", "scheme", "host", "Belfry-User", "metrics"}
    assert {finding["verdict"] for finding in found.values()} == {"ok"}, found
    assert "127.0.0.1" in found["addresses"]["detail"]


def test_figures_are_no_secret_from_those_who_may_see_them(app: flask.Flask, ways: Ways) -> None:
    found = coming_in(app, ways[1]["tells figures"], metrics_allow="127.0.0.0/8")

    assert (found["metrics"]["verdict"], "METRICS_ALLOW" in found["metrics"]["detail"]) == ("ok", True)


@pytest.mark.parametrize(
    ("name", "subject", "verdict", "said"),
    [
        ("adds no address", "addresses", "broken", "set TRUSTED_PROXIES to 0"),
        ("is one of two", "addresses", "broken", "set TRUSTED_PROXIES to 2"),
        ("keeps the host to itself", "host", "broken", "proxy_set_header Host $http_host"),
        ("has another host", "way in", "broken", "proxy_set_header Host $http_host"),
        ("passes any scheme", "scheme", "look", "proxy_set_header X-Forwarded-Proto $scheme"),
        ("drops a header", "Belfry-User", "broken", "Belfry-User"),
        ("is closed", "way in", "look", "does the proxy pass every path on"),
        ("leads elsewhere", "way in", "look", "does the proxy pass every path on"),
        ("has a page for everything", "way in", "look", "does the proxy pass every path on"),
        ("has JSON for everything", "way in", "look", "does the proxy pass every path on"),
        ("has figures", "way in", "look", "does the proxy pass every path on"),
        ("tells figures", "metrics", "broken", "deny /metrics"),
    ],
)
def test_what_a_proxy_does_wrong_is_named_with_what_to_do(
    app: flask.Flask, ways: Ways, name: str, subject: str, verdict: str, said: str
) -> None:
    found = coming_in(app, ways[1][name])

    assert (found[subject]["verdict"], said.lower() in found[subject]["advice"].lower()) == (verdict, True), found
    assert [one["verdict"] for one in found.values()].count("ok") == len(found) - 1, found


def test_on_https_the_certificate_must_be_good(app: flask.Flask, ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    _, urls, certificate = ways
    found = coming_in(app, urls["speaks TLS"])
    assert found["way in"]["verdict"] == "look"
    assert "self" in found["way in"]["detail"]
    assert "SSL_CERT_FILE" in found["way in"]["advice"]

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    found = coming_in(app, urls["speaks TLS"])
    assert {finding["verdict"] for finding in found.values()} == {"ok"}, found
    assert found["scheme"]["detail"] == "https"


def test_an_address_where_nobody_answers_is_worth_a_look(app: flask.Flask) -> None:
    found = coming_in(app, f"http://127.0.0.1:{free_port()}")

    assert {name: finding["verdict"] for name, finding in found.items()} == {"way in": "look"}
    assert "start the service" in found["way in"]["advice"]


def test_a_service_with_another_key_is_worth_a_look(app: flask.Flask, ways: Ways) -> None:
    found = coming_in(app, ways[1]["good"], secret_key="another key, which is long enough too")

    assert (found["way in"]["verdict"], "404" in found["way in"]["detail"]) == ("look", True)


def test_without_a_proxy_doctor_asks_the_service_itself(app: flask.Flask) -> None:
    with running_service(WEB_CONCURRENCY="1") as service:
        found = coming_in(app, None, trusted_proxies=0, port=service.port)

    assert set(found) == {"way in", "addresses", "scheme", "host", "Belfry-User"}
    assert {finding["verdict"] for finding in found.values()} == {"ok"}, found


# What strangers find there


def test_strangers_learn_nothing_of_what_the_service_sees(app: flask.Flask) -> None:
    browser = app.test_client()
    old = URLSafeSerializer(postgres.SECRET_KEY, salt="belfry.doctor").dumps(int(time.time()) - 61)
    signed = {
        "good": checkup_way_in.sign(postgres.SECRET_KEY),
        "old": str(old),
        "of another key": checkup_way_in.sign("another key, which is long enough too"),
        "of no time": str(URLSafeSerializer(postgres.SECRET_KEY, salt="belfry.doctor").dumps(["now"])),
        "for something else": str(URLSafeSerializer(postgres.SECRET_KEY, salt="cookie").dumps(int(time.time()))),
        "nonsense": "nonsense",
    }
    assert checkup_way_in.HEADER == "Belfry-Doctor"

    statuses = {
        name: browser.get("/doctor", headers={"Belfry-Doctor": given}).status_code for name, given in signed.items()
    }

    assert statuses == {**dict.fromkeys(signed, 404), "good": 200}
    without = browser.get("/doctor").get_json()
    unknown = browser.get("/no-such-address").get_json()
    assert {**without, "request_id": ""} == {**unknown, "request_id": ""}
