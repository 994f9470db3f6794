"""The crash loop: every few seconds something random is killed with -9, and what supervises it starts it at once."""

import random
import sys
import time
from collections import Counter

from bench.faults.faults import Fault, kill_a_worker, kill_postgres, restart_redis
from bench.faults.run import Load
from bench.faults.stage import Stage

EVERY = 5.0  # seconds
# 200 requests a second: 180 polls and 20 publications.
LOAD = Load(readers=90, poll=0.5, senders=5, send=0.25)
VICTIMS = {"worker": kill_a_worker, "PostgreSQL": kill_postgres, "Redis": restart_redis}


def crash_loop(seconds: float) -> Fault:
    """A fault that goes on for so long."""
    return Fault(f"something killed -9 every 5 s, for {seconds / 60:.1f} minutes", _kill_again_and_again, seconds)


def _kill_again_and_again(stage: Stage, seconds: float) -> None:
    started = time.monotonic()
    killed: Counter[str] = Counter()
    for number in range(int(seconds / EVERY)):
        time.sleep(max(0.0, started + number * EVERY - time.monotonic()))
        victim = random.choice(list(VICTIMS))
        VICTIMS[victim](stage, 0)
        killed[victim] += 1
    print(f"killed: {dict(killed)}", file=sys.stderr, flush=True)
