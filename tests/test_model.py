"""Inbox and publishing in any order, over HTTP and PostgreSQL, against a model in plain Python."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import flask
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text
from werkzeug.test import TestResponse

from app import create_app, db, inbox, people, publishing, retention
from app.auth import SignedIn
from app.events import Event
from app.people import Reader
from app.publishing import Order
from app.validation import check
from tests import postgres, rows
from tests.cast import Browser, Person
from tests.conftest import empty
from tests.model import STATES, Inbox, Row, among, listed_through

MANY = "1000000 per minute"  # polls: what is tried here is not the limits

DEEP = os.environ.get("BELFRY_TEST_DEEP") == "1"
PARTS = 12 if DEEP else 1  # for workers to share
SAMPLE = settings(
    max_examples=125 if DEEP else 40,
    stateful_step_count=50 if DEEP else 30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

# No library can move the database's own now(), and rows that are moved into the past instead would make tags lie about
# when they expire. So in this database the word now() means a function of the test's, whose clock has a hand.
CLOCK = """
    CREATE SCHEMA clock;
    CREATE TABLE clock.hand (passed interval NOT NULL);
    INSERT INTO clock.hand VALUES ('0');
    CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT pg_catalog.now() + passed FROM clock.hand';
"""
LIFE_MINUTES = 720  # of an event that names none
# Half a minute more than any sum of minutes: a session's end is rounded to seconds.
SESSION_MINUTES = 600.5

WHO = st.sampled_from(["alice", "alice", "alice", "mallory"])
PICK = st.integers(0, 50)
# Which of the person's two browsers calls. Mostly somebody who finds themselves signed out signs in again first.
BROWSER = st.sampled_from(["signed in", "signed in", "signed in", "signed in", "first", "second"])


MINUTES = st.sampled_from([1, 4, 5, 10, 55, 400])
ONE_VERB = st.sampled_from(["read", "unread", "archive", "unarchive"])
THROUGH_VERB = st.sampled_from(["read", "unread", "unread", "archive", "seen"])
MANY_VERB = st.sampled_from(["read", "read", "unread", "archive", "seen"])


def acts(share: int, name: str, **arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[tuple[str, Any]]]:
    """What can happen next: a method of `Inboxes` and what it is called with, in so many shares of all that happens."""
    return [st.tuples(st.just(name), st.fixed_dictionaries(arguments)) for _ in range(share)]


# One rule for everything: of many rules Hypothesis switches off about half in each example, and what breaks an inbox is
# mostly four different things in a row.
ACTS = st.one_of(
    *acts(
        6,
        "publish",
        recipients=st.sampled_from(
            [["alice"], ["alice"], ["mallory"], ["mallory", "alice"], ["alice", "zoe", "alice"]]
        ),
        group=st.sampled_from([None, "thread", "thread", "build"]),
        minutes=st.sampled_from([5, 60, None, None]),
    ),
    *acts(3, "keep_up", browser=BROWSER, verb=st.sampled_from(["read", "read", "archive"])),
    *acts(6, "mark_one", who=WHO, browser=BROWSER, verb=ONE_VERB, pick=PICK),
    *acts(3, "mark_ids", who=WHO, browser=BROWSER, verb=MANY_VERB, picks=st.lists(PICK, min_size=1, max_size=6)),
    *acts(4, "mark_through", who=WHO, browser=BROWSER, verb=THROUGH_VERB, pick=PICK),
    *acts(1, "mark_through_what_is_not_there_yet", who=WHO, browser=BROWSER, ahead=st.integers(1, 3)),
    *acts(4, "undo", who=WHO, browser=BROWSER, whose=WHO, pick=PICK),
    *acts(2, "poll_with_an_earlier_tag", who=WHO, limit=st.sampled_from([1, 2, 20, 100]), pick=PICK),
    *acts(
        1,
        "walk_a_list",
        who=WHO,
        state=st.sampled_from(sorted(STATES)),
        type=st.sampled_from([None, "t0", "t1"]),
        limit=st.integers(1, 4),
    ),
    *acts(3, "let_time_pass", minutes=MINUTES),
    *acts(1, "clean_up", batch=st.sampled_from([1, 1000])),
    *acts(
        1,
        "lose_sessions",
        who=WHO,
        how=st.sampled_from(["sign out", "sign out", "sign out everywhere", "disable", "disable for a while"]),
    ),
)


@pytest.fixture(scope="module")
def app_with_a_clock() -> Iterator[flask.Flask]:
    with postgres.database() as url:
        with postgres.connect(url) as connection:
            connection.execute(CLOCK)
            name = connection.info.dbname
            connection.execute(f'ALTER DATABASE "{name}" SET search_path = clock, public, pg_catalog')  # type: ignore[call-overload]
        app = create_app(database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1, poll_limit=MANY)
        app.test_client_class = Browser
        for limiter in app.extensions["limiter"]:  # a machine is faster than the limits for people
            limiter.enabled = False
        with app.app_context():
            yield app
            db.engine().dispose()


class Tag(NamedTuple):
    """An `ETag` with what it stood for."""

    who: str
    limit: int
    tag: str
    visible: tuple[object, ...]


class Session:
    """One browser, and what a sign-in made of it."""

    def __init__(self, person: Person, now: int) -> None:
        self.reader = person.new_session(hours=SESSION_MINUTES / 60)
        self.browser = person.signed_in_browser()
        with self.browser.session_transaction() as session:
            session["_user_id"] = SignedIn(self.reader).get_id()
        self.until = now + SESSION_MINUTES
        self.ended = False

    def sign_out(self) -> None:
        cookie = self.browser.get_cookie("belfry")
        self.browser.post("/logout")
        if cookie is not None:  # a copy of the cookie is worth nothing from now on
            self.browser.set_cookie("belfry", cookie.value)
        self.ended = True

    def is_good(self, now: int) -> bool:
        return not self.ended and now < self.until


class Reading:
    """One person of the model, with the real one beside it."""

    def __init__(self, app: flask.Flask, subject: str) -> None:
        self.person = Person(app, subject)
        self.inbox = Inbox()
        self.active = True
        self.sessions = [Session(self.person, 0), Session(self.person, 0)]
        self.snapshots = [0]  # versions that a poll has shown
        self.tokens = [0]
        self.moments: dict[int, datetime] = {}

    def good_session(self, now: int) -> Session | None:
        return next((session for session in self.sessions if self.active and session.is_good(now)), None)


class Inboxes(RuleBasedStateMachine):
    """The real service and the model, side by side."""

    app: flask.Flask

    @initialize()
    def begin(self) -> None:
        empty(db.engine())
        self.now = 0
        self.let_time_pass(0)
        self.published = 0
        self.people = {subject: Reading(self.app, subject) for subject in ("alice", "mallory")}
        self.tags: list[Tag] = []

    @rule(act=ACTS)
    def happens(self, act: tuple[str, dict[str, Any]]) -> None:
        name, arguments = act
        getattr(self, name)(**arguments)

    def publish(self, recipients: list[str], group: str | None, minutes: int | None) -> None:
        self.published += 1
        title = f"Event {self.published}"
        life = minutes * 60 if minutes else None
        fields = {"type": type_of(title), "title": title, "group_key": group, "expires_in": life}
        event = check(Event, fields)

        [published] = db.write(publishing.publish, [Order(event, recipients)], timedelta(minutes=LIFE_MINUTES))

        assert published.recipients == published.created == len(set(recipients))
        for subject in set(recipients) & set(self.people):
            expires = self.now + (minutes or LIFE_MINUTES)
            self.people[subject].inbox.receive(published.event_id, title, group, expires, self.now)

    def keep_up(self, browser: str, verb: str) -> None:
        """Something comes and is dealt with at once, so that a group has more than one row."""
        self.publish(["alice"], "thread", None)
        self.poll("alice", 100, None)
        self.mark_through("alice", browser, verb, 0)

    def mark_one(self, who: str, browser: str, verb: str, pick: int) -> None:
        chosen = self.pick_id(who, pick)
        mine = self.people[who].inbox
        answer = self.call(who, browser, f"/notifications/{chosen}/{verb}")
        if answer is None:
            return
        there = bool(mine.live(self.now, among([chosen])))
        changed = len(mine.mark(verb, among([chosen]), self.now))
        if there:
            self.agree(who, answer, {"changed": changed})
        else:
            assert answer.status_code == 404

    def mark_ids(self, who: str, browser: str, verb: str, picks: list[int]) -> None:
        ids = [self.pick_id(who, pick) for pick in picks]
        answer = self.call(who, browser, f"/notifications/{verb}", {"ids": ids})
        if answer is not None:
            self.agree_on_many(who, answer, self.people[who].inbox.mark_many(verb, among(ids), self.now))

    def mark_through(self, who: str, browser: str, verb: str, pick: int) -> None:
        me = self.people[who]
        through = me.snapshots[-1 - pick // 12 % len(me.snapshots)]
        answer = self.call(who, browser, f"/notifications/{verb}", {"through": through})
        if answer is not None:
            was = me.inbox.mark_many(verb, listed_through(through), self.now)
            assert max(was, default=0) <= through
            self.agree_on_many(who, answer, was)

    def mark_through_what_is_not_there_yet(self, who: str, browser: str, ahead: int) -> None:
        through = self.people[who].inbox.version + ahead
        answer = self.call(who, browser, "/notifications/read", {"through": through})
        assert answer is None or answer.status_code == 422

    def undo(self, who: str, browser: str, whose: str, pick: int) -> None:
        tokens = self.people[whose].tokens
        token = tokens[-1 - pick // 12 % len(tokens)]
        answer = self.call(who, browser, "/notifications/undo", {"undo": token})
        if answer is None:
            return
        changed = self.people[who].inbox.undo(token, self.now)
        if changed is None:
            assert answer.status_code == 404
        else:
            self.agree(who, answer, {"changed": changed})

    def poll_with_an_earlier_tag(self, who: str, limit: int, pick: int) -> None:
        if self.tags:
            self.poll(who, limit, self.tags[-1 - pick % len(self.tags)])

    def walk_a_list(self, who: str, state: str, type: str | None, limit: int) -> None:
        me = self.people[who]
        session = me.good_session(self.now)
        if session is None:
            return
        query = {"state": state, "limit": limit, **({"type": type} if type else {})}
        answer = session.browser.get("/notifications", query_string=query).get_json()
        walked = answer["notifications"]
        while answer["next"]:
            answer = session.browser.get(answer["next"]).get_json()
            assert len(answer["notifications"]) >= 1
            walked += answer["notifications"]
        expected = [row for row in me.inbox.list(self.now, state) if type in (None, type_of(row.title))]
        assert [shown(found) for found in walked] == [shown_of(row) for row in expected]
        for found in walked[:1]:
            assert session.browser.get(f"/notifications/{found['id']}").get_json() == found

    def let_time_pass(self, minutes: int) -> None:
        self.now += minutes
        rows.change("UPDATE clock.hand SET passed = :passed", passed=timedelta(minutes=self.now))

    def clean_up(self, batch: int) -> None:
        for chore in retention.CHORES:
            while db.write(retention.delete_batch, chore, batch):
                pass
        for person in self.people.values():
            person.inbox.forget_expired(self.now)

    def lose_sessions(self, who: str, how: str) -> None:
        me = self.people[who]
        if how == "sign out":
            me.sessions[0].sign_out()
            return
        if how == "sign out everywhere":
            db.write(people.end_all_sessions, who)
        else:
            me.active = how == "disable for a while"
            db.write(people.set_active, who, active=False)
            if me.active:
                db.write(people.set_active, who, active=True)
        for session in me.sessions:
            session.ended = True

    def sign_in(self, me: Reading) -> None:
        if not me.active:
            db.write(people.set_active, me.person.subject, active=True)
            me.active = True
        me.sessions = [
            session if session.is_good(self.now) else Session(me.person, self.now) for session in me.sessions
        ]

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        for who, me in self.people.items():
            latest = next((tag for tag in reversed(self.tags) if tag.who == who), None)
            self.poll(who, 100, latest)
            session = me.good_session(self.now)
            if session is not None:
                lists = db.read(read_lists, session.reader)
                expected = {state: [shown_of(row) for row in me.inbox.list(self.now, state)] for state in STATES}
                assert lists == expected

    @invariant()
    def the_tables_hold_what_the_model_says(self) -> None:
        versions, found = db.read(read_tables)
        for me in self.people.values():
            assert versions[me.person.id] == me.inbox.version
            mine = [row for row in found if row.user_id == me.person.id]
            held = [(row.id, row.event_id, row.group_key, row.group_count) for row in mine]
            kept = sorted(me.inbox.rows.values(), key=lambda row: row.id)
            assert held == [(row.id, row.event, row.group, row.count) for row in kept]
            for real, row in zip(mine, kept, strict=True):
                self.agree_on_moments(me, real, row)

    def agree_on_moments(self, me: Reading, real: Any, row: Row) -> None:
        """Each change has one moment, and whatever it marked keeps that one."""
        for column in ("seen_at", "read_at", "archived_at"):
            number, moment = getattr(row, column), getattr(real, column)
            assert (moment is None) == (number is None)
            if number is not None:
                assert me.moments.setdefault(number, moment) == moment

    def poll(self, who: str, limit: int, tag: Tag | None) -> None:
        """304 if and only if nothing visible has changed since that tag, and else all that there is to see."""
        me = self.people[who]
        session = me.good_session(self.now)
        browser = (session or me.sessions[0]).browser
        headers = {"If-None-Match": tag.tag} if tag else {}
        answer = browser.get("/notifications/unread", query_string={"limit": limit}, headers=headers)
        if session is None:
            assert answer.status_code == 401
            return
        visible = me.inbox.visible(self.now)
        if tag is not None and (tag.who, tag.limit, tag.visible) == (who, limit, visible):
            assert (answer.status_code, answer.headers["ETag"]) == (304, tag.tag)
            return
        assert answer.status_code == 200
        unread = me.inbox.list(self.now, "unread")
        content = answer.get_json()
        assert [shown(found) for found in content.pop("notifications")] == [shown_of(row) for row in unread[:limit]]
        counts = me.inbox.counts(self.now)
        assert content == {"user": who, "version": me.inbox.version, "more": len(unread) > limit, **counts}
        self.tags.append(Tag(who, limit, answer.headers["ETag"], visible))
        if me.snapshots[-1] != me.inbox.version:
            me.snapshots.append(me.inbox.version)

    def call(self, who: str, browser: str, path: str, body: Any = None) -> TestResponse | None:
        """The answer, or None where the caller is refused because the session is not good."""
        me = self.people[who]
        if browser == "signed in" and not me.good_session(self.now):
            self.sign_in(me)
        session = (browser == "signed in" and me.good_session(self.now)) or me.sessions[browser == "second"]
        good = me.active and session.is_good(self.now)
        answer = session.browser.post(path, json=body) if body else session.browser.post(path)
        assert (answer.status_code == 401) != good
        return answer if good else None

    def pick_id(self, who: str, pick: int) -> int:
        """Mostly one that is there; else one that has been, or will be."""
        mine = self.people[who].inbox
        ids = sorted(mine.rows, reverse=True)
        chosen = pick % (len(ids) + 2)
        return ids[chosen] if chosen < len(ids) else max(1, mine.version + 1 - pick % (mine.version + 1))

    def agree(self, who: str, answer: TestResponse, more: dict[str, int]) -> None:
        assert answer.status_code == 200
        assert answer.get_json() == {**self.people[who].inbox.counts(self.now), **more}

    def agree_on_many(self, who: str, answer: TestResponse, was: dict[int, int | None]) -> None:
        me = self.people[who]
        token = me.inbox.version if was else 0
        self.agree(who, answer, {"changed": len(was), "undo": token})
        if token:
            me.tokens.append(token)


def type_of(title: str) -> str:
    return f"t{int(title.split()[1]) % 2}"


def shown(found: dict[str, Any]) -> tuple[object, ...]:
    marks = (found[column] is not None for column in ("seen_at", "read_at", "archived_at"))
    return found["id"], found["title"], found["count"], *marks


def shown_of(row: Row) -> tuple[object, ...]:
    marks = (moment is not None for moment in (row.seen_at, row.read_at, row.archived_at))
    return row.id, row.title, row.count, *marks


def read_lists(connection: Connection, reader: Reader) -> dict[str, list[tuple[object, ...]]]:
    before = 2**63 - 1
    lists = {state: inbox.list_notifications(connection, reader, state, 100, before) for state in STATES}
    return {state: [shown(found) for found in listed] for state, listed in lists.items()}


def read_tables(connection: Connection) -> tuple[dict[int, int], list[Any]]:
    versions = connection.execute(text("SELECT id, inbox_version FROM users")).all()
    found = connection.execute(text("SELECT * FROM notifications ORDER BY user_id, id")).all()
    return {row.id: row.inbox_version for row in versions}, list(found)


@pytest.mark.parametrize("part", range(PARTS))
def test_any_order_of_calls_leaves_what_the_model_says(app_with_a_clock: flask.Flask, part: int) -> None:
    machine = type(f"Machine{part}", (Inboxes,), {"app": app_with_a_clock})
    run_state_machine_as_test(machine, settings=SAMPLE)
