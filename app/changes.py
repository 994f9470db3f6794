"""What has changed, told to every worker: "the inbox of U is now at V", or "forget what you know of U".

`tell` and `forget` stand beside the statements that change something. Once the transaction is committed this process
hears it at once, and one thread tells the others by NOTIFY. A notice is a hint: it may be lost, doubled or late.
"""

import atexit
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flask
import sqlalchemy
from sqlalchemy import Connection, text

from app import db, metrics, patience
from app.settings import Settings

log = logging.getLogger(__name__)

# The version that an inbox is now at, by its user's id. FORGET is beyond all: nothing known of the user is true.
Notices = Mapping[int, int]

FORGET = 2**63 - 1
EVERYBODY = 0  # no user has this id: what is told of it is meant for all
CHANNEL = "belfry_changes"
ALL = "*"  # the payload that makes every worker forget everything: also for who changes rows by hand
LONGEST = 7_900  # bytes of one payload; PostgreSQL takes less than 8,000
MOST = 10_000  # inboxes that are named; who changes more at once says ALL, for naming costs every worker time
GATHER = 0.02  # seconds between two sendings: all commits with a notice in them wait for one lock of the server
IDLE = 30  # seconds without a change after which the sending connection is closed
LAST_WORDS = 2  # seconds that a process has to tell what it has changed before it exits
LOOK_UP = 1.0  # seconds after which the hearing thread looks whether it is still wanted
SHORT_LOOK_UP = 0.02  # the same while there is work in between
RANDOM = random.Random()  # its own: this thread must not take numbers from anybody's repeatable sequence
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds until a lost connection is tried again

# A peer that is gone without a word is noticed in 25 seconds by who only waits.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
LISTEN = f"LISTEN {CHANNEL}"
SEND = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")


def init_app(app: flask.Flask, settings: Settings) -> None:
    app.extensions["changes"] = Changes(app, settings)


def tell(connection: Connection, notices: Notices) -> None:
    """Tells every worker, once the transaction of `connection` is committed, the versions that inboxes are now at."""
    if notices:
        changes = current()
        db.after_commit(connection, lambda: changes.tell(notices))


def forget(connection: Connection, *user_ids: int) -> None:
    """Tells every worker, after the commit, that nothing they know of these users is true any more."""
    tell(connection, dict.fromkeys(user_ids, FORGET))


def current() -> "Changes":
    """The changes of the app that is at work."""
    found: Changes = flask.current_app.extensions["changes"]
    return found


def payloads(notices: Notices) -> list[str]:
    """The notices as they go over the wire: `57:3 60`, in pieces that PostgreSQL takes."""
    if len(notices) > MOST or EVERYBODY in notices:
        return [ALL]
    pieces: list[str] = []
    piece: list[str] = []
    length = 0
    for user_id, version in notices.items():
        word = f"{user_id}" if version == FORGET else f"{user_id}:{version}"
        if length + len(word) >= LONGEST:
            pieces.append(" ".join(piece))
            piece, length = [], 0
        piece.append(word)
        length += len(word) + 1
    return [*pieces, " ".join(piece)]


def parse(payload: str) -> dict[int, int]:
    """What a payload says. One that says nothing we know is taken for the worst."""
    try:
        words = [word.partition(":") for word in payload.split(" ")]
        return {int(user_id): int(version) if colon else FORGET for user_id, colon, version in words}
    except ValueError:
        return {EVERYBODY: FORGET}


class Changes:
    """What one process tells and hears. Threads and connections are made when first needed: after gunicorn's fork."""

    def __init__(self, app: flask.Flask, settings: Settings) -> None:
        self._app = app
        self._url = settings.changes_database_url
        self._watch = patience.Watch()
        self._hearers: list[Callable[[Notices], None]] = []
        self._teller = Teller(self.connect)
        self.listener = Listener(self.connect, self._hear)

    def add_hearer(self, hear: Callable[[Notices], None], listening: Callable[[bool], None]) -> None:
        """Lets a part of this process hear every notice, and whether those of other processes arrive."""
        self._hearers.append(hear)
        self.listener.listening.append(listening)

    def tell(self, notices: Notices) -> None:
        self._hear(notices)
        self._teller.tell(notices)

    def flush(self) -> None:
        """Comes back when everything is told, or could not be within two seconds."""
        self._teller.flush()

    def _hear(self, notices: Notices) -> None:
        for hear in self._hearers:
            hear(notices)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection of its own, for the pool's belong to requests; it goes when the pool is given up."""
        with self._app.app_context():
            engine = db.engine()
        options = f"{db.SESSION_OPTIONS} -c idle_session_timeout=0"
        arguments = {**db.CONNECT_ARGUMENTS, **KEEPALIVES, "options": options}
        direct = sqlalchemy.create_engine(
            self._url or engine.url,
            poolclass=sqlalchemy.NullPool,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",
            connect_args=arguments,
        )
        patience.watch(direct, self._watch, patience.Faithful)
        if not sqlalchemy.event.contains(engine, "engine_disposed", self._stop):
            sqlalchemy.event.listen(engine, "engine_disposed", self._stop)
        with direct.connect() as connection:
            yield connection

    def _stop(self, _engine: Any) -> None:
        self._teller.stop()
        self.listener.stop()


class Teller:
    """One thread that tells what was changed since it told last."""

    def __init__(self, connect: Callable[[], Any], idle: float = IDLE) -> None:
        self._connect = connect
        self._idle = idle
        self._state = threading.Condition()
        self._waiting: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._running = self._stopping = False

    def tell(self, notices: Notices) -> None:
        with self._state:
            self._add(notices)
            if not self._running:
                self._start()
            self._state.notify_all()

    def flush(self) -> None:
        with self._state:
            self._state.wait_for(lambda: not self._running or not (self._waiting or self._taken), LAST_WORDS)

    def stop(self) -> None:
        self.flush()
        with self._state:
            self._stopping = True
            self._state.notify_all()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="tells changes", daemon=True).start()
        except RuntimeError:  # no thread to be had; the change is committed, and its caller is to know that
            log.warning("changes not told: no thread")
            return
        self._running, self._stopping = True, False
        atexit.register(self.flush)

    def _add(self, notices: Notices) -> None:
        for user_id, version in notices.items():
            self._waiting[user_id] = max(version, self._waiting.get(user_id, 0))
        if len(self._waiting) > MOST:
            self._waiting = {EVERYBODY: FORGET}

    def _run(self) -> None:
        has_failed = False
        while not self._is_over():
            try:
                with self._connect() as connection:
                    while notices := self._next():
                        connection.execute(SEND, {"channel": CHANNEL, "payloads": payloads(notices)})
                        self._told()
                        has_failed = False
                        time.sleep(GATHER)
            except Exception as error:  # whatever it is: the next change must find this thread alive
                log.warning("changes not told: %s", type(error).__name__)
                self._failed(for_good=has_failed)  # once more, by a new connection; then it is given up
                if not has_failed:
                    time.sleep(FIRST_PAUSE)
                has_failed = True

    def _next(self) -> dict[int, int]:
        """What there is to tell; nothing once it has been quiet for long, or nobody wants it any more."""
        with self._state:
            self._state.wait_for(lambda: self._waiting or self._stopping, self._idle)
            self._taken, self._waiting = self._waiting, {}
            return self._taken

    def _told(self) -> None:
        metrics.TOLD.add(len(self._taken))
        with self._state:
            self._taken = {}
            self._state.notify_all()

    def _failed(self, *, for_good: bool) -> None:
        with self._state:
            if for_good:  # what nobody has tried to tell goes too: without a connection this would never end
                metrics.LOST.add(len(self._taken | self._waiting))
                self._waiting = {}
            else:
                self._add(self._taken)
            self._taken = {}
            self._state.notify_all()

    def _is_over(self) -> bool:
        with self._state:
            if not self._waiting:
                self._running = False
                atexit.unregister(self.flush)
                self._state.notify_all()
            return not self._running


class Listener:
    """One thread with one connection that hears the notices of all processes, this one's own too."""

    def __init__(self, connect: Callable[[], Any], hear: Callable[[Notices], None]) -> None:
        self._connect = connect
        self._hear = hear
        self.listening: list[Callable[[bool], None]] = []
        # What else is done on this connection, once a second; it says whether it has more to do.
        self.in_between: Callable[[Connection], bool] = lambda connection: False
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None

    def start(self) -> None:
        """Begins to listen, unless it does so already."""
        if self._stop is None:
            with self._lock:
                if self._stop is None:
                    self._stop = threading.Event()
                    name = "hears changes"
                    threading.Thread(target=self._run, args=[self._stop], name=name, daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._stop = None
                for say in self.listening:
                    say(False)

    def _run(self, stop: threading.Event) -> None:
        pause = FIRST_PAUSE
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    driver = connection.connection.driver_connection
                    driver.execute(LISTEN)
                    self._say(stop, True)
                    pause = FIRST_PAUSE
                    is_busy = False
                    while not stop.is_set():
                        for notice in driver.notifies(timeout=SHORT_LOOK_UP if is_busy else LOOK_UP):
                            self._hear(heard := parse(notice.payload))
                            metrics.HEARD.add(len(heard))
                        if not is_busy:  # in silence nobody could tell a quiet server from a lost one
                            driver.execute(LISTEN)
                        is_busy = self.in_between(connection)
            except Exception as error:  # whatever it is: without this thread the worker would be deaf and not know it
                if not stop.is_set():
                    metrics.DEAFENED.add()
                    log.warning("changes not heard: %s", type(error).__name__)
            self._say(stop, False)
            stop.wait(pause * RANDOM.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _say(self, stop: threading.Event, listening: bool) -> None:
        with self._lock:
            if stop is self._stop:  # a thread that was told to stop speaks for nobody
                for say in self.listening:
                    say(listening)
