"""Runs pytest in this folder again and again, each time in a fork of a process that has loaded what loads slowly.

`python -m tests.forked` reads a list of arguments a line, as JSON, and answers with a line: pytest's exit status, or
null where it did not end in time, and what it said. Nothing of the service or of the tests is loaded before a fork.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

SECONDS = 120
# None of them may be a plugin of pytest: those are to be loaded by it.
SLOW = [
    "alembic.command",
    "flask_limiter",
    "flask_login",
    "gunicorn.app.wsgiapp",
    "jwt",
    "playwright.sync_api",
    "psutil",
    "psycopg",
    "pydantic",
    "redis",
    "sqlalchemy.dialects.postgresql.psycopg",
    "werkzeug.test",
]
# Plugins that are installed take a second to load, and the order of the tests is as they stand.
OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers"]


def main() -> None:
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in SLOW:
        importlib.import_module(name)
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as said:
            status = _forked([*OPTIONS, *json.loads(line)], said.fileno(), pytest.main)
            said.seek(0)
            answer = json.dumps([status, said.read()])
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _forked(arguments: list[str], said: int, run_pytest: Callable[[list[str]], int]) -> int | None:
    """The exit status of pytest; None where it had to be stopped, with whatever it had started."""
    child = os.fork()
    if not child:
        status = 3  # pytest's own for an error in itself
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(said, 1)
            os.dup2(said, 2)
            status = int(run_pytest(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    has_ended = True

    def stop(*_: object) -> None:
        nonlocal has_ended
        has_ended = False
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        signal.alarm(0)
    return os.waitstatus_to_exitcode(status) if has_ended else None


if __name__ == "__main__":
    main()
