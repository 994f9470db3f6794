"""Notices: everything that changes what a poll answers is told to every worker, soon, and by no more than is needed."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

import flask
import pytest
import sqlalchemy
from sqlalchemy import TextClause

from app import changes, create_app, db, marking, people, personal_data, publishing
from app.changes import EVERYBODY, FIRST_PAUSE, FORGET, Teller, parse, payloads
from app.events import Event
from app.publishing import Order
from app.validation import check
from tests import postgres, rows
from tests.cast import Browser, Person
from tests.hosts import Host
from tests.service import Service, wait_until

# Writes down, in the database itself, whose inbox is at which version now, and of whom everything must be forgotten.
AUDIT = f"""
    CREATE TABLE audit (user_id bigint NOT NULL, version bigint NOT NULL);
    CREATE FUNCTION audit_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO audit VALUES (OLD.id, {FORGET});
        ELSIF (OLD.is_active, OLD.session_epoch) IS DISTINCT FROM (NEW.is_active, NEW.session_epoch) THEN
            INSERT INTO audit VALUES (NEW.id, {FORGET});
        ELSIF OLD.inbox_version <> NEW.inbox_version THEN
            INSERT INTO audit VALUES (NEW.id, NEW.inbox_version);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit_user();
"""
MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def audited_app() -> Iterator[flask.Flask]:
    with postgres.database() as url:
        with postgres.connect(url) as connection:
            connection.execute(AUDIT)
        app = create_app(database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1)
        app.test_client_class = Browser
        with app.app_context():
            yield app
            db.engine().dispose()


class Ear:
    """A connection that hears what workers are told."""

    def __init__(self, url: str) -> None:
        self.connection = postgres.connect(url)
        self.connection.execute(f"LISTEN {changes.CHANNEL}")  # type: ignore[call-overload]

    def heard(self) -> dict[int, int]:
        """Everything that was told since the last time."""
        changes.current().flush()
        self.connection.execute("SELECT pg_notify(%s, 'end')", [changes.CHANNEL])
        told: dict[int, int] = {}
        for notice in self.connection.notifies(timeout=10):
            if notice.payload == "end":
                return told
            for user_id, version in parse(notice.payload).items():
                told[user_id] = max(version, told.get(user_id, 0))
        raise AssertionError("the end was not heard")


@pytest.fixture
def ear(audited_app: flask.Flask) -> Iterator[Ear]:
    ear = Ear(db.engine().url.render_as_string(hide_password=False))
    with contextlib.closing(ear.connection):
        yield ear


def everything_that_changes(app: flask.Flask) -> Iterator[Callable[[], Any]]:
    """Acts, one after the other, among them each statement that moves an inbox's version or ends a session."""
    alice, bob, host = Person(app, "alice"), Person(app, "bob"), Host(app)
    reader = alice.new_session()

    def publish(*recipients: str, **fields: Any) -> Any:
        event = check(Event, {"type": "comment", "title": "A comment", **fields})
        return lambda: db.write(publishing.publish, [Order(event, recipients)], MONTH)

    yield publish("alice", "bob", "a new one")
    yield publish("alice", group_key="thread")
    yield publish("alice", group_key="thread")
    yield lambda: host.publish_batch(*({"type": "x", "title": "y", "recipients": ["alice", "bob"]} for _ in range(3)))
    yield lambda: host.publish_to_everyone("key", title="To all")
    yield lambda: host.call("DELETE", f"/events/{host.publish('alice', 'bob').get_json()['event_id']}")
    for verb in marking.VERBS:
        opposite = {"unread": "read", "unarchive": "archive"}.get(verb, "unread")
        for mark, which in ((marking.mark_one, 1), (marking.mark_ids, [1, 2]), (marking.mark_through, 3)):
            yield partial(db.write, marking.mark_ids, reader, opposite, range(1, 60))
            yield partial(db.write, mark, reader, verb, which)
        yield publish("alice")
        yield partial(db.write, marking.mark_ids, reader, opposite, range(1, 60))
        token = db.write(marking.mark_ids, reader, verb, range(1, 60))["undo"]
        yield partial(db.write, marking.undo, reader, token)
    yield lambda: alice.post("/notifications/read", {"through": 1})
    yield lambda: db.write(people.save_user, "bob", "Bob", None)
    yield lambda: db.write(people.save_user, "bob", None, "a new password")
    yield lambda: host.call("PUT", "/users/bob", {"is_active": False})
    yield lambda: db.write(people.set_active, "bob", active=True)
    yield lambda: db.write(people.set_active, "bob", active=False)
    yield lambda: host.call("POST", "/users/bob/sign-out")
    yield lambda: bob.post("/notifications/read", {"through": 1})  # of no effect by now
    yield lambda: db.write(personal_data.erase, "bob")


def test_every_change_is_told_to_every_worker(audited_app: flask.Flask, ear: Ear) -> None:
    executed: set[str] = set()
    rows.change("DELETE FROM audit")  # what other tests did
    ear.heard()

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        executed.add(statement)

    sqlalchemy.event.listen(db.engine(), "before_cursor_execute", note)
    told_of_versions = 0
    for act in everything_that_changes(audited_app):
        act()
        told = ear.heard()
        for user_id, version in db.read(lambda c: c.exec_driver_sql("SELECT * FROM audit").all()):
            assert told.get(user_id, 0) >= version
        rows.change("DELETE FROM audit")
        ear.heard()
        told_of_versions += sum(version < FORGET for version in told.values())

    assert told_of_versions > 20
    sqlalchemy.event.remove(db.engine(), "before_cursor_execute", note)
    missing = {name for name, statement in statements_that_change() if statement not in executed}
    assert missing == set(), "nobody knows whether these tell what they change"


def test_signing_out_is_told(audited_app: flask.Flask, ear: Ear) -> None:
    carol = Person(audited_app, "carol")
    ear.heard()

    carol.browser.post("/logout")

    assert ear.heard() == {carol.id: FORGET}


def test_what_changes_nothing_is_not_told(audited_app: flask.Flask, ear: Ear) -> None:
    frank = Person(audited_app, "frank")
    db.write(publishing.publish, [Order(check(Event, {"type": "x", "title": "y"}), ["frank"])], MONTH)
    frank.post("/notifications/1/read")
    assert ear.heard() == {frank.id: 2}

    frank.post("/notifications/1/read")
    frank.post("/notifications/seen", {"through": 2})
    db.write(people.save_user, "frank", "Frank", None)

    assert ear.heard() == {}


def statements_that_change() -> Iterator[tuple[str, str]]:
    """The name and the SQL of every statement of the service that moves a version or decides on a session."""
    dialect = db.engine().dialect
    for module_name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and module_name.startswith("app."):
            for name, value in vars(module).items():
                found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
                for statement in found:
                    if isinstance(statement, TextClause) and changes_users(statement.text):
                        yield f"{module_name}.{name}", str(statement.compile(dialect=dialect))


def changes_users(statement: str) -> bool:
    return any(
        words in statement
        for words in (
            "inbox_version = ",
            "is_active = coalesce",
            "is_active = :",
            "session_epoch + ",
            "DELETE FROM users",
        )
    ) and ("UPDATE" in statement or "DELETE" in statement)


def test_what_is_undone_is_not_told(audited_app: flask.Flask, ear: Ear) -> None:
    dave = Person(audited_app, "dave")
    ear.heard()

    def disable_and_fail(connection: sqlalchemy.Connection) -> None:
        people.set_active(connection, "dave", active=False)
        raise RuntimeError("after all not")

    with pytest.raises(RuntimeError):
        db.write(disable_and_fail)

    assert ear.heard() == {}
    assert dave.poll().status_code == 200


# The words


def test_notices_come_back_as_they_went_in_pieces_that_postgresql_takes() -> None:
    notices = {number * 10**13: FORGET if number % 3 else number for number in range(1, 5_000)}

    pieces = payloads(notices)

    assert max(len(piece) for piece in pieces) < 8_000
    assert len(pieces) < 15
    assert {user: version for piece in pieces for user, version in parse(piece).items()} == notices
    assert payloads({57: 3, 60: FORGET}) == ["57:3 60"]


def test_a_change_to_very_many_is_told_in_one_word() -> None:
    assert payloads(dict.fromkeys(range(1, changes.MOST + 2), 5)) == ["*"]
    assert payloads({EVERYBODY: FORGET}) == ["*"]


@pytest.mark.parametrize("payload", ["*", "", "nonsense", "1:2:3", "1:", ":2", "1  2", "5:x"])
def test_what_nobody_understands_makes_workers_forget_everything(payload: str) -> None:
    assert parse(payload) == {EVERYBODY: FORGET}


def test_what_could_not_be_told_is_tried_once_more_by_a_new_connection(app: flask.Flask) -> None:
    ear = Ear(db.engine().url.render_as_string(hide_password=False))
    with contextlib.closing(ear.connection):
        changes.current().tell({1: 1})
        assert ear.heard() == {1: 1}
        tellers = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_notify%unnest%'"
        assert db.read(
            lambda c: c.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {tellers}".replace("%", "%%")).all()
        )

        changes.current().tell({2: 2})

        assert ear.heard() == {2: 2}


def test_what_cannot_be_told_at_all_is_given_up_after_two_tries() -> None:
    tries: list[float] = []

    @contextlib.contextmanager
    def connect() -> Iterator[sqlalchemy.Connection]:
        tries.append(time.monotonic())
        raise ConnectionRefusedError
        yield

    teller = Teller(connect)
    teller.tell({1: 1})
    teller.flush()

    assert len(tries) == 2
    assert tries[1] - tries[0] >= FIRST_PAUSE


def test_a_thread_that_has_nothing_to_tell_for_long_goes_and_another_comes(app: flask.Flask) -> None:
    opened: list[sqlalchemy.Connection] = []

    @contextlib.contextmanager
    def connect() -> Iterator[sqlalchemy.Connection]:
        with app.app_context(), db.engine().connect() as connection:
            opened.append(connection)
            yield connection

    teller = Teller(connect, idle=0.05)
    for number in (1, 2):
        teller.tell({number: number})
        wait_until(lambda number=number: len(opened) == number and opened[-1].closed, "the connection is closed")


def test_a_command_tells_what_it_changed_before_it_exits(service: Service) -> None:
    ear = Ear(service.database_url)
    with contextlib.closing(ear.connection):
        service.flask("send", "zoe", "--type", "x", "--title", "y")

        [notice] = ear.connection.notifies(timeout=10, stop_after=1)

    assert list(parse(notice.payload).values()) == [1]
