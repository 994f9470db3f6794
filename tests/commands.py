"""The operator's commands in the test's own process: the same code as in a terminal, without a start-up for each.

And in a real terminal, for what only that shows.
"""

import contextlib
import contextvars
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import flask
from click.testing import Result

from tests import postgres


def run(app: flask.Flask, *arguments: str, stdin: str | bytes | None = None) -> Result:
    """What `flask …` does: its exit status and both its outputs."""
    # In a context of its own, or the command would work on the app whose context the test holds open.
    result = contextvars.Context().run(app.test_cli_runner().invoke, args=list(arguments), input=stdin)
    # click ends every command with SystemExit; anything else would be a traceback in the operator's terminal.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(app: flask.Flask, *arguments: str, stdin: str | bytes | None = None) -> Any:
    """What a command that succeeds says with `--json`."""
    result = run(app, *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


class Terminal:
    """A command that a person looks on at: what it has printed, and what was drawn on standard error."""

    stdout: str
    drawn: str


@contextlib.contextmanager
def terminal(database_url: str, *arguments: str) -> Iterator[Terminal]:
    """Runs `flask …` in a terminal, and waits for its success after what the test does meanwhile."""
    screen, its_other_end = pty.openpty()
    seen: list[bytes] = []

    def look() -> None:
        with contextlib.suppress(OSError):  # Linux says so when the last one who wrote there has gone
            while part := os.read(screen, 10_000):
                seen.append(part)

    watcher = threading.Thread(target=look)
    watcher.start()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", *arguments],
        cwd=postgres.ROOT,
        env=postgres.environment(database_url, TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=its_other_end,
        text=True,
    )
    os.close(its_other_end)
    looked_at = Terminal()
    try:
        yield looked_at
        looked_at.stdout, _ = process.communicate(timeout=120)
    finally:
        process.kill()  # nothing happens where it has ended
        process.wait(timeout=30)
        watcher.join(timeout=30)
        os.close(screen)
    looked_at.drawn = b"".join(seen).decode()
    assert process.returncode == 0, looked_at.drawn
