"""`flask key …`: senders' API keys. Thin: each command calls one function and says what came of it."""

import click
import flask
from flask.cli import AppGroup

from app import db, keys
from app.console import Outcome, checked_name, says


def init_app(app: flask.Flask) -> None:
    app.cli.add_command(key)


key = AppGroup("key", help="API keys for senders.")


@key.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(keys.SCOPES), help="What it may do. [default: all]")
@click.option("--expires-in", "days", type=click.IntRange(1, 3650), metavar="DAYS", help="[default: never]")
@says
def key_create(name: str, scopes: tuple[str, ...], days: int | None) -> Outcome:
    """Make a key for a sender and show it, once."""
    name = checked_name(name)
    made = db.write(keys.make, name, list(scopes or keys.SCOPES), days)
    return {"name": name, "key": made, "scopes": scopes or keys.SCOPES}, made


@key.command("list")
@says
def key_list() -> Outcome:
    """List the keys; what is shown cannot be used to call."""
    found = db.read(keys.list_all)
    lines = [f"{row['prefix']}  {row['name']}  {','.join(row['scopes'])}  {row['state']}" for row in found]
    return found, "\n".join(lines) or "There are no keys."


@key.command("revoke")
@click.argument("prefix")
@says
def key_revoke(prefix: str) -> Outcome:
    """End a key at once; PREFIX is the part between the underscores."""
    db.write(keys.revoke, prefix)
    return {"prefix": prefix}, f"The key {prefix} is revoked."
