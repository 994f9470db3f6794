"""`/tickets/…`: a sign-in link shows whose it is, and its form's POST signs in, once."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import flask
import pytest
from flask.testing import FlaskClient

from app import db, people, tickets
from tests import rows
from tests.cast import Person
from tests.commands import run
from tests.variants import another_app

NO_GOOD = "This sign-in link has been used, or its time is over. Ask for a new one."


@pytest.fixture
def ticket(alice: Person) -> str:
    """A link of alice's, without the host."""
    return f"/tickets/{db.write(tickets.make_ticket, 'alice', 60)}"


def test_looking_spends_nothing_and_the_form_signs_in(anonymous: FlaskClient, ticket: str) -> None:
    pages = [anonymous.get(ticket) for _ in range(3)]
    anonymous.head(ticket)

    assert {page.status_code for page in pages} == {200}
    assert "Continue as <bdi>alice</bdi>" in pages[0].text
    assert f'method="post" action="{ticket}"' in pages[0].text
    assert anonymous.get_cookie("belfry") is None

    answer = anonymous.post(ticket)

    assert (answer.status_code, answer.location) == (303, "/")
    assert anonymous.get("/notifications/unread").get_json()["user"] == "alice"


def test_a_script_sends_the_form_only_when_nobody_else_is_signed_in(
    anonymous: FlaskClient, alice: Person, mallory: Person, ticket: str
) -> None:
    assert "ticket-page.js" in anonymous.get(ticket).text
    assert "ticket-page.js" in alice.get(ticket).text
    page = mallory.get(ticket).text
    assert "ticket-page.js" not in page
    assert "signed in here as <bdi><strong>mallory</strong></bdi>" in page


def test_the_name_of_a_session_that_is_over_is_told_to_nobody(
    anonymous: FlaskClient, mallory: Person, ticket: str
) -> None:
    db.write(people.end_all_sessions, "mallory")

    page = mallory.get(ticket).text

    assert "mallory" not in page
    assert "ticket-page.js" in page


def test_the_session_is_of_whom_the_ticket_is_for_among_others(anonymous: FlaskClient, ticket: str) -> None:
    for subject in ("aaron", "zoe"):
        db.write(people.save_user, subject, None, None)

    assert anonymous.post(ticket).status_code == 303
    assert anonymous.get("/notifications/unread").get_json()["user"] == "alice"


def test_of_ten_who_spend_a_ticket_at_once_one_gets_in(app: flask.Flask, ticket: str) -> None:
    start = Barrier(10)

    def spend(_number: int) -> int:
        browser = app.test_client()
        start.wait(timeout=30)
        return browser.post(ticket).status_code

    with ThreadPoolExecutor(10) as pool:
        statuses = sorted(pool.map(spend, range(10)))

    assert statuses == [303] + [404] * 9


def test_a_ticket_replaces_the_session_of_somebody_else(
    app: flask.Flask, mallory: Person, ticket: str, anonymous: FlaskClient
) -> None:
    before = mallory.browser.get_cookie("belfry")
    assert before is not None
    elsewhere = mallory.signed_in_browser()

    assert mallory.browser.post(ticket).status_code == 303

    assert mallory.poll().get_json()["user"] == "alice"
    anonymous.set_cookie("belfry", before.value)
    assert anonymous.get("/notifications/unread").status_code == 401
    assert elsewhere.get("/notifications/unread").get_json()["user"] == "mallory"


def test_used_expired_unknown_and_disabled_look_the_same(app: flask.Flask, anonymous: FlaskClient) -> None:
    paths = {"unknown": "/tickets/nonsense"}
    for subject in ("used", "expired", "disabled"):
        db.write(people.save_user, subject, None, None)
        paths[subject] = f"/tickets/{db.write(tickets.make_ticket, subject, 60)}"
    anonymous.post(paths["used"])
    rows.change(
        "UPDATE tickets SET expires_at = now() FROM users WHERE users.id = user_id AND users.subject = 'expired'"
    )
    run(app, "user", "disable", "disabled")

    stranger = app.test_client()
    for method in ("GET", "POST"):
        for path in paths.values():
            answer = stranger.open(path, method=method)
            assert answer.status_code == 404
            assert answer.get_json()["detail"] == NO_GOOD
            assert "Set-Cookie" not in answer.headers
            page = stranger.open(path, method=method, headers={"Accept": "text/html"})
            assert page.status_code == 404
            assert NO_GOOD in page.text


def test_an_enabled_person_may_use_a_link_from_before(app: flask.Flask, anonymous: FlaskClient, ticket: str) -> None:
    run(app, "user", "disable", "alice")
    assert anonymous.post(ticket).status_code == 404

    run(app, "user", "enable", "alice")
    assert anonymous.post(ticket).status_code == 303


def test_nobody_who_is_disabled_gets_a_link(app: flask.Flask, alice: Person) -> None:
    run(app, "user", "disable", "alice")

    for subject in ("alice", "nobody"):
        refused = run(app, "user", "link", subject)
        assert refused.exit_code == 1
        assert refused.stderr == f"Error: There is no such user, or the user is disabled: {subject}.\n"
    assert rows.count("tickets") == 0


def test_a_form_of_another_site_spends_nothing(anonymous: FlaskClient, ticket: str) -> None:
    for foreign in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        assert anonymous.post(ticket, headers=foreign).status_code == 403

    assert rows.one("SELECT used_at IS NULL FROM tickets")
    assert anonymous.post(ticket).status_code == 303


def test_the_database_holds_only_a_digest(ticket: str) -> None:
    secret = ticket.removeprefix("/tickets/")

    assert rows.one("SELECT digest FROM tickets") == hashlib.sha256(secret.encode()).digest()
    assert secret not in rows.one("SELECT CAST(tickets AS text) FROM tickets")
    assert len(secret) >= 43  # 256 random bits


def test_a_link_lasts_as_long_as_the_operator_says(app: flask.Flask, alice: Person) -> None:
    run(app, "user", "link", "alice")
    run(app, "user", "link", "alice", "--valid", "3600")

    left = sorted(map(round, rows.column("SELECT extract(epoch FROM expires_at - now()) FROM tickets")))
    assert 500 <= left[0] <= 600
    assert 3500 <= left[1] <= 3600


def test_a_ticket_leads_back_to_an_allowed_origin_and_its_page_lets_the_form_go_there(
    app: flask.Flask, alice: Person
) -> None:
    with another_app(public_url="https://bell.example", cors_origins=["https://app.example"]) as service:
        for wanted, form_action in [
            ("https://app.example/deep/page?x=1#y", "form-action 'self' https://app.example;"),
            ("https://bell.example/login", "form-action 'self' https://bell.example;"),
        ]:
            link = run(service, "user", "link", "alice", "--return-to", wanted).stdout.strip()
            browser = service.test_client()
            page = browser.get(link)
            answer = browser.post(link)

            assert form_action in page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert (answer.status_code, answer.location) == (303, wanted)


def test_the_page_of_an_ordinary_ticket_lets_the_form_go_nowhere_else(anonymous: FlaskClient, ticket: str) -> None:
    assert "form-action 'self';" in anonymous.get(ticket).headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "https://app.example.evil.example/",
        "https://app.example:444/",
        "http://app.example/",
        "https://app.example@evil.example/",
        "https://evil.example/https://app.example",
        "//app.example/",
        "/inbox",
        "",
        "javascript:alert(1)",
        "https://app.example\\@evil.example",
        "https://app.example/\r\nSet-Cookie: a=b",
        "https://app.example/ x",
    ],
)
def test_a_ticket_leads_nowhere_else(app: flask.Flask, alice: Person, wanted: str) -> None:
    with another_app(public_url="https://bell.example", cors_origins=["https://app.example"]) as service:
        refused = run(service, "user", "link", "alice", f"--return-to={wanted}")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: --return-to must ")
    assert refused.stderr.count("\n") == 1
    assert rows.count("tickets") == 0
