"""Sign-in links: tickets that are good once, for a short time."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, text

from app import people, sanitize
from app.errors import Problem
from app.people import Reader

MAKE_TICKET = text("""
    INSERT INTO tickets (digest, user_id, return_to, expires_at)
    SELECT :digest, id, :return_to, now() + :valid FROM users WHERE subject = :subject AND is_active
    RETURNING user_id
""")


def make_ticket(connection: Connection, subject: str, seconds: int, return_to: str | None = None) -> str:
    """The secret part of a sign-in link that is good once, for so many seconds; 404 for no such active user."""
    ticket = secrets.token_urlsafe(32)
    parameters = {
        "digest": _digest(ticket),
        "subject": subject,
        "valid": timedelta(seconds=seconds),
        "return_to": return_to,
    }
    if connection.execute(MAKE_TICKET, parameters).one_or_none() is None:
        raise Problem(404, f"There is no such user, or the user is disabled: {subject}.")
    return ticket


FIND_TICKET = text("""
    SELECT users.id AS user_id, coalesce(users.display_name, users.subject) AS name, tickets.return_to
    FROM tickets JOIN users ON users.id = tickets.user_id AND users.is_active
    WHERE digest = :digest AND used_at IS NULL AND now() < expires_at
""")


def find_ticket(connection: Connection, ticket: str) -> Row[Any] | None:
    """Whose link this is, spending nothing; None where it is unknown, used, over, or the user is disabled."""
    return connection.execute(FIND_TICKET, {"digest": _digest(ticket)}).one_or_none()


SPEND_TICKET = text("""
    UPDATE tickets SET used_at = now() FROM users
    WHERE users.id = tickets.user_id AND users.is_active
        AND digest = :digest AND used_at IS NULL AND now() < expires_at
    RETURNING tickets.user_id, tickets.return_to
""")


def spend_ticket(connection: Connection, ticket: str) -> Row[Any] | None:
    """Whose link this was; of many who spend it at once, one gets an answer and the others None."""
    return connection.execute(SPEND_TICKET, {"digest": _digest(ticket)}).one_or_none()


def sign_in_by_ticket(connection: Connection, ticket: str, hours: float) -> tuple[Row[Any] | None, Reader | None]:
    """Spends the link and starts a session, or does neither."""
    spent = spend_ticket(connection, ticket)
    return spent, people.start_session(connection, spent.user_id, hours) if spent else None


def checked_return_to(url: str, origins: Collection[str]) -> str:
    """An address that a sign-in link may lead to: on one of these origins. ValueError for any other."""
    parts = urlsplit(sanitize.url(url))
    if f"{parts.scheme}://{parts.netloc}".lower() not in origins:
        raise ValueError("must be on the origin of PUBLIC_URL or on one of CORS_ORIGINS")
    return url


def _digest(ticket: str) -> bytes:
    # The secret has 256 random bits: nothing slow is needed to protect it (OWASP ASVS 6.5.2).
    return hashlib.sha256(ticket.encode()).digest()
