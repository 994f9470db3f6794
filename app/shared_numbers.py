"""The files in which the workers share what they count, so that whichever is asked answers for all.

gunicorn.conf.py makes the folder before prometheus_client is imported, which then keeps a file for each process in it.
"""

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.mmap_dict import MmapedDict


class Folder:
    """The folder of one service."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def gather(self) -> bytes:
        """The numbers of all workers, in Prometheus' text format."""
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(self.path))  # type: ignore[no-untyped-call]
        with self._turn(fcntl.LOCK_SH):
            return generate_latest(registry)

    def bury(self, pid: int) -> None:
        """Adds what a dead worker has counted to what others before it had, and forgets what was so with it."""
        multiprocess.mark_process_dead(pid, str(self.path))  # type: ignore[no-untyped-call]
        with contextlib.suppress(BlockingIOError), self._turn(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for kind in ("counter", "histogram"):
                own, others, both = (self.path / f"{kind}_{name}" for name in (f"{pid}.db", "buried.db", "draft"))
                if own.exists():
                    _add_up([file for file in (own, others) if file.exists()], both)
                    both.replace(others)
                    own.unlink()

    @contextlib.contextmanager
    def _turn(self, how: int) -> Iterator[None]:
        """Scrapes read beside each other, and never while the numbers of a dead worker are in two files at once.

        gunicorn's arbiter waits for nobody: if it has no turn, the files stay where they are, and are read there.
        """
        with (self.path / "turns").open("a") as file:
            fcntl.flock(file, how)
            yield


def _add_up(files: list[Path], into: Path) -> None:
    sums: Counter[str] = Counter()
    for file in files:
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            sums[key] += value
    into.unlink(missing_ok=True)
    made = MmapedDict(str(into))  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        made.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    made.close()  # type: ignore[no-untyped-call]
