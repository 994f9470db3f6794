"""Runs the benchmark and prints its tables: `make bench`, or `python -m bench --help`."""

import argparse
import contextlib
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from bench import extras, fan_out, load, publishing, servers
from bench.contestants import BELFRY, GOALS, PACED, ROWS, THREADS, Contestant, Row
from bench.load import Result
from bench.tables import goal, spread

# What else an operator has set must not change what is measured.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "BENCH_DATABASE_URL")
PACED_CONNECTIONS = 128


def main() -> None:
    options = _options()
    load.require_wrk()
    keep_environment()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        machine = describe_machine(server)
        say(machine)
        prepared = {}
        for contestant in dict.fromkeys(row.contestant for row in ROWS if row.contestant.has_inboxes):
            if contestant.prepare not in prepared:
                say(f"preparing {contestant.application}")
                database_url = stack.enter_context(servers.database(server))
                prepared[contestant.prepare] = _prepare(contestant, database_url)
        _require_agreement(prepared)
        rounds = [_round(prepared, options) for _ in range(options.rounds)]
        say("the rest: publishing, memory, freshness, 1,000 bells, fan-out")
        belfry = prepared[BELFRY.prepare]
        lines = [publishing.goal_line(server, options.rounds, options.seconds)]
        lines += extras.goal_lines(server, belfry.database_url, belfry.cookies)
        bells = extras.bells_table(belfry.database_url, belfry.cookies, belfry.tags)
        how = (
            f"one worker, {THREADS} threads, {options.connections} connections; "
            f"medians of {options.rounds} rounds of {options.seconds} s."
        )
        tables = [_table(rounds), _goals(rounds, lines), bells, fan_out.table(server)]
        print(f"\n{machine} {how}\n\n" + "\n\n".join(tables))
    if any(result.failed for measured in rounds for result in measured.values()):
        sys.exit("bench: some polls failed, so these figures do not count")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Belfry and its rivals side by side.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, everybody in turn in each (default: 3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default: 5)")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds of load before each measurement (default: 2)")
    parser.add_argument("--connections", type=int, default=16, help="connections of wrk (default: 16)")
    return parser.parse_args()


def keep_environment() -> None:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    os.environ.clear()
    os.environ.update(inherited)


class Prepared:
    """A contestant's database, and what its users send."""

    def __init__(self, database_url: str, cookies: list[str]) -> None:
        self.database_url = database_url
        self.cookies = cookies
        self.tags: list[str] = []
        self.content: object = None

    def tags_of(self, row: Row) -> list[str]:
        if row.tags == "stale":  # a version that the inbox had earlier
            return [re.sub(r"\.\d+(?=\.\d+\.\d+\"$)", ".1", tag) for tag in self.tags]
        return self.tags if row.tags else [""] * len(self.tags)


Prepare = Callable[[str], list[str]]


def _prepare(contestant: Contestant, database_url: str) -> Prepared:
    prepared = Prepared(database_url, contestant.prepare(database_url))
    with contestant.start(contestant.application, database_url) as server:
        prepared.tags, prepared.content = load.ask_all(server.port, prepared.cookies)
    return prepared


def _require_agreement(prepared: dict[Prepare, Prepared]) -> None:
    (first, expected), *others = prepared.items()
    for prepare, other in others:
        if other.content != expected.content:
            names = f"{first.__module__} and {prepare.__module__}"
            sys.exit(f"bench: {names} do not answer the same:\n{expected.content}\n{other.content}")


Key = tuple[Row, bool]  # at full speed, or at half of it


def _round(prepared: dict[Prepare, Prepared], options: argparse.Namespace) -> dict[Key, Result]:
    measured = {}
    for row in ROWS:
        measured[row, False] = _measure(row, prepared[row.contestant.prepare], options, None)
        if row in PACED:
            half = measured[row, False].rate / 2
            measured[row, True] = _measure(row, prepared[row.contestant.prepare], options, half)
    return measured


def _measure(row: Row, prepared: Prepared, options: argparse.Namespace, pace: float | None) -> Result:
    connections = options.connections if pace is None else PACED_CONNECTIONS
    with row.contestant.start(row.contestant.application, prepared.database_url) as server:
        request = (server.port, prepared.cookies, prepared.tags_of(row), row.status)
        warm_up = load.run(*request, seconds=options.warm_up, connections=connections, pace=pace)
        before = server.cpu_seconds()
        result = load.run(*request, seconds=options.seconds, connections=connections, pace=pace)
        cpu = (server.cpu_seconds() - before) / max(1, result.requests) * 1000
        result = replace(result, cpu=cpu, failed=result.failed + warm_up.failed)
    say(f"{row.name}{', paced' if pace else ''}: {result.rate:,.0f}/s, p99 {result.p99} ms, {result.failed} failed")
    return result


def _table(rounds: Sequence[dict[Key, Result]]) -> str:
    lines = [
        "| | answer | failed | polls a second | times the first row | p50 | p99 | CPU a poll | first row's CPU ÷ its |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    firsts = [measured[ROWS[0], False] for measured in rounds]
    for row, is_paced in rounds[0]:
        results = [measured[row, is_paced] for measured in rounds]
        # Ratios are each round's own: what else the machine did then slowed both.
        pairs = list(zip(results, firsts, strict=True))
        cells = [
            f"{row.name}{', at half of its rate' if is_paced else ''}",
            str(row.status),
            str(sum(result.failed for result in results)),
            spread([result.rate for result in results], 0),
            spread([result.rate / first.rate for result, first in pairs], 2),
            f"{statistics.median(result.p50 for result in results):.1f} ms",
            f"{statistics.median(result.p99 for result in results):.1f} ms",
            f"{statistics.median(result.cpu for result in results):.3f} ms",
            spread([first.cpu / result.cpu for result, first in pairs], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _goals(rounds: Sequence[dict[Key, Result]], others: Sequence[str]) -> str:
    lines = ["| what | measured | goal | |", "|---|---|---|---|"]
    for each in GOALS:
        ratios = [measured[each.above, False].rate / measured[each.below, False].rate for measured in rounds]
        lines.append(goal(each.name, ratios, at_least=each.at_least))
    ours, theirs = PACED
    ratios = [measured[ours, True].p99 / measured[theirs, True].p99 for measured in rounds]
    lines.append(goal("p99 of an unchanged poll at half of its greatest rate ÷ gthread's", ratios, at_most=1))
    return "\n".join([*lines, *others])


def describe_machine(server: str) -> str:
    postgresql = servers.ask(server, "SHOW server_version")
    return (
        f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, PostgreSQL {postgresql}, "
        f"gunicorn {version('gunicorn')}, gevent {version('gevent')}; load average before: {os.getloadavg()[0]:.1f};"
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
