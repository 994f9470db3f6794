"""Who is calling: the session behind the signed cookie, the reader whom a host's token names, or the sender of a key.

What a session claims is checked by every statement that uses it.
"""

from datetime import datetime, timedelta
from urllib.parse import unquote

import flask
import jwt
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, current_user, login_user, logout_user
from itsdangerous import BadSignature

from app import db, keys, limits, people, settings, validation
from app.errors import Problem, answer_problem, signed_out
from app.keys import Sender
from app.people import Reader
from app.settings import Settings

LEEWAY = 60  # seconds by which the host's clock may differ
SLACK = timedelta(days=1)  # for which a browser keeps a cookie longer than its session lasts: clocks differ
LATEST = 2**40  # a time that PostgreSQL can hold, whatever a token says


class SignedIn:
    """A reader in Flask-Login's shape. The id is all that the cookie says, so loading one costs no query."""

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def get_id(self) -> str:
        reader = self.reader
        return f"{reader.user_id}.{reader.session_epoch}.{reader.session_until}.{reader.session_id}"


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions, whose end is a matter of the database's clock alone.

    A worker whose clock is slow would take a cookie for signed in the future, and refuse it; a fast one's would be over
    early. So a cookie's age says nothing here; its session's end stands in it, and every statement looks at that.
    """

    def open_session(self, app: flask.Flask, request: flask.Request) -> SecureCookieSession | None:
        signatures = self.get_signing_serializer(app)
        if signatures is None:
            return None
        try:
            return self.session_class(signatures.loads(request.cookies.get(self.get_cookie_name(app), "")))
        except BadSignature:
            return self.session_class()

    def get_expiration_time(self, app: flask.Flask, session: SessionMixin) -> datetime | None:
        end = super().get_expiration_time(app, session)
        return end and end + SLACK


def init_app(app: flask.Flask, settings: Settings) -> None:
    app.session_interface = Sessions()
    app.config.update(
        SESSION_COOKIE_NAME=cookie_name(settings),
        SESSION_COOKIE_PATH=settings.prefix or "/",
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # The hours count from sign-in: an answer to a poll never carries a fresher cookie.
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=settings.session_hours * 3600,
    )
    manager = LoginManager(app)
    # Its fingerprint of address and browser signs people out who change networks, and protects nobody: the cookie is
    # HttpOnly and Secure.
    manager.session_protection = None
    manager.user_loader(load)


def cookie_name(settings: Settings) -> str:
    """`belfry`, so that it never meets a host's own `session`; on https with the prefix that binds it (RFC 6265bis)."""
    if not settings.is_https:
        return "belfry"
    return "__Secure-belfry" if settings.prefix else "__Host-belfry"


def load(claims: str) -> SignedIn | None:
    """The reader that the cookie names. Its signature is good by now, but an older release may have written it."""
    try:
        user_id, session_epoch, session_until, session_id = claims.split(".")
        return SignedIn(Reader(int(user_id), int(session_epoch), session_id, int(session_until)))
    except ValueError:
        return None


def reader() -> Reader:
    """Who is calling: by the host's token where there is one, else by the session; 401 for nobody.

    412 where the call is for somebody else: a page that was drawn for one person stays open while another signs in,
    and the ids in it mean other notifications in the other's inbox.
    """
    found = reader_or_none()
    if found is None:
        raise signed_out()
    meant = flask.request.headers.get("Belfry-User")
    if meant is not None and unquote(meant) != db.read(people.find_subject, found):
        raise Problem(412, "Somebody else is signed in now.")
    return found


def reader_or_none() -> Reader | None:
    if bearer() is not None:
        if "reader" not in flask.g:
            flask.g.reader = _reader_of_token(bearer() or "")
        found: Reader | None = flask.g.reader
        return found
    return current_user.reader if current_user.is_authenticated else None


def bearer() -> str | None:
    """What stands behind `Authorization: Bearer` (RFC 6750). A call that has it is nobody's browser's own doing."""
    scheme, _, token = flask.request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def session_cookie() -> str | None:
    """The cookie that the caller is known by; None for who is called by a token's name."""
    return None if bearer() is not None else flask.request.cookies.get(flask.current_app.config["SESSION_COOKIE_NAME"])


def _reader_of_token(token: str) -> Reader | None:
    """The reader whom the host's JWT names (RFC 7519): rightly signed, not over, for us. None for anything else."""
    chosen = settings.current()
    if chosen.jwt_key is None:
        return None
    try:
        claims = jwt.decode(
            token,
            chosen.jwt_key,
            algorithms=[chosen.jwt_algorithms],
            audience=chosen.jwt_audience,
            issuer=chosen.jwt_issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "sub"]},
        )
        subject, until = validation.subject(claims["sub"]), min(int(claims["exp"]) + LEEWAY, LATEST)
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
        return None  # a number or a nesting that Python gives up on is as bad as a wrong signature
    return db.read(people.find_or_make_reader, subject, until)


def sender(scope: str) -> Sender:
    """The host's back end that is calling: 401 without a good key, 403 without the scope, 429 over the key's limit."""
    key = bearer() or ""
    found = db.read(keys.find, key) if keys.FORM.fullmatch(key) else None
    if found is None:
        raise Problem(401, "This needs an API key: Authorization: Bearer blf_…")
    flask.g.key_id = found.key_id
    limits.count_call(found.key_id)
    if scope not in found.scopes:
        raise Problem(403, f"This key lacks the scope {scope}.")
    return found


def sign_in(subject: str, password: str, hours: float) -> None:
    """Starts a session for who knows the password. 401 for a wrong one, 429 for too many tries, 503 for too many
    people at once.
    """
    with limits.one_hash():
        limits.count_sign_in(subject, flask.request.remote_addr or "")
        user = db.read(people.find_for_sign_in, subject) if _can_be_a_name(subject) else None
        matches = people.password_matches(user, password)
    # The same words and the same time whether the name or the password is wrong (OWASP ASVS 6.3.8).
    if not matches or user is None:
        raise Problem(401, "That name and password do not belong together.")
    start_session(user.id, hours)


def _can_be_a_name(typed: str) -> bool:
    try:
        validation.subject(typed)
    except ValueError:
        return False
    return True


def start_session(user_id: int, hours: float) -> None:
    """Begins a new session of the user; 401 where the user is gone or disabled."""
    reader = db.read(people.start_session, user_id, hours)
    if reader is None:
        raise signed_out()
    begin_session(reader)


def begin_session(reader: Reader) -> None:
    """Makes the session this browser's; of an earlier one nothing is carried over, and it ends."""
    end_session()
    login_user(SignedIn(reader))
    flask.session.permanent = True
    # A digest of address and browser that only the switched-off fingerprint reads: bytes that every poll would carry.
    flask.session.pop("_id", None)


def end_session() -> None:
    """Signs out: the cookie goes, and a copy of it is worth nothing."""
    # The cookie's, whatever token came with it: tokens have no session of ours that could end.
    if current_user.is_authenticated:
        db.write(people.end_session, current_user.reader)
    logout_user()
    flask.session.clear()


def ask_to_sign_in(problem: Problem) -> ResponseReturnValue:
    """Sends who is not signed in to the sign-in page, and back from there. For pages; the API never redirects."""
    if problem.status != 401:
        return answer_problem(problem)
    request = flask.request
    wanted = request.script_root + request.full_path.rstrip("?") if request.method == "GET" else None
    return flask.redirect(flask.url_for("pages.sign_in", next=wanted), 303)


def caller() -> str:
    """Whose rate limit a request counts against: the reader's, or the address's of who is not signed in."""
    known = reader_or_none()
    return known.counted_as if known else address()


def address() -> str:
    """Where a request comes from, as far as that is one party."""
    return f"address/{limits.network(flask.request.remote_addr or '')}"
