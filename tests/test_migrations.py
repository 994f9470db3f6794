"""`flask db upgrade`, `downgrade` and `check`, and that the models and the migrations make the same schema."""

import ast
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import flask
import psycopg
import pytest
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory

from app import auth, create_app, db, keys, marking, people, preferences, publishing, retention, tickets
from app.errors import Problem
from app.events import Event
from app.models import metadata
from app.publishing import Order
from app.validation import check
from tests import postgres
from tests.service import wait_until

# All that makes a difference to how a table behaves, in words of PostgreSQL that stay the same from version to version.
SCHEMA = {
    "relations": """
        SELECT relname, relkind, relpersistence, relreplident, relrowsecurity, coalesce(reloptions, '{}') AS options,
            obj_description(relation.oid, 'pg_class') AS description, ts.spcname AS tablespace
        FROM pg_class AS relation LEFT JOIN pg_tablespace AS ts ON ts.oid = reltablespace
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    """,
    "columns": """
        SELECT relname, attnum, attname, format_type(atttypid, atttypmod) AS type, attnotnull, attidentity,
            attgenerated, attstorage, attstattarget, attoptions, collname,
            pg_get_expr(adbin, adrelid) AS standard, col_description(attrelid, attnum) AS description
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
    """,
    "constraints": """
        SELECT conrelid::regclass::text AS relname, conname, contype, condeferrable, condeferred, convalidated,
            pg_get_constraintdef(pg_constraint.oid) AS definition
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": """
        SELECT indrelid::regclass::text AS relname, pg_get_indexdef(indexrelid) AS definition, indisunique,
            indisprimary, indisvalid, pg_get_expr(indpred, indrelid) AS condition, coalesce(reloptions, '{}') AS options
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = 'public'::regnamespace
    """,
    "sequences": """
        SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle, cache_size
        FROM pg_sequences WHERE schemaname = 'public'
    """,
    "functions and triggers": """
        SELECT proname AS name, pg_get_functiondef(oid) AS definition
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT tgname, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger
        JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal
    """,
}

Schema = dict[str, list[str]]


def schema(url: str) -> Schema:
    """What there is in the database, Alembic's own table aside."""
    with postgres.connect(url) as connection:
        found = {name: [str(row) for row in connection.execute(query).fetchall()] for name, query in SCHEMA.items()}
    return {name: sorted(row for row in rows if "alembic_version" not in row) for name, rows in found.items()}


def revision(url: str) -> str | None:
    with postgres.connect(url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def start(url: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flask", "db", *arguments]
    return subprocess.Popen(
        command,
        cwd=postgres.ROOT,
        env=postgres.environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(url: str, *arguments: str) -> tuple[int, str]:
    """The exit status of `flask db …` and what it said."""
    process = start(url, *arguments)
    said = "".join(process.communicate(timeout=60))
    return process.returncode, said


def revisions() -> list[str]:
    """From the first to the latest."""
    config = Config()
    config.set_main_option("script_location", str(postgres.ROOT / "migrations"))
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))]


@pytest.fixture
def migrated() -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def blank() -> Iterator[str]:
    with postgres.database(migrated=False) as url:
        yield url


@pytest.fixture
def populated(migrated: str) -> Iterator[str]:
    """A database in which every table has been used."""
    app = create_app(database_url=migrated, secret_key=postgres.SECRET_KEY, web_concurrency=1)
    with app.app_context():
        use(app)
        with db.engine().connect() as connection:
            for table in metadata.tables:
                count = connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one()
                assert count > 0, f"nothing is in {table}"
        db.engine().dispose()
    return migrated


def use(app: flask.Flask) -> None:
    event = check(Event, {"type": "comment", "title": "A comment", "group_key": "thread"})
    for ordinal in range(3):
        call = publishing.line_call(b"a line", ordinal)
        db.write(publishing.publish_once, call, [Order(event, ["alice", "mallory"])], timedelta(days=30))
    db.write(tickets.make_ticket, "alice", 600)
    with db.engine().connect() as connection:
        alice = connection.execute(sqlalchemy.text("SELECT id FROM users WHERE subject = 'alice'")).scalar_one()
    reader = db.read(people.start_session, alice, 12)
    assert reader is not None
    db.write(marking.mark_through, reader, "read", 3)
    db.write(preferences.mute, reader, "comment", muted=True)
    db.write(keys.make, "a sender", ["publish"])
    db.write(people.end_session, reader)
    db.write(retention.note, "events", is_done=True)
    with app.test_request_context("/login"), pytest.raises(Problem):
        auth.sign_in("alice", "no such password", 12)


def test_down_and_up_again_gives_the_same_schema_at_every_revision_and_each_only_adds(populated: str) -> None:
    seen = {revisions()[-1]: schema(populated)}
    for earlier in reversed(["base", *revisions()[:-1]]):
        assert run(populated, "downgrade", earlier)[0] == 0
        seen[earlier] = schema(populated)
    assert not any(seen["base"].values())

    for later in revisions():
        assert run(populated, "upgrade", later)[0] == 0
        assert schema(populated) == seen[later]
    for earlier, later in itertools.pairwise(revisions()):
        adds_only(seen[earlier], seen[later])


def adds_only(earlier: Schema, later: Schema) -> None:
    """Nothing is gone, and no row of a table needs what the release before does not know of: it works with these."""
    for kind, there in earlier.items():
        assert set(there) <= set(later[kind]), kind
    tables = {ast.literal_eval(row)[0] for row in earlier["columns"]}
    for row in set(later["columns"]) - set(earlier["columns"]):
        table, _, name, _, is_demanded, identity, *_, standard, _ = ast.literal_eval(row)
        assert table not in tables or not is_demanded or standard or identity, f"{table}.{name}"


def test_the_dump_is_identical_after_down_and_up_again(populated: str) -> None:
    """To the earliest revision that only takes indexes, and tables of the upkeep's own, away."""
    before = dump(populated)
    assert "\tcomment\t" in before

    assert run(populated, "downgrade", "0002")[0] == 0
    assert dump(populated) != before
    assert run(populated, "upgrade")[0] == 0

    assert dump(populated) == before


def dump(url: str) -> str:
    """All that is in the database, as pg_dump writes it, but for what the clean-up has noted."""
    command = [postgres.program("pg_dump", url), "--exclude-table-data=chores", postgres.plain(url)]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # A word that newer ones make up anew each time, so that nobody can guess it.
    return re.sub(r"^\\(un)?restrict .*$", "", written, flags=re.MULTILINE)


def test_models_and_migrations_make_the_same_schema(migrated: str, blank: str) -> None:
    engine = sqlalchemy.create_engine(blank)
    metadata.create_all(engine)
    engine.dispose()

    by_models, by_migrations = schema(blank), schema(migrated)

    assert by_models == by_migrations
    assert all(by_models[name] for name in SCHEMA if name != "functions and triggers")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users SET (fillfactor = 90)",
        "ALTER TABLE notifications RESET (autovacuum_vacuum_insert_scale_factor)",
        "ALTER TABLE rate_limits SET LOGGED",
        "ALTER TABLE users ALTER COLUMN subject TYPE text COLLATE pg_catalog.default",
        "ALTER TABLE users ALTER COLUMN id SET GENERATED BY DEFAULT",
        "ALTER TABLE notifications ALTER COLUMN group_count SET DEFAULT 2",
        "ALTER TABLE notifications ADD COLUMN new text",
        "ALTER TABLE notifications DROP CONSTRAINT notifications_event_id_fkey, ADD CONSTRAINT"
        " notifications_event_id_fkey FOREIGN KEY (event_id) REFERENCES events ON DELETE CASCADE",
        "DROP INDEX notifications_unread; CREATE INDEX notifications_unread ON notifications (user_id, id DESC)"
        " WHERE read_at IS NULL",
    ],
)
def test_the_comparison_notices_every_kind_of_difference(migrated: str, change: str) -> None:
    before = schema(migrated)

    with postgres.connect(migrated) as connection:
        connection.execute(change)  # type: ignore[call-overload]

    assert schema(migrated) != before


def test_check_finds_no_difference(migrated: str) -> None:
    status, said = run(migrated, "check")

    assert (status, "No new upgrade operations detected" in said) == (0, True), said


def test_check_notices_a_column_that_the_models_do_not_have(migrated: str) -> None:
    with postgres.connect(migrated) as connection:
        connection.execute("ALTER TABLE users ADD COLUMN stray text")

    status, said = run(migrated, "check")

    assert status != 0
    assert "stray" in said


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(populated: str) -> None:
    before = schema(populated)

    assert run(populated, "upgrade")[0] == 0

    assert (schema(populated), revision(populated)) == (before, revisions()[-1])


def test_two_upgrades_at_once_do_no_harm(blank: str, migrated: str) -> None:
    processes = [start(blank, "upgrade") for _ in range(2)]
    said = ["".join(process.communicate(timeout=60)) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], said
    assert sum("Up: 0001" in words for words in said) == 1
    assert schema(blank) == schema(migrated)


def test_a_migration_that_meets_a_lock_gives_up_with_nothing_half_done_and_can_be_repeated(populated: str) -> None:
    with postgres.database() as emptied, ThreadPoolExecutor() as both:
        assert run(emptied, "downgrade", "base")[0] == 0
        assert run(populated, "downgrade", "0001")[0] == 0
        down = "LOCK TABLE users IN ACCESS SHARE MODE", "downgrade", "base"
        # A revision is written down as the last thing of an upgrade, when its tables have been made.
        up = "LOCK TABLE alembic_version IN SHARE MODE", "upgrade", "head"
        for done in [
            both.submit(gives_up_and_can_be_repeated, populated, *down),
            both.submit(gives_up_and_can_be_repeated, emptied, *up),
        ]:
            done.result()

        assert revision(populated) is None
        assert revision(emptied) == revisions()[-1]


@contextmanager
def holding(url: str, lock: str) -> Iterator[None]:
    """Somebody else's open transaction holds the lock."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        connection.execute(lock)  # type: ignore[call-overload]
        yield
        connection.rollback()


def gives_up_and_can_be_repeated(url: str, lock: str, *arguments: str) -> None:
    before = schema(url), revision(url)
    with holding(url, lock):
        began = time.monotonic()
        status, said = run(url, *arguments, "-x", "tries=2")
        took = time.monotonic() - began

    assert (status, said.splitlines()[-1:]) == (
        1,
        [
            "Error: Nothing of this revision was kept: canceling statement due to lock timeout."
            " Try again at a quieter moment."
        ],
    )
    assert "Traceback" not in said
    assert took < 20
    assert (schema(url), revision(url)) == before
    assert run(url, *arguments)[0] == 0
    assert (schema(url), revision(url)) != before


def test_migrations_run_with_time_outs_of_their_own(migrated: str) -> None:
    assert run(migrated, "downgrade", "base")[0] == 0
    with postgres.connect(migrated) as connection:
        connection.execute("""
            CREATE TABLE noted (lock_timeout text, statement_timeout text);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO noted VALUES (current_setting('lock_timeout'), current_setting('statement_timeout'));
                RETURN NEW;
            END $$;
            CREATE TRIGGER note BEFORE INSERT ON alembic_version FOR EACH ROW EXECUTE FUNCTION note();
        """)

    assert run(migrated, "upgrade")[0] == 0

    with postgres.connect(migrated) as connection:
        assert connection.execute("SELECT * FROM noted").fetchall() == [("500ms", "5s")]


def test_a_migration_that_meets_a_lock_is_tried_again_and_goes_no_further_than_asked(migrated: str) -> None:
    before = schema(migrated)
    with holding(migrated, "LOCK TABLE chores IN ACCESS SHARE MODE"):
        process = start(migrated, "downgrade", "--", "-1")
        waited: set[object] = set()
        with postgres.connect(migrated) as connection:
            # The beginning of a statement that waits is another one for every try.
            tries = "SELECT query_start FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'DROP TABLE'"
            wait_until(lambda: waited.update(connection.execute(tries)) or len(waited) > 1, "it tries again")
    said = "".join(process.communicate(timeout=60))

    assert (process.returncode, revision(migrated)) == (0, revisions()[-2]), said
    assert run(migrated, "upgrade")[0] == 0
    assert schema(migrated) == before


def test_an_index_whose_making_was_cut_off_is_made_anew(migrated: str) -> None:
    before = schema(migrated)
    assert run(migrated, "downgrade", "0002")[0] == 0
    with postgres.connect(migrated) as connection:
        connection.execute("INSERT INTO users (subject) VALUES ('ada'), ('grace')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY events_retracting ON users (is_active)")

    assert run(migrated, "upgrade")[0] == 0

    assert schema(migrated) == before
