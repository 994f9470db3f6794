"""Runs the migrations on the app's own engine, with time-outs that keep a waiting migration from stopping the service.

A statement that waits for a table's lock makes everybody behind it wait too. So it gives up after four seconds, and the
migration, which is one transaction, can be tried again.
"""

from logging.config import fileConfig

import click
from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import db
from app.models import metadata

# Two upgrades at once: the second waits here until the first is done, and finds nothing to do.
ADVISORY_LOCK = 20_110_906
TIMED_OUT = {"55P03", "57014"}  # a lock not to be had in time, a statement that took too long

fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def tell(step: MigrationInfo, **others: object) -> None:
    click.echo(f"{'Up' if step.is_upgrade else 'Down'}: {step.up_revision.revision} {step.up_revision.doc}", err=True)


with db.engine().connect() as connection:
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '60s'"))
    connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        on_version_apply=tell,
    )
    try:
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            context.run_migrations()
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) not in TIMED_OUT:
            raise
        reason = str(error.orig).partition("\n")[0]
        raise click.ClickException(f"Nothing was changed: {reason}. Try again at a quieter moment.") from None
    # The connection goes with its settings, for its pool's others must not run without their own time-outs.
    connection.invalidate()
