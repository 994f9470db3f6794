"""What an operator asks: what is in there, and what is wrong with this installation."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.db import LONG_DEADLINE
from app.settings import Settings

OLDEST_SERVER = 140000
LATE_CLEAN_UP_HOURS = 26  # a nightly clean-up, and two hours for it to run

STATS = text("""
    SELECT
        (SELECT count(*) FROM users) AS users,
        (SELECT count(*) FROM users WHERE NOT is_active) AS disabled,
        (SELECT count(*) FROM events) AS events,
        (SELECT count(*) FROM notifications WHERE now() < expires_at) AS notifications,
        (SELECT count(*) FROM notifications
            WHERE read_at IS NULL AND archived_at IS NULL AND now() < expires_at) AS unread,
        (SELECT count(*) FROM notifications WHERE expires_at <= now()) AS expired,
        (SELECT count(*) FROM events WHERE created_at > now() - interval '24 hours') AS events_in_24_hours,
        (SELECT pg_total_relation_size('notifications') + pg_total_relation_size('events')) AS bytes
""")


def stats(connection: Connection) -> dict[str, int]:
    """How much of everything there is. Counts every row: seconds on millions of them, so not for monitoring."""
    connection.execute(LONG_DEADLINE)
    return dict(connection.execute(STATS).one()._mapping)


LIST_USERS = text("""
    SELECT id, subject, display_name, is_active, password_hash IS NOT NULL AS has_password, inbox_version, created_at
    FROM users ORDER BY subject LIMIT :limit OFFSET :offset
""")


def list_users(connection: Connection, limit: int, offset: int) -> list[dict[str, Any]]:
    """The users by name, for the operator."""
    found = connection.execute(LIST_USERS, {"limit": limit, "offset": offset})
    return [dict(row._mapping) for row in found]


FIND_SOMEBODY = text("SELECT subject FROM users WHERE is_active ORDER BY subject LIMIT 1")


def find_somebody(connection: Connection) -> str | None:
    """Somebody who can sign in, for whoever tries the service out. Index: users_subject_key."""
    subject: str | None = connection.execute(FIND_SOMEBODY).scalar_one_or_none()
    return subject


class Finding(NamedTuple):
    """One thing that was looked at; `verdict` is ok, look or broken, `advice` what to do about it."""

    subject: str
    verdict: str
    detail: str
    advice: str = ""


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What the settings say about an installation that others can reach."""
    if settings.public_url is None:
        advice = "set PUBLIC_URL to the address that readers use"
        yield Finding("public address", "look", f"unset: links lead to {settings.own_url}", advice)
    elif not settings.is_https:
        advice = "put TLS in front and set PUBLIC_URL to https://…"
        yield Finding("public address", "look", f"{settings.public_url} is not encrypted", advice)
    else:
        yield Finding("public address", "ok", settings.public_url)
    if settings.public_url and not settings.trusted_proxies:
        advice = "set TRUSTED_PROXIES to the number of proxies in front"
        yield Finding("proxies", "look", "none is trusted: every address is the proxy's", advice)
    else:
        yield Finding("proxies", "ok", f"{settings.trusted_proxies} trusted")


def check_secret_key(settings: Settings, folder: Path) -> Finding:
    """Whether the key that signs sessions is out of other users' sight."""
    if settings.secret_key:
        return Finding("secret key", "ok", "set")
    path = folder / "secret_key"
    if path.exists() and path.stat().st_mode & 0o077:
        return Finding("secret key", "broken", f"other users can read {path}", f"chmod 600 {path}, and make a new one")
    return Finding("secret key", "ok", f"kept in {path}")


SERVER = text("SELECT current_setting('server_version_num'), current_setting('server_version'), now()")


def check_server(connection: Connection) -> Iterator[Finding]:
    """The server's release and its clock against this machine's."""
    number, name, now = connection.execute(SERVER).one()
    if int(number) < OLDEST_SERVER:
        yield Finding("PostgreSQL", "broken", f"release {name}", "upgrade the server to PostgreSQL 14 or newer")
    else:
        yield Finding("PostgreSQL", "ok", f"release {name}")
    apart = abs(now.timestamp() - time.time())
    if apart > 5:
        yield Finding("clock", "look", f"{apart:.0f} s from the database's", "let NTP set both machines' clocks")
    else:
        yield Finding("clock", "ok", f"{apart:.1f} s from the database's")


SERVER_SETTINGS = text(
    "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'autovacuum') ORDER BY name"
)


def check_server_settings(connection: Connection) -> Iterator[Finding]:
    """The server's settings without which an acknowledged notification can be lost, or old rows pile up."""
    for name, value in connection.execute(SERVER_SETTINGS):
        if value == "off":
            yield Finding(name, "broken" if name == "fsync" else "look", "off", f"set {name} = on in postgresql.conf")
        else:
            yield Finding(name, "ok", value)


REVISION = text("SELECT version_num FROM alembic_version")
TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")


def check_migrations(connection: Connection, head: str | None) -> Finding:
    """Whether the tables are those of this release."""
    made = connection.execute(TABLE).scalar_one()
    revision = connection.execute(REVISION).scalar_one_or_none() if made else None
    if revision == head:
        return Finding("migrations", "ok", f"at {head}")
    return Finding("migrations", "broken", f"at {revision}, the code is at {head}", "flask db upgrade")


OLDEST_EXPIRED = text("SELECT extract(epoch FROM now() - min(expires_at)) / 3600 FROM notifications")


def check_clean_up(connection: Connection) -> Finding:
    """Whether cron runs the clean-up: nothing should be over for much longer than a day. Index: expires_at."""
    hours: Any = connection.execute(OLDEST_EXPIRED).scalar_one()
    if hours is not None and hours > LATE_CLEAN_UP_HOURS:
        advice = "run flask cleanup nightly from cron or a timer"
        return Finding("clean-up", "look", f"something expired {hours:.0f} hours ago is still there", advice)
    return Finding("clean-up", "ok", "nothing is overdue")
