"""A host's JWT signs its readers in: rightly signed, in time, for us, and nothing else."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import flask
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flask.testing import FlaskClient

from app import db, settings
from tests import inboxes, postgres, rows
from tests.cast import Person
from tests.hosts import Host
from tests.variants import another_app

SECRET = "a secret that the host and the service share"
PRIVATE_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public(key: Any) -> str:
    """The public half in PEM."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Good ones for alice, with these changed; `...` leaves one out."""
    whole = {"sub": "alice", "exp": int(time.time()) + 300, **changed}
    return {name: value for name, value in whole.items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, headers)


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_by_hand(header: Any, payload: Any) -> str:
    """A token with the secret's good HMAC over whatever it says."""
    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{part(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}"


@pytest.fixture
def trusting(app: flask.Flask) -> Iterator[FlaskClient]:
    """Nobody's browser at a service that believes the secret's tokens."""
    with another_app(jwt_key=SECRET) as other:
        yield other.test_client()


@pytest.fixture
def asked(trusting: FlaskClient) -> Iterator[list[str]]:
    """Every statement that this service sends to the database."""
    with trusting.application.app_context():
        engine = db.engine()
    with postgres.statements(engine) as sent:
        yield sent


def poll(browser: FlaskClient, bearer: str) -> Any:
    return browser.get("/notifications/unread", headers={"Authorization": f"Bearer {bearer}"})


def test_a_good_token_is_as_good_as_a_session(trusting: FlaskClient, alice: Person, publish: Any) -> None:
    publish("alice")
    headers = {"Authorization": f"Bearer {token()}"}

    answer = poll(trusting, token())
    assert answer.status_code == 200
    assert answer.get_json() == alice.poll().get_json()
    assert answer.headers["ETag"] == alice.poll().headers["ETag"]
    changed = trusting.get("/notifications/unread", headers={**headers, "If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 304
    assert trusting.get("/notifications/1", headers=headers).status_code == 200
    assert trusting.post("/notifications/1/read", headers=headers).get_json()["changed"] == 1
    assert trusting.get("/preferences", headers=headers).status_code == 200
    assert trusting.put("/preferences/comment", headers=headers, json={"muted": True}).status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_a_token_works_from_any_page(trusting: FlaskClient, alice: Person, publish: Any) -> None:
    publish("alice")
    headers = {"Authorization": f"bearer {token()}", "Origin": "https://any.example", "Sec-Fetch-Site": "cross-site"}
    assert trusting.post("/notifications/1/read", headers=headers).status_code == 200


def test_an_unknown_subject_becomes_a_user_with_an_empty_inbox(trusting: FlaskClient) -> None:
    answer = poll(trusting, token(sub="Zoë 👋"))
    assert answer.status_code == 200
    assert (answer.get_json()["user"], answer.get_json()["notifications"]) == ("Zoë 👋", [])
    assert rows.column("SELECT subject FROM users") == ["Zoë 👋"]
    assert poll(trusting, token(sub="Zoë 👋")).status_code == 200
    assert rows.count("users") == 1


@pytest.mark.parametrize("algorithm", list(PRIVATE_KEYS))
def test_a_public_key_checks_what_its_private_half_signed(app: flask.Flask, algorithm: str) -> None:
    key = PRIVATE_KEYS[algorithm]
    with another_app(jwt_key=public(key), jwt_algorithms=algorithm) as other:
        browser = other.test_client()
        assert poll(browser, token(key, algorithm)).status_code == 200

        for another in PRIVATE_KEYS:
            stranger = {
                "RS256": rsa.generate_private_key(65537, 2048),
                "ES256": ec.generate_private_key(ec.SECP256R1()),
                "EdDSA": ed25519.Ed25519PrivateKey.generate(),
            }[another]
            assert poll(browser, token(stranger, another)).status_code == 401
        # The mix-up: signed with the public key, which anybody may know, as if it were a secret.
        header, payload = part({"alg": "HS256", "typ": "JWT"}), part(claims())
        for known in (public(key).encode(), public(key).strip().encode()):
            signature = hmac.digest(known, f"{header}.{payload}".encode(), hashlib.sha256)
            assert poll(browser, f"{header}.{payload}.{part(signature)}").status_code == 401
        assert poll(browser, f"{part({'alg': 'none'})}.{payload}.").status_code == 401


def test_a_secret_checks_nothing_but_hs256(trusting: FlaskClient) -> None:
    for algorithm, key in PRIVATE_KEYS.items():
        assert poll(trusting, token(key, algorithm)).status_code == 401
    for algorithm in ("HS384", "HS512"):
        assert poll(trusting, token(SECRET * 2, algorithm)).status_code == 401
    jwk = {"kty": "oct", "k": part(b"the attacker's own secret, long enough")}
    mine = jwt.encode(
        claims(), "the attacker's own secret, long enough", "HS256", {"jwk": jwk, "kid": "../../dev/null"}
    )
    assert poll(trusting, mine).status_code == 401


def test_another_digest_than_the_one_that_is_set_is_refused(trusting: FlaskClient) -> None:
    assert poll(trusting, token(SECRET)).status_code == 200
    for algorithm in ("HS384", "HS512"):
        assert poll(trusting, signed_by_hand({"alg": algorithm}, claims())).status_code == 401
        assert poll(trusting, jwt.encode(claims(), SECRET.ljust(64), algorithm)).status_code == 401


def test_a_token_that_is_over_makes_nobody(trusting: FlaskClient) -> None:
    over = jwt.encode(claims(sub="a stranger", exp=1_000_000_000), SECRET, "HS256")

    assert poll(trusting, over).status_code == 401
    assert rows.one("SELECT count(*) FROM users WHERE subject = 'a stranger'") == 0


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, "HS256 "])
def test_no_other_word_for_an_algorithm_is_believed(trusting: FlaskClient, algorithm: Any) -> None:
    assert poll(trusting, f"{part({'alg': algorithm})}.{part(claims())}.").status_code == 401
    assert poll(trusting, signed_by_hand({"alg": algorithm}, claims())).status_code == 401


def test_what_is_signed_by_hand_is_good_where_all_is_right(trusting: FlaskClient) -> None:
    """Or the tests that sign by hand would show nothing."""
    assert poll(trusting, signed_by_hand({"alg": "HS256"}, claims())).status_code == 200


IN_TIME = token(exp=4102444800)
DEEP = b'{"alg":"HS256","x":' + b"[" * 2500 + b"]" * 2500 + b"}"
MALFORMED = [
    "",
    ".",
    "..",
    "a.b",
    "a.b.c",
    "a.b.c.d",
    "e30.e30.",
    "é.é.é",
    f"{part([])}.{part(claims())}.x",
    f"{part(DEEP)}.{part(claims())}.x",
    f"{part(b'1' * 6000)}.{part(claims())}.x",
    f"{part({'alg': 'HS256', 'crit': ['exp']})}.{part(claims())}.x",
    IN_TIME[:-4],
    IN_TIME + "x",
    IN_TIME.rpartition(".")[0] + ".",
    token("another secret, which is long enough too", exp=4102444800),
]


@pytest.mark.parametrize("bearer", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_good_token_is_401_and_costs_no_query(trusting: FlaskClient, asked: list[str], bearer: str) -> None:
    answer = trusting.get(
        "/notifications/unread", headers={"Authorization": f"Bearer {bearer}".encode().decode("latin-1")}
    )
    assert answer.status_code == 401
    assert answer.mimetype == "application/problem+json"
    assert asked == []


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"sub": "alice", "exp": Infinity}',
        b'{"sub": "alice", "exp": -Infinity}',
        b'{"sub": "alice", "exp": NaN}',
        b'{"sub": "alice", "exp": 1e400}',
        b'{"sub": "alice", "exp": "soon"}',
        b'{"sub": "alice", "exp": null}',
        b'{"sub": "alice", "exp": []}',
        b'{"sub": "alice", "exp": {}}',
        b'{"sub": "alice", "exp": true}',
        b'{"sub": "alice", "exp": ' + b"9" * 5000 + b"}",
        b'{"sub": "alice", "exp": 4102444800, "iat": Infinity}',
        b'{"sub": "alice", "exp": 4102444800, "nbf": Infinity}',
        b'{"sub": "alice", "exp": 4102444800, "iat": []}',
        b'{"sub": "alice", "exp": 4102444800, "nbf": {}}',
        b'{"sub": "alice", "exp": 4102444800, "deep": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"sub": "\\ud800", "exp": 4102444800}',
        b'{"sub": "\\u0000", "exp": 4102444800}',
    ],
)
def test_a_rightly_signed_absurdity_is_401_all_the_same(trusting: FlaskClient, payload: bytes) -> None:
    assert poll(trusting, signed_by_hand({"alg": "HS256"}, payload)).status_code == 401
    assert rows.count("users") == 0


@pytest.mark.parametrize("far", [2**31, 2**40, 2**53, 2**63, 10**300])
def test_a_token_may_be_good_for_ages(trusting: FlaskClient, far: int) -> None:
    assert poll(trusting, token(exp=far)).status_code == 200


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"exp": -50}, 200),
        ({"exp": -61}, 401),
        ({"exp": -3600}, 401),
        ({"nbf": 50}, 200),
        ({"nbf": 120}, 401),
        ({"iat": 50}, 200),
        ({"iat": 120}, 401),
    ],
)
def test_clocks_may_differ_by_a_minute(trusting: FlaskClient, changed: dict[str, int], status: int) -> None:
    now = int(time.time())
    given = token(**{name: now + seconds for name, seconds in changed.items()})
    assert poll(trusting, given).status_code == status
    assert trusting.get("/notifications", headers={"Authorization": f"Bearer {given}"}).status_code == status


@pytest.mark.parametrize(
    "changed",
    [{"exp": ...}, {"sub": ...}, {"sub": ""}, {"sub": 1}, {"sub": None}, {"sub": ["alice"]}]
    + [{"sub": name} for name in ("a/b", ".", "..", "a\nb", "x" * 256)],
)
def test_a_token_needs_an_end_and_a_subject_that_can_be_one(trusting: FlaskClient, changed: dict[str, Any]) -> None:
    by_hand = signed_by_hand({"alg": "HS256"}, claims(**changed))
    assert poll(trusting, by_hand).status_code == 401
    assert rows.count("users") == 0


@pytest.mark.parametrize(
    ("configured", "changed", "status"),
    [
        ({}, {}, 200),
        ({}, {"aud": "belfry"}, 401),
        ({}, {"iss": "https://app.example"}, 200),
        ({"jwt_audience": "belfry"}, {"aud": "belfry"}, 200),
        ({"jwt_audience": "belfry"}, {"aud": ["other", "belfry"]}, 200),
        ({"jwt_audience": "belfry"}, {"aud": "other"}, 401),
        ({"jwt_audience": "belfry"}, {"aud": ["other"]}, 401),
        ({"jwt_audience": "belfry"}, {"aud": []}, 401),
        ({"jwt_audience": "belfry"}, {"aud": 1}, 401),
        ({"jwt_audience": "belfry"}, {"aud": "belfry2"}, 401),
        ({"jwt_audience": "belfry"}, {}, 401),
        ({"jwt_issuer": "https://app.example"}, {"iss": "https://app.example"}, 200),
        ({"jwt_issuer": "https://app.example"}, {"iss": "https://app.example/"}, 401),
        ({"jwt_issuer": "https://app.example"}, {"iss": "app.example"}, 401),
        ({"jwt_issuer": "https://app.example"}, {"iss": ["https://app.example"]}, 401),
        ({"jwt_issuer": "https://app.example"}, {}, 401),
    ],
)
def test_audience_and_issuer_must_be_what_is_set(
    app: flask.Flask, configured: dict[str, str], changed: dict[str, Any], status: int
) -> None:
    with another_app(jwt_key=SECRET, **configured) as other:
        given = signed_by_hand({"alg": "HS256"}, claims(**changed))
        assert poll(other.test_client(), given).status_code == status


def test_without_a_key_of_the_hosts_no_token_is_believed(anonymous: FlaskClient, queries: list[str]) -> None:
    assert poll(anonymous, token()).status_code == 401
    assert poll(anonymous, f"{part({'alg': 'none'})}.{part(claims())}.").status_code == 401
    assert queries == []


def test_disabling_stops_tokens_and_enabling_lets_them_in_again(
    app: flask.Flask, trusting: FlaskClient, alice: Person
) -> None:
    host, given = Host(app), token()
    assert poll(trusting, given).status_code == 200

    assert host.call("PUT", "/users/alice", {"is_active": False}).status_code == 200
    assert poll(trusting, given).status_code == 401
    assert alice.poll().status_code == 401

    assert host.call("PUT", "/users/alice", {"is_active": True}).status_code == 200
    assert poll(trusting, given).status_code == 200
    assert alice.poll().status_code == 401  # sessions ended for good


def test_a_token_beside_a_session_is_who_is_calling(app: flask.Flask, trusting: FlaskClient) -> None:
    mallory = Person(trusting.application, "mallory")
    assert poll(mallory.browser, token()).get_json()["user"] == "alice"
    assert poll(mallory.browser, token() + "x").status_code == 401


def test_a_token_counts_against_the_polls_of_the_same_user(app: flask.Flask) -> None:
    with another_app(jwt_key=SECRET, poll_limit="3 per minute") as limited:
        alice, browser = Person(limited, "alice"), limited.test_client()
        assert [alice.poll().status_code, poll(browser, token()).status_code, alice.poll().status_code] == [200] * 3

        assert poll(browser, token()).status_code == 429
        assert poll(browser, token(exp=int(time.time()) + 999)).status_code == 429
        assert alice.poll().status_code == 429
        assert poll(browser, token(sub="bob")).status_code == 200


def test_a_token_cannot_end_anything_for_others(app: flask.Flask, trusting: FlaskClient) -> None:
    """It has no session of its own that signing out could end, and all tokens would be ended with it."""
    form = {"headers": {"Authorization": f"Bearer {token(sub='mallory')}"}, "data": {}}
    trusting.post("/logout", **form)

    assert rows.count("ended_sessions") == 0
    assert poll(trusting, token()).status_code == 200
    assert poll(trusting, token(sub="mallory")).status_code == 200


def test_signing_out_beside_a_token_ends_the_session(app: flask.Flask, trusting: FlaskClient) -> None:
    alice = Person(trusting.application, "alice")
    cookie = alice.browser.get_cookie("belfry")
    assert cookie is not None
    alice.browser.post("/logout", headers={"Authorization": f"Bearer {token(sub='bob')}"}, data={})

    alice.browser.set_cookie("belfry", cookie.value)
    assert alice.poll().status_code == 401


def test_a_poll_with_a_token_is_two_statements(
    trusting: FlaskClient, asked: list[str], alice: Person, publish: Any
) -> None:
    publish("alice")
    tag = poll(trusting, token()).headers["ETag"]
    del asked[:]
    headers = {"Authorization": f"Bearer {token()}", "If-None-Match": tag}
    assert trusting.get("/notifications/unread", headers=headers).status_code == 304
    assert len(asked) == 2


def test_an_erased_reader_comes_back_as_a_new_one(app: flask.Flask, trusting: FlaskClient, publish: Any) -> None:
    publish("alice")
    inboxes.run("UPDATE users SET session_epoch = 7")
    assert Host(app).call("DELETE", "/users/alice").status_code == 204
    assert poll(trusting, token()).get_json()["notifications"] == []


def private(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"jwt_key": "too short"}, "JWT_KEY"),
        ({"jwt_key": SECRET, "jwt_algorithms": "RS256"}, "JWT_ALGORITHMS"),
        ({"jwt_key": SECRET, "jwt_algorithms": "HS256,RS256"}, "JWT_ALGORITHMS"),
        ({"jwt_key": SECRET, "jwt_algorithms": ","}, "JWT_ALGORITHMS"),
        ({"jwt_key": SECRET, "jwt_algorithms": "none"}, "JWT_ALGORITHMS"),
        ({"jwt_key": SECRET, "jwt_algorithms": "HS512"}, "JWT_ALGORITHMS"),
        ({"jwt_key": public(PRIVATE_KEYS["RS256"])}, "JWT_ALGORITHMS"),
        ({"jwt_key": public(PRIVATE_KEYS["RS256"]), "jwt_algorithms": "ES256"}, "JWT_ALGORITHMS"),
        ({"jwt_key": public(PRIVATE_KEYS["RS256"]), "jwt_algorithms": "RS256,HS256"}, "JWT_ALGORITHMS"),
        ({"jwt_key": "\n" + public(PRIVATE_KEYS["ES256"]), "jwt_algorithms": "HS256"}, "JWT_ALGORITHMS"),
        ({"jwt_key": private(PRIVATE_KEYS["RS256"]), "jwt_algorithms": "RS256"}, "JWT_KEY"),
        (
            {"jwt_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "jwt_algorithms": "RS256"},
            "JWT_KEY",
        ),
        ({"jwt_key": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 ada@example"}, "JWT_KEY"),
        ({"jwt_key": public(rsa.generate_private_key(65537, 1024)), "jwt_algorithms": "RS256"}, "JWT_KEY"),
        ({"jwt_key": public(ec.generate_private_key(ec.SECP384R1())), "jwt_algorithms": "ES256"}, "JWT_KEY"),
    ],
)
def test_a_key_that_its_algorithm_cannot_use_is_refused_at_the_start(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        settings.load(**wrong)
    assert refused.value.message.startswith(f"{named}: ")
    assert SECRET not in refused.value.message


@pytest.mark.parametrize("algorithm", list(PRIVATE_KEYS))
def test_a_key_that_its_algorithm_can_use_is_accepted(algorithm: str) -> None:
    chosen = settings.load(jwt_key="\n" + public(PRIVATE_KEYS[algorithm]), jwt_algorithms=algorithm)
    assert chosen.jwt_algorithms == algorithm
