"""The interval under load: up while a worker is pressed, down again slowly, and the whole crowd obeys."""

from collections.abc import Callable

import flask
import pytest

from app.steering import BUSY, DOWN, IDLE, MOST, QUICK, SLOW, UP, Steering, next_interval
from bench import simulation
from tests import postgres
from tests.cast import Person

BASE = 30


class Worker:
    """A worker whose clocks stand still between its seconds."""

    def __init__(self) -> None:
        self.now = self.used = 1000.0
        self.steering = Steering(BASE, clock=lambda: self.now, used=lambda: self.used)

    def second(self, answers: int = 100, seconds: float = 0.01, busy: float = 0.1) -> int:
        for _ in range(answers):
            self.steering.note(seconds)
        self.now += 1
        self.used += busy
        return self.steering.interval()


@pytest.mark.parametrize(
    ("seconds", "busy", "expected"),
    [
        (SLOW + 0.01, 0.0, 60 * UP),
        (0.0, BUSY + 0.01, 60 * UP),
        (QUICK - 0.01, IDLE - 0.01, 60 * DOWN),
        (QUICK + 0.01, IDLE - 0.01, 60),
        (QUICK - 0.01, IDLE + 0.01, 60),
    ],
)
def test_pressure_raises_it_quiet_lowers_it_and_in_between_it_stays(
    seconds: float, busy: float, expected: float
) -> None:
    assert next_interval(60, BASE, seconds, busy) == pytest.approx(expected)


def test_it_never_leaves_its_bounds() -> None:
    assert next_interval(BASE * MOST, BASE, 9, 1) == BASE * MOST
    assert next_interval(BASE, BASE, 0, 0) == BASE


def test_a_worker_goes_up_fast_and_comes_down_slowly() -> None:
    worker = Worker()
    assert worker.second() == BASE
    up = next(second for second in range(1000) if worker.second(seconds=2) == BASE * MOST)
    down = next(second for second in range(10_000) if worker.second() == BASE)
    assert up < 60
    assert down > 5 * up


def test_a_busy_worker_goes_up_however_quick_its_answers() -> None:
    worker = Worker()
    assert [worker.second(seconds=0.0001, busy=1.0) for _ in range(60)][-1] > BASE


def test_one_slow_answer_is_no_pressure() -> None:
    worker = Worker()
    assert {worker.second(answers=1, seconds=2.0), *(worker.second(answers=1) for _ in range(20))} == {BASE}


def test_a_quiet_hour_lowers_it_as_seconds_would() -> None:
    worker = Worker()
    for _ in range(60):
        worker.second(seconds=2)
    worker.now += 3600
    assert worker.second() == BASE


def test_polls_carry_the_worker_s_interval_and_tell_how_long_they_took(
    app: flask.Flask, another_app: Callable[..., flask.Flask]
) -> None:
    pressed = another_app(poll_interval=20)
    alice = Person(pressed, "alice")
    first = alice.poll()
    assert first.headers["X-Poll-Interval"] == "20"
    clock = [1000.0]
    pressed.extensions["steering"] = steering = Steering(20, clock=lambda: clock[0], used=lambda: 0.0)
    for _ in range(60):
        steering.note(3)
        clock[0] += 1
        steering.interval()
    for tag in (None, first.headers["ETag"]):
        headers = {} if tag is None else {"If-None-Match": tag}
        answer = alice.browser.get("/notifications/unread", headers=headers)
        assert (answer.status_code, answer.headers["X-Poll-Interval"]) == (200 if tag is None else 304, "80")


def test_twice_as_many_bells_as_a_machine_can_serve_are_served_after_five_minutes() -> None:
    # A tenth of what bench/simulation.py plays; the arithmetic is the same.
    minutes = simulation.play(5_000, 5_000 / 30 / 2, minutes=12).minutes
    assert max(minute.p99 for minute in minutes[:2]) > 1
    assert max(minute.p99 for minute in minutes[5:]) < 1
    assert sum(minute.failed for minute in minutes[5:]) == 0


def test_after_an_outage_of_five_minutes_the_crowd_comes_back_one_by_one() -> None:
    steady = 5_000 / 30
    polls = simulation.play(5_000, steady * 2, minutes=15, outage=range(300, 600)).polls
    assert max(polls[600:]) < 2 * steady
    assert sum(polls[840:]) / 60 > 0.9 * steady


@pytest.mark.parametrize(("outage", "retry_after"), [(10, 0), (30, simulation.RETRY_AFTER), (300, 0)])
def test_after_an_outage_of_any_length_never_twice_as_many_come_in_a_second(outage: int, retry_after: float) -> None:
    # With fewer bells chance would have more of a say in the busiest second.
    assert simulation.arrival_after(6_000, outage, retry_after) < 2 * 6_000 / 30


def test_the_bells_of_the_simulation_wait_as_those_in_browsers_do() -> None:
    poller = (postgres.ROOT / "static/js/poller.js").read_text()
    for rule in (
        f"jitter: {simulation.JITTER},",
        f"timeout: {simulation.TIME_OUT:.0f} * SECOND,",
        f"longestBackOff: {simulation.LONGEST_BACK_OFF:.0f} * SECOND,",
        "shortestWait: SECOND,",
        "interval * (1 + timing.jitter * (2 * this.#options.random() - 1))",
        "Math.max(timing.longestBackOff, this.#interval)",
        "Math.min(this.#interval * 2 ** this.#failures, ceiling) * this.#options.random()",
        "(answer?.retryAfter ?? 0) * (1 + timing.jitter * this.#options.random())",
        "withinReason(Math.max(backOff, patience))",
    ):
        assert rule in poller
    assert simulation.SHORTEST_WAIT == 1
