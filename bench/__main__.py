"""Runs the benchmark and prints its table: `make bench`, or `python -m bench --help`."""

import argparse
import contextlib
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from bench import fan_out, load, servers
from bench.contestants import ROWS, Contestant, Row
from bench.load import Result

# What else an operator has set must not change what is measured.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "BENCH_DATABASE_URL")


def main() -> None:
    options = _options()
    load.require_wrk()
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    os.environ.clear()
    os.environ.update(inherited)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        machine = _machine(server, options)
        _say(machine)
        prepared = {}
        for contestant in dict.fromkeys(row.contestant for row in ROWS):
            _say(f"preparing {contestant.application}")
            prepared[contestant] = _prepare(contestant, stack.enter_context(servers.database(server)), options.threads)
        _require_agreement(prepared)
        rounds = [
            {row: _measure(row, prepared[row.contestant], options) for row in ROWS} for _ in range(options.rounds)
        ]
        print(f"\n{machine}\n\n{_table(rounds)}\n\n{fan_out.table(server)}")
    if any(result.failed for measured in rounds for result in measured.values()):
        sys.exit("bench: some polls failed, so these figures do not count")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Belfry and its rivals side by side.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, everybody in turn in each (default: 5)")
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement (default: 8)")
    parser.add_argument("--warm-up", type=int, default=3, help="seconds of load before each measurement (default: 3)")
    parser.add_argument("--connections", type=int, default=16, help="connections of wrk (default: 16)")
    parser.add_argument("--threads", type=int, default=4, help="THREADS of everybody's one worker (default: 4)")
    return parser.parse_args()


class Prepared:
    """A contestant's database, and what its users send."""

    def __init__(self, database_url: str, cookies: list[str]) -> None:
        self.database_url = database_url
        self.cookies = cookies
        self.tags: list[str] = []
        self.content: object = None


def _prepare(contestant: Contestant, database_url: str, threads: int) -> Prepared:
    prepared = Prepared(database_url, contestant.prepare(database_url))
    with servers.gunicorn(contestant.application, database_url, threads) as server:
        prepared.tags, prepared.content = load.ask_all(server.port, prepared.cookies)
    return prepared


def _require_agreement(prepared: dict[Contestant, Prepared]) -> None:
    (first, expected), *others = prepared.items()
    for contestant, other in others:
        if other.content != expected.content:
            names = f"{first.application} and {contestant.application}"
            sys.exit(f"bench: {names} do not answer the same:\n{expected.content}\n{other.content}")


def _measure(row: Row, prepared: Prepared, options: argparse.Namespace) -> Result:
    with servers.gunicorn(row.contestant.application, prepared.database_url, options.threads) as server:
        request = (server.port, prepared.cookies, prepared.tags, row.status)
        warm_up = load.run(*request, seconds=options.warm_up, connections=options.connections)
        before = server.cpu_seconds()
        result = load.run(*request, seconds=options.seconds, connections=options.connections)
        cpu = (server.cpu_seconds() - before) / max(1, result.requests) * 1000
        result = replace(result, cpu=cpu, failed=result.failed + warm_up.failed)
    _say(f"{row.name}: {result.rate:,.0f}/s, {result.failed} failed")
    return result


def _table(rounds: Sequence[dict[Row, Result]]) -> str:
    lines = [
        "| | answer | failed | polls a second | times the first row | p50 | p99 | CPU a poll | first row's CPU ÷ its |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    firsts = [measured[ROWS[0]] for measured in rounds]
    for row in ROWS:
        results = [measured[row] for measured in rounds]
        # Ratios are each round's own: what else the machine did then slowed both.
        pairs = list(zip(results, firsts, strict=True))
        cells = [
            row.name,
            str(row.status),
            str(sum(result.failed for result in results)),
            _spread([result.rate for result in results], 0),
            _spread([result.rate / first.rate for result, first in pairs], 2),
            f"{statistics.median(result.p50 for result in results):.1f} ms",
            f"{statistics.median(result.p99 for result in results):.1f} ms",
            f"{statistics.median(result.cpu for result in results):.2f} ms",
            _spread([first.cpu / result.cpu for result, first in pairs], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _machine(server: str, options: argparse.Namespace) -> str:
    postgresql = servers.ask(server, "SHOW server_version")
    return (
        f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, PostgreSQL {postgresql}, "
        f"gunicorn {version('gunicorn')}; one worker, {options.threads} threads, {options.connections} connections; "
        f"medians of {options.rounds} rounds of {options.seconds} s; load average before: {os.getloadavg()[0]:.1f}."
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
