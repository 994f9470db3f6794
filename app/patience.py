"""Whether PostgreSQL answers at all. A server that hangs is noticed within two seconds, and then nobody waits for it.

The kernel of a hung server's machine accepts connections and acknowledges what it is sent, so the deadlines that the
server keeps never come, and those of TCP neither. So whoever has waited for a second asks by a connection of its own.
If that is answered, the statement is only slow; if not, all who wait give up, and until the server answers again nobody
begins to wait. Only in gunicorn's workers: a command has nobody who waits for it, and may take its time.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import psycopg
import sqlalchemy
import sqlalchemy.exc
from gevent import monkey
from psycopg import waiting
from psycopg.errors import _WaitTimeout
from sqlalchemy import Engine

# In sum, what a request waits for a server that begins to hang. 503 is promised within three seconds.
PATIENCE = 1.0  # seconds without an answer after which the server is asked whether it is there
PROBE = 1.0  # seconds that it has for that
CONNECT = 1.5  # seconds for a connection of the pool's, however many addresses its server has
BELIEVED = 0.5  # seconds for which everybody is told at once that it did not answer
# Seconds for one statement of a server that answers others: every one has a deadline of 5 there. It is a process that
# stands still, or what is between has lost the connection without a word.
LONGEST = 6.0

SILENT = "PostgreSQL does not answer"


class Silence(Exception):
    """Time is up."""


# gevent's own goes through its loop, even if nothing is to be waited for.
poll = monkey.get_original("select", "poll")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Lets its block take so long; then it raises TimeoutError. In workers only: elsewhere the block takes its time."""
    if not monkey.is_module_patched("select"):
        yield
        return
    with gevent.Timeout(seconds, TimeoutError):
        yield


class Watch:
    """One server, as one process sees it."""

    def __init__(self) -> None:
        self.is_hung = False
        self._asked: tuple[Any, Any] = ((), {})  # how the latest connection was asked for
        self._turn = threading.Lock()
        self._told = float("-inf")

    def connect(self, patient: "type[Patient]", arguments: Any, options: Any) -> "Patient":
        """A new connection, or an OperationalError soon."""
        self._asked = arguments, options
        self.require()
        try:
            with gevent.Timeout(CONNECT, Silence):
                connection = patient.connect(*arguments, **options)
        except Silence:
            self._tell(is_hung=True)
            raise psycopg.OperationalError(SILENT) from None
        connection.watch = self
        return connection

    def require(self) -> None:
        """Raises where it is known that the server does not answer."""
        if self.is_hung and (time.monotonic() < self._told + BELIEVED or not self.answers()):
            raise psycopg.OperationalError(SILENT)

    def answers(self) -> bool:
        """Asks the server, once for all who want to know it at the same time."""
        came = time.monotonic()
        with self._turn:
            if self._told < came:
                self._tell(is_hung=not self._ask())
            return not self.is_hung

    def _tell(self, *, is_hung: bool) -> None:
        self.is_hung = is_hung
        self._told = time.monotonic()

    def _ask(self) -> bool:
        arguments, options = self._asked
        with contextlib.ExitStack() as stack:
            try:
                with gevent.Timeout(PROBE, Silence):
                    connection = psycopg.connect(*arguments, **options)
                    stack.callback(connection.close)
                    connection.execute("SELECT 1")
            except Silence:
                return False
            except psycopg.Error:  # it says no, and at once: nobody will wait long for the same
                return True
        return True


class Patient(psycopg.Connection[Any]):
    """A connection that gives up on a server that hangs."""

    watch: Watch
    longest = LONGEST
    waits_out = False  # whether it waits until the server goes on

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None:  # the caller knows for how long
            return super().wait(gen, interval, timeout)
        if self.watch.is_hung and not self.waits_out:
            self.watch.require()
        try:
            try:
                # As the library's own method, but for what that does about Ctrl-C.
                return waiting.wait(gen, self.pgconn.socket, interval, PATIENCE)
            except _WaitTimeout:
                return self._wait_on(gen, interval)
        except psycopg.Error:
            raise
        except BaseException:
            self.pgconn.finish()  # its answer is still to come, and must never be taken for another one's
            raise

    def _wait_on(self, gen: Any, interval: float) -> Any:
        waited = 0.0
        while self.watch.answers() or self.waits_out:
            if not self.watch.is_hung:
                waited += PATIENCE
            if waited > self.longest:
                break
            try:
                return waiting.wait(gen, self.pgconn.socket, interval, PATIENCE)
            except _WaitTimeout:
                continue
        self.pgconn.finish()
        raise psycopg.OperationalError(SILENT)


class Faithful(Patient):
    """A connection that is worth keeping while the server hangs: what happens there is heard when it goes on.

    It says little that takes time, so a server that answers others but not this has lost it.
    """

    longest = 2.0
    waits_out = True


def watch(engine: Engine, by: Watch, patient: type[Patient] = Patient) -> None:
    """Watches the engine's connections, and never lends one that the server has closed."""
    sqlalchemy.event.listen(engine, "checkout", _refuse_closed)
    if monkey.is_module_patched("select"):
        sqlalchemy.event.listen(
            engine,
            "do_connect",
            lambda _dialect, _record, arguments, options: by.connect(patient, arguments, options),
        )


def _refuse_closed(driver: Any, record: Any, _proxy: Any) -> None:
    """Lets the pool make another one where the server said what nobody has asked for: goodbye, mostly.

    A question to the server would find the same out for a tenth of a millisecond; this takes a hundredth of that. A new
    one is lent as it is: of two that are refused the pool says what is no OperationalError, whatever became of them.
    """
    about = record.info
    look = about.get("look")
    if look is None:
        if not driver.closed:
            look = about["look"] = poll()
            look.register(driver.fileno(), 1)  # POLLIN, and it always tells of errors and ends too
    elif driver.closed or look.poll(0):
        raise sqlalchemy.exc.DisconnectionError
