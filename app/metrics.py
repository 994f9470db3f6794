"""Every number that the service counts for whoever watches it: name, sentence and labels, each declared once, here.

Counting is adding to a plain number of this process. Once a second, and before a scrape, the numbers move on to where
prometheus_client gathers those of all workers (app/shared_numbers.py).
docs/monitoring.md has the table of them all, and a test holds it against this module.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

log = logging.getLogger(__name__)

VERSION = "0.1.0"
EVERY = 1.0  # seconds

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OWN = CollectorRegistry()
# A second series for each, which only the registry of one process would have.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally:
    """One number that rises: whoever counts adds to `count`."""

    __slots__ = ("_moved", "_shared", "count")

    def __init__(self, shared: Callable[[], prometheus_client.Counter]) -> None:
        self._shared = shared  # asked for where numbers move only: its files are no request's trouble
        self._moved: float = 0
        self.count: float = 0

    def add(self, amount: float = 1) -> None:
        self.count += amount

    def move(self) -> None:
        if fresh := self.count - self._moved:
            self._moved += fresh
            self._shared().inc(fresh)


class Times:
    """How long things took, counted by classes of seconds."""

    __slots__ = ("_bounds", "_moved", "_shared", "counts", "seconds")

    def __init__(self, shared: Callable[[], prometheus_client.Histogram], bounds: tuple[float, ...]) -> None:
        self._shared: Callable[[], Any] = shared
        self._bounds = bounds
        self._moved = 0.0
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds

    def move(self) -> None:
        if any(self.counts):
            shared = self._shared()
            # Into its insides, for its own way takes one at a time, each at ten times the price of ours.
            for place, count in enumerate(self.counts):
                if count:
                    shared._buckets[place].inc(count)
                    self.counts[place] -= count
            seconds = self.seconds
            shared._sum.inc(seconds - self._moved)
            self._moved = seconds


class Counted:
    """A counter, or one for each value of its labels; those values that are given stand at 0 from the start."""

    kind = "counter"

    def __init__(self, name: str, sentence: str, labels: tuple[str, ...] = (), *known: str) -> None:
        self.name, self.sentence, self.labels = name, sentence, labels
        self._shared = prometheus_client.Counter(name, sentence, labels, registry=OWN)
        self._tallies: dict[tuple[str, ...], Tally] = {}
        for value in known:
            self.of(value)
            self._shared.labels(value)
        if not labels:
            self.of()
        METRICS.append(self)

    def of(self, *label: str) -> Tally:
        found = self._tallies.get(label)
        if found is None:
            found = self._tallies[label] = Tally(lambda: self._shared.labels(*label) if label else self._shared)
        return found

    @property
    def known(self) -> list[tuple[str, ...]]:
        """The values of its labels that have been counted or are known from the start."""
        return list(self._tallies)

    def add(self, amount: float = 1) -> None:
        """Of a counter without labels."""
        self._tallies[()].count += amount

    def move(self) -> None:
        for tally in list(self._tallies.values()):
            tally.move()


class Timed:
    """A histogram of seconds, or one for each value of its label."""

    kind = "histogram"

    def __init__(self, name: str, sentence: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()) -> None:
        self.name, self.sentence, self.labels = name, sentence, labels
        self._bounds = bounds
        self._shared = prometheus_client.Histogram(name, sentence, labels, registry=OWN, buckets=bounds)
        self._times: dict[tuple[str, ...], Times] = {}
        if not labels:
            self.of()
        METRICS.append(self)

    def of(self, *label: str) -> Times:
        found = self._times.get(label)
        if found is None:
            found = self._times[label] = Times(
                lambda: self._shared.labels(*label) if label else self._shared, self._bounds
            )
        return found

    def note(self, seconds: float) -> None:
        """Of a histogram without labels."""
        self._times[()].note(seconds)

    def move(self) -> None:
        for times in list(self._times.values()):
            times.move()


class Present:
    """What is so just now, over all living workers: their sum, or the greatest. `ask` finds it, in each of them."""

    kind = "gauge"
    labels: tuple[str, ...] = ()

    def __init__(self, name: str, sentence: str, *, greatest: bool = False) -> None:
        self.name, self.sentence = name, sentence
        mode: Any = "livemax" if greatest else "livesum"
        self._shared = prometheus_client.Gauge(name, sentence, registry=OWN, multiprocess_mode=mode)
        self.ask: Callable[[], float] = lambda: 0
        METRICS.append(self)

    def move(self) -> None:
        self._shared.set(self.ask())


class Found:
    """What only a scrape asks for, because it is the same for all workers; absent where nobody could say."""

    def __init__(self, name: str, sentence: str, labels: tuple[str, ...] = (), kind: str = "gauge") -> None:
        self.name, self.sentence, self.labels, self.kind = name, sentence, labels, kind
        METRICS.append(self)

    def move(self) -> None:
        """There is nothing to move."""

    def family(self, found: float | Mapping[str, float]) -> Metric:
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.sentence, labels=self.labels)
        for label, value in found.items() if isinstance(found, Mapping) else [("", found)]:
            family.add_metric([label] if self.labels else [], value)
        return family


def gather() -> bytes:
    """What this process has counted; gunicorn.conf.py puts `app/shared_numbers.py` in its place, for all workers'."""
    return generate_latest(OWN)


METRICS: list[Counted | Timed | Present | Found] = []

WHOLE = (0.005, 0.025, 0.1, 0.5, 1.0, 3.0, 10.0)  # seconds: of a request
PIECE = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0)  # of a statement, or of waiting for a connection

POLLS = Counted(
    "belfry_polls_total",
    "Polls answered, by status: 304 is nothing new, 200 a list, 401 nobody who is signed in, 429 over `POLL_LIMIT`.",
    ("outcome",),
    *("200", "304", "401", "429", "503"),
)
POLL_SECONDS = Timed("belfry_poll_seconds", "How long polls took that were answered from the database.", WHOLE)
REQUESTS = Counted(
    "belfry_requests_total",
    "Other requests, by endpoint and class of status; `unmatched` has no route, `unreadable` the worker refused.",
    ("endpoint", "status"),
)
REQUEST_SECONDS = Timed("belfry_request_seconds", "How long other requests took, by endpoint.", WHOLE, ("endpoint",))
POLL_INTERVAL = Present(
    "belfry_poll_interval_seconds",
    "The interval that bells are told, the greatest of all workers: above `POLL_INTERVAL` one of them is under load.",
    greatest=True,
)
WORKERS = Present("belfry_workers", "Workers that serve.")
CONNECTIONS = Present("belfry_open_connections", "Connections of clients or of the proxy that are open, idle or not.")

EVENTS = Counted("belfry_published_events_total", "Events published over HTTP.")
DELIVERED = Counted("belfry_delivered_notifications_total", "Notifications put into inboxes by the workers.")
REFUSALS = Counted(
    "belfry_limit_refusals_total",
    "Requests refused because of a limit, by limit; `passwords` are sign-ins sent away because others were checked.",
    ("limit",),
    *("polls", "calls", "bulk", "senders", "key", "account", "address", "passwords"),
)
UNSHARED = Present(
    "belfry_unshared_limits_workers",
    "Workers that count by themselves because the Redis of `RATELIMIT_STORAGE_URI` does not answer them.",
)

TOLD = Counted("belfry_notices_told_total", "Inboxes that workers told each other to have changed.")
HEARD = Counted("belfry_notices_heard_total", "Inboxes that workers heard to have changed, each worker by itself.")
LOST = Counted("belfry_notices_lost_total", "Inboxes whose change could not be told: late by a minute at most.")
DEAFENED = Counted("belfry_listening_lost_total", "Times that a worker lost the connection by which it hears changes.")
BLIND = Present("belfry_blind_workers", "Workers that want to hear of changes and do not: their polls ask PostgreSQL.")

STATEMENT_SECONDS = Timed("belfry_statement_seconds", "How long PostgreSQL took for a statement of the workers.", PIECE)
WAIT_SECONDS = Timed("belfry_connection_wait_seconds", "How long work waited until a connection was lent to it.", PIECE)
IN_USE = Present("belfry_connections_in_use", "Connections to PostgreSQL that are lent to work just now.")

DATABASE_UP = Found("belfry_database_up", "1 where PostgreSQL answered the scrape within a second, else 0.")
OLDEST_UNREAD = Found(
    "belfry_oldest_unread_seconds",
    "Age of the oldest event that somebody has not read; absent where the 1,000 oldest events are all read.",
)
OVERDUE = Found("belfry_oldest_overdue_seconds", "How long the longest expired row has waited for the clean-up.")
CLEANED = Found(
    "belfry_cleanup_rows_total", "Rows that the clean-up has taken care of so far, by chore.", ("chore",), "counter"
)
CLEANUP_DONE = Found(
    "belfry_cleanup_done_timestamp_seconds", "When the clean-up last did all its chores; absent where it never did."
)
INFO = Found("belfry_info", "Always 1; its label is the release.", ("version",))


def move() -> None:
    """Hands on what was counted since the last time, and what is so just now."""
    for metric in METRICS:
        metric.move()


def keep_moving() -> None:
    """Does so once a second from now on, in a worker; `move` once more when it stops."""
    WORKERS.ask = lambda: 1

    def run() -> None:
        has_failed = False
        while True:
            try:
                move()
                has_failed = False
            except Exception as error:  # whatever it is: what is counted from now on may find its way again
                if not has_failed:
                    log.warning("numbers not handed on: %s", type(error).__name__)
                has_failed = True
            time.sleep(EVERY)

    threading.Thread(target=run, name="moves numbers", daemon=True).start()


def exposition(found: Mapping[Found, float | Mapping[str, float]]) -> bytes:
    """All numbers of all workers and what the scrape has found, in Prometheus' text format."""
    move()
    asked = CollectorRegistry()
    asked.register(_Asked([metric.family(value) for metric, value in {INFO: {VERSION: 1}, **found}.items()]))
    return gather() + generate_latest(asked)


class _Asked:
    """The scrape's own finds in the shape that the library collects."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
