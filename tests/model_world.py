"""Everybody's inboxes and the events in them, in plain Python: what senders do, from the words of the design."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.model import Inbox, Row

Answer = dict[str, int]


@dataclass
class Sent:
    """An event, and what is kept of where it went. `expires` is a minute."""

    type: str
    title: str
    group: str | None
    expires: int
    received: int = 0
    only: Inbox | None = None
    is_retracted: bool = False
    waiting: list[Inbox] = field(default_factory=list)  # whom a call to everyone that was cut off has not reached


@dataclass
class World:
    """Who is a user, and which events there are."""

    inboxes: dict[str, Inbox] = field(default_factory=dict)
    events: dict[int, Sent] = field(default_factory=dict)

    def make(self, subject: str) -> None:
        self.inboxes.setdefault(subject, Inbox())

    def publish(self, id: int, sent: Sent, recipients: Iterable[str], now: int) -> Answer:
        """An unknown subject becomes a user, one named twice counts once, who muted the type gets nothing."""
        subjects = set(recipients)
        for subject in subjects:
            self.make(subject)
        reached = self._deliver(id, sent, [self.inboxes[subject] for subject in subjects], now)
        sent.only = reached[0] if len(reached) == 1 else None
        return answer(id, len(subjects), len(reached))

    def begin_everyone(self, id: int, sent: Sent) -> None:
        """All who are users now are to have it; nobody has yet."""
        self.events[id] = sent
        sent.waiting = list(self.inboxes.values())

    def finish_everyone(self, id: int, now: int) -> Answer:
        """Those who are still users get it, unless it was taken back meanwhile, or expired and was cleaned up."""
        sent = self.events.get(id)
        if sent is None or sent.is_retracted:
            return answer(id, 0, 0)
        inboxes = [inbox for inbox in sent.waiting if inbox in self.inboxes.values()]
        sent.waiting = []
        return answer(id, len(inboxes), len(self._deliver(id, sent, inboxes, now)))

    def _deliver(self, id: int, sent: Sent, inboxes: list[Inbox], now: int) -> list[Inbox]:
        self.events[id] = sent
        reached = [inbox for inbox in inboxes if not inbox.muted.get(sent.type)]
        for inbox in reached:
            inbox.receive(id, sent.title, sent.group, sent.expires, now)
        sent.received += len(reached)
        return reached

    def retract(self, id: int) -> int | None:
        """From how many inboxes it went; None for an event that is no more. What a group replaced is in none."""
        if id not in self.events:
            return None
        self.events[id].is_retracted = True
        holding = [(inbox, row) for inbox in self.inboxes.values() for row in inbox.rows.values() if row.event == id]
        for inbox, row in holding:
            inbox.remove(row)
        return len(holding)

    def erase(self, subject: str) -> bool:
        """Whether there was such a person. With them go the events that only they received."""
        gone = self.inboxes.pop(subject, None)
        if gone is not None:
            self.events = {number: sent for number, sent in self.events.items() if sent.only is not gone}
        return gone is not None

    def met(self, inbox: Inbox, now: int) -> set[str]:
        """The types that the person may mute."""
        return {self.events[row.event].type for row in inbox.live(now)} | inbox.muted.keys()

    def state(self, id: int, now: int) -> Answer | None:
        if id not in self.events:
            return None
        held = [row for row in self._rows() if row.event == id and now < row.expires]
        seen, read = ([row for row in held if getattr(row, mark) is not None] for mark in ("seen_at", "read_at"))
        return {
            "event_id": id,
            "received": self.events[id].received,
            "held": len(held),
            "seen": len(seen),
            "read": len(read),
        }

    def clean_up(self, now: int) -> None:
        for inbox in self.inboxes.values():
            inbox.forget_expired(now)
        held = {row.event for row in self._rows()}
        self.events = {number: sent for number, sent in self.events.items() if now < sent.expires or number in held}

    def _rows(self) -> list[Row]:
        return [row for inbox in self.inboxes.values() for row in inbox.rows.values()]


def answer(id: int, recipients: int, created: int) -> Answer:
    return {"event_id": id, "recipients": recipients, "created": created, "muted": recipients - created}
