"""Senders' API keys: made, found, revoked. Shown once; what is kept cannot be used to call."""

import hashlib
import hmac
import re
import secrets
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app import db
from app.errors import Problem

SCOPES = ("publish", "people", "tickets")

# The name tells leak scanners what they found; a key of another form is refused without asking the database.
FORM = re.compile(r"blf_([0-9a-f]{12})_([0-9a-f]{64})")


class Sender(NamedTuple):
    """A host's back end, known by its key."""

    key_id: int
    scopes: frozenset[str]


MAKE = text("""
    INSERT INTO api_keys (name, prefix, digest, scopes, expires_at)
    VALUES (:name, :prefix, :digest, :scopes, now() + CAST(:valid AS interval))
""")


def make(connection: Connection, name: str, scopes: list[str], days: int | None = None) -> str:
    """A new key with 256 random bits, to be shown once. `days`: how long it is good; None: until it is revoked."""
    prefix, secret = secrets.token_hex(6), secrets.token_hex(32)
    valid = None if days is None else timedelta(days=days)
    parameters = {"name": name, "prefix": prefix, "digest": _digest(secret), "scopes": scopes, "valid": valid}
    connection.execute(MAKE, parameters)
    return f"blf_{prefix}_{secret}"


FIND = text("""
    SELECT id, digest, scopes, coalesce(last_used_at < now() - interval '1 minute', true) AS is_stale
    FROM api_keys
    WHERE prefix = :prefix AND revoked_at IS NULL AND (expires_at IS NULL OR now() < expires_at)
""")
FAST_FIND = db.for_driver(FIND)
# Asked again under the row's lock: of a hundred calls that come at once, one writes.
USE = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = :id AND coalesce(last_used_at < now() - interval '1 minute', true)
""")
NOBODYS_DIGEST = bytes(32)


def find(connection: Connection, key: str) -> Sender | None:
    """Whose key this is; None for one that is malformed, unknown, wrong, expired or revoked.

    Notes when it was used, at most once a minute. Index: api_keys_prefix_key.
    """
    form = FORM.fullmatch(key)
    if form is None:
        return None
    prefix, secret = form.groups()
    found = db.rows(connection, FAST_FIND, {"prefix": prefix})
    key_id, digest, scopes, is_stale = found[0] if found else (0, NOBODYS_DIGEST, (), False)
    # Compared in any case, and in constant time: how long it takes tells nothing about the prefix or the secret.
    if not hmac.compare_digest(_digest(secret), digest) or not found:
        return None
    if is_stale:
        connection.execute(USE, {"id": key_id})
    return Sender(key_id, frozenset(scopes))


LIST = text("""
    SELECT id, name, prefix, scopes, created_at, last_used_at, expires_at, revoked_at,
        CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'good' END AS state
    FROM api_keys ORDER BY id
""")


def list_all(connection: Connection) -> list[dict[str, Any]]:
    """Every key without its secret, for the operator."""
    return [dict(row._mapping) for row in connection.execute(LIST)]


REVOKE = text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE prefix = :prefix RETURNING id")


def revoke(connection: Connection, prefix: str) -> None:
    """Ends a key at once and for good; 404 for an unknown prefix."""
    if connection.execute(REVOKE, {"prefix": prefix}).one_or_none() is None:
        raise Problem(404, f"There is no key with the prefix {prefix}.")


def _digest(secret: str) -> bytes:
    # 256 random bits need no slow hash: nobody can guess them (OWASP ASVS 6.5.2).
    return hashlib.sha256(secret.encode()).digest()
