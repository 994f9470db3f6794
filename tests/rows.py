"""SQL for tests: to look at what is in the tables, and to let time pass there, for only the database's clock counts."""

from typing import Any

from sqlalchemy import Connection, text

from app import changes, db


def one(query: str, **parameters: Any) -> Any:
    """The one value that a query finds."""
    return db.read(lambda connection: connection.execute(text(query), parameters).scalar_one())


def column(query: str, **parameters: Any) -> list[Any]:
    """All values of a query's first column."""
    return db.read(lambda connection: list(connection.execute(text(query), parameters).scalars()))


def count(table: str) -> int:
    found: int = one(f"SELECT count(*) FROM {table}")
    return found


def change(statement: str, **parameters: Any) -> int:
    """How many rows a statement changed; who changes rows by hand tells the workers so."""

    def change(connection: Connection) -> int:
        changes.forget(connection, changes.EVERYBODY)
        return connection.execute(text(statement), parameters).rowcount

    return db.write(change)
