"""A bad day, played for real: nginx, gunicorn, PostgreSQL and Redis under load, and each of them is hurt.

A short play of what `make faults` measures; all of its faults with BELFRY_TEST_DEEP.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bench.faults import crash_loop, sign_ins, soak
from bench.faults.__main__ import GETS, broken_promises
from bench.faults.faults import FAULTS
from bench.faults.figures import HEAD, Figures, add_up
from bench.faults.people import ANSWERED, FAILED, HONEST, Books, Notes, Request, balance, judge
from bench.faults.run import Load, measure
from bench.faults.stage import Stage, set_up
from bench.faults.wire import Answer, run
from tests.crashes import DEEP

# What hurts most and takes least; the others have the same promises.
NAMES = list(FAULTS) if DEEP else ["postgres-kill", "workers-kill"]
LOAD = Load() if DEEP else Load(readers=10, poll=0.2, senders=2, send=0.2)
QUIET = 1.0 if DEEP else 0.3
HELD = 2.0  # seconds at most that a fault is held
PEACE = 1.0
WAIT = 4.0  # seconds: three are promised, and the machine is busy with tests
CRASHES = 30.0 if DEEP else 1.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with set_up() as stage:
        yield stage


@pytest.mark.parametrize("name", NAMES)
def test_through_each_fault_nothing_is_lost_and_every_refusal_is_honest(stage: Stage, name: str) -> None:
    fault = FAULTS[name]
    figures = measure(stage, fault._replace(seconds=min(fault.seconds, HELD)), LOAD, QUIET, PEACE)

    assert broken_promises(figures) == [], figures.details()
    assert figures.longest < WAIT
    assert figures.books.acknowledged > 0


def test_while_one_thing_after_the_other_is_killed_nothing_is_lost_or_doubled(stage: Stage) -> None:
    load = crash_loop.LOAD if DEEP else LOAD
    figures = measure(stage, crash_loop.crash_loop(CRASHES), load, QUIET, PEACE)

    assert broken_promises(figures, GETS if DEEP else 0) == [], figures.details()


def test_a_crowd_at_the_door_is_turned_away_while_polls_go_on(stage: Stage) -> None:
    crowd = sign_ins.measure(stage, 5.0 if DEEP else 0.7, 0.5, sign_ins.POLLS if DEEP else LOAD)

    assert crowd.failed_polls == 0
    assert set(crowd.answers) <= {"401", "503"}
    assert crowd.answers["401"] > 0


def test_mixed_load_leaves_nothing_behind(stage: Stage) -> None:
    load = soak.LOAD if DEEP else replace(soak.LOAD, readers=10, poll=0.05)
    soaked = soak.measure(stage, 12.0 if DEEP else 0.5, warm_up=6.0 if DEEP else 0.5, load=load)

    assert soaked.unexpected == 0
    first, last = soaked.looks[0], soaked.looks[-1]
    assert last.threads <= first.threads + 1
    assert last.descriptors < first.descriptors * 1.5
    assert last.memory < first.memory * 1.1
    assert "| memory |" in soaked.table()


def test_the_books_notice_what_is_lost_and_what_is_there_twice(stage: Stage) -> None:
    readers = stage.readers(3)
    [sender] = stage.senders(1, readers)
    notes = Notes()

    async def publish() -> Books:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, over.set)
        await sender.send(notes, 0.05, over)
        return await balance(notes, readers)

    books = run(publish())
    assert books == (len(notes.acknowledged), 0, 0)
    assert books.acknowledged > 0

    notes.acknowledged["never published"] = [reader.subject for reader in readers]
    title, people = next(iter(notes.acknowledged.items()))
    with stage.postgres.connect() as connection:
        connection.execute(
            "WITH person AS (UPDATE users SET inbox_version = inbox_version + 1 WHERE subject = %s RETURNING *)"
            " INSERT INTO notifications (user_id, id, event_id, expires_at)"
            " SELECT person.id, inbox_version, events.id, expires_at FROM person, events WHERE title = %s",
            (people[0], title),
        )
    assert run(balance(notes, readers)) == (books.acknowledged + 1, 3, 1)


def answer(status: int, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b'{"detail": "why"}')


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer(200), ANSWERED),
        (answer(304), ANSWERED),
        (answer(201), ANSWERED),
        (answer(503, content_type="application/problem+json", retry_after="2"), HONEST),
        (answer(503, content_type="application/problem+json"), FAILED),
        (answer(503, content_type="text/html", retry_after="2"), FAILED),
        (answer(500, content_type="application/problem+json"), FAILED),
        (answer(502, content_type="text/html"), FAILED),
        (answer(429, content_type="application/problem+json", retry_after="2"), FAILED),
        (answer(401), FAILED),
        (None, FAILED),
    ],
)
def test_only_a_503_that_says_when_to_come_back_is_an_honest_refusal(given: Any, outcome: str) -> None:
    assert judge(given)[0] == outcome


BALANCED = Books(1, 0, 0)


def figures_of(*requests: Request, books: Books = BALANCED, went_back: int = 0) -> Figures:
    return add_up("a fault", Notes(list(requests), {}, went_back), books, healed=100.0, livez="200", readyz="200, 503")


def test_a_line_of_the_table_says_what_was_noticed() -> None:
    figures = figures_of(
        Request("GET", 99.0, 0.1, ANSWERED, "200"),
        Request("GET", 99.5, 0.1, HONEST, "why"),
        Request("GET", 101.0, 2.0, ANSWERED, "200"),
        Request("POST", 102.0, 0.1, FAILED, "cut off"),
        Request("GET", 109.0, 0.1, ANSWERED, "304"),
    )

    assert figures.line() == ("| a fault | 5 | 1 | 1 | 75.00% | 2.00 s | 1 | 0 | 0 | 3.0 s | 200 | 200, 503 |")
    assert len(HEAD.splitlines()[0].split("|")) == len(figures.line().split("|"))
    assert figures.details() == "1 × GET why, 1 × POST cut off"


def test_broken_promises_are_named() -> None:
    assert broken_promises(figures_of()) == []
    bad = figures_of(
        Request("GET", 104.0, 1.5, HONEST, "why"), Request("GET", 1.0, 0.1, FAILED, "500"), books=Books(9, 2, 3)
    )
    assert broken_promises(bad, GETS) == [
        "2 acknowledged are lost",
        "3 are there twice",
        "1 failed",
        "full service after 5.5 s",
        "only 0.00% of the GETs were answered",
    ]
    assert broken_promises(figures_of(went_back=1)) == ["1 failed"]
