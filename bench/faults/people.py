"""The people of a bad day: readers who poll, and senders who repeat a call until it is acknowledged."""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from bench import data
from bench.faults.wire import Address, Answer, Unanswered, Wire

POLL = "/notifications/unread"
RECIPIENTS = 2  # of each event
PAUSE = 0.3  # seconds at most until a sender repeats what was not acknowledged

ANSWERED, HONEST, FAILED = "answered", "honest 503", "failed"


class Request(NamedTuple):
    """One request as whoever made it saw it; times in seconds, by the monotonic clock."""

    kind: str  # "GET" or "POST"
    began: float
    took: float
    outcome: str
    detail: str


@dataclass
class Notes:
    """Everything that was asked and answered, and what was acknowledged: the titles, each with who has it to have."""

    requests: list[Request] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    went_back: int = 0  # snapshots that were older than what the same reader had seen before

    async def ask(
        self, wire: Wire, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> Answer | None:
        """The answer if it is what was asked for; everything is noted."""
        began = time.monotonic()
        try:
            answer: Answer | None = await wire.ask(method, path, headers, body)
            outcome, detail = judge(answer)
        except Unanswered as error:
            answer, outcome, detail = None, FAILED, str(error)
        self.requests.append(Request(method, began, time.monotonic() - began, outcome, detail))
        return answer if outcome == ANSWERED else None


def judge(answer: Answer | None) -> tuple[str, str]:
    """What an answer is worth to who gets it: a 503 is honest if it is a problem and says when to come back."""
    if answer is None:
        return FAILED, "no answer"
    if answer.status in (200, 201, 304):
        return ANSWERED, str(answer.status)
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    if answer.status == 503 and is_problem and answer.headers.get("retry-after", "").isdecimal():
        return HONEST, str(json.loads(answer.body)["detail"])
    return FAILED, f"{answer.status} {answer.headers.get('content-type', '')}".strip()


class Reader:
    """Somebody whose bell polls, and who knows at the end what is in the inbox."""

    def __init__(self, address: Address, subject: str, cookie: str) -> None:
        self.address, self.subject = address, subject
        self.headers = {"Cookie": cookie, "User-Agent": data.USER_AGENT}
        self.tag, self.version = "", 0

    async def poll(self, notes: Notes, interval: float, over: asyncio.Event) -> None:
        """Polls every `interval` seconds, a tenth more or less, until it is over."""
        await rest(over, random.uniform(0, interval))
        async with Wire(self.address) as wire:
            while not over.is_set():
                began = time.monotonic()
                await self.poll_once(notes, wire)
                await rest(over, interval * random.uniform(0.9, 1.1) - (time.monotonic() - began))

    async def poll_once(self, notes: Notes, wire: Wire) -> None:
        tagged = {**self.headers, "If-None-Match": self.tag} if self.tag else self.headers
        answer = await notes.ask(wire, "GET", POLL, tagged)
        if answer is not None and answer.status == 200:
            version = json.loads(answer.body)["version"]
            notes.went_back += version < self.version
            self.tag, self.version = answer.headers["etag"], version

    async def titles(self) -> Counter[str]:
        """Everything in the inbox, from the API; and the bell has heard of all of it."""
        found: Counter[str] = Counter()
        path = "/notifications?limit=100"
        async with Wire(self.address) as wire:
            while path:
                page = json.loads((await self._ask(wire, path, self.headers)).body)
                found.update(notification["title"] for notification in page["notifications"])
                path = page["next"]
            answer = await self._ask(wire, POLL, {**self.headers, "If-None-Match": self.tag})
            if answer.status == 200:
                self.version = json.loads(answer.body)["version"]
        if self.version != found.total():  # nothing but arrivals has changed this inbox
            raise AssertionError(f"{self.subject}: {found.total()} notifications, but the bell is at {self.version}")
        return found

    async def _ask(self, wire: Wire, path: str, headers: dict[str, str]) -> Answer:
        answer = await wire.ask("GET", path, headers)
        if judge(answer)[0] != ANSWERED:
            raise AssertionError(f"{path}: {answer.status} {answer.body!r} once all is well again")
        return answer


class Sender:
    """A host's back end: each call has a key, and is repeated with it until it is acknowledged."""

    def __init__(self, address: Address, key: str, subjects: list[str]) -> None:
        self.address, self.subjects = address, subjects
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    async def send(self, notes: Notes, interval: float, over: asyncio.Event) -> None:
        """Publishes every `interval` seconds until it is over; what was begun is repeated until it is done."""
        await rest(over, random.uniform(0, interval))
        async with Wire(self.address) as wire:
            while not over.is_set():
                began = time.monotonic()
                await self._publish(notes, wire)
                await rest(over, interval * random.uniform(0.9, 1.1) - (time.monotonic() - began))

    async def _publish(self, notes: Notes, wire: Wire) -> None:
        title, recipients = secrets.token_hex(8), random.sample(self.subjects, RECIPIENTS)
        event = {"type": "comment", "title": title, "recipients": recipients}
        headers = {**self.headers, "Idempotency-Key": title}
        while await notes.ask(wire, "POST", "/api/v1/events", headers, json.dumps(event).encode()) is None:
            await asyncio.sleep(random.uniform(0, PAUSE))
        notes.acknowledged[title] = recipients


class Books(NamedTuple):
    """What the inboxes hold beside what was acknowledged."""

    acknowledged: int
    lost: int
    doubled: int


async def balance(notes: Notes, readers: list[Reader]) -> Books:
    """Looks into every inbox: each acknowledged event is to be there once, for each of its people."""
    lost = doubled = 0
    for reader in readers:
        held = await reader.titles()
        doubled += sum(count - 1 for count in held.values())
        lost += sum(reader.subject in people and title not in held for title, people in notes.acknowledged.items())
    return Books(len(notes.acknowledged), lost, doubled)


async def rest(over: asyncio.Event, seconds: float) -> None:
    """Waits so long, or until it is over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), max(seconds, 0))
