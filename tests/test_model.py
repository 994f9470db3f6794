"""Inbox and publishing in any order, over HTTP and PostgreSQL, against a model in plain Python."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import flask
import orjson
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

from app import create_app, db, idempotency, inbox, people, publishing, retention
from app.auth import SignedIn
from app.events import Event
from app.people import Reader
from app.validation import check
from tests import postgres, rows
from tests.cast import Browser, Person
from tests.conftest import empty
from tests.hosts import Host, idempotent
from tests.model import STATES, Inbox, Row, among, listed_through
from tests.model_world import Answer, Sent, World

MANY = "1000000 per minute"  # polls: what is tried here is not the limits

DEEP = os.environ.get("BELFRY_TEST_DEEP") == "1"
PARTS = 12 if DEEP else 1  # for workers to share
SAMPLE = settings(
    max_examples=30 if DEEP else 40,
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
    ALTER TABLE idempotency_keys ALTER created_at SET DEFAULT clock.now();
    ALTER TABLE events ALTER created_at SET DEFAULT clock.now();
"""
LIFE_MINUTES = 720
KEY_MINUTES = 24 * 60
# Half a minute more than any sum of minutes: a session's end is rounded to seconds.
SESSION_MINUTES = 600.5

EVERYONE = "everyone"
# Of zoe only the inbox is looked at.
SUBJECTS = ["alice", "mallory", "zoe"]
READERS = SUBJECTS[:2]
RECIPIENTS = st.sampled_from([["alice"], ["alice"], ["mallory"], ["mallory", "alice"], ["alice", "zoe", "alice"]])
GROUP = st.sampled_from([None, "thread", "thread", "build"])
LIFE = st.sampled_from([5, 60, LIFE_MINUTES, LIFE_MINUTES])
WHO = st.sampled_from(["alice", "alice", "alice", "mallory"])
PICK = st.integers(0, 50)
# Which of the person's two browsers calls. Mostly somebody who finds themselves signed out signs in again first.
BROWSER = st.sampled_from(["signed in", "signed in", "signed in", "signed in", "first", "second"])


# What happens between a call to everyone that is cut off and its repeat. None: it is not cut off. "nothing": repeated
# later, if at all.
MEANWHILE = st.sampled_from([None, "nothing", "nothing", "it is retracted", "somebody goes", "somebody comes"])
MINUTES = st.sampled_from([1, 4, 5, 10, 55, 1, 4, 5, 10, 55, 400, 400, KEY_MINUTES])
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
        recipients=RECIPIENTS,
        group=GROUP,
        minutes=LIFE,
        keyed=st.sampled_from([False, False, False, True]),
    ),
    *acts(
        2,
        "publish_a_batch",
        orders=st.lists(st.tuples(RECIPIENTS, GROUP, LIFE), min_size=1, max_size=4),
        keyed=st.booleans(),
    ),
    *acts(3, "publish_to_everyone", group=GROUP, minutes=LIFE, meanwhile=MEANWHILE),
    *acts(3, "repeat_a_call", pick=PICK, altered=st.sampled_from([False, False, False, True])),
    *acts(4, "retract", pick=PICK, foreign=st.sampled_from([False] * 5 + [True])),
    *acts(1, "ask_after", pick=PICK),
    *acts(2, "erase", subject=st.sampled_from(["alice", *SUBJECTS, "nobody"])),
    *acts(
        4,
        "mute",
        who=WHO,
        browser=BROWSER,
        type=st.sampled_from(["t0", "t0", "t1"]),
        muted=st.booleans(),
    ),
    *acts(3, "keep_up", browser=BROWSER, verb=st.sampled_from(["read", "read", "archive"])),
    *acts(5, "mark_one", who=WHO, browser=BROWSER, verb=ONE_VERB, pick=PICK),
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


class Order(NamedTuple):
    """An event as its sender says it."""

    title: str
    group: str | None
    minutes: int
    recipients: list[str] | str

    @property
    def fields(self) -> dict[str, Any]:
        said = {"type": type_of(self.title), "title": self.title, "expires_in": self.minutes * 60}
        return {**said, **({"group_key": self.group} if self.group else {})}

    def sent(self, now: int) -> Sent:
        return Sent(type_of(self.title), self.title, self.group, now + self.minutes)


@dataclass
class Call:
    """A call of the sender's that may be repeated. Without `answers` it was cut off when its event had been made."""

    orders: list[Order]
    batch: bool = False
    key: str | None = None
    minute: int = 0
    answers: list[Answer] | None = None
    begun: int = 0

    @property
    def path(self) -> str:
        return "/events/batch" if self.batch else "/events"

    @property
    def body(self) -> bytes:
        events = [{**order.fields, "recipients": order.recipients} for order in self.orders]
        return orjson.dumps({"events": events} if self.batch else events[0])


class Tag(NamedTuple):
    """An `ETag` with what it stood for."""

    inbox: Inbox
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

    def __init__(self, app: flask.Flask, world: World, subject: str) -> None:
        self.person = Person(app, subject)
        world.make(subject)
        self.world = world
        self.sessions = [Session(self.person, 0), Session(self.person, 0)]
        self.forget()

    def forget(self) -> None:
        """What is so of a new user."""
        self.active = True
        self.snapshots = [0]  # versions that a poll has shown
        self.tokens = [0]
        self.moments: dict[int, datetime] = {}

    @property
    def inbox(self) -> Inbox:
        return self.world.inboxes.get(self.person.subject, Inbox())

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
        self.world = World()
        self.people = {subject: Reading(self.app, self.world, subject) for subject in READERS}
        self.host, self.other_host = Host(self.app), Host(self.app)
        self.key_id = rows.one("SELECT min(id) FROM api_keys")
        self.calls: list[Call] = []
        self.tags: list[Tag] = []

    @rule(act=ACTS)
    def happens(self, act: tuple[str, dict[str, Any]]) -> None:
        name, arguments = act
        getattr(self, name)(**arguments)

    def order(self, recipients: list[str] | str, group: str | None, minutes: int) -> Order:
        self.published += 1
        return Order(f"Event {self.published}", group, minutes, recipients)

    def publish(self, recipients: list[str], group: str | None, minutes: int, keyed: bool) -> None:
        self.send(Call([self.order(recipients, group, minutes)]), keyed)

    def publish_a_batch(self, orders: list[tuple[list[str], str | None, int]], keyed: bool) -> None:
        self.send(Call([self.order(*order) for order in orders], batch=True), keyed)

    def publish_to_everyone(self, group: str | None, minutes: int, meanwhile: str | None) -> None:
        call = Call([self.order(EVERYONE, group, minutes)])
        if meanwhile is None:
            self.send(call, True)
            return
        if meanwhile == "somebody comes":
            self.erase("zoe")
        self.begin_and_be_cut_off(call)
        if meanwhile == "it is retracted":
            self.retract(0, foreign=False)
        elif meanwhile == "somebody goes":
            self.erase("zoe")
        elif meanwhile == "somebody comes":
            self.publish(["alice", "zoe", "alice"], group, minutes, keyed=False)
        if meanwhile != "nothing":
            self.repeat_a_call(0, altered=False)

    def begin_and_be_cut_off(self, call: Call) -> None:
        # As a worker leaves it that is killed before its first thousand people.
        self.name(call)
        [order] = call.orders
        digest = hashlib.sha256(b"/api/v1/events\n" + call.body).digest()
        same_call = idempotency.Call(self.key_id, str(call.key), digest)
        life = timedelta(minutes=order.minutes)
        begun, _ = db.write(publishing.begin_everyone, same_call, check(Event, order.fields), life, self.key_id)
        call.begun = begun["event_id"]
        self.world.begin_everyone(call.begun, order.sent(self.now))

    def name(self, call: Call) -> None:
        """Gives the call a key of its own, so that it may be repeated."""
        self.calls.append(call)
        call.key = f"key-{len(self.calls)}"
        call.minute = self.now

    def send(self, call: Call, keyed: bool) -> None:
        if keyed:
            self.name(call)
        said = self.host.call("POST", call.path, call.body, **idempotent(call.key))
        assert "Idempotent-Replayed" not in said.headers
        self.arrive(call, self.said(call, said))

    def arrive(self, call: Call, said: list[Answer]) -> None:
        """What the first call of a key does, and what it answers."""
        call.minute = self.now
        call.answers = []
        for order, found in zip(call.orders, said, strict=True):
            number, sent = found["event_id"], order.sent(self.now)
            if isinstance(order.recipients, str):
                self.world.begin_everyone(number, sent)
                call.answers.append(self.world.finish_everyone(number, self.now))
            else:
                call.answers.append(self.world.publish(number, sent, order.recipients, self.now))
        assert said == call.answers

    def said(self, call: Call, response: TestResponse) -> list[Answer]:
        assert response.status_code == 201
        content = response.get_json()
        return list(content["events"]) if call.batch else [content]

    def repeat_a_call(self, pick: int, altered: bool) -> None:
        if not self.calls:
            return
        call = self.calls[-1 - pick // 12 % len(self.calls)]
        is_kept = self.now < call.minute + KEY_MINUTES
        if altered:
            if is_kept:
                answer = self.host.call("POST", call.path, call.body + b" ", **idempotent(call.key))
                assert answer.status_code == 422
            return
        response = self.host.call("POST", call.path, call.body, **idempotent(call.key))
        said = self.said(call, response)
        assert ("Idempotent-Replayed" in response.headers) == (is_kept and call.answers is not None)
        if not is_kept:
            self.arrive(call, said)
            return
        if call.answers is None:
            call.answers = [self.world.finish_everyone(call.begun, self.now)]
        assert said == call.answers

    def retract(self, pick: int, foreign: bool) -> None:
        number = self.pick_event(pick)
        answer = (self.other_host if foreign else self.host).call("DELETE", f"/events/{number}")
        removed = None if foreign else self.world.retract(number)
        if removed is None:
            assert answer.status_code == 404
        else:
            assert answer.get_json() == {"removed": removed}

    def ask_after(self, pick: int) -> None:
        number = self.pick_event(pick)
        answer, state = self.host.call("GET", f"/events/{number}"), self.world.state(number, self.now)
        assert answer.status_code == (404 if state is None else 200)
        if state is not None:
            assert answer.get_json().items() >= state.items()

    def pick_event(self, pick: int) -> int:
        """Mostly one of the latest; else one that has been, or was never."""
        ids = sorted(self.world.events, reverse=True)
        chosen = pick % 8
        return ids[chosen] if chosen < len(ids) else max(ids, default=1) + 3 - chosen

    def erase(self, subject: str) -> None:
        answer = self.host.call("DELETE", f"/users/{subject}")
        assert answer.status_code == (204 if self.world.erase(subject) else 404)
        me = self.people.get(subject)
        if me is not None:
            me.forget()
            for session in me.sessions:
                session.ended = True

    def mute(self, who: str, browser: str, type: str, muted: bool) -> None:
        answer = self.call(who, browser, f"/preferences/{type}", {"muted": muted}, method="PUT")
        if answer is None:
            return
        mine = self.people[who].inbox
        if type not in self.world.met(mine, self.now):
            assert answer.status_code == 404
            return
        assert answer.get_json() == {"type": type, "muted": muted}
        mine.muted[type] = muted

    def keep_up(self, browser: str, verb: str) -> None:
        """Something comes and is dealt with at once, so that a group has more than one row."""
        self.publish(["alice"], "thread", LIFE_MINUTES, keyed=False)
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
        self.world.clean_up(self.now)

    def lose_sessions(self, who: str, how: str) -> None:
        me = self.people[who]
        if who not in self.world.inboxes:
            return
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
        if me.person.subject not in self.world.inboxes:
            assert self.host.call("PUT", f"/users/{me.person.subject}", {}).status_code == 201
            self.world.make(me.person.subject)
        me.person.id = rows.one("SELECT id FROM users WHERE subject = :subject", subject=me.person.subject)
        if not me.active:
            db.write(people.set_active, me.person.subject, active=True)
            me.active = True
        me.sessions = [
            session if session.is_good(self.now) else Session(me.person, self.now) for session in me.sessions
        ]

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        for who, me in self.people.items():
            latest = next((tag for tag in reversed(self.tags) if tag.inbox is me.inbox), None)
            self.poll(who, 100, latest)
            session = me.good_session(self.now)
            if session is not None:
                lists = db.read(read_lists, session.reader)
                expected = {state: [shown_of(row) for row in me.inbox.list(self.now, state)] for state in STATES}
                assert lists == expected

    @invariant()
    def the_tables_hold_what_the_model_says(self) -> None:
        users, found, events, preferences, undone = db.read(read_tables)
        assert {user.subject: user.inbox_version for user in users} == {
            subject: inbox.version for subject, inbox in self.world.inboxes.items()
        }
        inboxes = {user.id: self.world.inboxes[user.subject] for user in users}
        for user in users:
            mine = [row for row in found if row.user_id == user.id]
            held = [(row.id, row.event_id, row.group_key, row.group_count) for row in mine]
            kept = sorted(inboxes[user.id].rows.values(), key=lambda row: row.id)
            assert held == [(row.id, row.event, row.group, row.count) for row in kept]
            if user.subject in self.people:
                for real, row in zip(mine, kept, strict=True):
                    self.agree_on_moments(self.people[user.subject], real, row)
        assert {row.user_id for row in (*found, *undone)} <= inboxes.keys()  # of who was erased there is nothing
        muted = {number: inbox.muted for number, inbox in inboxes.items() if inbox.muted}
        assert {number: dict(chosen) for number, chosen in preferences} == muted
        kept_events = {
            row.id: (row.title, row.received, inboxes.get(row.only_user_id), row.retracted_at is not None)
            for row in events
        }
        assert not any(row.is_retracting for row in events)
        assert kept_events == {
            number: (sent.title, sent.received, sent.only, sent.is_retracted)
            for number, sent in self.world.events.items()
        }

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
        if tag is not None and tag.inbox is me.inbox and (tag.limit, tag.visible) == (limit, visible):
            assert (answer.status_code, answer.headers["ETag"]) == (304, tag.tag)
            return
        assert answer.status_code == 200
        unread = me.inbox.list(self.now, "unread")
        content = answer.get_json()
        assert [shown(found) for found in content.pop("notifications")] == [shown_of(row) for row in unread[:limit]]
        counts = me.inbox.counts(self.now)
        assert content == {"user": who, "version": me.inbox.version, "more": len(unread) > limit, **counts}
        self.tags.append(Tag(me.inbox, limit, answer.headers["ETag"], visible))
        if me.snapshots[-1] != me.inbox.version:
            me.snapshots.append(me.inbox.version)

    def call(self, who: str, browser: str, path: str, body: Any = None, method: str = "POST") -> TestResponse | None:
        """The answer, or None where the caller is refused because the session is not good."""
        me = self.people[who]
        if browser == "signed in" and not me.good_session(self.now):
            self.sign_in(me)
        session = (browser == "signed in" and me.good_session(self.now)) or me.sessions[browser == "second"]
        good = me.active and session.is_good(self.now)
        answer = session.browser.open(path, method=method, **({"json": body} if body else {}))
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


TABLES = [
    text("SELECT id, subject, inbox_version FROM users"),
    text("SELECT * FROM notifications ORDER BY user_id, id"),
    text("SELECT id, title, received, only_user_id, retracted_at, is_retracting FROM events"),
    text("SELECT user_id, jsonb_object_agg(type, muted) FROM preferences GROUP BY user_id"),
    text("SELECT user_id FROM undos"),
]


def read_tables(connection: Connection) -> list[list[Any]]:
    return [list(connection.execute(table).all()) for table in TABLES]


@pytest.mark.parametrize("part", range(PARTS))
def test_any_order_of_calls_leaves_what_the_model_says(app_with_a_clock: flask.Flask, part: int) -> None:
    machine = type(f"Machine{part}", (Inboxes,), {"app": app_with_a_clock})
    run_state_machine_as_test(machine, settings=SAMPLE)
