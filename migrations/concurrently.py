"""Indexes made and dropped while the service goes on: nobody who reads or writes the table waits.

Only at the beginning of a revision: what stands here is done at once, the rest in one transaction that may be tried
again, and then finds the indexes there. A making that was cut off leaves an index that is not valid; the next one
begins anew. With so many rows that it takes long, it takes long: there is no deadline, for nobody is kept waiting.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text

IS_HALF_MADE = text("""
    SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relname = :name AND relnamespace = current_schema()::regnamespace AND NOT indisvalid
""")
SETTINGS = ("lock_timeout", "statement_timeout")
SHOW, SET = text("SELECT current_setting(:name)"), text("SELECT set_config(:name, :value, false)")


def make_index(name: str, on: str) -> None:
    """CREATE INDEX `name` ON `on`, unless it is there."""
    with without_deadlines() as connection:
        if connection.execute(IS_HALF_MADE, {"name": name}).scalar_one():
            op.execute(f"DROP INDEX CONCURRENTLY {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")


def drop_index(name: str) -> None:
    """DROP INDEX `name`, if it is there."""
    with without_deadlines():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


@contextmanager
def without_deadlines() -> Iterator[Connection]:
    """The connection outside of any transaction. It waits for old transactions to end, and nobody waits for it."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        before = {name: connection.execute(SHOW, {"name": name}).scalar_one() for name in SETTINGS}
        for name in SETTINGS:
            connection.execute(SET, {"name": name, "value": "0"})
        try:
            yield connection
        finally:
            for name, value in before.items():
                connection.execute(SET, {"name": name, "value": value})
