"""`flask serve`, which is `make run`: the database, its tables, something to look at, and gunicorn, until Ctrl-C."""

import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import flask
from flask.cli import with_appcontext

from app import db, demo, settings, stats, tickets
from app.console import explained

LINK_SECONDS = 600


def init_app(app: flask.Flask) -> None:
    app.cli.add_command(serve)


@click.command()
@with_appcontext
def serve() -> None:
    """Run the service for trying out: start what is missing, migrate, serve until Ctrl-C."""
    chosen = settings.current()
    _refuse_taken_port(chosen.port)
    explained(_prepare)
    gunicorn = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--log-level", "warning", "wsgi:app"],
        cwd=Path(flask.current_app.root_path).parent,
        env=settings.environment(
            BIND="127.0.0.1",
            DATABASE_URL=db.engine().url.render_as_string(hide_password=False),
            SECRET_KEY=flask.current_app.config["SECRET_KEY"],
        ),
    )
    # Ctrl-C reaches gunicorn by itself; this process stays until it is down, and then lets go of the database.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):  # stopped by another process, or the terminal was closed
        signal.signal(number, lambda *_: gunicorn.terminate())
    try:
        if _wait_until_it_listens(gunicorn, chosen.port):
            click.echo(explained(_greeting))
        status = gunicorn.wait()
    finally:
        gunicorn.terminate()
        gunicorn.wait()
    if status not in (0, -signal.SIGINT, -signal.SIGTERM):
        raise click.ClickException(f"gunicorn ended with status {status}; its reason is above.")


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise click.ClickException(f"port {port} is taken. Choose another one: make run PORT={port + 1}") from None


def _prepare() -> None:
    from flask_migrate import upgrade  # imported late, as in app/cli_upkeep.py

    upgrade()
    if not db.read(stats.list_users, 1, 0):
        db.write(demo.fill)


def _wait_until_it_listens(gunicorn: subprocess.Popen[bytes], port: int) -> bool:
    while gunicorn.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def _greeting() -> str:
    url = settings.current().own_url
    lines = [f"Belfry is running:   {url}"]
    subject = db.read(stats.find_somebody)
    if subject is not None:
        ticket = db.write(tickets.make_ticket, subject, LINK_SECONDS)
        to = shlex.quote(subject)
        lines += [
            f"Sign in as {subject}:      {url}/tickets/{ticket}   (once, within {LINK_SECONDS // 60} minutes)",
            f'Ring the bell:       .venv/bin/flask send {to} --type comment --title "Hello from the command line"',
        ]
    return "\n".join(["", *lines, "Stop it:             Ctrl-C", ""])
