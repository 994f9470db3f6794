"""People: who they are, how they prove it, and the sessions that they hold."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text
from werkzeug.security import check_password_hash, generate_password_hash

from app import changes
from app.aside import last
from app.db import LostRace
from app.errors import Problem, signed_out

HASH_METHOD = "scrypt:32768:8:1"  # Werkzeug's default of today, named so that an unknown name costs the same

# The one rule for whether a session is good, put into the statement that does the work: nothing can come between.
MAY_READ = """users.id = :user_id AND users.is_active AND users.session_epoch = :session_epoch
    AND now() < to_timestamp(:session_until)
    AND NOT EXISTS (SELECT FROM ended_sessions WHERE session_id = :session_id)"""


LONGEST_NAME = 200


@dataclass(frozen=True)
class Reader:
    """What a session's signed cookie claims. Believed only together with `MAY_READ`."""

    user_id: int
    session_epoch: int
    session_id: str
    session_until: int  # seconds since 1970, by the database's clock

    @property
    def counted_as(self) -> str:
        """Whose rate limits the reader's calls count against: the session's, for whoever replays an ended one must not
        use up what its owner is allowed; with a host's token, which is no session, the user's.
        """
        return f"session/{self.session_id}" if self.session_id else f"user/{self.user_id}"

    @property
    def claims(self) -> dict[str, Any]:
        """The parameters of `MAY_READ`."""
        return {**vars(self)}


FIND_FOR_SIGN_IN = text("SELECT id, password_hash, is_active FROM users WHERE subject = :subject")


def find_for_sign_in(connection: Connection, subject: str) -> Row[Any] | None:
    """The user of that name with the hash of the password, or None. Index: users_subject_key."""
    return connection.execute(FIND_FOR_SIGN_IN, {"subject": subject}).one_or_none()


def password_matches(user: Row[Any] | None, password: str) -> bool:
    """Whether this is the active user's password; takes as long for a user who is unknown or has none."""
    known = user is not None and user.password_hash is not None
    matches = last(check_password_hash, user.password_hash if known and user else _nobodys_hash(), password)
    return bool(matches and known and user and user.is_active)


def _nobodys_hash() -> str:
    # Random where the hash would stand: making a real one would take the first unknown name of a worker twice as long.
    return f"{HASH_METHOD}${secrets.token_urlsafe(12)}${secrets.token_hex(64)}"


START_SESSION = text("""
    SELECT id, session_epoch, CAST(floor(extract(epoch FROM now() + :length)) AS bigint) AS session_until
    FROM users WHERE id = :user_id AND is_active
""")


def start_session(connection: Connection, user_id: int, hours: float) -> Reader | None:
    """A new session for the user, good for so many hours from now; None where the user is gone or disabled."""
    found = connection.execute(START_SESSION, {"user_id": user_id, "length": timedelta(hours=hours)}).one_or_none()
    if found is None:
        return None
    return Reader(found.id, found.session_epoch, secrets.token_urlsafe(16), found.session_until)


FIND_BY_SUBJECT = text("SELECT id, session_epoch, is_active FROM users WHERE subject = :subject")
MAKE_USER = text("INSERT INTO users (subject) VALUES (:subject) ON CONFLICT DO NOTHING")


def find_or_make_reader(connection: Connection, subject: str, until: int) -> Reader | None:
    """The reader whom a host vouches for until then; an unknown one becomes a user, a disabled one is None.

    Index: users_subject_key.
    """
    found = connection.execute(FIND_BY_SUBJECT, {"subject": subject}).one_or_none()
    if found is None:
        connection.execute(MAKE_USER, {"subject": subject})
        found = connection.execute(FIND_BY_SUBJECT, {"subject": subject}).one_or_none()
    if found is None:
        raise LostRace("the user was erased meanwhile")
    return Reader(found.id, found.session_epoch, "", until) if found.is_active else None


END_SESSION = text("""
    INSERT INTO ended_sessions (session_id, until) VALUES (:session_id, to_timestamp(:session_until))
    ON CONFLICT DO NOTHING
""")


def end_session(connection: Connection, reader: Reader) -> None:
    """Ends this one session on the server: its cookie is 401 from now on, the person's others stay."""
    connection.execute(END_SESSION, reader.claims)
    changes.forget(connection, reader.user_id)


FIND_NAME = text(f"SELECT coalesce(display_name, subject) FROM users WHERE {MAY_READ}")


def find_name(connection: Connection, reader: Reader) -> str | None:
    """What the signed-in reader is called; None where the session is not good any more."""
    name: str | None = connection.execute(FIND_NAME, reader.claims).scalar_one_or_none()
    return name


FIND_SUBJECT = text(f"SELECT subject FROM users WHERE {MAY_READ}")


def find_subject(connection: Connection, reader: Reader) -> str:
    """The reader's name with the host; 401 where the session is not good any more. Index: users_pkey."""
    subject: str | None = connection.execute(FIND_SUBJECT, reader.claims).scalar_one_or_none()
    if subject is None:
        raise signed_out()
    return subject


SAVE_USER = text("""
    INSERT INTO users (subject, display_name, password_hash) VALUES (:subject, :name, :password_hash)
    ON CONFLICT (subject) DO UPDATE SET
        display_name = coalesce(excluded.display_name, users.display_name),
        password_hash = coalesce(excluded.password_hash, users.password_hash),
        session_epoch = users.session_epoch + CAST(excluded.password_hash IS NOT NULL AS integer)
    RETURNING id, xmax = 0 AS is_new
""")


def save_user(connection: Connection, subject: str, name: str | None, password: str | None) -> bool:
    """Creates the user, or changes what is given; True where the user is new. A new password ends all sessions."""
    password_hash = None if password is None else generate_password_hash(password, HASH_METHOD)
    parameters = {"subject": subject, "name": name, "password_hash": password_hash}
    saved = connection.execute(SAVE_USER, parameters).one()
    if password_hash is not None:
        changes.forget(connection, saved.id)
    return bool(saved.is_new)


CHANGE_USER = text("""
    INSERT INTO users (subject, display_name, is_active) VALUES (:subject, :display_name, coalesce(:is_active, true))
    ON CONFLICT (subject) DO UPDATE SET
        display_name = CASE WHEN :changes_name THEN excluded.display_name ELSE users.display_name END,
        is_active = coalesce(:is_active, users.is_active),
        session_epoch = users.session_epoch + CAST(coalesce(:is_active, true) = false AND users.is_active AS integer)
    RETURNING id, subject, display_name, is_active, xmax = 0 AS is_new
""")


def change_user(connection: Connection, subject: str, given: dict[str, Any]) -> Row[Any]:
    """Creates the user, or changes what is given of `display_name` and `is_active`. Disabling ends all sessions.

    The row says whether the user `is_new`. Index: users_subject_key.
    """
    parameters = {
        "subject": subject,
        "display_name": given.get("display_name"),
        "changes_name": "display_name" in given,
        "is_active": given.get("is_active"),
    }
    user = connection.execute(CHANGE_USER, parameters).one()
    if "is_active" in given:
        changes.forget(connection, user.id)
    return user


SET_ACTIVE = text("""
    UPDATE users SET is_active = :active, session_epoch = session_epoch + CAST(NOT :active AS integer)
    WHERE subject = :subject RETURNING id
""")


def set_active(connection: Connection, subject: str, *, active: bool) -> None:
    """Disables the user and ends all their sessions for good, or enables them again."""
    found = connection.execute(SET_ACTIVE, {"subject": subject, "active": active}).one_or_none()
    changes.forget(connection, _require(found, subject).id)


END_ALL_SESSIONS = text("UPDATE users SET session_epoch = session_epoch + 1 WHERE subject = :subject RETURNING id")


def end_all_sessions(connection: Connection, subject: str) -> None:
    """Signs the user out everywhere."""
    found = connection.execute(END_ALL_SESSIONS, {"subject": subject}).one_or_none()
    changes.forget(connection, _require(found, subject).id)


# The planner cannot know how many of an inbox's rows a change is for. Where it guesses few, it joins ten thousand with
# ten thousand by a nested loop, which takes seconds; without it, what it finds by their ids is joined by a hash.
LOCK_READER = text(f"""
    SELECT inbox_version, set_config('enable_nestloop', 'off', true) FROM users WHERE {MAY_READ} FOR NO KEY UPDATE
""")


def lock_reader(connection: Connection, reader: Reader) -> int:
    """The inbox's version, which nobody else can raise until this transaction ends. Index: users_pkey."""
    row = connection.execute(LOCK_READER, reader.claims).one_or_none()
    if row is None:
        raise signed_out()
    version: int = row.inbox_version
    return version


LOCK_USERS = text("SELECT id FROM users WHERE id = ANY(:user_ids) ORDER BY id FOR NO KEY UPDATE")


def lock_users(connection: Connection, user_ids: Sequence[int], *, missing_ok: bool = False) -> None:
    """Locks these users in the order of their ids, all before the first change. Index: users_pkey.

    A statement of its own: an UPDATE would lock in whatever order its plan finds the rows, and two of them deadlock.
    Raises `LostRace` where one of them was erased meanwhile, unless that is all the same.
    """
    locked = connection.execute(LOCK_USERS, {"user_ids": list(user_ids)}).all()
    if len(locked) < len(user_ids) and not missing_ok:
        raise LostRace("a recipient was erased meanwhile")


def _require(found: Row[Any] | None, subject: str) -> Row[Any]:
    if found is None:
        raise Problem(404, f"There is no such user: {subject}.")
    return found
