"""`/login` and `/logout`: who knows the password gets a session, and a session ends when it should."""

import hashlib
from html.parser import HTMLParser
from typing import Any

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import db, people
from app.auth import SignedIn
from tests import rows
from tests.cast import Person
from tests.commands import run
from tests.variants import another_app

PASSWORD = "correct horse battery"


class Form(HTMLParser):
    """The form of a page: where it goes, how, and its fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.method: str | None = None
        self.fields: dict[str, dict[str, str | None]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "form":
            self.action, self.method = attributes["action"], attributes["method"]
        elif tag == "input":
            self.fields[str(attributes["name"])] = attributes


@pytest.fixture
def ada(app: flask.Flask) -> str:
    """Somebody with a password."""
    db.write(people.save_user, "ada", "Ada Lovelace", PASSWORD)
    return "ada"


def sign_in(browser: FlaskClient, username: str, password: str, next: str = "", **options: Any) -> TestResponse:
    return browser.post("/login", data={"username": username, "password": password, "next": next}, **options)


def session_of(browser: FlaskClient) -> dict[str, Any]:
    """What the browser's signed cookie says."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(browser.application)
    cookie = browser.get_cookie("belfry")
    assert serializer is not None
    assert cookie is not None
    content: dict[str, Any] = serializer.loads(cookie.value)
    return content


def test_the_form_works_without_javascript(anonymous: FlaskClient, ada: str) -> None:
    page = anonymous.get("/login?next=/%3Fx%3D1")
    form = Form(page.text)

    assert page.status_code == 200
    assert "<script" not in page.text
    assert (form.method, form.action) == ("post", "/login")
    assert set(form.fields) == {"username", "password", "next"}
    assert form.fields["password"]["type"] == "password"
    assert form.fields["next"]["value"] == "/?x=1"

    answer = anonymous.post(str(form.action), data={"username": ada, "password": PASSWORD, "next": "/?x=1"})
    assert answer.status_code == 303
    assert answer.location == "/?x=1"
    assert anonymous.get("/").status_code == 200
    assert anonymous.get("/notifications/unread").get_json()["user"] == "ada"


def test_a_page_asks_to_sign_in_and_comes_back_while_the_api_answers_401(anonymous: FlaskClient, ada: str) -> None:
    turned_away = anonymous.get("/?a=1&b=2")

    assert turned_away.status_code == 303
    assert turned_away.location == "/login?next=/?a%3D1%26b%3D2"
    assert anonymous.get("/notifications/unread").status_code == 401
    wanted = str(Form(anonymous.get(turned_away.location).text).fields["next"]["value"])
    assert sign_in(anonymous, ada, PASSWORD, wanted).location == "/?a=1&b=2"


def test_head_is_get_without_the_page(anonymous: FlaskClient) -> None:
    head, page = anonymous.head("/login"), anonymous.get("/login")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == page.headers["Content-Length"]


def test_other_encodings_than_a_form_are_refused(anonymous: FlaskClient, ada: str) -> None:
    fields = {"username": ada, "password": PASSWORD}

    assert anonymous.post("/login", json=fields).status_code == 415
    assert anonymous.post("/login", data=fields, content_type="multipart/form-data").status_code == 415
    assert anonymous.get_cookie("belfry") is None


def strangers() -> list[tuple[str, str]]:
    return [
        ("ada", "wrong password"),
        ("nobody at all", PASSWORD),
        ("without", PASSWORD),
        ("without", ""),
        ("disabled", PASSWORD),
        ("", ""),
        ("a/b", PASSWORD),
        ("\x00", PASSWORD),
        ("x" * 300, PASSWORD),
        ("Ada", PASSWORD),
    ]


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The cost of every password hash that is computed from here on."""
    computed: list[dict[str, Any]] = []
    real = hashlib.scrypt

    def scrypt(password: bytes, **parameters: Any) -> bytes:
        computed.append({name: value for name, value in parameters.items() if name in ("n", "r", "p")})
        return real(password, **parameters)

    monkeypatch.setattr(hashlib, "scrypt", scrypt)
    return computed


def test_every_refusal_says_the_same_words_and_costs_the_same(
    app: flask.Flask, ada: str, hashes: list[dict[str, Any]]
) -> None:
    db.write(people.save_user, "without", None, None)
    db.write(people.save_user, "disabled", None, PASSWORD)
    db.write(people.set_active, "disabled", active=False)
    said, costs = set(), []

    for username, password in strangers():
        hashes.clear()
        answer = sign_in(app.test_client(), username, password)
        typed = flask.render_template_string("{{ typed }}", typed=username)
        said.add((answer.status_code, answer.text.replace(f'value="{typed}"', 'value=""')))
        costs.append(list(hashes))

    assert len(said) == 1
    assert {status for status, _page in said} == {401}
    assert "That name and password do not belong together." in said.pop()[1]
    # One hash each, as hard as the others: time would tell them apart otherwise.
    assert len(costs[0]) == 1
    assert all(cost == costs[0] for cost in costs)


def test_a_right_password_costs_one_hash_of_the_same_kind(
    anonymous: FlaskClient, ada: str, hashes: list[dict[str, Any]]
) -> None:
    sign_in(anonymous, "nobody at all", PASSWORD)
    for_nobody = list(hashes)
    hashes.clear()

    assert sign_in(anonymous, ada, PASSWORD).status_code == 303
    assert hashes == for_nobody


def test_what_was_typed_comes_back_but_never_the_password(anonymous: FlaskClient) -> None:
    answer = sign_in(anonymous, '"><b>x', "a secret that was typed", "/?back")

    assert 'value="&#34;&gt;&lt;b&gt;x"' in answer.text
    assert 'name="next" value="/?back"' in answer.text
    assert "a secret that was typed" not in answer.text


@pytest.mark.parametrize(
    "next",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/\\/evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "/\n/evil.example",
        "/x\r\nSet-Cookie: a=b",
        "/x\r\n\r\n<script>",
        " //evil.example",
        "https:evil.example",
        "https://evil.example/",
        "HTTPS:/evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "?next",
        "",
        "/" + "x" * 3000,
        "/\x00",
        "/\u202ex",
        "/\u2028x",
    ],
)
def test_next_never_leaves_the_site(anonymous: FlaskClient, ada: str, next: str) -> None:
    answer = sign_in(anonymous, ada, PASSWORD, next)

    assert answer.status_code == 303
    assert answer.location == "/"
    assert "a=b" not in str(answer.headers)


@pytest.mark.parametrize("next", ["/", "/?x=1", "/notifications?state=read#top", "/tickets/abc", "/x:y@z"])
def test_next_leads_to_a_path_of_the_service(anonymous: FlaskClient, ada: str, next: str) -> None:
    assert sign_in(anonymous, ada, PASSWORD, next).location == next


@pytest.mark.parametrize("next", ["/", "/belfrys", "/other/x", "//evil.example/belfry/", "/belfry"])
def test_next_stays_under_the_prefix(app: flask.Flask, ada: str, next: str) -> None:
    with another_app(public_url="http://localhost/belfry") as prefixed:
        assert sign_in(prefixed.test_client(), ada, PASSWORD, next).location == "/belfry/"
        assert sign_in(prefixed.test_client(), ada, PASSWORD, "/belfry/?x").location == "/belfry/?x"


def test_nothing_of_a_cookie_from_before_carries_over(anonymous: FlaskClient, ada: str, mallory: Person) -> None:
    """Session fixation: what an attacker planted is neither the session that begins nor a part of it."""
    planted = {"_user_id": SignedIn(mallory.new_session()).get_id(), "_remember": "set", "planted": "x", "_id": "y"}
    with anonymous.session_transaction() as session:
        session.update(planted)
    before = anonymous.get_cookie("belfry")

    sign_in(anonymous, ada, PASSWORD)

    content = session_of(anonymous)
    assert set(content) == {"_user_id", "_fresh", "_permanent"}
    assert content["_user_id"] != planted["_user_id"]
    assert anonymous.get("/notifications/unread").get_json()["user"] == "ada"
    # What was planted is worth nothing either, wherever a copy of it is kept.
    assert before is not None
    anonymous.set_cookie("belfry", before.value)
    assert anonymous.get("/notifications/unread").status_code == 401


def test_the_cookie_carries_no_fingerprint_and_no_claims_but_the_session(anonymous: FlaskClient, ada: str) -> None:
    sign_in(anonymous, ada, PASSWORD)

    content = session_of(anonymous)
    assert "_id" not in content
    user_id, epoch, until, session_id = content["_user_id"].split(".")
    assert (int(user_id), int(epoch)) == (rows.one("SELECT id FROM users"), 0)
    assert len(session_id) >= 22  # 128 random bits
    assert 12 * 3600 - 100 <= int(until) - rows.one("SELECT extract(epoch FROM now())") <= 12 * 3600 + 1


def cookie_of(answer: TestResponse) -> tuple[str, set[str]]:
    """The name of the cookie that an answer sets, and its attributes; how long it lasts is looked at elsewhere."""
    (header,) = answer.headers.getlist("Set-Cookie")
    first, *attributes = header.split("; ")
    return first.partition("=")[0], {part for part in attributes if not part.startswith(("Expires=", "Max-Age="))}


def test_the_cookie_on_http_is_called_belfry(anonymous: FlaskClient, ada: str) -> None:
    assert cookie_of(sign_in(anonymous, ada, PASSWORD)) == ("belfry", {"HttpOnly", "Path=/", "SameSite=Lax"})


@pytest.mark.parametrize(
    ("public_url", "name", "path"),
    [
        ("https://app.example", "__Host-belfry", "Path=/"),
        ("HTTPS://APP.example/", "__Host-belfry", "Path=/"),
        ("https://app.example/belfry", "__Secure-belfry", "Path=/belfry"),
        ("https://app.example/a/belfry/", "__Secure-belfry", "Path=/a/belfry"),
    ],
)
def test_the_cookie_on_https_binds_itself_to_the_host(
    app: flask.Flask, ada: str, public_url: str, name: str, path: str
) -> None:
    with another_app(public_url=public_url) as secure:
        answer = sign_in(secure.test_client(), ada, PASSWORD, base_url="https://app.example")

    assert cookie_of(answer) == (name, {"Secure", "HttpOnly", path, "SameSite=Lax"})


def test_signing_out_ends_that_session_on_the_server_and_leaves_the_others_alone(
    anonymous: FlaskClient, app: flask.Flask, ada: str
) -> None:
    elsewhere = app.test_client()
    for browser in (anonymous, elsewhere):
        sign_in(browser, ada, PASSWORD)
    stolen = anonymous.get_cookie("belfry")
    assert stolen is not None

    answer = anonymous.post("/logout")

    assert (answer.status_code, answer.location) == (303, "/login")
    assert anonymous.get_cookie("belfry") is None
    replayed = app.test_client()
    replayed.set_cookie("belfry", stolen.value)
    assert replayed.get("/notifications/unread").status_code == 401
    assert replayed.get("/").location.startswith("/login")
    assert elsewhere.get("/notifications/unread").status_code == 200


def test_nobody_who_is_disabled_gets_a_session_by_any_way(alice: Person) -> None:
    db.write(people.set_active, "alice", active=False)

    assert db.read(people.start_session, alice.id, 12) is None
    assert db.read(people.find_or_make_reader, "alice", 2**40) is None


def test_signing_out_is_no_link(alice: Person) -> None:
    assert alice.get("/logout").status_code == 405
    assert alice.poll().status_code == 200


def test_signing_out_twice_or_as_nobody_is_no_error(alice: Person, anonymous: FlaskClient) -> None:
    assert alice.post("/logout").status_code == 303
    assert alice.post("/logout").status_code == 303
    assert anonymous.post("/logout").status_code == 303


def test_an_ended_session_is_remembered_until_it_would_have_ended(alice: Person) -> None:
    alice.post("/logout")

    left = rows.one("SELECT extract(epoch FROM until - now()) FROM ended_sessions")
    assert 12 * 3600 - 100 <= left <= 12 * 3600 + 1


def test_signing_in_again_ends_the_session_that_this_browser_had(
    alice: Person, ada: str, anonymous: FlaskClient
) -> None:
    before = alice.browser.get_cookie("belfry")
    assert before is not None

    sign_in(alice.browser, ada, PASSWORD)

    anonymous.set_cookie("belfry", before.value)
    assert anonymous.get("/notifications/unread").status_code == 401
    assert alice.poll().get_json()["user"] == "ada"


@pytest.fixture
def two_browsers(app: flask.Flask, ada: str) -> tuple[FlaskClient, FlaskClient]:
    browsers = (app.test_client(), app.test_client())
    for browser in browsers:
        assert sign_in(browser, ada, PASSWORD).status_code == 303
    return browsers


def statuses(browsers: tuple[FlaskClient, FlaskClient]) -> set[int]:
    return {browser.get("/notifications/unread").status_code for browser in browsers}


def test_the_operator_ends_all_sessions_of_one_person(
    app: flask.Flask, two_browsers: tuple[FlaskClient, FlaskClient], mallory: Person
) -> None:
    assert statuses(two_browsers) == {200}

    assert run(app, "user", "sign-out", "ada").exit_code == 0

    assert statuses(two_browsers) == {401}
    assert mallory.poll().status_code == 200
    assert sign_in(app.test_client(), "ada", PASSWORD).status_code == 303


def test_disabling_works_at_once_and_enabling_revives_no_session(
    app: flask.Flask, two_browsers: tuple[FlaskClient, FlaskClient], mallory: Person
) -> None:
    tag = two_browsers[0].get("/notifications/unread").headers["ETag"]

    assert run(app, "user", "disable", "ada").exit_code == 0
    assert statuses(two_browsers) == {401}
    assert two_browsers[0].get("/notifications/unread", headers={"If-None-Match": tag}).status_code == 401
    assert sign_in(app.test_client(), "ada", PASSWORD).status_code == 401
    assert mallory.poll().status_code == 200

    assert run(app, "user", "enable", "ada").exit_code == 0
    assert statuses(two_browsers) == {401}
    assert sign_in(app.test_client(), "ada", PASSWORD).status_code == 303


def test_a_new_password_ends_all_sessions_and_the_old_one_is_wrong(
    app: flask.Flask, two_browsers: tuple[FlaskClient, FlaskClient]
) -> None:
    assert run(app, "user", "password", "ada", "--stdin", stdin="another password\n").exit_code == 0

    assert statuses(two_browsers) == {401}
    assert sign_in(app.test_client(), "ada", PASSWORD).status_code == 401
    assert sign_in(app.test_client(), "ada", "another password").status_code == 303


def test_a_new_name_ends_no_session(app: flask.Flask, two_browsers: tuple[FlaskClient, FlaskClient]) -> None:
    assert run(app, "user", "add", "ada", "--name", "Countess of Lovelace").exit_code == 0

    assert statuses(two_browsers) == {200}


def test_the_session_hours_count_from_sign_in(app: flask.Flask, ada: str) -> None:
    with another_app(session_hours=0.5) as short:
        browser = short.test_client()
        answer = sign_in(browser, ada, PASSWORD)
        until = int(session_of(browser)["_user_id"].split(".")[2])

    assert 1700 <= until - rows.one("SELECT extract(epoch FROM now())") <= 1801
    (header,) = answer.headers.getlist("Set-Cookie")
    assert "Expires=" in header


def test_a_session_over_its_hours_is_401(alice: Person) -> None:
    with alice.browser.session_transaction() as session:
        session["_user_id"] = SignedIn(alice.new_session(hours=-0.001)).get_id()

    assert alice.poll().status_code == 401
    assert alice.get("/").status_code == 303


def test_no_use_of_a_session_extends_it(alice: Person) -> None:
    answers = [
        alice.poll(),
        alice.poll(tag="*"),
        alice.get("/"),
        alice.get("/notifications"),
        alice.post("/notifications/read", {"through": 0}),
        alice.post("/notifications/1/read"),
        alice.browser.post("/read", data={"through": "0"}),
    ]

    assert [answer.status_code for answer in answers] == [200, 304, 200, 200, 200, 404, 303]
    assert not any("Set-Cookie" in answer.headers for answer in answers)


@pytest.mark.parametrize(
    "claims", ["", "1", "1.2.3", "x.0.99999999999.y", "1.0.99999999999.y.z", "1.0.9e9.y", "1.0.none.y", "1.0..y"]
)
def test_claims_that_make_no_sense_are_nobodys(anonymous: FlaskClient, claims: str) -> None:
    with anonymous.session_transaction() as session:
        session["_user_id"] = claims

    assert anonymous.get("/notifications/unread").status_code == 401


def test_a_cookie_signed_with_another_key_is_nobodys(alice: Person, app: flask.Flask, anonymous: FlaskClient) -> None:
    with another_app(secret_key="another key that is long enough to be accepted") as other:
        forger = other.test_client()
        with forger.session_transaction() as session:
            session["_user_id"] = SignedIn(alice.new_session()).get_id()
        forged = forger.get_cookie("belfry")
    assert forged is not None

    anonymous.set_cookie("belfry", forged.value)

    assert anonymous.get("/notifications/unread").status_code == 401


def test_a_former_key_still_signs_people_in_while_it_is_a_fallback(alice: Person) -> None:
    former = flask.current_app.config["SECRET_KEY"]
    cookie = alice.browser.get_cookie("belfry")
    assert cookie is not None
    for fallbacks, status in [([former], 200), ([], 401)]:
        with another_app(secret_key="the new key that is long enough too", secret_key_fallbacks=fallbacks) as newer:
            browser = newer.test_client()
            browser.set_cookie("belfry", cookie.value)
            assert browser.get("/notifications/unread").status_code == status


def test_forms_from_another_site_neither_sign_in_nor_out(alice: Person, anonymous: FlaskClient, ada: str) -> None:
    foreign: dict[str, Any] = {"headers": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}}

    assert sign_in(anonymous, ada, PASSWORD, **foreign).status_code == 403
    assert anonymous.get_cookie("belfry") is None
    assert alice.browser.post("/logout", **foreign).status_code == 403
    assert alice.poll().status_code == 200


def test_passwords_are_kept_as_scrypt_only(ada: str) -> None:
    kept = rows.one("SELECT password_hash FROM users")

    assert kept.startswith("scrypt:32768:8:1$")
    assert PASSWORD not in kept
