"""Mixed load for minutes: readers who poll, look, mark and mistype, hosts that publish; and what the workers hold."""

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil

from bench.faults.figures import SLOW
from bench.faults.people import ANSWERED, Notes, Reader, Sender, rest
from bench.faults.run import Load
from bench.faults.stage import Stage
from bench.faults.wire import Unanswered, Wire, run
from tests.crashes import workers

LOAD = Load(readers=60, poll=0.5, senders=4, send=0.4)
WARM_UP = 60.0  # seconds
LOOK = 2.0  # seconds between two looks at the processes
MEGABYTE = 2**20


class Held(NamedTuple):
    """What all workers hold together at a moment, and PostgreSQL's connections."""

    at: float
    memory: float  # in megabytes, resident
    descriptors: int
    threads: int
    connections: int


class Soaked(NamedTuple):
    requests: int
    unexpected: int
    slow: int
    looks: list[Held]  # since the warm-up

    def table(self) -> str:
        lines = [
            f"{self.requests:,} requests, {self.unexpected} of them answered otherwise than they should be,"
            f" {self.slow} in more than a second.",
            "",
            "| all workers together | after the warm-up | at the end | most | an hour adds |",
            "|---|---|---|---|---|",
        ]
        quarter = max(1, len(self.looks) // 4)
        for name, unit in [("memory", " MB"), ("descriptors", ""), ("threads", ""), ("connections", "")]:
            values = [float(getattr(look, name)) for look in self.looks]
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            slope = statistics.linear_regression([look.at for look in self.looks], values).slope * 3600
            cells = [name, f"{first:.1f}{unit}", f"{last:.1f}{unit}", f"{max(values):.1f}{unit}", f"{slope:.1f}{unit}"]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def measure(stage: Stage, seconds: float, warm_up: float = WARM_UP, load: Load = LOAD) -> Soaked:
    """What so many seconds of mixed load leave behind, once it is warm."""
    readers = stage.readers(load.readers)
    return run(_measure(stage, load, readers, stage.senders(load.senders, readers), seconds, warm_up))


async def _measure(
    stage: Stage, load: Load, readers: Sequence[Reader], senders: Sequence[Sender], seconds: float, warm_up: float
) -> Soaked:
    notes, over, looks = Notes(), asyncio.Event(), []
    kinds = Kinds(load.poll)
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(kinds.live(reader, notes, over))
        for sender in senders:
            group.create_task(sender.send(notes, load.send, over))
        await asyncio.sleep(warm_up)
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            looks.append(await asyncio.to_thread(look, stage))
            await asyncio.sleep(min(LOOK, seconds / 4))
        over.set()
    slow = sum(request.took > SLOW for request in notes.requests)
    unexpected = kinds.unexpected + sum(request.outcome != ANSWERED for request in notes.requests)
    return Soaked(kinds.asked + len(notes.requests), unexpected, slow, looks)


class Kinds:
    """What readers do besides polling, each with the status that it is answered by."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.asked = self.unexpected = 0

    async def live(self, reader: Reader, notes: Notes, over: asyncio.Event) -> None:
        """Polls, and every third time does something else."""
        await rest(over, random.uniform(0, self.interval))
        others = self._others(reader)
        async with Wire(reader.address) as wire:
            while not over.is_set():
                began = time.monotonic()
                if random.random() < 2 / 3:
                    await reader.poll_once(notes, wire)
                else:
                    await self._do(wire, reader, *next(others))
                await rest(over, self.interval * random.uniform(0.9, 1.1) - (time.monotonic() - began))

    def _others(self, reader: Reader) -> Iterator[tuple[str, str, dict[str, object] | None, int]]:
        start = random.randrange(8)
        for number in itertools.count(start):
            yield [
                ("GET", "/notifications?state=all&limit=50", None, 200),
                ("POST", "/notifications/seen", {"through": reader.version}, 200),
                ("GET", "/preferences", None, 200),
                ("POST", "/notifications/read", {"through": reader.version}, 200),
                ("GET", "/notifications/999999999", None, 404),
                ("POST", "/notifications/read", {"ids": "all of them"}, 422),
                ("GET", "/", None, 200),
                ("GET", "/static/js/poller.js", None, 200),
            ][number % 8]

    async def _do(
        self, wire: Wire, reader: Reader, method: str, path: str, body: dict[str, object] | None, status: int
    ) -> None:
        headers = {**reader.headers, **({"Content-Type": "application/json"} if body is not None else {})}
        self.asked += 1
        try:
            answer = await wire.ask(method, path, headers, b"" if body is None else json.dumps(body).encode())
            self.unexpected += answer.status != status
        except Unanswered:
            self.unexpected += 1


def look(stage: Stage) -> Held:
    """What the workers hold just now."""
    processes = [psutil.Process(pid) for pid in workers(stage.service)]
    with stage.postgres.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name <> 'others'").fetchone()
    return Held(
        at=time.monotonic(),
        memory=sum(process.memory_info().rss for process in processes) / MEGABYTE,
        descriptors=sum(process.num_fds() for process in processes),
        threads=sum(process.num_threads() for process in processes),
        connections=int(str(row[0])) if row else 0,
    )
