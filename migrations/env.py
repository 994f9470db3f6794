"""Runs the migrations on the app's own engine, so that the service goes on while they run.

A statement that waits for a table's lock makes everybody behind it wait too. So it gives up after half a second; then
all of its revision is undone, the others have their turn, and it is tried again: 30 times, or `-x tries=NUMBER`.
"""

import random
import time
from collections.abc import Callable
from logging.config import fileConfig
from typing import Any

import click
from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app import db
from app.models import metadata

LOCK_TIMEOUT = "500ms"
# What holds a lock for longer has no place in a migration while others want to work.
STATEMENT_TIMEOUT = "5s"
TRIES = 30
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 1.5  # seconds between two tries
ADVISORY_LOCK = 20_110_906
TURN = text("SELECT pg_try_advisory_lock(:lock)")
IN_THE_WAY = {"55P03", "40P01"}  # a lock not to be had in time, a deadlock
TOO_LONG = "57014"  # a statement that took too long would do so again

fileConfig(context.config.config_file_name, disable_existing_loggers=False)


class Steps:
    """The revisions to run, found once: on a second try `-1` would mean another one."""

    def __init__(self, find: Callable[[Any, Any], Any]) -> None:
        self.find = find
        self.left: list[Any] | None = None

    def __call__(self, heads: Any, migration: Any) -> list[Any]:
        if self.left is None:
            self.left = list(self.find(heads, migration))
        return list(self.left)

    def tell(self, step: MigrationInfo, **others: object) -> None:
        """One is done."""
        if self.left:
            self.left.pop(0)
        click.echo(
            f"{'Up' if step.is_upgrade else 'Down'}: {step.up_revision.revision} {step.up_revision.doc}", err=True
        )


def wait_for_turn(connection: Connection) -> None:
    """Two upgrades at once: the second waits here until the first is done, and finds nothing to do.

    It asks again and again, for one that waited in the server would be what a concurrent index waits for.
    """
    while not connection.execute(TURN, {"lock": ADVISORY_LOCK}).scalar_one():
        connection.commit()
        time.sleep(0.1)
    connection.commit()


def run(tries: int) -> None:
    for attempt in range(1, tries + 1):
        try:
            with context.begin_transaction():
                context.run_migrations()
            return
        except OperationalError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state not in {*IN_THE_WAY, TOO_LONG}:
                raise
            if attempt == tries or state == TOO_LONG:
                reason = str(error.orig).partition("\n")[0]
                raise click.ClickException(
                    f"Nothing of this revision was kept: {reason}. Try again at a quieter moment."
                ) from None
            time.sleep(random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))


with db.engine().connect() as connection:
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
    connection.commit()
    options: dict[str, Any] = {
        "connection": connection,
        "target_metadata": metadata,
        "compare_type": True,
        "compare_server_default": True,
        "transaction_per_migration": True,
    }
    context.configure(**options)
    steps = Steps(context.get_context().opts["fn"])
    context.configure(**options, fn=steps, on_version_apply=steps.tell)
    wait_for_turn(connection)
    try:
        run(int(context.get_x_argument(as_dictionary=True).get("tries", TRIES)))
    finally:
        # The connection goes, with its lock and its settings: the pool's others must not run without their time-outs.
        connection.invalidate()
