"""What inboxes are, in plain Python: what the service must agree with, whatever happens in whatever order.

Written from the words of the design, not from the SQL. Time is a whole number of minutes; a moment at which something
was marked is the number of the change that marked it, since both are given once in an inbox.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

UNDO_MINUTES = 10

COLUMNS = {
    "read": "read_at",
    "unread": "read_at",
    "archive": "archived_at",
    "unarchive": "archived_at",
    "seen": "seen_at",
}
SETS = {"read", "archive", "seen"}


@dataclass
class Row:
    """One notification. `expires` is a minute; the three moments are numbers of changes."""

    id: int
    event: int
    title: str
    group: str | None
    count: int
    expires: int
    seen_at: int | None = None
    read_at: int | None = None
    archived_at: int | None = None

    @property
    def is_open(self) -> bool:
        return self.read_at is None and self.archived_at is None


@dataclass
class Undo:
    """What a bulk action changed, and what was there before."""

    verb: str
    was: dict[int, int | None]
    minute: int


@dataclass(eq=False)
class Inbox:
    """One user's numbered log. Equal only to itself: who is erased and comes back is another user."""

    version: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    undos: dict[int, Undo] = field(default_factory=dict)
    muted: dict[str, bool] = field(default_factory=dict)  # every type that was ever muted, and whether it is now

    def live(self, now: int, belongs: Callable[[Row], bool] = lambda row: True) -> list[Row]:
        """What somebody can see, newest first."""
        rows = sorted(self.rows.values(), key=lambda row: row.id, reverse=True)
        return [row for row in rows if now < row.expires and belongs(row)]

    def list(self, now: int, state: str) -> list[Row]:
        return self.live(now, STATES[state])

    def counts(self, now: int) -> dict[str, int]:
        unread = self.list(now, "unread")
        unseen = [row for row in unread if row.seen_at is None]
        return {"unread_count": min(len(unread), 100), "unseen_count": min(len(unseen), 100)}

    def visible(self, now: int) -> tuple[object, ...]:
        """Everything that a poll shows: equal before and after exactly if nothing visible changed."""
        return self.version, tuple(replace(row) for row in self.list(now, "unread")), *self.counts(now).values()

    def receive(self, event: int, title: str, group: str | None, expires: int, now: int) -> None:
        self.version += 1
        count = 1
        for earlier in list(self.rows.values()):
            if group is not None and earlier.group == group and earlier.is_open:
                del self.rows[earlier.id]
                count = earlier.count + 1 if now < earlier.expires else 1
        self.rows[self.version] = Row(self.version, event, title, group, count, expires)

    def remove(self, row: Row) -> None:
        self.version += 1
        del self.rows[row.id]

    def mark(self, verb: str, chosen: Callable[[Row], bool], now: int) -> dict[int, int | None]:
        """Changes the chosen rows that the verb has something to do for; gives back what they held."""
        rows = [row for row in self.live(now, chosen) if applies(verb, row)]
        was: dict[int, int | None] = {row.id: getattr(row, COLUMNS[verb]) for row in rows}
        self._set(COLUMNS[verb], {row.id: self.version + 1 if verb in SETS else None for row in rows})
        return was

    def mark_many(self, verb: str, chosen: Callable[[Row], bool], now: int) -> dict[int, int | None]:
        """As `mark`, and it can be undone by the number of the change."""
        was = self.mark(verb, chosen, now)
        if was:
            self.undos[self.version] = Undo(verb, was, now)
        return was

    def undo(self, token: int, now: int) -> int | None:
        """How many rows it put back; None for an action that is unknown or too old."""
        undo = self.undos.get(token)
        if undo is None or now >= undo.minute + UNDO_MINUTES:
            return None
        column = COLUMNS[undo.verb]
        left = token if undo.verb in SETS else None
        back = {
            row.id: undo.was[row.id] for row in self.live(now) if row.id in undo.was and getattr(row, column) == left
        }
        undo.was = {}
        self._set(column, back)
        return len(back)

    def forget_expired(self, now: int) -> None:
        self.rows = {row.id: row for row in self.live(now)}
        self.undos = {token: undo for token, undo in self.undos.items() if now < undo.minute + UNDO_MINUTES}

    def _set(self, column: str, values: dict[int, int | None]) -> None:
        if not values:
            return
        self.version += 1
        taken = {row.group for row in self.rows.values() if row.is_open}
        for number in sorted(values, reverse=True):
            row = self.rows[number]
            opens = not row.is_open
            setattr(row, column, values[number])
            if opens and row.is_open and row.group is not None:
                # A group has one open row, expired ones included: who comes back to a taken place stands alone.
                if row.group in taken:
                    row.group = None
                else:
                    taken.add(row.group)


STATES: dict[str, Callable[[Row], bool]] = {
    "all": lambda row: row.archived_at is None,
    "unread": lambda row: row.is_open,
    "read": lambda row: row.read_at is not None and row.archived_at is None,
    "archived": lambda row: row.archived_at is not None,
}


def applies(verb: str, row: Row) -> bool:
    """Whether the verb would change the row."""
    if verb == "seen":
        return row.is_open and row.seen_at is None
    return (getattr(row, COLUMNS[verb]) is None) == (verb in SETS)


def among(ids: Iterable[int]) -> Callable[[Row], bool]:
    wanted = set(ids)
    return lambda row: row.id in wanted


def listed_through(version: int) -> Callable[[Row], bool]:
    """What a list showed at that version: what is archived was not in it."""
    return lambda row: row.id <= version and row.archived_at is None
