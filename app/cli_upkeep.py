"""`flask stats`, `flask doctor`, and `flask db` for the migrations. Thin, as app/cli.py."""

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import flask
from sqlalchemy.exc import SQLAlchemyError

from app import checkup, checkup_server, checkup_way_in, db, retention, settings
from app import stats as figures
from app.console import Outcome, says
from app.embedded import EmbeddedUnavailable
from app.findings import Finding, broken


def init_app(app: flask.Flask) -> None:
    for command in (stats, doctor):
        app.cli.add_command(command)
    if click.get_current_context(silent=True):
        # Alembic costs a quarter of a second and 11 MB: commands pay for it, workers do not.
        from flask_migrate import Migrate

        Migrate(app, db, directory=str(migrations(app)))


def migrations(app: flask.Flask) -> Path:
    return Path(app.root_path).parent / "migrations"


@click.command()
@says
def stats() -> Outcome:
    """Say how much of everything there is, how old, and which keys are in use. Reads every row."""
    rows = db.read(figures.about)
    if rows > figures.MANY_ROWS and sys.stderr.isatty():
        click.echo(f"Counting some {rows:,} rows, which takes a while …", err=True)
    found = db.write(figures.stats)
    lines = [f"{name.replace('_', ' '):22}{_shown(value):>24}" for name, value in found.items() if name != "senders"]
    lines += [f"key {key['prefix']:18}{_used(key):>24}  {key['name']}" for key in found["senders"]]
    return found, "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return "none" if value is None else f"{value:,}"


def _used(key: dict[str, Any]) -> str:
    return key["state"] if key["state"] != "good" else f"used {_shown(key['last_used_at'])}"


@click.command()
@click.option("--no-network", is_flag=True, help="Do not come in through PUBLIC_URL.")
@says
def doctor(no_network: bool) -> Outcome:
    """Say what is wrong with this installation and what to do; status 1 if something is broken."""
    findings = [*_look_at_this_machine(), *_ask_the_database()]
    if not no_network:
        findings += checkup_way_in.check_way_in(settings.current(), flask.current_app.config["SECRET_KEY"])
    lines = [f"{f.verdict:7} {f.subject}: {f.detail}" + (f" -> {f.advice}" if f.advice else "") for f in findings]
    status = int(any(finding.verdict == "broken" for finding in findings))
    return [finding._asdict() for finding in findings], "\n".join(lines), status


def _look_at_this_machine() -> Iterator[Finding]:
    app = flask.current_app
    root = Path(app.root_path).parent
    yield from checkup.check_settings(settings.current())
    yield from checkup.check_secrets(settings.current(), Path(app.instance_path))
    yield checkup.check_limit_store(settings.current())
    yield from checkup.check_files(settings.files(), [root / "static", root / "templates"])


def _ask_the_database() -> Iterator[Finding]:
    chosen = settings.current()
    try:
        encoding = db.read(checkup_server.check_encoding)
        yield encoding
        if encoding.verdict != "ok":
            return
        yield from db.read(lambda connection: list(checkup_server.check_server(connection)))
        yield from db.read(lambda connection: list(checkup_server.check_server_settings(connection)))
        yield db.read(checkup_server.check_room, chosen)
        yield checkup_server.check_pooler()
        yield checkup_server.check_notices()
        yield db.read(checkup_server.check_epoch, chosen)
        yield db.read(checkup_server.check_transactions)
        migrations = db.read(lambda connection: list(checkup_server.check_migrations(connection, *_revisions())))
        yield from migrations
        if migrations[0].verdict == "ok":  # without its tables there is nothing to ask
            yield db.read(checkup_server.check_clean_up, db.read(retention.progress).done_at)
    except (SQLAlchemyError, EmbeddedUnavailable) as error:
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        advice = "is it running, and does DATABASE_URL name it? A pooler must pass start-up options on"
        yield broken("PostgreSQL", f"does not answer: {reason}", advice)


def _revisions() -> tuple[str | None, set[str]]:
    """The revision that this release wants, and all that it knows."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations(flask.current_app)))
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
