"""`flask doctor`: what it says of a sound installation, and of each that is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import psycopg
import pytest
import sqlalchemy

from app import checkup, checkup_server, db, embedded, retention, settings
from app.publishing import Published
from tests import postgres, rows
from tests.cast import Person
from tests.commands import run
from tests.pooler import pooler
from tests.redis_server import PASSWORD, redis_server
from tests.service import wait_until
from tests.variants import another_app

Publish = Callable[..., Published]
Findings = dict[str, dict[str, Any]]


def findings(app: flask.Flask, *arguments: str, status: int | None = None) -> Findings:
    """What the doctor found, by its subject; the exit status is 1 where something is broken."""
    done = run(app, "doctor", "--json", *(arguments or ["--no-network"]))
    found = json.loads(done.stdout)
    assert done.exit_code == int(any(finding["verdict"] == "broken" for finding in found))
    assert status is None or done.exit_code == status
    assert all(bool(finding["advice"]) == (finding["verdict"] != "ok") for finding in found)
    assert {finding["verdict"] for finding in found} <= {"ok", "look", "broken"}
    return {finding["subject"]: finding for finding in found}


def test_the_doctor_looks_at_everything_and_says_what_to_do(app: flask.Flask) -> None:
    found = findings(app)

    assert set(found) == {
        *("public address", "proxies", "database", "workers", "polls", "fast path", "origins", "secret key"),
        *("files", "limits"),
        *(
            "encoding",
            "PostgreSQL",
            "clock",
            "fsync",
            "full_page_writes",
            "synchronous_commit",
            "autovacuum",
            "track_counts",
        ),
        *("transaction_read_only", "connections", "pooler", "notices", "epoch", "transactions", "migrations"),
        "clean-up",
    }
    for subject in ("migrations", "clock", "pooler", "notices", "connections", "transactions", "clean-up"):
        assert found[subject]["verdict"] == "ok", found[subject]
    assert found["fsync"]["detail"].partition(":")[0] == rows.one("SHOW fsync")


def test_the_doctor_says_it_in_lines_for_a_person(app: flask.Flask) -> None:
    lines = run(app, "doctor", "--no-network").stdout.splitlines()

    assert "look    public address: unset: links lead to" in lines[0]
    assert lines[0].endswith("-> set PUBLIC_URL to the address that readers use")
    assert "ok      secret key: set" in lines


def test_the_doctor_finds_nothing_broken_on_a_server_that_keeps_what_it_acknowledged(
    app: flask.Flask, tmp_path: Path
) -> None:
    with embedded.running(tmp_path / "postgres") as durable:
        postgres.upgrade(durable)
        with another_app(database_url=durable) as sound:
            found = findings(sound, status=0)
            assert found["fsync"] == {"subject": "fsync", "verdict": "ok", "detail": "on", "advice": ""}
            assert found["epoch"]["verdict"] == found["autovacuum"]["verdict"] == "ok"
        with postgres.connect(durable) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("ALTER SYSTEM SET restore_command = 'false'")
    # As after a restore from the archive: the server goes on in a new timeline.
    recovery = tmp_path / "postgres/data/recovery.signal"
    recovery.touch()
    owner = recovery.parent.stat()
    os.chown(recovery, owner.st_uid, owner.st_gid)
    with embedded.running(tmp_path / "postgres") as restored:
        with postgres.connect(restored) as connection:
            wait_until(
                lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "it is restored"
            )
        with another_app(database_url=restored) as old_epoch:
            found = findings(old_epoch, status=0)
        with another_app(database_url=restored, epoch="restored") as new_epoch:
            found_then = findings(new_epoch, status=0)

    assert found["autovacuum"]["verdict"] == "look"
    assert found["epoch"]["verdict"] == "look"
    assert "timeline 2" in found["epoch"]["detail"]
    assert found_then["epoch"]["verdict"] == "ok"


# settings and files


@pytest.mark.parametrize(
    ("chosen", "subject", "verdict"),
    [
        ({}, "public address", "look"),
        ({"public_url": "http://app.example"}, "public address", "look"),
        ({"public_url": "https://app.example"}, "public address", "ok"),
        ({}, "proxies", "ok"),
        ({"public_url": "https://app.example"}, "proxies", "look"),
        ({"public_url": "https://app.example/belfry", "trusted_proxies": 1}, "proxies", "ok"),
        ({"web_concurrency": 64}, "workers", "look"),
        ({"poll_limit": "100 per minute", "poll_interval": 1}, "polls", "look"),
        ({"poll_limit": "100 per minute", "poll_interval": 1, "web_concurrency": 4}, "polls", "look"),
        ({"poll_limit": "120 per minute", "poll_interval": 1}, "polls", "ok"),
        ({"poll_limit": "3 per second; 100 per hour", "poll_interval": 30}, "polls", "look"),
        ({"fast_path": False}, "fast path", "look"),
        ({"fast_path": True}, "fast path", "ok"),
        ({"public_url": "https://app.example", "cors_origins": "http://a.example"}, "origins", "look"),
        ({"public_url": "http://app.example", "cors_origins": "http://a.example"}, "origins", "ok"),
        ({"public_url": "https://app.example", "cors_origins": "https://a.example"}, "origins", "ok"),
        ({"database_url": None, "public_url": "https://app.example"}, "database", "look"),
        ({"database_url": None}, "database", "ok"),
    ],
)
def test_the_doctor_knows_settings_that_are_seldom_meant(chosen: dict[str, Any], subject: str, verdict: str) -> None:
    usual = {"database_url": "postgresql://x/y", "secret_key": postgres.SECRET_KEY, "web_concurrency": 1}

    found = {finding.subject: finding for finding in checkup.check_settings(settings.load(**{**usual, **chosen}))}

    assert (found[subject].verdict, bool(found[subject].advice)) == (verdict, verdict != "ok")


def test_the_doctor_notices_a_secret_key_that_others_can_read(tmp_path: Path) -> None:
    chosen = settings.load(database_url=None, secret_key=None)
    folder = tmp_path / "instance"
    assert [finding.verdict for finding in checkup.check_secrets(chosen, folder)] == ["ok"]

    settings.kept_secret_key(folder)
    assert [finding.verdict for finding in checkup.check_secrets(chosen, folder)] == ["ok"]

    (folder / "secret_key").chmod(0o644)
    folder.chmod(0o755)
    key, around = checkup.check_secrets(chosen, folder)
    assert (key.verdict, around.verdict) == ("broken", "look")
    assert "chmod 600" in key.advice


def test_the_doctor_notices_files_that_the_wrong_ones_can_read(tmp_path: Path) -> None:
    secret, shown = tmp_path / "key", tmp_path / "static"
    secret.touch(mode=0o400)
    (shown / "js").mkdir(parents=True)
    named = {"SECRET_KEY_FILE": str(secret)}
    assert [finding.verdict for finding in checkup.check_files(named, [shown])] == ["ok", "ok"]

    secret.chmod(0o440)
    (shown / "js/poller.js").symlink_to("nowhere")  # root may read whatever there is
    open_to_all, closed = checkup.check_files(named, [shown])
    assert (open_to_all.subject, open_to_all.verdict) == ("SECRET_KEY_FILE", "look")
    assert (closed.verdict, "poller.js" in closed.detail) == ("broken", True)


def test_the_doctor_knows_which_settings_came_from_files(app: flask.Flask, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(postgres.SECRET_KEY)
    environment = postgres.environment(db.engine().url.render_as_string(hide_password=False))
    del environment["SECRET_KEY"]
    secret.chmod(0o644)

    done = subprocess.run(
        [sys.executable, "-m", "flask", "doctor", "--no-network"],
        cwd=postgres.ROOT,
        env={**environment, "SECRET_KEY_FILE": str(secret)},
        capture_output=True,
        text=True,
    )

    assert (
        f"look    SECRET_KEY_FILE: other users of this machine can read {secret} -> chmod 400 {secret}" in done.stdout
    )


def test_the_doctor_asks_the_redis_that_counts(app: flask.Flask) -> None:
    with redis_server() as redis, another_app(ratelimit_storage_uri=redis.uri) as counting:
        found = findings(counting)["limits"]
        redis.hang()
        found_hung = findings(counting)["limits"]
        redis.kill()
        found_gone = findings(counting)["limits"]

    assert (found["verdict"], "Redis answered after" in found["detail"]) == ("ok", True)
    assert [one["verdict"] for one in (found_hung, found_gone)] == ["look", "look"]
    assert PASSWORD not in str([found, found_hung, found_gone])


# PostgreSQL


@pytest.fixture
def other_database() -> Iterator[str]:
    with postgres.database() as url:
        yield url


def test_without_a_database_the_doctor_still_says_what_it_sees(app: flask.Flask) -> None:
    with another_app(database_url="postgresql://belfry@127.0.0.1:1/belfry") as lonely:
        found = findings(lonely, status=1)

    assert found["PostgreSQL"]["verdict"] == "broken"
    assert "does not answer" in found["PostgreSQL"]["detail"]
    assert found["workers"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("synchronous_commit", "off", "look"),
        ("track_counts", "off", "look"),
        ("default_transaction_read_only", "on", "broken"),
    ],
)
def test_the_doctor_notices_settings_of_the_server_that_lose_something(
    app: flask.Flask, other_database: str, name: str, value: str, verdict: str
) -> None:
    with postgres.connect(other_database) as connection:
        database = connection.info.dbname
        connection.execute(f"ALTER DATABASE {database} SET {name} = {value}".encode())
    with another_app(database_url=other_database) as other:
        found = findings(other)

    assert found[name.removeprefix("default_")]["verdict"] == verdict


def test_the_doctor_notices_a_database_that_cannot_hold_every_letter(app: flask.Flask) -> None:
    with postgres.connect(os.environ[postgres.SERVER]) as server:
        choices = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
        server.execute(f"CREATE DATABASE belfry_test_letters {choices}".encode())
        try:
            url = sqlalchemy.make_url(os.environ[postgres.SERVER]).set(database="belfry_test_letters")
            with another_app(database_url=url.render_as_string(hide_password=False)) as other:
                assert findings(other, status=1)["encoding"]["verdict"] == "broken"
        finally:
            server.execute("DROP DATABASE belfry_test_letters WITH (FORCE)")


@pytest.mark.parametrize(("workers", "threads", "verdict"), [(1, 4, "ok"), (2, 44, "look"), (2, 64, "broken")])
def test_the_doctor_counts_the_connections_that_the_workers_may_hold(
    app: flask.Flask, other_database: str, workers: int, threads: int, verdict: str
) -> None:
    """14, 94 and 134 of the 97 or 94 that a server of 100 has for us."""
    with postgres.connect(other_database) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("100",)
    with another_app(database_url=other_database, web_concurrency=workers, threads=threads) as other:
        assert findings(other)["connections"]["verdict"] == verdict


def test_the_doctor_notices_a_pooler_that_swallows_notices_and_deadlines(app: flask.Flask, other_database: str) -> None:
    with pooler(other_database, "transaction") as behind:
        with another_app(database_url=behind) as unaware:
            found = findings(unaware, status=1)
        with another_app(database_url=behind, changes_database_url=other_database) as aware:
            found_then = findings(aware, status=1)
    with pooler(other_database, "session") as behind, another_app(database_url=behind) as without_deadlines:
        found_in_a_session = findings(without_deadlines, status=1)
    with pooler(other_database, "session", ignored="") as behind, another_app(database_url=behind) as refused:
        found_without = findings(refused, status=1)

    assert (found["pooler"]["verdict"], found["notices"]["verdict"]) == ("broken", "look")
    assert (found_then["pooler"]["verdict"], found_then["notices"]["verdict"]) == ("broken", "ok")
    assert "deadlines" in found_in_a_session["pooler"]["detail"]
    assert "options" in found_without["PostgreSQL"]["detail"]


def test_the_doctor_notices_that_nobody_listens_where_changes_are_told(app: flask.Flask, other_database: str) -> None:
    with another_app(changes_database_url=other_database) as elsewhere:
        found = findings(elsewhere)
    with another_app(changes_database_url="postgresql://belfry@127.0.0.1:1/belfry") as nowhere:
        found_then = findings(nowhere)

    assert (found["notices"]["verdict"], "not heard" in found["notices"]["detail"]) == ("look", True)
    assert (found_then["notices"]["verdict"], "cannot listen" in found_then["notices"]["detail"]) == ("look", True)


def test_the_doctor_notices_older_and_newer_tables(app: flask.Flask, other_database: str) -> None:
    head = rows.one("SELECT version_num FROM alembic_version")
    for revision, verdict in (("0001", "broken"), ("9999", "look")):
        with postgres.connect(other_database) as connection:
            connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
        with another_app(database_url=other_database) as other:
            found = findings(other)
        assert found["migrations"]["verdict"] == verdict
        assert found["migrations"]["detail"] == f"at {revision}, the code is at {head}"
        assert "clean-up" not in found


def test_the_doctor_notices_an_index_that_was_left_half_made(app: flask.Flask, other_database: str) -> None:
    with postgres.connect(other_database) as connection:
        connection.execute("INSERT INTO users (subject) VALUES ('ada'), ('grace')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY half_made ON users (is_active)")
    with another_app(database_url=other_database) as other:
        found = findings(other)

    assert (found["indexes"]["verdict"], "half_made" in found["indexes"]["detail"]) == ("look", True)


def test_the_doctor_notices_a_transaction_that_stays_open(app: flask.Flask) -> None:
    with psycopg.connect(db.engine().url.render_as_string(hide_password=False).replace("+psycopg", "")) as forgotten:
        forgotten.execute("SELECT count(*) FROM users")
        finding = db.read(checkup_server.check_transactions, 0)
        pid = forgotten.info.backend_pid

    assert finding.verdict == "look"
    assert f"pg_terminate_backend({pid})" in finding.advice


def test_the_doctor_notices_that_nobody_runs_the_clean_up(app: flask.Flask, alice: Person, publish: Publish) -> None:
    publish("alice")
    for hours, verdict in ((25, "ok"), (27, "look")):
        rows.change("UPDATE notifications SET expires_at = now() - make_interval(hours => :h)", h=hours)
        assert findings(app)["clean-up"]["verdict"] == verdict


def test_the_doctor_notices_that_the_clean_up_has_not_run_since_yesterday(app: flask.Flask) -> None:
    for chore in retention.ALL_CHORES:
        db.write(retention.note, chore, is_done=True)
    for hours, verdict in ((25, "ok"), (27, "look")):
        rows.change("UPDATE chores SET done_at = now() - make_interval(hours => :h)", h=hours)
        assert findings(app)["clean-up"]["verdict"] == verdict
