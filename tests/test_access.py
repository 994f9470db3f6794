"""Who may come in: every signed-in route for everybody whose session is not good."""

import base64
import json
from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from app import db, people
from tests import inboxes, routes
from tests.cast import Person
from tests.hosts import Host

Publish = Callable[..., Any]
MakeApp = Callable[..., flask.Flask]

COOKIE = "belfry"
OTHER_KEY = "another key that is just as long as the real one"


def cookie_of(browser: FlaskClient) -> str:
    cookie = browser.get_cookie(COOKIE)
    assert cookie is not None
    return cookie.value


def with_cookie(app: flask.Flask, value: str, name: str = COOKIE) -> FlaskClient:
    browser = app.test_client()
    browser.set_cookie(name, value)
    return browser


def with_claims(app: flask.Flask, claims: Any) -> FlaskClient:
    """A browser whose cookie is signed with the real key and claims just this."""
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["_user_id"] = claims
    return browser


# Each takes the app, alice, and a way to make other apps; it leaves alice's session worthless and gives the browser.


def signed_out(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    return app.test_client()


def epoch_raised(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    db.write(people.end_all_sessions, "alice")
    return alice.browser


def disabled(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    db.write(people.set_active, "alice", active=False)
    return alice.browser


def disabled_with_the_same_epoch(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    inboxes.run("UPDATE users SET is_active = false WHERE subject = 'alice'")
    return alice.browser


def disabled_and_enabled(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    db.write(people.set_active, "alice", active=False)
    db.write(people.set_active, "alice", active=True)
    return alice.browser


def new_password(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    db.write(people.save_user, "alice", None, "a new password of hers")
    return alice.browser


def erased(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    inboxes.erase(alice)
    return alice.browser


def erased_and_made_again(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    inboxes.erase(alice)
    Person(app, "alice")
    return alice.browser


def over_its_hours(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    old = alice.new_session(hours=-0.001)
    return with_claims(app, f"{old.user_id}.{old.session_epoch}.{old.session_until}.{old.session_id}")


def replayed_after_sign_out(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    copy = cookie_of(alice.browser)
    assert alice.browser.post("/logout").status_code == 303
    return with_cookie(app, copy)


def signed_with_another_key(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    forger = Person(make(secret_key=OTHER_KEY), "alice")
    assert forger.poll().status_code == 200
    return with_cookie(app, cookie_of(forger.browser))


def signature_cut_off(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    return with_cookie(app, cookie_of(alice.browser).rsplit(".", 1)[0])


def one_letter_changed(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    value = cookie_of(alice.browser)
    return with_cookie(app, value[:5] + ("A" if value[5] != "A" else "B") + value[6:])


def claims_of_alice_with_the_signature_of_mallory(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    claims = cookie_of(alice.browser).split(".")[0]
    _claims, moment, signature = cookie_of(Person(app, "mallory").browser).rsplit(".", 2)
    return with_cookie(app, f"{claims}.{moment}.{signature}")


def unsigned(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    reader = alice.new_session()
    claims = f"{reader.user_id}.{reader.session_epoch}.{reader.session_until}.{reader.session_id}"
    return with_cookie(app, base64.urlsafe_b64encode(json.dumps({"_user_id": claims}).encode()).decode())


def garbage(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    return with_cookie(app, "garbage")


def under_another_name(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    return with_cookie(app, cookie_of(alice.browser), name="session")


def unknown_session_of_a_former_epoch(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    reader = alice.new_session()
    return with_claims(app, f"{reader.user_id}.{reader.session_epoch - 1}.{reader.session_until}.{reader.session_id}")


def a_key_instead(app: flask.Flask, alice: Person, make: MakeApp) -> FlaskClient:
    browser = app.test_client()
    browser.environ_base["HTTP_AUTHORIZATION"] = "Bearer blf_abcdefgh_0123456789"
    return browser


REFUSED = [
    signed_out,
    epoch_raised,
    disabled,
    disabled_with_the_same_epoch,
    disabled_and_enabled,
    new_password,
    erased,
    erased_and_made_again,
    over_its_hours,
    replayed_after_sign_out,
    signed_with_another_key,
    signature_cut_off,
    one_letter_changed,
    claims_of_alice_with_the_signature_of_mallory,
    unsigned,
    garbage,
    under_another_name,
    unknown_session_of_a_former_epoch,
    a_key_instead,
]


def test_every_route_is_in_exactly_one_list(app: flask.Flask) -> None:
    lists = [set(routes.API), set(routes.PAGES), set(routes.OPEN)]

    assert routes.of(app) == set.union(*lists)
    assert len(routes.of(app)) == sum(len(each) for each in lists)


@pytest.mark.parametrize("route", [*routes.API, *routes.PAGES])
def test_a_signed_in_reader_may_come_in(alice: Person, publish: Publish, route: str) -> None:
    publish("alice")
    alice.post("/notifications/seen", {"through": 1})  # action number 2, for the undo

    answer = routes.call(alice.browser, route, alice.id)

    assert answer.status_code == (303 if route.startswith("POST") and route in routes.PAGES else 200)
    assert "/login" not in answer.headers.get("Location", "")


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: str(refused.__name__))
def test_nobody_else_may(
    app: flask.Flask,
    alice: Person,
    publish: Publish,
    another_app: MakeApp,
    refused: Callable[[flask.Flask, Person, MakeApp], FlaskClient],
) -> None:
    publish("alice", title="For alice only")
    alice.post("/notifications/seen", {"through": 1})
    tag = alice.poll().headers["ETag"]
    browser = refused(app, alice, another_app)
    before = inboxes.everything()

    for route in routes.API:
        answer = routes.call(browser, route)
        assert answer.status_code == 401, route
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json()["detail"] == "You are not signed in."
        assert "Location" not in answer.headers
        assert "ETag" not in answer.headers
    for route in routes.PAGES:
        answer = routes.call(browser, route, alice.id)
        assert answer.status_code == 303, route
        assert answer.headers["Location"].split("?")[0] == "/login"
        assert b"alice only" not in answer.data
    assert browser.get("/notifications/unread", headers={"If-None-Match": tag}).status_code == 401
    assert browser.get("/notifications/unread", headers={"If-None-Match": "*"}).status_code == 401
    assert browser.get("/notifications/999").status_code == 401  # not 404: nothing is said about any id
    assert inboxes.everything() == before


@pytest.mark.parametrize("claims", ["", "1", "1.0", "1.0.x", "a.b.c.d", "1.0.2.3.4", "....", "1.0..x", "\x00.0.1.x"])
def test_claims_in_another_shape_are_nobodys(app: flask.Flask, alice: Person, claims: str) -> None:
    browser = with_claims(app, claims)

    assert browser.get("/notifications/unread").status_code == 401
    assert browser.get("/").status_code == 303


def test_a_refused_browser_can_still_reach_what_is_open(app: flask.Flask, alice: Person) -> None:
    browser = epoch_raised(app, alice, lambda: app)

    assert browser.get("/login").status_code == 200
    assert browser.get("/static/js/poller.js").status_code == 200


def test_signing_out_leaves_the_persons_other_sessions_alone(alice: Person, mallory: Person) -> None:
    other = alice.signed_in_browser()

    assert alice.browser.post("/logout").status_code == 303

    assert alice.poll().status_code == 401
    assert other.get("/notifications/unread").status_code == 200
    assert mallory.poll().status_code == 200


def test_what_ends_alices_sessions_leaves_mallorys_alone(alice: Person, mallory: Person) -> None:
    db.write(people.set_active, "alice", active=False)

    assert alice.poll().status_code == 401
    assert mallory.poll().status_code == 200


def test_secret_key_fallbacks_keep_sessions_good(app: flask.Flask, alice: Person, another_app: MakeApp) -> None:
    former = cookie_of(alice.browser)
    rotated = another_app(secret_key=OTHER_KEY, secret_key_fallbacks=[app.config["SECRET_KEY"]])
    without = another_app(secret_key=OTHER_KEY)

    assert with_cookie(rotated, former).get("/notifications/unread").status_code == 200
    assert with_cookie(without, former).get("/notifications/unread").status_code == 401
    # What is signed from now on is signed with the new key.
    assert with_cookie(without, cookie_of(Person(rotated, "alice").browser)).get("/notifications").status_code == 200


def test_fallbacks_do_not_bring_ended_sessions_back(app: flask.Flask, alice: Person, another_app: MakeApp) -> None:
    former = cookie_of(alice.browser)
    alice.browser.post("/logout")

    rotated = another_app(secret_key=OTHER_KEY, secret_key_fallbacks=[app.config["SECRET_KEY"]])

    assert with_cookie(rotated, former).get("/notifications/unread").status_code == 401


def test_each_route_gives_mallory_the_same_for_alices_id_as_for_one_that_never_was(
    alice: Person, mallory: Person, publish: Publish
) -> None:
    for _ in range(3):
        publish("alice")
    with_id = [route for route in routes.API if "<int:id>" in route]
    assert len(with_id) == 5
    before = inboxes.everything()

    for route in with_id:
        answers = []
        for number in ("3", "99"):
            method, path = route.replace("<int:id>", number).split(" ")
            answer = mallory.browser.open(path, method=method)
            answers.append((answer.status_code, {**answer.get_json(), "request_id": None}, answer.content_length))
        assert answers[0] == answers[1], route
        assert answers[0][0] == 404
    assert inboxes.everything() == before


DIGITS = ["\u0663", "\uff13", "\u0967", "0\u0663", "3\u0663", "\u00b3", "+3", "-3", "3.0"]


@pytest.mark.parametrize("digits", DIGITS)
def test_an_id_is_written_in_ascii_digits(app: flask.Flask, alice: Person, publish: Publish, digits: str) -> None:
    host = Host(app)
    for _ in range(3):
        event_id = host.publish("alice").get_json()["event_id"]
    other_digits = str(event_id).translate({ord("0") + n: 0x660 + n for n in range(10)})
    before = inboxes.everything()

    for route in [route for route in routes.API if "<int:id>" in route]:
        method, path = route.replace("<int:id>", digits).split(" ")
        assert alice.browser.open(path, method=method).status_code == 404, route
    for method in ("GET", "DELETE"):
        assert host.call(method, f"/events/{other_digits}").status_code == 404
    assert inboxes.everything() == before
