"""How PostgreSQL goes about the statements that must stay cheap, on tables that are as large as after years of use."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, TextClause, TextualSelect, text

from app import create_app, db, inbox, marking, people, retention, unread, vitals
from app.people import Reader
from tests import postgres
from tests.loader import Load, load, tidy
from tests.service import wait_until

ROWS = 1_000_000 if os.environ.get("BELFRY_TEST_DEEP") == "1" else 100_000
NEWEST_ID = 2**63 - 1

# Both ways in which a prepared statement may run: for these values, and, after some calls, for any.
WAYS = pytest.mark.parametrize("way", ["force_custom_plan", "force_generic_plan"])
TYPES = {
    "user_id": "bigint",
    "session_epoch": "integer",
    "session_until": "bigint",
    "session_id": "text",
    "limit": "bigint",
    "before": "bigint",
    "type": "text",
    "batch": "bigint",
    "through": "bigint",
    "number": "bigint",
    "verb": "text",
    "id": "bigint",
    "ids": "bigint[]",
}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    """20 unread among 1,000 rows and among half of all; 10,000 unread; what is over; a crowd with a few rows each."""
    crowd = (ROWS - ROWS // 2 - 25_000) // 1_000
    inboxes = [
        Load("little", 1_000, 20),
        Load("years", ROWS // 2, 20),
        Load("flooded", 10_000, 10_000),
        Load("busy", 10_000, 10_000),
        Load("gone", 4_000, 1_000, expired=True),
        *(Load(f"user {number}", crowd, 5) for number in range(1_000)),
    ]
    with postgres.database() as url:
        app = create_app(database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1)
        engine = sqlalchemy.create_engine(url)  # without the app's time-outs
        with engine.begin() as connection:
            load(connection, inboxes, events=ROWS // 10)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            tidy(connection)
        engine.dispose()
        with app.app_context():
            yield
            db.engine().dispose()


class Plan:
    """What the server did for a statement."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.nodes = list(_below(found["Plan"]))
        self.buffers: int = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]

    @property
    def scans(self) -> set[str]:
        """The tables that were read from beginning to end."""
        return {node["Relation Name"] for node in self.nodes if "Seq Scan" in node["Node Type"]}

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    def rows_of(self, table: str) -> float:
        """How many rows were fetched from the table."""
        nodes = [node for node in self.nodes if node.get("Relation Name") == table and "Scan" in node["Node Type"]]
        return sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes)


def _below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _below(child)


def explain(statement: TextClause | TextualSelect, way: str, **parameters: Any) -> Plan:
    """The plan of the app's own statement on a connection of the app's own, run and then rolled back."""
    statement = statement.element if isinstance(statement, TextualSelect) else statement
    names = list(statement._bindparams)
    sql = re.sub(r"(?<![:\w]):(\w+)", lambda match: f"${names.index(match[1]) + 1}", statement.text)
    declared = f"({', '.join(TYPES[name] for name in names)})" if names else ""

    def ask(connection: Connection) -> Plan:
        cursor = connection.connection.cursor()
        values = ", ".join(_literal(connection, name, parameters[name]) for name in names)
        cursor.execute(f"SET LOCAL plan_cache_mode = {way}")
        cursor.execute(f"PREPARE explained {declared} AS {sql}")
        given = f"({values})" if names else ""
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained {given}")
        [[plan]] = cursor.fetchone()
        cursor.execute("DEALLOCATE explained")
        return Plan(plan)

    with db.engine().connect() as connection:
        return ask(connection)


def _literal(connection: Connection, name: str, value: Any) -> str:
    written = "{" + ",".join(map(str, value)) + "}" if isinstance(value, list) else str(value)
    return f"CAST('{written}' AS {TYPES[name]})"


def reader(subject: str) -> Reader:
    with db.engine().connect() as connection:
        user_id = connection.execute(text("SELECT id FROM users WHERE subject = :s"), {"s": subject}).scalar_one()
    found = db.read(people.start_session, user_id, 12)
    assert found is not None
    return found


def poll(subject: str, way: str, limit: int = 20) -> Plan:
    return explain(inbox.UNREAD, way, **reader(subject).claims, limit=limit)


@WAYS
def test_a_poll_reads_the_unread_index_and_never_the_whole_table(way: str) -> None:
    for subject in ("little", "years", "flooded"):
        plan = poll(subject, way)

        assert not plan.scans & {"notifications", "events", "users"}
        assert "notifications_unread" in plan.indexes
        assert "notifications_pkey" not in plan.indexes


@WAYS
def test_what_has_been_read_costs_a_poll_nothing(way: str) -> None:
    little, years = poll("little", way), poll("years", way)

    assert little.rows_of("notifications") == years.rows_of("notifications") == 20
    assert abs(years.buffers - little.buffers) <= 3  # the trees may be a level higher
    assert years.buffers <= 120


@WAYS
def test_ten_thousand_unread_cost_a_poll_the_window_and_no_more(way: str) -> None:
    plan = poll("flooded", way)

    assert plan.rows_of("notifications") == unread.WINDOW
    assert plan.buffers <= 1_200


@WAYS
def test_the_poll_of_a_refused_caller_reads_no_rows(way: str) -> None:
    refused = replace(reader("flooded"), session_epoch=1)

    plan = explain(inbox.UNREAD, way, **refused.claims, limit=20)

    assert plan.rows_of("notifications") == plan.rows_of("events") == 0
    assert plan.buffers <= 10


@WAYS
def test_an_unchanged_poll_is_one_look_up_by_primary_key(way: str) -> None:
    plan = explain(inbox.POSITION, way, **reader("years").claims)

    assert plan.indexes == {"users_pkey", "ended_sessions_pkey"}
    assert not plan.scans
    assert plan.buffers <= 8


@WAYS
def test_an_empty_archive_is_found_empty_at_once(way: str) -> None:
    plan = explain(inbox.LISTS["archived"], way, **reader("years").claims, limit=21, before=NEWEST_ID)

    assert "notifications_archived" in plan.indexes
    assert plan.buffers <= 12


@WAYS
@pytest.mark.parametrize("state", ["all", "unread", "read"])
def test_a_page_of_a_list_reads_about_a_page_of_rows(way: str, state: str) -> None:
    plan = explain(inbox.LISTS[state], way, **reader("years").claims, limit=21, before=NEWEST_ID)

    assert not plan.scans & {"notifications", "events", "users"}
    assert plan.rows_of("notifications") <= 21
    assert plan.buffers <= 150


@WAYS
def test_a_list_of_one_type_stops_when_its_page_is_full(way: str) -> None:
    claims = reader("years").claims

    plan = explain(inbox.LISTS_OF_TYPE["all"], way, **claims, limit=21, before=NEWEST_ID, type="type-3")

    assert not plan.scans & {"notifications", "events", "users"}
    assert plan.rows_of("notifications") <= 21 * 50  # every fiftieth is of that type


@WAYS
def test_counts_after_a_change_read_the_window_and_no_more(way: str) -> None:
    plan = explain(unread.COUNT, way, **reader("flooded").claims)

    assert plan.rows_of("notifications") == unread.WINDOW
    assert plan.indexes >= {"notifications_unread"}


@WAYS
def test_marking_through_reads_what_is_unread_only(way: str) -> None:
    mine = reader("years").user_id

    plan = explain(marking.MARK_THROUGH["read"], way, user_id=mine, number=ROWS, through=ROWS, verb="read")

    assert not plan.scans & {"notifications", "users"}
    assert plan.rows_of("notifications") <= 20 * 3  # found, looked at for their groups, changed
    assert plan.buffers <= 20 * 40


@WAYS
def test_marking_some_reads_only_those(way: str) -> None:
    mine = reader("years").user_id
    step = ROWS // 2 // 20

    plan = explain(marking.MARK_IDS["read"], way, user_id=mine, number=ROWS, ids=[step, 2 * step], verb="read")

    assert not plan.scans & {"notifications", "users"}
    assert plan.rows_of("notifications") <= 2 * 3


@WAYS
def test_a_poll_after_marking_ten_thousand_costs_no_more_than_any(way: str) -> None:
    mine = reader("busy")
    done = db.write(marking.mark_through, mine, "read", 10_000)
    assert (done["changed"], done["unread_count"]) == (10_000, 0)

    # The first polls that come by note in the index what is gone, once nobody's older snapshot needs it any more.
    assert poll("busy", way).rows_of("notifications") == 0
    wait_until(lambda: poll("busy", way).buffers <= 250, "the index has forgotten what was read")
    db.write(marking.undo, mine, done["undo"])


@WAYS
def test_a_batch_of_the_clean_up_finds_its_rows_by_their_expiry(way: str) -> None:
    plan = explain(retention.DELETE["notifications"], way, batch=1_000)
    events = explain(retention.DELETE["events"], way, batch=1_000)

    assert "notifications_expires_at" in plan.indexes
    assert not plan.scans
    assert plan.buffers <= 1_000 * 10
    assert events.indexes >= {"events_expires_at"}
    assert not events.scans


@WAYS
def test_what_a_scrape_asks_reads_a_few_pages_of_indexes(way: str) -> None:
    oldest, overdue = explain(vitals.OLDEST_UNREAD, way), explain(vitals.OVERDUE, way)

    assert oldest.indexes == {"events_pkey", "notifications_event_id"}
    assert not oldest.scans | overdue.scans
    assert oldest.buffers <= 1_000 * 10
    assert overdue.buffers <= 100
