"""A day at the door, played in seconds: bells as static/js/poller.js has them, and a worker that steers them.

`python -m bench.simulation` plays 50,000 bells on a machine that can serve half of them, and outages.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from app.steering import Steering

TICK = 0.05  # seconds
TIME_OUT = 10.0  # of a bell
JITTER = 0.1
SHORTEST_WAIT = 1.0
LONGEST_BACK_OFF = 300.0
RETRY_AFTER = 2.0  # what a 503 says

HERD = 10_000
OUTAGES = (10, 30, 60, 300)  # seconds


@dataclass
class Minute:
    """What the bells of one minute saw."""

    waits: list[float] = field(default_factory=list)
    failed: int = 0
    interval: int = 0

    @property
    def p99(self) -> float:
        """Seconds to the answer; one that came too late for its bell counts as long as the bell waited."""
        every = sorted(self.waits + [TIME_OUT] * self.failed)
        return every[int(len(every) * 0.99)] if every else 0.0


@dataclass
class Played:
    """What happened: by the minute, and how many polls each second brought."""

    minutes: list[Minute]
    polls: list[int]


class Bells:
    """Every bell's next poll, as poller.js sets it: jittered after an answer, backed off after a failure."""

    def __init__(self, number: int, interval: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.intervals = [interval] * number
        self.failures = [0] * number
        self.due: defaultdict[int, list[int]] = defaultdict(list)
        for bell in range(number):
            self.due[int(self.random.random() * interval / TICK)].append(bell)

    def answered(self, bell: int, asked: float, now: float, interval: float) -> None:
        self.failures[bell] = 0
        self.intervals[bell] = interval
        rhythm = interval * (1 + JITTER * (2 * self.random.random() - 1))
        self._arm(bell, now, max(rhythm - (now - asked), 0.0))

    def failed(self, bell: int, now: float, retry_after: float = 0) -> None:
        interval = self.intervals[bell]
        ceiling = max(LONGEST_BACK_OFF, interval)
        back_off = min(interval * 2 ** self.failures[bell], ceiling) * self.random.random()
        self.failures[bell] += 1
        patience = retry_after * (1 + JITTER * self.random.random())
        self._arm(bell, now, max(back_off, patience, SHORTEST_WAIT))

    def _arm(self, bell: int, now: float, wait: float) -> None:
        self.due[int((now + wait) / TICK) + 1].append(bell)


def play(
    bells: int,
    polls_a_second: float,
    minutes: int,
    base: int = 30,
    outage: range = range(0),
    seed: int = 1,
    retry_after: float = 0,
) -> Played:
    """Plays so many minutes of a machine that answers so many polls a second.

    In the seconds of `outage` nobody is answered, or everybody is told to come back after so many seconds.
    """
    clock = {"now": 0.0, "used": 0.0}
    steering = Steering(base, clock=lambda: clock["now"], used=lambda: clock["used"])
    everybody = Bells(bells, base, seed)
    queue: deque[tuple[int, float]] = deque()
    patience: deque[tuple[int, float]] = deque()  # the same polls, until their bells give up
    answered: set[tuple[int, float]] = set()
    played = Played([Minute() for _ in range(minutes)], [0] * (minutes * 60))
    room = 0.0
    for tick in range(int(minutes * 60 / TICK)):
        now = clock["now"] = tick * TICK
        minute = played.minutes[int(now / 60)]
        while patience and patience[0][1] + TIME_OUT <= now:
            if (poll := patience.popleft()) in answered:
                answered.discard(poll)
            else:
                minute.failed += 1
                everybody.failed(poll[0], now)
        arriving = everybody.due.pop(tick, [])
        played.polls[int(now)] += len(arriving)
        if int(now) in outage:
            minute.failed += len(arriving)
            for bell in arriving:
                everybody.failed(bell, now, retry_after)
            continue
        polls = [(bell, now) for bell in arriving]
        queue.extend(polls)
        patience.extend(polls)
        room += polls_a_second * TICK
        while queue and room >= 1:
            room -= 1
            clock["used"] += 1 / polls_a_second
            bell, asked = poll = queue.popleft()
            steering.note(now - asked)
            minute.interval = steering.interval()
            # Whoever has gone is answered all the same, into the void: the server learns of it too late.
            if now - asked < TIME_OUT:
                minute.waits.append(now - asked)
                answered.add(poll)
                everybody.answered(bell, asked, now, minute.interval)
        if not queue:
            room = min(room, 1.0)
    return played


def herd_table() -> str:
    """How 10,000 bells come back after an outage, on a machine that could serve twice as many."""
    steady = HERD / 30
    lines = [
        f"| {HERD:,} bells at 30 s, {steady:.0f} polls a second, after an outage of | polls of the busiest second, "
        "where nobody answered | times steady | where every poll was answered 503 | times steady |",
        "|---|---|---|---|---|",
    ]
    for seconds in OUTAGES:
        cells = [f"{seconds} s"]
        for retry_after in (0.0, RETRY_AFTER):
            busiest = arrival_after(HERD, seconds, retry_after)
            cells += [f"{busiest:,}", f"{busiest / steady:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arrival_after(bells: int, outage: int, retry_after: float) -> int:
    """The polls of the busiest second after an outage of so many seconds."""
    begin = 120
    end = begin + outage
    minutes = (end + 600) // 60
    polls = play(bells, bells / 30 * 2, minutes, outage=range(begin, end), retry_after=retry_after).polls
    return max(polls[end:])


def main() -> None:
    overload = play(50_000, 50_000 / 30 / 2, minutes=20)
    print("50,000 bells at 30 s on a machine that can serve half of them:")
    for number, minute in enumerate(overload.minutes, start=1):
        print(f"  minute {number:2}: p99 {minute.p99:5.2f} s, failed {minute.failed:6,}, interval {minute.interval} s")
    steady = 50_000 / 30
    after = play(50_000, steady * 2, minutes=20, outage=range(300, 600)).polls
    print(f"\n{herd_table()}\n")
    print(f"An outage from minute 5 to 10, {steady:,.0f} polls a second before it; the busiest second of each minute:")
    print("  " + " ".join(f"{max(after[start : start + 60]):,}" for start in range(0, len(after), 60)))


if __name__ == "__main__":
    main()
