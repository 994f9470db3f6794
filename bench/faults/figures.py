"""What the notes of a bad day add up to: one line of the table."""

from collections import Counter
from typing import NamedTuple

from bench.faults.people import ANSWERED, FAILED, HONEST, Books, Notes, Request

SLOW = 1.0  # seconds: full service answers faster
HEAD = (
    "| fault | requests | failed | honest 503 | of the GETs answered | longest wait | acknowledged | lost | doubled"
    " | full service after | /livez | /readyz |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


class Figures(NamedTuple):
    """A fault, and what the people noticed; times in seconds."""

    name: str
    requests: int
    failed: int
    honest: int
    gets_answered: float  # the part of all GETs
    longest: float
    books: Books
    full_service: float
    livez: str
    readyz: str
    unanswered: Counter[str]

    def line(self) -> str:
        """The table's line."""
        cells = [
            self.name,
            f"{self.requests:,}",
            f"{self.failed:,}",
            f"{self.honest:,}",
            f"{self.gets_answered:.2%}",
            f"{self.longest:.2f} s",
            f"{self.books.acknowledged:,}",
            f"{self.books.lost}",
            f"{self.books.doubled}",
            f"{self.full_service:.1f} s",
            self.livez,
            self.readyz,
        ]
        return f"| {' | '.join(cells)} |"

    def details(self) -> str:
        """What was answered instead, and how often."""
        return ", ".join(f"{count} × {what}" for what, count in self.unanswered.most_common()) or "nothing"


def add_up(name: str, notes: Notes, books: Books, healed: float, livez: str, readyz: str) -> Figures:
    """The figures of a fault that was over at `healed`."""
    outcomes = Counter(request.outcome for request in notes.requests)
    gets = [request for request in notes.requests if request.kind == "GET"]
    troubled = [request for request in notes.requests if request.outcome != ANSWERED or request.took > SLOW]
    return Figures(
        name=name,
        requests=len(notes.requests),
        failed=outcomes[FAILED] + notes.went_back,
        honest=outcomes[HONEST],
        gets_answered=sum(request.outcome == ANSWERED for request in gets) / max(1, len(gets)),
        longest=max((request.took for request in notes.requests), default=0.0),
        books=books,
        full_service=max([end(request) - healed for request in troubled] + [0.0]),
        livez=livez,
        readyz=readyz,
        unanswered=Counter(
            f"{request.kind} {request.detail}" for request in notes.requests if request.outcome != ANSWERED
        ),
    )


def end(request: Request) -> float:
    return request.began + request.took
