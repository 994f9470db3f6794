"""Idempotency keys: the same call again is answered as the first time, and does nothing."""

from typing import Any

import orjson
from sqlalchemy import Connection, text

COMMAND_LINE = 0  # stands where a sender's API key stands

# A key that is past its day is taken over as if it were not there: the clean-up only saves the space.
CLAIM = text("""
    INSERT INTO idempotency_keys AS held (api_key_id, key, request_digest, status, body)
    VALUES (:api_key_id, :key, :digest, 0, '{}')
    ON CONFLICT (api_key_id, key) DO UPDATE SET request_digest = excluded.request_digest, created_at = now()
    WHERE held.created_at <= now() - interval '24 hours'
    RETURNING key
""")
FIND_ANSWER = text("SELECT body FROM idempotency_keys WHERE api_key_id = :api_key_id AND key = :key")


def claim(connection: Connection, api_key_id: int, key: str, digest: bytes) -> dict[str, Any] | None:
    """Takes the key for 24 hours, or gives back what was answered under it. Index: idempotency_keys_pkey.

    Whoever claims the same key meanwhile waits for this transaction's end.
    """
    parameters = {"api_key_id": api_key_id, "key": key, "digest": digest}
    if connection.execute(CLAIM, parameters).one_or_none() is not None:
        return None
    answer: dict[str, Any] = connection.execute(FIND_ANSWER, parameters).scalar_one()
    return answer


KEEP_ANSWER = text("""
    UPDATE idempotency_keys SET status = 201, body = CAST(:body AS jsonb)
    WHERE api_key_id = :api_key_id AND key = :key
""")


def keep_answer(connection: Connection, api_key_id: int, key: str, body: dict[str, Any]) -> None:
    """Stores what a repeated call is answered with, in the transaction that publishes."""
    parameters = {"api_key_id": api_key_id, "key": key, "body": orjson.dumps(body).decode()}
    connection.execute(KEEP_ANSWER, parameters)


KNOWN_KEYS = text("""
    SELECT key FROM idempotency_keys
    WHERE api_key_id = :api_key_id AND key = ANY(:keys) AND created_at > now() - interval '24 hours'
""")


def known_keys(connection: Connection, api_key_id: int, keys: list[str]) -> set[str]:
    """Those of the keys under which something was done already. Index: idempotency_keys_pkey."""
    return set(connection.execute(KNOWN_KEYS, {"api_key_id": api_key_id, "keys": keys}).scalars())
