"""`examples/flask-host/`: a host with people of its own, and the way of the README from a clone to its ringing bell."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from flask.testing import FlaskClient
from flask_host import Comment, create_app, host, to_events
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from tests import postgres
from tests.service import answers, free_port, wait_until
from tests.web import Browser

JWT_KEY = "a shared secret of the tests, long enough"


@pytest.fixture
def product() -> FlaskClient:
    """The example host; nobody answers where its Belfry should be."""
    return host(f"http://127.0.0.1:{free_port()}/belfry", "blf_x", JWT_KEY, attempts=1).test_client()


def sign_in(product: FlaskClient, name: str) -> None:
    assert product.post("/sign-in", data={"name": name, "password": "bell"}).status_code == 303


def test_the_page_has_the_bell_and_lets_it_work(product: FlaskClient) -> None:
    sign_in(product, "ada")

    page = product.get("/")

    [service] = re.findall(
        r'<script type="module" src="(\S+)/belfry/static/js/notification-bell.js"></script>', page.text
    )
    assert '<notification-bell token-url="/bell-token" inbox-url="/inbox"></notification-bell>' in page.text
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src", "img-src", "connect-src"):
        assert service in policy[kind].split()
    assert not re.search(r"<script>|<style|style=|onclick", page.text)


def test_the_token_names_who_is_signed_in_and_soon_ends(product: FlaskClient) -> None:
    assert product.get("/bell-token").status_code == 401
    sign_in(product, "ada")

    answer = product.get("/bell-token")

    claims = jwt.decode(answer.get_json()["token"], JWT_KEY, algorithms=["HS256"], options={"require": ["exp"]})
    assert claims["sub"] == "ada"
    assert answer.headers["Cache-Control"] == "no-store"
    product.post("/sign-out")
    assert product.get("/bell-token").status_code == 401


def test_nobody_comes_in_without_the_password(product: FlaskClient) -> None:
    for name, password in [("ada", "wrong"), ("mallory", "bell"), ("", "")]:
        assert product.post("/sign-in", data={"name": name, "password": password}).status_code == 200
    for path in ("/", "/inbox"):
        assert product.get(path).location.startswith("/sign-in")
    assert product.post("/comments", data={"text": "Hello"}).location.startswith("/sign-in")


def test_a_comment_is_kept_while_belfry_is_away(product: FlaskClient) -> None:
    sign_in(product, "grace")

    assert product.post("/comments", data={"text": "@ada <b>look</b>"}).status_code == 303

    assert "@ada &lt;b&gt;look&lt;/b&gt;" in product.get("/").text
    assert product.get("/inbox").status_code == 503
    assert product.post("/sign-out").location == "/sign-in"
    assert product.get("/").location.startswith("/sign-in")


def test_who_is_named_and_who_wrote_before_hear_of_a_comment() -> None:
    comment = Comment("1", "grace", "@Ada, @grace, @nobody and ada@charles: <b>look</b>")

    mention, comment_ = to_events(comment, {"grace", "ada", "charles"}, "/#1")

    assert (mention.type, mention.recipients) == ("mention", ["ada"])
    assert (comment_.type, comment_.recipients) == ("comment", ["charles"])
    assert mention.body == "@Ada, @grace, @nobody and ada@charles: &lt;b&gt;look&lt;/b&gt;"
    assert to_events(Comment("2", "grace", "To myself: @grace"), {"grace"}, "/#2") == []


def test_without_its_settings_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BELFRY_URL", "BELFRY_KEY", "JWT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="Set BELFRY_URL, BELFRY_KEY and JWT_KEY"):
        create_app()


@contextlib.contextmanager
def terminal(checkout: Path, commands: str, **ports: str) -> Iterator[None]:
    """A terminal in which these commands run until Ctrl-C, at which they end by themselves."""
    unset = ("DATABASE_URL", "SECRET_KEY", "JWT_KEY", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    output = checkout / f"{'-'.join(ports)}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            ["/bin/sh", "-c", commands],
            cwd=checkout,
            env={**environment, **ports},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
    assert "SIGKILL" not in output.read_text()


def test_the_readmes_commands_lead_from_a_fresh_clone_to_a_ringing_bell(checkout: Path, chromium: Chromium) -> None:
    for name in ("clients", "examples"):
        shutil.copytree(postgres.ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    section = (postgres.ROOT / "README.md").read_text().split("## A bell in a host's page\n")[1].split("\n## ")[0]
    port, host_port = str(free_port()), str(free_port())
    section = section.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("127.0.0.1:5000", f"127.0.0.1:{host_port}")
    belfry, product = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    bell, page = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{host_port}"

    with terminal(checkout, belfry, PORT=port, POLL_INTERVAL="1"), chromium.new_context() as browser:
        wait_until(lambda: answers(f"{bell}/login"), "Belfry answers", 60)
        with terminal(checkout, product, FLASK_RUN_PORT=host_port):
            wait_until(lambda: answers(f"{page}/sign-in"), "the product answers", 60)
            grace, charles = Browser(page), Browser(page)
            window = browser.new_page()
            window.goto(f"{page}/sign-in")
            window.get_by_label("Name").fill("charles")
            window.get_by_label("Password").fill("bell")
            window.get_by_role("button", name="Sign in").click()
            expect(window.get_by_role("button", name="Notifications", exact=True)).to_be_visible()
            grace.submit("/sign-in", name="grace", password="bell")
            grace.submit("/comments", text="@charles, look at B1.")
            # It rings in the open page, and its notification leads to the comment.
            window.get_by_role("button", name="Notifications, 1 unread").click()
            expect(window.get_by_role("link", name="Grace Hopper mentioned you in “Note G”")).to_be_visible()
            charles.submit("/sign-in", name="charles", password="bell")

            # What the bell does: it asks the page for a token, and Belfry for what is unread.
            assert b"<notification-bell" in charles.open("/").body
            authorization = f"Bearer {charles.open('/bell-token').json()['token']}"
            poll = Browser(bell).open("/notifications/unread", Authorization=authorization, Origin=page)
            assert poll.headers["Access-Control-Allow-Origin"] == page
            rung = poll.json()["notifications"][0]
            assert (rung["title"], rung["body"]) == ("Grace Hopper mentioned you in “Note G”", "@charles, look at B1.")
            assert rung["url"].startswith(f"{page}/#")

            # The other way in: through Belfry's sign-in link to its inbox page.
            all_of_them = window.get_by_role("link", name="See all notifications")
            expect(all_of_them).to_have_attribute("href", "/inbox")
            ticket = charles.open("/inbox")
            assert b"Continue as <bdi>Charles Babbage</bdi>" in ticket.body
            [action] = re.findall(r'action="(/tickets/[^"]+)"', ticket.body.decode())
            inbox = charles.submit(bell + action)
            assert b'<ul class="list" id="list"' in inbox.body
            assert b"@charles, look at B1." in inbox.body
            assert charles.open(f"{bell}/notifications/unread").json()["notifications"][0] == rung
            window.get_by_role("link", name="Grace Hopper mentioned you in “Note G”").click()
            expect(window).to_have_url(rung["url"])
            wait_until(lambda: not charles.open(f"{bell}/notifications/unread").json()["unread_count"], "it is read")
            charles.submit("/sign-out")
            assert charles.open(f"{bell}/notifications/unread").status == 401
