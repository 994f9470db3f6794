"""The operator's commands in the test's own process: the same code as in a terminal, without a start-up for each."""

import contextvars
import json
from typing import Any

import flask
from click.testing import Result


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
