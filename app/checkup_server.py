"""What doctor asks PostgreSQL: its release, settings and clock, its tables, and what stands in between."""

import secrets
import time
from collections.abc import Collection, Iterator
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app import changes, db, readiness
from app.findings import Finding, broken, look, ok
from app.settings import Settings

OLDEST_SERVER = 140000
FURTHEST_CLOCK = 5  # seconds
LATE_CLEAN_UP_HOURS = 26  # a nightly clean-up, and two hours for it to run
LONG_TRANSACTION = 3600  # seconds
OTHERS_CONNECTIONS = 5  # for commands, the clean-up, monitoring and a person with psql
HEARING_SECONDS = 2

ENCODING = text("SELECT encoding = pg_char_to_encoding('UTF8') FROM pg_database WHERE datname = current_database()")


def check_encoding(connection: Connection) -> Finding:
    """Whether the database holds every letter; in one that does not, hardly anything works."""
    if connection.execute(ENCODING).scalar_one():
        return ok("encoding", "UTF8")
    advice = "make the database anew: createdb --encoding=UTF8 --template=template0"
    return broken("encoding", "not UTF8: most names and titles cannot be kept", advice)


SERVER = text("SELECT current_setting('server_version_num'), current_setting('server_version'), now()")


def check_server(connection: Connection) -> Iterator[Finding]:
    """The server's release, and its clock against this machine's."""
    number, name, now = connection.execute(SERVER).one()
    apart = abs(now.timestamp() - time.time())
    if int(number) < OLDEST_SERVER:
        yield broken("PostgreSQL", f"release {name}", "upgrade the server to PostgreSQL 14 or newer")
    else:
        yield ok("PostgreSQL", f"release {name}")
    if apart > FURTHEST_CLOCK:
        yield look("clock", f"{apart:.0f} s from the database's", "let NTP set both machines' clocks")
    else:
        yield ok("clock", f"{apart:.1f} s from the database's")


# What each must not be, how bad that is, and what comes of it.
SERVER_SETTINGS = {
    "fsync": ("off", broken, "a crash of its machine loses everything"),
    "full_page_writes": ("off", broken, "a crash of its machine can damage tables"),
    "synchronous_commit": ("off", look, "a crash loses the last notifications that were acknowledged"),
    "autovacuum": ("off", look, "tables only grow and get slow"),
    "track_counts": ("off", look, "autovacuum does not know what to do"),
    "transaction_read_only": ("on", broken, "nothing can be published or marked"),
}
SHOW = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names) ORDER BY name")


def check_server_settings(connection: Connection) -> Iterator[Finding]:
    """The server's settings without which an acknowledged notification can be lost, or old rows pile up."""
    for name, value in connection.execute(SHOW, {"names": list(SERVER_SETTINGS)}):
        bad, how, consequence = SERVER_SETTINGS[name]
        if value == bad:
            good = "on" if bad == "off" else "off"
            advice = f"set {name} = {good} in postgresql.conf" if bad == "off" else "let DATABASE_URL name the primary"
            yield how(name, f"{value}: {consequence}", advice)
        else:
            yield ok(name, value)


ROOM = text("""
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
""")


def check_room(connection: Connection, settings: Settings) -> Finding:
    """Whether the server has room for all that the workers may hold at a time."""
    room = min(limit for limit in connection.execute(ROOM).one() if limit >= 0)
    # The pool, its one more when all are busy, and the one that listens and the one that tells.
    needed = settings.web_concurrency * (settings.threads + 3)
    detail = f"{needed} for the workers, room for {room}"
    if needed > room:
        advice = "raise max_connections, or lower THREADS or WEB_CONCURRENCY"
        return broken("connections", detail, advice)
    if needed + OTHERS_CONNECTIONS > room:
        return look("connections", detail, "raise max_connections: commands need some too")
    return ok("connections", detail)


OPTIONS = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
PROCESS = text("SELECT pg_backend_pid()")


def check_pooler() -> Finding:
    """Whether each of our connections is one of the server's, with the deadlines that it asks for.

    Behind a pooler in transaction mode two of ours take turns on one of the server's: locks and settings go astray.
    """
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as first:
        deadlines = first.execute(OPTIONS).one()
        processes = {first.execute(PROCESS).scalar_one()}
        with db.engine().connect() as second:
            taken = second.execute(PROCESS).scalar_one()
            shared = taken in processes
            if not shared:
                processes.add(first.execute(PROCESS).scalar_one())
    if shared or len(processes) > 1:
        advice = "let DATABASE_URL name the server itself, or have the pooler keep sessions (pool_mode = session)"
        return broken("pooler", "one in transaction mode stands in between: locks and deadlines do not hold", advice)
    if tuple(deadlines) != ("5s", "1s"):
        advice = "let DATABASE_URL name the server itself, or have the pooler pass start-up options on"
        return broken("pooler", "one takes our deadlines away: a hung statement holds its thread for ever", advice)
    return ok("pooler", "none in between that matters")


def check_notices() -> Finding:
    """Whether what is told on DATABASE_URL is heard where the workers listen."""
    word, channel = secrets.token_hex(8), f"{changes.CHANNEL}_doctor"
    advice = "let CHANGES_DATABASE_URL name the server itself, and the same database as DATABASE_URL"
    try:
        began = time.monotonic()
        with changes.current().connect() as listener:
            driver: Any = listener.connection.driver_connection
            driver.execute(f"LISTEN {channel}")
            db.write(lambda c: c.execute(changes.SEND, {"channel": channel, "payloads": [word]}))
            for notice in driver.notifies(timeout=HEARING_SECONDS):
                if notice.payload == word:
                    return ok("notices", f"heard after {(time.monotonic() - began) * 1000:.0f} ms")
    except (SQLAlchemyError, psycopg.Error) as error:
        return look("notices", f"cannot listen: {type(error).__name__}", advice)
    return look("notices", "not heard: what others do shows up to a minute late", advice)


TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
INVALID = text("""
    SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace
""")


def check_migrations(connection: Connection, head: str | None, known: Collection[str]) -> Iterator[Finding]:
    """Whether the tables are those of this release, or of a newer one, with which it works too."""
    made = connection.execute(TABLE).scalar_one()
    revision = readiness.find_revision(connection) if made else None
    detail = f"at {revision}, the code is at {head}"
    if revision == head:
        yield ok("migrations", f"at {head}")
    elif revision is not None and revision not in known:
        yield look("migrations", detail, "restart with the newer release when it is time; until then this one works")
    else:
        yield broken("migrations", detail, "flask db upgrade")
    invalid = connection.execute(INVALID).scalar_one()
    if invalid:
        advice = "flask db upgrade makes it again; or REINDEX INDEX CONCURRENTLY"
        yield look("indexes", f"{invalid} is not complete: its making was cut off", advice)


OLDEST_EXPIRED = text("SELECT extract(epoch FROM now() - min(expires_at)) / 3600 FROM notifications")
LAST_CLEAN_UP = text("SELECT extract(epoch FROM now() - :at) / 3600")


def check_clean_up(connection: Connection, last: Any) -> Finding:
    """Whether cron runs the clean-up (`last`: when one was done): nothing should be over for much longer than a day.

    Index: notifications_expires_at.
    """
    advice = "run flask cleanup nightly from cron or a timer"
    hours: Any = connection.execute(OLDEST_EXPIRED).scalar_one()
    if hours is not None and hours > LATE_CLEAN_UP_HOURS:
        return look("clean-up", f"something expired {hours:.0f} hours ago is still there", advice)
    if last is None:
        return ok("clean-up", "nothing is overdue; it has never run")
    ago: Any = connection.execute(LAST_CLEAN_UP, {"at": last}).scalar_one()
    if ago > LATE_CLEAN_UP_HOURS:
        return look("clean-up", f"done {ago:.0f} hours ago", advice)
    return ok("clean-up", f"nothing is overdue; done {ago:.0f} hours ago")


OLDEST_TRANSACTION = text("""
    SELECT pid, extract(epoch FROM now() - xact_start) AS seconds FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND xact_start IS NOT NULL
    ORDER BY xact_start LIMIT 1
""")


def check_transactions(connection: Connection, longest: float = LONG_TRANSACTION) -> Finding:
    """Whether somebody holds a transaction open: nothing that was deleted since can be given back meanwhile."""
    oldest = connection.execute(OLDEST_TRANSACTION).one_or_none()
    if oldest is not None and oldest.seconds > longest:
        advice = f"end it there, or SELECT pg_terminate_backend({oldest.pid})"
        return look("transactions", f"process {oldest.pid} has one open for {oldest.seconds / 3600:.0f} hours", advice)
    return ok("transactions", "none is open for long")


TIMELINE = text("SELECT timeline_id FROM pg_control_checkpoint()")


def check_epoch(connection: Connection, settings: Settings) -> Finding:
    """Whether the server was ever restored or taken over by a standby, while EPOCH says that nothing happened."""
    try:
        timeline = connection.execute(TIMELINE).scalar_one()
    except SQLAlchemyError:  # some providers keep this from their customers
        timeline = 1
    if timeline > 1 and settings.epoch == "0":
        detail = f"0, but the server is on timeline {timeline}: it was restored, or a standby took over"
        return look("epoch", detail, "set EPOCH to a new value, if that was since bells have polled")
    return ok("epoch", settings.epoch)
