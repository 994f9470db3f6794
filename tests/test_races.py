"""Many at once on the same few inboxes, over real connections, and what happens to those who have to wait."""

import os
import queue
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import flask
import pytest
from sqlalchemy import Connection, text

from app import create_app, db, marking, people, publishing, retention
from app.events import Event
from app.publishing import Order
from app.validation import check
from tests import postgres
from tests.cast import Browser, Person
from tests.conftest import empty
from tests.service import wait_until

MANY = "1000000 per minute"  # polls: what is tried here is not the limits

SECONDS = 60 if os.environ.get("BELFRY_TEST_DEEP") == "1" else 5
AT_LEAST = 3  # things that each of them does, however slow the machine is
NOTICE = 5  # seconds that a notice may take on a machine that is this busy
MONTH = timedelta(days=30)

# Writes down every change of a row and every number, in the database itself and in the transaction of the change.
AUDIT = """
    CREATE TABLE audit (
        place bigint GENERATED ALWAYS AS IDENTITY, transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
        user_id bigint NOT NULL, number bigint, former bigint, verb text,
        old_id bigint, id bigint, old_event_id bigint, event_id bigint, old_group_count integer, group_count integer,
        was_open boolean, open boolean, old_expires_at timestamptz, expires_at timestamptz,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE FUNCTION audit_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (user_id, number, former) VALUES (NEW.id, NEW.inbox_version, OLD.inbox_version);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER UPDATE ON users FOR EACH ROW
        WHEN (OLD.inbox_version IS DISTINCT FROM NEW.inbox_version) EXECUTE FUNCTION audit_number();
    CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (user_id, verb, old_id, id, old_event_id, event_id, old_group_count, group_count,
            was_open, open, old_expires_at, expires_at)
        VALUES (coalesce(NEW.user_id, OLD.user_id), TG_OP, OLD.id, NEW.id, OLD.event_id, NEW.event_id,
            OLD.group_count, NEW.group_count, OLD.read_at IS NULL AND OLD.archived_at IS NULL,
            NEW.read_at IS NULL AND NEW.archived_at IS NULL, OLD.expires_at, NEW.expires_at);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON notifications FOR EACH ROW EXECUTE FUNCTION audit_row();
"""


@pytest.fixture(scope="module")
def _crowded_app() -> Iterator[flask.Flask]:
    with postgres.database() as url:
        app = create_app(
            database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1, threads=20, poll_limit=MANY
        )
        app.test_client_class = Browser
        for limiter in app.extensions["limiter"]:  # what is tried here is not the limits
            limiter.enabled = False
        with app.app_context(), pytest.MonkeyPatch.context() as patch:
            # Who waits here waits for this test, however slow the machine is.
            patch.setattr(
                db, "SESSION_OPTIONS", re.sub(r"(lock|statement)_timeout=\ds", r"\1_timeout=60s", db.SESSION_OPTIONS)
            )
            db.engine()
            yield app
            db.engine().dispose()


@pytest.fixture
def crowded_app(_crowded_app: flask.Flask) -> flask.Flask:
    """An app with a connection for each of twenty threads, on a database of its own, its tables empty."""
    empty(db.engine())
    return _crowded_app


@pytest.fixture
def alice(crowded_app: flask.Flask) -> Person:
    return Person(crowded_app, "alice")


@pytest.fixture
def audited_app() -> Iterator[flask.Flask]:
    with postgres.database() as url:
        with postgres.connect(url) as connection:
            connection.execute(AUDIT)
        app = create_app(
            database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1, threads=20, poll_limit=MANY
        )
        app.test_client_class = Browser
        for limiter in app.extensions["limiter"]:
            limiter.enabled = False
        with app.app_context():
            yield app
            db.engine().dispose()


class Poll(NamedTuple):
    """A 200, and the database's time before and after it."""

    version: int
    shown: dict[int, tuple[str, int]]
    more: bool
    unread_count: int
    before: datetime
    after: datetime


class Mark(NamedTuple):
    through: int
    number: int
    changed: int


@dataclass
class Log:
    """What the callers were told, each list written by many threads."""

    polls: dict[int, list[Poll]] = field(default_factory=lambda: defaultdict(list))
    marks: dict[int, list[Mark]] = field(default_factory=lambda: defaultdict(list))
    published: list[tuple[int, list[str]]] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)
    tokens: "queue.SimpleQueue[tuple[Person, int]]" = field(default_factory=queue.SimpleQueue)


class Crowd:
    """Everybody who works on the three inboxes. Each method is one of them, in a thread of its own."""

    def __init__(self, app: flask.Flask) -> None:
        self.app = app
        self.readers = [Person(app, subject) for subject in ("alice", "bob", "carol")]
        # Hardly ever anything but an expiry changes what she sees: the one change that has no number.
        self.dora = Person(app, "dora")
        self.log = Log()
        self.deadline = time.monotonic() + SECONDS

    def run(self) -> None:
        parts = [
            *(self.part(self.publish, n) for n in range(4)),
            *(self.part(self.poll, n) for n in range(4)),
            *(self.part(self.mark_all, n) for n in range(2)),
            self.part(self.undo, 0),
            self.part(self.clean_up, 0),
        ]
        with ThreadPoolExecutor(len(parts)) as pool:
            for future in [pool.submit(part) for part in parts]:
                future.result()

    def part(self, act: Callable[[random.Random, int], None], ordinal: int) -> Callable[[], None]:
        def play() -> None:
            dice = random.Random(f"{act.__name__} {ordinal}")
            with self.app.app_context():
                acted = 0
                while acted < AT_LEAST or time.monotonic() < self.deadline:
                    act(dice, ordinal)
                    acted += 1

        return play

    def publish(self, dice: random.Random, ordinal: int) -> None:
        recipients = dice.sample([reader.subject for reader in self.readers], dice.randint(1, 3))
        if dice.random() < 0.02:
            recipients += ["dora"]
        if dice.random() < 0.1:  # people whom nobody has heard of, made by several publishers at the same time
            recipients += [f"guest {len(self.log.published) // 20} {n}" for n in dice.sample(range(3), 3)]
        fields = {
            "type": "comment",
            "title": f"{ordinal}",
            "group_key": dice.choice([None, "thread", "build"]),
            "expires_in": dice.choice([None, None, 1, 2]),
        }
        [done] = db.write(publishing.publish, [Order(check(Event, fields), recipients)], MONTH)
        self.log.published.append((done.event_id, recipients))

    def poll(self, dice: random.Random, ordinal: int) -> None:
        reader = [*self.readers, self.dora][ordinal]
        browser, tag, last = reader.signed_in_browser(), None, None
        for _ in range(dice.randint(5, 30)):
            version, before = self.look(reader)
            latest = time.monotonic() + NOTICE
            headers = {"If-None-Match": tag} if tag else {}
            answer = browser.get("/notifications/unread?limit=100", headers=headers)
            while answer.status_code == 304 and last and last["version"] < version and time.monotonic() < latest:
                # Somebody's commit is there and its notice is not: for a moment, never for the minute of a lost one.
                answer = browser.get("/notifications/unread?limit=100", headers=headers)
            if answer.status_code == 304:
                # Before the request nothing had come that the last answer did not show, and nothing of it had gone.
                assert last is not None
                assert version <= last["version"]
                assert all(before < datetime.fromisoformat(shown["expires_at"]) for shown in last["notifications"])
                self.log.unchanged.append(version)
                continue
            assert answer.status_code == 200, answer.text
            content = answer.get_json()
            assert content["version"] >= max(version, last["version"] if last else 0)
            tag, last = answer.headers["ETag"], content
            shown = {found["id"]: (found["title"], found["count"]) for found in content["notifications"]}
            assert list(shown) == sorted(shown, reverse=True)
            polled = Poll(
                content["version"], shown, content["more"], content["unread_count"], before, self.look(reader)[1]
            )
            self.log.polls[reader.id].append(polled)

    def mark_all(self, dice: random.Random, ordinal: int) -> None:
        reader = dice.choice(self.readers)
        through = reader.poll(limit=100).get_json()["version"]
        answer = reader.post("/notifications/read", {"through": through})
        assert answer.status_code == 200, answer.text
        told = answer.get_json()
        if told["changed"]:
            self.log.marks[reader.id].append(Mark(through, told["undo"], told["changed"]))
            self.log.tokens.put((reader, told["undo"]))

    def undo(self, dice: random.Random, ordinal: int) -> None:
        try:
            reader, token = self.log.tokens.get(timeout=0.2)
        except queue.Empty:
            return
        answer = reader.post("/notifications/undo", {"undo": token})
        assert answer.status_code == 200, answer.text
        self.log.undone.append(answer.get_json()["changed"])

    def clean_up(self, dice: random.Random, ordinal: int) -> None:
        with retention.only_one() as alone:
            assert alone
            retention.clean_up(dice.choice([5, 1000]), lambda rows: None)

    def look(self, reader: Person) -> tuple[int, datetime]:
        """The version and the time that the database has just now."""

        def ask(connection: Connection) -> tuple[int, datetime]:
            query = text("SELECT inbox_version, clock_timestamp() FROM users WHERE id = :id")
            version, now = connection.execute(query, {"id": reader.id}).one()
            return version, now

        return db.read(ask)


def test_a_crowd_on_three_inboxes_loses_doubles_and_hides_nothing(audited_app: flask.Flask) -> None:
    crowd = Crowd(audited_app)
    crowd.run()

    audit = db.read(read_audit)
    left = db.read(read_notifications)
    db.engine().dispose()  # a server process hands in its figures when it ends
    wait_until(lambda: db.read(count_others) == 0, "the connections are closed")
    deadlocks = db.read(count_deadlocks)
    log = crowd.log
    each_change_has_a_number_and_each_number_a_change(audit)
    what_was_published_arrived_once(audit, log, [*crowd.readers, crowd.dora])
    only_what_has_expired_was_deleted(audit, left)
    for reader in [*crowd.readers, crowd.dora]:
        changes = changes_by_number(audit, reader.id)
        every_poll_showed_what_there_was(changes, log.polls[reader.id])
        nothing_was_marked_that_had_not_been_shown(changes, log.marks[reader.id])
    marked = sum(mark.changed for marks in log.marks.values() for mark in marks)
    closed, opened = count_marks(audit)
    assert (marked, sum(log.undone)) == (closed, opened)
    assert deadlocks == 0
    assert min(len(log.published), len(log.unchanged), marked, opened) >= AT_LEAST


def read_audit(connection: Connection) -> list[Any]:
    return list(connection.execute(text("SELECT * FROM audit ORDER BY place")).all())


def read_notifications(connection: Connection) -> set[tuple[int, int]]:
    return {(row.user_id, row.id) for row in connection.execute(text("SELECT user_id, id FROM notifications"))}


def count_others(connection: Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return int(connection.execute(text(query)).scalar_one())


def count_deadlocks(connection: Connection) -> int:
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    return int(connection.execute(text(query)).scalar_one())


def each_change_has_a_number_and_each_number_a_change(audit: list[Any]) -> None:
    numbers = [row for row in audit if row.verb is None]
    rows = [row for row in audit if row.verb in ("INSERT", "UPDATE")]
    latest: Counter[int] = Counter()
    for row in numbers:  # in the order of the commits, for whoever wrote it down held the user's lock
        assert (row.former, row.number) == (latest[row.user_id], latest[row.user_id] + 1)
        latest[row.user_id] = row.number
    given = {(row.transaction, row.user_id): row.number for row in numbers}
    assert len(given) == len(numbers)
    assert set(given) == {(row.transaction, row.user_id) for row in rows}
    for row in rows:
        if row.id != row.old_id:
            assert row.id == given[row.transaction, row.user_id]
        else:
            kept = (row.event_id, row.group_count, row.expires_at)
            assert kept == (row.old_event_id, row.old_group_count, row.old_expires_at)


def what_was_published_arrived_once(audit: list[Any], log: Log, readers: list[Person]) -> None:
    ids = {reader.subject: reader.id for reader in readers}
    expected = Counter((event, ids[name]) for event, names in log.published for name in names if name in ids)
    arrived = Counter((row.event_id, row.user_id) for row in audit if row.id and row.id != row.old_id)
    assert Counter({key: n for key, n in arrived.items() if key[1] in ids.values()}) == expected
    guests = sum(name not in ids for _, names in log.published for name in names)
    assert sum(arrived.values()) == sum(expected.values()) + guests


def only_what_has_expired_was_deleted(audit: list[Any], left: set[tuple[int, int]]) -> None:
    held: set[tuple[int, int]] = set()
    for row in audit:
        if row.verb == "DELETE":
            assert row.old_expires_at <= row.at
        held.discard((row.user_id, row.old_id))
        if row.id:
            held.add((row.user_id, row.id))
    assert held == left


def changes_by_number(audit: list[Any], user_id: int) -> list[list[Any]]:
    """The rows that each number changed, from 0."""
    mine = [row for row in audit if row.user_id == user_id]
    numbers = {row.transaction: row.number for row in mine if row.verb is None}
    changes: list[list[Any]] = [[] for _ in range(len(numbers) + 1)]
    for row in mine:
        if row.verb in ("INSERT", "UPDATE"):
            changes[numbers[row.transaction]].append(row)
    return changes


def replayed(changes: list[list[Any]]) -> Iterator[tuple[int, dict[int, Any]]]:
    """What was open at each version, expired or not."""
    is_open: dict[int, Any] = {}
    for version, rows in enumerate(changes):
        for row in rows:
            is_open.pop(row.old_id, None)
            if row.open:
                is_open[row.id] = row
        yield version, is_open


def every_poll_showed_what_there_was(changes: list[list[Any]], polls: list[Poll]) -> None:
    by_version = defaultdict(list)
    for poll in polls:
        by_version[poll.version].append(poll)
    for version, is_open in replayed(changes):
        for poll in by_version.pop(version, []):
            for number, (_title, count) in poll.shown.items():
                assert count == is_open[number].group_count
                assert poll.before < is_open[number].expires_at
            hidden = {number: row for number, row in is_open.items() if number not in poll.shown}
            below = min(poll.shown, default=0) if poll.more else 0
            assert all(row.expires_at <= poll.after for number, row in hidden.items() if number > below)
            assert poll.unread_count == (100 if poll.more else len(poll.shown))
    assert not by_version


def nothing_was_marked_that_had_not_been_shown(changes: list[list[Any]], marks: list[Mark]) -> None:
    by_number = {mark.number: mark for mark in marks}
    assert len(by_number) == len(marks)
    opened_at: dict[int, int] = {}
    for version, is_open in replayed(changes):
        for row in changes[version]:
            if row.open and not (row.id == row.old_id and row.was_open):
                opened_at[row.id] = version
        mark = by_number.pop(version, None)
        if mark is None:
            continue
        marked = {row.id for row in changes[version]}
        assert len(marked) == len(changes[version]) == mark.changed
        # An id names one content for ever (checked above), and it was given at a version that the snapshot covers.
        assert max(marked) <= mark.through
        missed = [row for number, row in is_open.items() if number <= mark.through]
        assert all(row.expires_at <= changes[version][0].at for row in missed)
    assert not by_number


def count_marks(audit: list[Any]) -> tuple[int, int]:
    """How many rows were closed and how many opened again, those aside that moved on with their group."""
    marks = [row for row in audit if row.verb == "UPDATE" and row.id == row.old_id]
    return sum(row.was_open and not row.open for row in marks), sum(row.open and not row.was_open for row in marks)


class Waiter:
    """Lets somebody run into the lock that an open transaction holds, and then ends that transaction."""

    def __init__(self, app: flask.Flask) -> None:
        self.app = app
        self.pool = ThreadPoolExecutor(1)

    def starts(self, work: Callable[[], Any]) -> "Future[Any]":
        """The future answer of work that has begun and now waits for a lock."""

        def run() -> Any:
            with self.app.app_context():
                return work()

        future = self.pool.submit(run)
        wait_until(lambda: future.done() or db.read(somebody_waits), "it waits for the lock")
        assert not future.done(), "it should have to wait"
        return future


def somebody_waits(connection: Connection) -> bool:
    query = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database OR database IS NULL"
    waiting = (
        f"{query} WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
    )
    return int(connection.execute(text(waiting)).scalar_one()) > 0


@pytest.fixture
def waiter(crowded_app: flask.Flask) -> Iterator[Waiter]:
    waiter = Waiter(crowded_app)
    yield waiter
    waiter.pool.shutdown()


@contextmanager
def open_transaction() -> Iterator[Connection]:
    """A transaction that commits when its block ends."""
    with db.transaction() as connection:
        yield connection


def publish(connection: Connection, *recipients: str, **fields: Any) -> publishing.Published:
    event = check(Event, {"type": "comment", "title": "A comment", **fields})
    [published] = publishing.publish(connection, [Order(event, recipients)], MONTH)
    return published


def test_a_mark_that_waits_for_a_publish_spares_what_it_published(alice: Person, waiter: Waiter) -> None:
    db.write(publish, "alice")
    with open_transaction() as sending:
        publish(sending, "alice")
        mark = waiter.starts(lambda: alice.post("/notifications/read", {"through": 1}))

    assert mark.result().get_json() == {"unread_count": 1, "unseen_count": 1, "changed": 1, "undo": 3}
    assert alice.unread_ids() == [2]


def test_a_mark_through_that_waits_for_its_group_to_move_on_spares_it(alice: Person, waiter: Waiter) -> None:
    db.write(publish, "alice", group_key="thread")
    with open_transaction() as sending:
        publish(sending, "alice", group_key="thread")
        mark = waiter.starts(lambda: alice.post("/notifications/read", {"through": 1}))

    assert mark.result().get_json() == {"unread_count": 1, "unseen_count": 1, "changed": 0, "undo": 0}
    assert [found["count"] for found in alice.poll().get_json()["notifications"]] == [2]


def test_marking_one_that_moves_on_with_its_group_meanwhile_is_not_found(alice: Person, waiter: Waiter) -> None:
    db.write(publish, "alice", group_key="thread")
    with open_transaction() as sending:
        publish(sending, "alice", group_key="thread")
        mark = waiter.starts(lambda: alice.post("/notifications/1/read"))

    assert mark.result().status_code == 404
    assert alice.unread_ids() == [2]


def test_a_group_that_waits_for_its_row_to_be_read_begins_anew(alice: Person, waiter: Waiter) -> None:
    db.write(publish, "alice", group_key="thread")
    reader = alice.new_session()
    with open_transaction() as reading:
        marking.mark_through(reading, reader, "read", 1)
        sending = waiter.starts(lambda: db.write(publish, "alice", group_key="thread"))

    assert sending.result().created == 1
    assert [(found["id"], found["count"]) for found in alice.poll().get_json()["notifications"]] == [(3, 1)]


def test_of_two_marks_at_once_the_first_one_counts(alice: Person, waiter: Waiter) -> None:
    db.write(publish, "alice")
    reader = alice.new_session()
    with open_transaction() as reading:
        first = marking.mark_one(reading, reader, "read", 1)
        second = waiter.starts(lambda: alice.post("/notifications/1/read"))

    assert first["changed"] == 1
    assert second.result().get_json()["changed"] == 0
    assert alice.poll().get_json()["version"] == 2


@pytest.mark.parametrize("call", ["/notifications/1/read", "/notifications/read", "/notifications/undo"])
def test_who_is_disabled_while_waiting_is_refused(alice: Person, waiter: Waiter, call: str) -> None:
    db.write(publish, "alice")
    with open_transaction() as operator:
        people.set_active(operator, "alice", active=False)
        mark = waiter.starts(lambda: alice.post(call, BODIES.get(call)))

    assert mark.result().status_code == 401
    assert db.read(count_read) == 0


@pytest.mark.parametrize("call", ["/notifications/1/read", "/notifications/read"])
def test_who_is_signed_out_everywhere_while_waiting_is_refused(alice: Person, waiter: Waiter, call: str) -> None:
    db.write(publish, "alice")
    with open_transaction() as operator:
        people.end_all_sessions(operator, "alice")
        mark = waiter.starts(lambda: alice.post(call, BODIES.get(call)))

    assert mark.result().status_code == 401
    assert db.read(count_read) == 0


@pytest.mark.parametrize("call", ["/notifications/1/read", "/notifications/read"])
def test_who_signs_out_while_a_mark_waits_is_refused(alice: Person, waiter: Waiter, call: str) -> None:
    db.write(publish, "alice")
    same_browser = copy_of_browser(alice)
    with open_transaction() as sending:
        publish(sending, "alice")
        mark = waiter.starts(lambda: alice.post(call, BODIES.get(call)))
        assert same_browser.post("/logout").status_code == 303

    assert mark.result().status_code == 401
    assert db.read(count_read) == 0


def test_a_recipient_who_is_erased_while_a_publish_waits_gets_it_as_a_new_user(
    alice: Person, waiter: Waiter, crowded_app: flask.Flask
) -> None:
    bob = Person(crowded_app, "bob")
    with open_transaction() as operator:
        operator.execute(text("DELETE FROM users WHERE id = :id"), {"id": bob.id})
        sending = waiter.starts(lambda: db.write(publish, "alice", "bob"))

    published = sending.result()
    assert (published.recipients, published.created) == (2, 2)
    assert alice.unread_ids() == [1]
    assert db.read(count_events) == 1
    assert Person(crowded_app, "bob").id != bob.id
    assert Person(crowded_app, "bob").unread_ids() == [1]


BODIES = {"/notifications/read": {"through": 1}, "/notifications/undo": {"undo": 1}}


def copy_of_browser(person: Person) -> Any:
    copy = person.app.test_client()
    cookie = person.browser.get_cookie("belfry")
    assert cookie is not None
    copy.set_cookie("belfry", cookie.value)
    return copy


def count_read(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM notifications WHERE read_at IS NOT NULL")).scalar_one())


def count_events(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM events")).scalar_one())
