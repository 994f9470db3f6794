"""Large tables: `make bench-large`. 10,000,000 notifications of 100,000 users, made in minutes.

How much slower a changed poll is than with 10,000 rows, and what the polls see while the clean-up deletes half of them.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg

from bench import data, load, ours, servers
from bench.__main__ import describe_machine, keep_environment, say
from bench.contestants import THREADS
from bench.load import Result
from bench.tables import goal

FEW, MANY = 10_000, 10_000_000
EACH = 100  # notifications of a user, the newest 5 unread
UNREAD = 5
PER_EVENT = 10  # people who have an event together
POLLS = 500  # a second, while the clean-up runs
SAMPLE = 1_000  # users who poll, spread over all
CONNECTIONS = 64

# Notifications come as they do in life: every user's number 1, then every user's number 2; so one inbox is spread over
# the whole table.
USERS = """
    INSERT INTO users (subject, inbox_version) SELECT 'user-' || n, %(each)s FROM generate_series(1, %(users)s) AS n
"""
EVENTS = """
    INSERT INTO events (type, title, body_text, body_html, url, actor_name, data, priority, received,
        created_at, expires_at)
    SELECT 'comment', 'Grace Hopper commented on Issue ' || n, 'Looks good to me, but see line ' || n,
        '<b>Looks good</b> to me, but see line ' || n, 'https://app.example/issues/' || n, 'Grace Hopper',
        jsonb_build_object('issue', n), 'normal', %(per_event)s, now() - interval '40 days', {expires_at}
    FROM generate_series(1, %(events)s) AS n
"""
NOTIFICATIONS = """
    INSERT INTO notifications (user_id, id, event_id, seen_at, read_at, expires_at)
    SELECT first_user + who, number, first_event + ((number - 1) * %(users)s + who) / %(per_event)s,
        CASE WHEN number <= %(each)s - 2 THEN now() END, CASE WHEN number <= %(each)s - %(unread)s THEN now() END,
        {expires_at}
    FROM (SELECT min(id) AS first_user FROM users) AS u, (SELECT min(id) AS first_event FROM events) AS e,
        generate_series(1, %(each)s) AS number, generate_series(0, %(users)s - 1) AS who
"""
# Half of them are over: of everybody, what is older than the newest 50.
HALF_OVER = "CASE WHEN number <= %(each)s / 2 THEN now() - interval '1 hour' ELSE now() + interval '30 days' END"
EVENTS_HALF_OVER = "CASE WHEN n <= %(events)s / 2 THEN now() - interval '1 hour' ELSE now() + interval '30 days' END"


def main() -> None:
    options = _options()
    load.require_wrk()
    keep_environment()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        machine = describe_machine(server)
        say(machine)
        few, many = (stack.enter_context(servers.database(server)) for _ in range(2))
        polls_few = _fill(few, min(FEW, options.rows))
        started = time.monotonic()
        polls_many = _fill(many, options.rows)
        filled = time.monotonic() - started
        lines = ["| what | measured | goal | |", "|---|---|---|---|"]
        lines.append(_changed_polls((few, polls_few), (many, polls_many), options))
        lines += _beside_the_clean_up(many, polls_many, options.rows)
        how = f"{options.rows:,} notifications, filled in {filled:.0f} s; medians of {options.rounds} rounds."
        print(f"\n{machine} {how}\n\n" + "\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.large", description="Belfry with large tables.")
    parser.add_argument("--rows", type=int, default=MANY, help=f"notifications (default: {MANY:,})")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of changed polls (default: 5)")
    return parser.parse_args()


Polls = list[tuple[str, str]]


def _fill(database_url: str, rows: int) -> Polls:
    """Fills an empty database, its indexes made afterwards; gives back what users spread over all of them send."""
    say(f"filling {rows:,} notifications")
    users = rows // EACH
    polls = ours.prepare_many(database_url, users, USERS % {"each": EACH, "users": users})
    numbers = {"users": users, "each": EACH, "unread": UNREAD, "per_event": PER_EVENT, "events": rows // PER_EVENT + 1}
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '256MB'; SET synchronous_commit = off; SET jit = off")
        with connection.transaction(), _without_indexes(connection, "notifications"):
            connection.execute(EVENTS.format(expires_at=EVENTS_HALF_OVER) % numbers)  # type: ignore[call-overload]
            connection.execute(NOTIFICATIONS.format(expires_at=HALF_OVER) % numbers)  # type: ignore[call-overload]
        connection.execute("VACUUM (ANALYZE, FREEZE)")
        connection.execute("CHECKPOINT")
    return random.Random(1).sample(polls, min(SAMPLE, users))


@contextlib.contextmanager
def _without_indexes(connection: psycopg.Connection, table: str) -> Iterator[None]:
    """Takes a table's indexes and keys away and makes them again: one by one they are built in a third of the time."""
    keys = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN"
        " ('p', 'f', 'u') ORDER BY contype DESC",
        (table,),
    ).fetchall()
    for name, _ in keys:
        connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')  # type: ignore[call-overload]
    indexes = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (table,)).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')  # type: ignore[call-overload]
    yield
    for _, definition in indexes:
        connection.execute(definition)
    for name, definition in keys:
        connection.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')  # type: ignore[call-overload]


def _changed_polls(few: tuple[str, Polls], many: tuple[str, Polls], options: argparse.Namespace) -> str:
    ratios = []
    for _ in range(options.rounds):
        times = [1 / _poll(url, polls, seconds=5).rate for url, polls in (few, many)]
        say(f"a changed poll: {times[0] * 1000:.3f} ms with few rows, {times[1] * 1000:.3f} ms with many")
        ratios.append(times[1] / times[0])
    return goal(f"time of a changed poll with {options.rows:,} rows ÷ with {FEW:,}", ratios, at_most=1.2)


def _poll(database_url: str, polls: Polls, seconds: float) -> Result:
    with servers.gunicorn("wsgi:app", database_url, THREADS) as server:
        cookies = [cookie for cookie, _ in polls]
        load.run(server.port, cookies, [""] * len(cookies), 200, seconds=2, connections=16)
        return load.run(server.port, cookies, [""] * len(cookies), 200, seconds=seconds, connections=16)


def _beside_the_clean_up(database_url: str, polls: Polls, rows: int) -> list[str]:
    """p99 of changed polls at a steady pace, alone and then beside `flask cleanup` until it is done."""
    cookies, none = [cookie for cookie, _ in polls], [""] * len(polls)
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": data.SECRET_KEY}
    with servers.gunicorn("wsgi:app", database_url, THREADS) as server:

        def paced(seconds: float) -> Result:
            return load.run(server.port, cookies, none, 200, seconds, connections=CONNECTIONS, pace=POLLS)

        paced(3)
        alone = [paced(10).p99 for _ in range(3)]
        command = [sys.executable, "-m", "flask", "cleanup", "--json"]
        started = time.monotonic()
        cleaning = subprocess.Popen(command, cwd=data.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        beside = []
        while cleaning.poll() is None:
            beside.append(paced(10).p99)
        seconds = time.monotonic() - started
        said = cleaning.communicate()[0]
    deleted = json.loads(said)["deleted"]
    say(f"clean-up: {deleted} in {seconds:.0f} s; p99 alone {alone} ms, beside {beside} ms")
    gone, ratio = deleted["notifications"], statistics.median(beside) / statistics.median(alone)
    what = f"p99 of {POLLS} polls/s while the clean-up deletes {gone:,} of {rows:,} ÷ without"
    return [
        goal(what, [ratio], at_most=1.5),
        goal("rows that it deletes a second", [sum(deleted.values()) / seconds], at_least=10_000),
    ]


if __name__ == "__main__":
    main()
