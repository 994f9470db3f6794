"""One fault from beginning to end: load, the fault in the middle of it, peace again, and the books."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.faults.faults import Fault
from bench.faults.figures import SLOW, Figures, add_up, end
from bench.faults.people import ANSWERED, Notes, Reader, Sender, balance, rest
from bench.faults.stage import Stage
from bench.faults.wire import Address, Unanswered, Wire, run

QUIET = 2.0  # seconds of load before the fault
PEACE = 3.0  # seconds without trouble after which it is over
LONGEST = 40.0  # seconds after the fault until nobody waits for peace any more
MOST_CHANGES = 5  # of a page's status that are told one by one
LOOK = 0.1  # seconds between two looks at /livez and /readyz


@dataclass(frozen=True)
class Load:
    """How many there are, and after how many seconds each comes again."""

    readers: int = 40
    poll: float = 0.5
    senders: int = 4
    send: float = 0.25


USUAL = Load()


def measure(stage: Stage, fault: Fault, load: Load = USUAL, quiet: float = QUIET, peace: float = PEACE) -> Figures:
    """The figures of one fault."""
    readers = stage.readers(load.readers)
    senders = stage.senders(load.senders, readers)
    return run(_measure(stage, fault, load, readers, senders, quiet, peace))


async def _measure(
    stage: Stage,
    fault: Fault,
    load: Load,
    readers: Sequence[Reader],
    senders: Sequence[Sender],
    quiet: float,
    peace: float,
) -> Figures:
    notes, livez, readyz = Notes(), Seen("/livez"), Seen("/readyz")
    async with under_load(notes, load, readers, senders), looked_at(stage.own, livez, readyz):
        await asyncio.sleep(quiet)
        await asyncio.to_thread(fault.happen, stage, fault.seconds)
        healed = time.monotonic()
        await at_peace(notes, healed, peace)
    books = await balance(notes, list(readers))
    return add_up(fault.name, notes, books, healed, livez.text(), readyz.text())


@asynccontextmanager
async def under_load(
    notes: Notes, load: Load, readers: Sequence[Reader], senders: Sequence[Sender]
) -> AsyncIterator[None]:
    """Everybody at work meanwhile. What a sender has begun is completed before this comes back."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.poll(notes, load.poll, over))
        for sender in senders:
            group.create_task(sender.send(notes, load.send, over))
        try:
            yield
        finally:
            over.set()


async def at_peace(notes: Notes, since: float, peace: float) -> None:
    """Waits until so many seconds have gone by without trouble."""
    deadline = since + LONGEST
    last = since
    seen = 0
    while time.monotonic() < min(last + peace, deadline):
        await asyncio.sleep(LOOK)
        for request in notes.requests[seen:]:
            if request.outcome != ANSWERED or request.took > SLOW:
                last = max(last, end(request))
        seen = len(notes.requests)


class Seen:
    """What one of the service's own pages answered, each change of it once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.statuses: list[str] = []

    async def look(self, address: Address, over: asyncio.Event) -> None:
        async with Wire(address) as wire:
            while not over.is_set():
                try:
                    status = str((await wire.ask("GET", self.path, {})).status)
                except Unanswered:
                    status = "none"
                if self.statuses[-1:] != [status]:
                    self.statuses.append(status)
                await rest(over, LOOK)

    def text(self) -> str:
        if len(self.statuses) <= MOST_CHANGES:
            return ", ".join(self.statuses)
        return f"{' and '.join(dict.fromkeys(self.statuses))}, {len(self.statuses) - 1} changes"


@asynccontextmanager
async def looked_at(address: Address, *pages: Seen) -> AsyncIterator[None]:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for page in pages:
            group.create_task(page.look(address, over))
        try:
            yield
        finally:
            over.set()
