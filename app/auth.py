"""Who is calling: the session behind the signed cookie. What it claims is checked by every statement that uses it."""

import flask
from flask_login import LoginManager, current_user, login_user, logout_user

from app import db, limits, people, validation
from app.errors import Problem, signed_out
from app.people import Reader
from app.settings import Settings


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


def init_app(app: flask.Flask, settings: Settings) -> None:
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
    """Who is signed in, or 401."""
    if not current_user.is_authenticated:
        raise signed_out()
    found: Reader = current_user.reader
    return found


def reader_or_none() -> Reader | None:
    return current_user.reader if current_user.is_authenticated else None


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
    ending = reader_or_none()
    if ending is not None:
        db.write(people.end_session, ending)
    logout_user()
    flask.session.clear()


def caller() -> str:
    """Whose rate limit a request counts against: the session's, or the address's of who is not signed in.

    Not the user's, or whoever replays an ended session could use up what its owner is allowed.
    """
    known = reader_or_none()
    return f"session/{known.session_id}" if known else f"address/{limits.network(flask.request.remote_addr or '')}"
