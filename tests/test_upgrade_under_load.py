"""`flask db upgrade` and `downgrade` while the real service answers: no errors, and nobody waits for long."""

import http.client
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import postgres
from tests.crashes import DEEP
from tests.host_network import new_key, signed_in
from tests.hosts import WireHost, event, query
from tests.service import Service, wait_until

ROWS = 1_000_000 if DEEP else 20_000  # notifications, and half as many events
READERS = 6
MARKS = 2.5  # seconds between two of a reader's, whose number is limited
MOST = 1.0  # seconds that a migration may add to anybody's wait

# A release of the future: columns in the three tables that everything reads and writes, and an index.
NEXT = '''"""What a later release may bring."""
from alembic import op
from migrations.concurrently import drop_index, make_index
revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None
TABLES = ("users", "events", "notifications")

def upgrade():
    make_index("notifications_next", "notifications (event_id, user_id)")
    for table in TABLES:
        op.execute(f"ALTER TABLE {{table}} ADD COLUMN next boolean NOT NULL DEFAULT false")

def downgrade():
    drop_index("notifications_next")
    for table in TABLES:
        op.execute(f"ALTER TABLE {{table}} DROP COLUMN next")
'''


class Traffic:
    """Readers who poll and mark, and a host that publishes to them; what each was answered, and after how long."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.statuses: dict[int, int] = {}
        self.longest = 0.0
        self.stopping = threading.Event()
        self.failed: list[Exception] = []
        people = [f"reader-{number}" for number in range(READERS)]
        host = WireHost(service.url, new_key(service))
        self.threads = [threading.Thread(target=self._run, args=[0.06, self._publish, host, people])]
        self.readers: list[Reader] = []
        for subject in people:
            service.add_user(subject)
            [cookie] = signed_in(service, subject).cookies
            reader = Reader(service, f"{cookie.name}={cookie.value}")
            self.readers.append(reader)
            self.threads.append(threading.Thread(target=self._run, args=[0.02, self._read, reader]))

    @contextmanager
    def flowing(self) -> Iterator[None]:
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in self.threads:
                thread.join(timeout=60)
            for reader in self.readers:
                reader.connection.close()

    def in_the_next(self, seconds: float) -> float:
        """The longest wait from now on, once that time is over."""
        self.longest = 0.0
        assert not self.stopping.wait(seconds)
        return self.longest

    def _run(self, pause: float, act: Any, *arguments: Any) -> None:
        number = 0
        while not self.stopping.wait(pause):  # within the limits, and it leaves the machine time for the migration
            began = time.monotonic()
            try:
                status = act(number, *arguments)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(error)
                return
            self.longest = max(self.longest, time.monotonic() - began)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            number += 1

    def _publish(self, number: int, host: WireHost, people: list[str]) -> int:
        return host.call("POST", "/events", event(*people, title=f"Number {number}")).status

    def _read(self, number: int, reader: "Reader") -> int:
        if time.monotonic() < reader.marks_next:
            return reader.call("GET", "/notifications/unread")
        reader.marks_next = time.monotonic() + MARKS
        verb = ("read", "seen", "archive")[number % 3]
        return reader.call("POST", f"/notifications/{verb}", f'{{"through": {reader.version}}}')


class Reader:
    """A browser's connection with its latest tag."""

    def __init__(self, service: Service, cookie: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        self.headers = {"Cookie": cookie, "Content-Type": "application/json"}
        self.version = "0"
        self.marks_next = time.monotonic() + MARKS * random.random()

    def call(self, method: str, path: str, body: str | None = None) -> int:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        answer.read()
        tag = answer.headers["ETag"]
        if tag:
            self.headers["If-None-Match"] = tag
            self.version = tag.split(".")[2]
        return answer.status


def fill(url: str) -> None:
    """A service that has been in use: other people's inboxes, half of them read."""
    query(url, f"INSERT INTO users (subject) SELECT 'p' || n FROM generate_series(1, {ROWS // 100}) AS n RETURNING 1")
    query(
        url,
        "INSERT INTO events (type, title, body_text, body_html, data, priority, received, expires_at)"
        " SELECT 'comment', 'Number ' || n, 'Some words', 'Some words', '{}', 'normal', 2, now() + interval '30 days'"
        f" FROM generate_series(1, {ROWS // 2}) AS n RETURNING 1",
    )
    query(
        url,
        "INSERT INTO notifications (user_id, id, event_id, expires_at, read_at)"
        " SELECT u.id, n, (u.id * 37 + n) %% (SELECT max(id) FROM events) + 1, now() + interval '30 days',"
        " CASE WHEN n %% 2 = 0 THEN now() END FROM users AS u, generate_series(1, 100) AS n RETURNING 1",
    )
    query(url, "UPDATE users SET inbox_version = 100 RETURNING 1")
    with postgres.connect(url) as connection:  # as in a database that was not filled a second ago
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


@pytest.fixture
def service() -> Iterator[Service]:
    settings = {"POLL_LIMIT": "1000000 per minute", "WEB_CONCURRENCY": "2", "POLL_INTERVAL": "1"}
    with postgres.database() as url, ExitStack() as stack:
        fill(url)
        service = Service(url, **settings)
        stack.callback(service.stop)
        service.start()
        yield service


def migrate(service: Service, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "db", *arguments],
        cwd=folder,
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@contextmanager
def somebody_counting(url: str) -> Iterator[None]:
    """A long report in psql: it holds locks, weak ones, until a migration has met them twice."""
    tries = "SELECT query_start FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE%%'"
    met: set[Any] = set()

    def end_it() -> None:
        wait_until(lambda: met.update(query(url, tries)) or len(met) > 1, "a migration meets the report", 120)
        report.rollback()

    with psycopg.connect(postgres.plain(url)) as report:
        report.execute("SELECT count(*) FROM events, users, notifications WHERE false")
        ending = threading.Thread(target=end_it)
        ending.start()
        try:
            yield
        finally:
            ending.join()
    assert len(met) > 1


def test_nobody_sees_an_error_or_waits_for_long_while_tables_change(service: Service, checkout: Path) -> None:
    head = str(query(service.database_url, "SELECT version_num FROM alembic_version")[0][0])
    (checkout / "migrations/versions/next.py").write_text(NEXT.format(head=head))
    waits: dict[str, float] = {}
    traffic = Traffic(service)
    with traffic.flowing():
        waits["without"] = traffic.in_the_next(1)
        for name, arguments in {"down": ["downgrade", "0002"], "up": ["upgrade", head], "next": ["upgrade"]}.items():
            traffic.longest = 0.0
            if name == "next":
                with somebody_counting(service.database_url):
                    migrate(service, checkout, *arguments)
                    waits["next, beside a report"] = traffic.longest
            else:
                migrate(service, checkout, *arguments)
                waits[name] = traffic.longest
        waits["with the tables of the next release"] = traffic.in_the_next(1)
        migrate(service, checkout, "downgrade", head)
        waits["back"] = traffic.in_the_next(0.5)
    sys.stdout.write(f"{ROWS} rows: {waits} {traffic.statuses}\n")

    assert traffic.failed == []
    assert set(traffic.statuses) <= {200, 201, 304}, traffic.statuses
    assert min(traffic.statuses.get(status, 0) for status in (200, 201)) > 50
    # What the machine adds by being busy is in the first.
    assert max(waits.values()) < MOST + 2 * waits["without"], waits
    assert query(service.database_url, "SELECT version_num FROM alembic_version") == [(head,)]
