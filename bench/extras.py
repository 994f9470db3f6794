"""What one number each says: memory of a worker, how soon one worker's change reaches another, and 1,000 bells."""

import contextlib
import http.client
import json
import statistics
import sys
import time

from bench import data, load, ours, servers
from bench.contestants import THREADS
from bench.tables import goal

INBOXES = 100_000  # FAST_PATH_INBOXES, all of them known
CHANGES, CHANGERS = 200, 4  # a session may change something 300 times a minute
CONNECTIONS = 8
BELLS, INTERVAL = 1_000, 30
BELLS_SECONDS = 30


def goal_lines(server: str, database_url: str, cookies: list[str]) -> list[str]:
    """Lines of the table of goals."""
    return [_memory(server), _freshness(database_url, cookies)]


def bells_table(database_url: str, cookies: list[str], tags: list[str]) -> str:
    """1,000 bells at 30 seconds against a service with all its defaults."""
    with servers.gunicorn("wsgi:app", database_url, THREADS, workers=2) as server:
        pace = BELLS / INTERVAL
        request = (server.port, cookies, tags, 304)
        load.run(*request, seconds=3, connections=64, pace=pace)
        before, started = server.cpu_seconds(), time.monotonic()
        result = load.run(*request, seconds=BELLS_SECONDS, connections=64, pace=pace)
        cpu = (server.cpu_seconds() - before) / (time.monotonic() - started)
    return "\n".join(
        [
            f"| {BELLS:,} bells at {INTERVAL} s, the defaults | polls a second | CPU of a core | p50 | p99 |",
            "|---|---|---|---|---|",
            f"| both workers together | {result.rate:.0f} | {cpu:.1%} | {result.p50:.1f} ms | {result.p99:.1f} ms |",
        ]
    )


def _memory(server_url: str) -> str:
    """What a worker holds once it knows as many inboxes as it may, beside what it shares with others."""
    with servers.database(server_url) as database_url:
        polls = ours.prepare_many(database_url, INBOXES)
        settings = {"FAST_PATH": "1", "FAST_PATH_INBOXES": str(INBOXES)}
        with servers.gunicorn("wsgi:app", database_url, THREADS, workers=2, **settings) as server:
            load.poll_each(server.port, polls)
            size = max(server.memory())  # of the two workers' the one that was asked
    return goal(f"memory that a worker adds (PSS), {INBOXES:,} inboxes known", [size / 2**20], at_most=60, unit=" MB")


def _freshness(database_url: str, cookies: list[str]) -> str:
    """How long after a change the last of many connections, which both workers share, still hears the old tag."""
    late = []
    with servers.gunicorn("wsgi:app", database_url, THREADS, workers=2) as server, contextlib.ExitStack() as stack:
        for cookie in cookies[:CHANGERS]:
            bells = [stack.enter_context(contextlib.closing(Bell(server.port, cookie))) for _ in range(CONNECTIONS)]
            late += [_change(bells) for _ in range(CHANGES // CHANGERS)]
    p99 = statistics.quantiles(late, n=100)[98] * 1000
    return goal("a change made by one worker seen by polls on all (p99)", [p99], at_most=100, unit=" ms")


def _change(bells: list["Bell"]) -> float:
    asking, *others = bells
    _, tag, body = asking.poll("")
    for bell in others:  # so that each worker knows the inbox
        bell.poll(tag)
    asking.change(json.loads(body)["notifications"][0]["id"])
    changed = time.perf_counter()
    waiting = list(others)
    while waiting:
        waiting = [bell for bell in waiting if bell.poll(tag)[0] == 304]
        if time.perf_counter() - changed > 10:
            sys.exit("bench: a change was not seen within 10 seconds")
    return time.perf_counter() - changed


class Bell:
    """A browser's connection that stays open, and so stays with one worker."""

    def __init__(self, port: int, cookie: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Cookie": cookie, "User-Agent": data.USER_AGENT}

    def poll(self, tag: str) -> tuple[int, str, bytes]:
        headers = {**self.headers, **({"If-None-Match": tag} if tag else {})}
        self.connection.request("GET", load.PATH, headers=headers)
        response = self.connection.getresponse()
        return response.status, response.headers["ETag"], response.read()

    def change(self, id: int) -> None:
        """Marks a notification read, and changes nothing that a later change would miss: it comes back as unread."""
        for verb in ("read", "unread"):
            headers = {**self.headers, "Content-Type": "application/json"}
            self.connection.request("POST", f"/notifications/{id}/{verb}", "{}", headers)
            response = self.connection.getresponse()
            if response.read() and response.status != 200:
                sys.exit(f"bench: {response.status} instead of a change")

    def close(self) -> None:
        self.connection.close()
