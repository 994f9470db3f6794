"""A crowd at the door: 100 sign-ins at once, again and again, from as many addresses; and what the polls notice."""

import asyncio
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple
from urllib.parse import urlencode

from bench.faults.people import ANSWERED, Notes, Reader
from bench.faults.run import Load, under_load
from bench.faults.stage import Stage
from bench.faults.wire import Address, Unanswered, Wire, run

CROWD = 100
POLLS = Load(readers=100, poll=0.5, senders=0)  # 200 polls a second
WARM_UP = 3.0  # seconds


class Crowd(NamedTuple):
    """p99 of the polls in milliseconds, quiet and beside the crowd, and what the crowd was answered."""

    quiet: float
    beside: float
    failed_polls: int
    answers: Counter[str]

    def table(self) -> str:
        answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.answers.items()))
        return "\n".join(
            [
                f"| polls, 200 a second | p99 quiet | p99 beside {CROWD} sign-ins at once | times | failed"
                " | the sign-ins were answered |",
                "|---|---|---|---|---|---|",
                f"| | {self.quiet:.1f} ms | {self.beside:.1f} ms | {self.beside / self.quiet:.1f}"
                f" | {self.failed_polls} | {answers} |",
            ]
        )


def measure(stage: Stage, seconds: float, warm_up: float = WARM_UP, polls: Load = POLLS) -> Crowd:
    """So many seconds of polls alone, then as many beside the crowd."""
    return run(_measure(stage.readers(polls.readers), polls, stage.own, seconds, warm_up))


async def _measure(readers: Sequence[Reader], polls: Load, own: Address, seconds: float, warm_up: float) -> Crowd:
    # A process of its own: the crowd's work must not be what the polls wait for.
    with ProcessPoolExecutor(1, get_context("spawn")) as another:
        await asyncio.wrap_future(another.submit(time.monotonic))  # it is there
        quiet, beside = Notes(), Notes()
        async with under_load(Notes(), polls, readers, ()):
            await asyncio.sleep(warm_up)
        async with under_load(quiet, polls, readers, ()):
            await asyncio.sleep(seconds)
        async with under_load(beside, polls, readers, ()):
            answers = await asyncio.wrap_future(another.submit(attack, own.port, seconds))
    failed = sum(request.outcome != ANSWERED for request in quiet.requests + beside.requests)
    return Crowd(_p99(quiet), _p99(beside), failed, answers)


def _p99(notes: Notes) -> float:
    return statistics.quantiles([request.took for request in notes.requests], n=100)[98] * 1000


def attack(port: int, seconds: float) -> Counter[str]:
    """Wrong names and passwords for so many seconds, as the proxy would hand them on; each status, how often."""
    answers: Counter[str] = Counter()

    async def knock() -> None:
        deadline = time.monotonic() + seconds
        async with Wire(Address(port)) as wire:
            while time.monotonic() < deadline:
                form = urlencode({"username": secrets.token_hex(8), "password": secrets.token_hex(8)}).encode()
                address = ".".join(str(part) for part in (10, *secrets.token_bytes(3)))
                headers = {
                    "Content-Type": "application/x-www-form-urlencoded",
                    "X-Forwarded-For": address,
                    "X-Forwarded-Proto": "https",
                }
                try:
                    answers[str((await wire.ask("POST", "/login", headers, form)).status)] += 1
                except Unanswered as error:
                    answers[str(error)] += 1

    async def crowd() -> None:
        await asyncio.gather(*(knock() for _ in range(CROWD)))

    asyncio.run(crowd())
    return answers
