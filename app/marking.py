"""What a reader does: mark read and unread, seen, archive and unarchive, and undo what was done to many at once.

Each change locks the user's row first, by a statement of its own, then changes rows and raises the number in the next
one, whose snapshot is therefore younger than the lock; then it counts, in a third. So the order of numbers is the
order of commits, no row is changed unseen, and no count is stale. All of it is one transaction of `db.write`.
"""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

from app import changes, people, unread
from app.errors import FieldError, Problem, not_found
from app.people import Reader

BULK = 10_000  # the most rows that one call changes; the caller repeats
UNDO_FOR = "interval '10 minutes'"

# What has to be null besides the cleared column for a row to be open (unread and not archived) again.
OPEN_WITH = {"read_at": "n.archived_at IS NULL", "archived_at": "n.read_at IS NULL", "seen_at": "false"}


@dataclass(frozen=True)
class Verb:
    """One thing a reader can do: set `column` to the time, or clear it, on the rows of which `applies` is true."""

    name: str
    column: str
    sets: bool
    applies: str


VERBS = {
    verb.name: verb
    for verb in [
        Verb("read", "read_at", True, "n.read_at IS NULL"),
        Verb("unread", "read_at", False, "n.read_at IS NOT NULL"),
        Verb("archive", "archived_at", True, "n.archived_at IS NULL"),
        Verb("unarchive", "archived_at", False, "n.archived_at IS NOT NULL"),
        # Unseen is a word about unread rows: marking seen what was read already would be a change that nobody sees.
        Verb("seen", "seen_at", True, f"n.seen_at IS NULL AND {unread.OPEN}"),
    ]
}


def _changing(column: str, *, opens: bool, chosen: str, also: str = "") -> TextClause:
    """The one statement that changes rows, and raises the number only if it changed one.

    `chosen` finds rows with what they hold (`was`) and what they get (`becomes`). A row that is opened again keeps its
    group only where no open row stands for that group yet, an expired one included, and of several that come back
    together only the newest does; every other one stands alone from then on.
    """
    keeps_group = f"""CASE WHEN {OPEN_WITH[column]} AND (
                row_number() OVER (PARTITION BY n.group_key, {OPEN_WITH[column]} ORDER BY n.id DESC) > 1
                OR EXISTS (
                    SELECT FROM notifications AS other WHERE other.user_id = :user_id
                    AND other.group_key = n.group_key AND other.read_at IS NULL AND other.archived_at IS NULL
                )) THEN NULL ELSE n.group_key END"""
    return text(f"""
        WITH {chosen}, keyed AS (
            SELECT n.id, n.was, n.becomes, {keeps_group if opens else "n.group_key"} AS group_key FROM chosen AS n
        ), changed AS (
            UPDATE notifications AS n SET {column} = keyed.becomes, group_key = keyed.group_key
            FROM keyed
            WHERE n.user_id = :user_id AND n.id = ANY(ARRAY(SELECT id FROM keyed)) AND n.id = keyed.id
                AND n.{column} IS NOT DISTINCT FROM keyed.was
            RETURNING n.id, keyed.was
        ){also}
        UPDATE users SET inbox_version = :number WHERE id = :user_id AND EXISTS (SELECT FROM changed)
        RETURNING (SELECT count(*) FROM changed) AS changed
    """)


HELD = "n.id, n.group_key, n.read_at, n.archived_at"


def _marking(verb: Verb, which: str, also: str = "") -> TextClause:
    becomes = f"CAST({'now()' if verb.sets else 'NULL'} AS timestamptz)"
    chosen = f"""chosen AS (
            SELECT {HELD}, n.{verb.column} AS was, {becomes} AS becomes
            FROM notifications AS n
            WHERE n.user_id = :user_id AND {which} AND {verb.applies} AND now() < n.expires_at AND {unread.IN_SIGHT}
            ORDER BY n.id DESC LIMIT {BULK}
        )"""
    return _changing(verb.column, opens=not verb.sets, chosen=chosen, also=also)


def _undoing(verb: Verb) -> TextClause:
    still = f"n.{verb.column} = undone.at" if verb.sets else f"n.{verb.column} IS NULL"
    chosen = f"""undone AS (
            SELECT undos.at, item.id, item.was FROM undos, unnest(undos.ids, undos.was) AS item (id, was)
            WHERE undos.user_id = :user_id AND undos.version = :undo
        ), chosen AS (
            SELECT {HELD}, n.{verb.column} AS was, undone.was AS becomes
            FROM notifications AS n JOIN undone ON undone.id = n.id
            WHERE n.user_id = :user_id AND n.id = ANY(ARRAY(SELECT id FROM undone)) AND {still} AND now() < n.expires_at
                AND {unread.IN_SIGHT}
        )"""
    # Emptied, not deleted: the same undo again is known and changes nothing.
    also = """, spent AS (
            UPDATE undos SET ids = '{}', was = '{}' WHERE user_id = :user_id AND version = :undo
        )"""
    return _changing(verb.column, opens=verb.sets, chosen=chosen, also=also)


KEEP_FOR_UNDO = """, kept AS (
            INSERT INTO undos (user_id, version, verb, ids, was, at)
            SELECT :user_id, :number, :verb, array_agg(id), array_agg(was), now() FROM changed HAVING count(*) > 0
        )"""
BY_IDS = "n.id = ANY(:ids)"
LISTED_THROUGH = "n.id <= :through AND n.archived_at IS NULL"

MARK_ONE = {verb.name: _marking(verb, "n.id = :id") for verb in VERBS.values()}
MARK_IDS = {verb.name: _marking(verb, BY_IDS, KEEP_FOR_UNDO) for verb in VERBS.values()}
MARK_THROUGH = {verb.name: _marking(verb, LISTED_THROUGH, KEEP_FOR_UNDO) for verb in VERBS.values()}
UNDO = {verb.name: _undoing(verb) for verb in VERBS.values()}

EXISTS = text(f"""
    SELECT FROM notifications AS n
    WHERE n.user_id = :user_id AND n.id = :id AND now() < n.expires_at AND {unread.IN_SIGHT}
""")


def mark_one(connection: Connection, reader: Reader, verb: str, id: int) -> dict[str, int]:
    """Does `verb` to one notification; repeated, it changes nothing and the first time stays.

    404 for unknown, expired and foreign ids, and for one that has moved on with its group. Index: notifications_pkey.
    """
    number = people.lock_reader(connection, reader) + 1
    parameters = {"user_id": reader.user_id, "number": number, "id": id}
    changed = _count_changed(connection, MARK_ONE[verb], parameters)
    if not changed and connection.execute(EXISTS, parameters).one_or_none() is None:
        raise not_found()
    return {**unread.count(connection, reader), "changed": changed}


def mark_ids(connection: Connection, reader: Reader, verb: str, ids: Sequence[int]) -> dict[str, int]:
    """Does `verb` to these notifications, passing over ids that are unknown. Index: notifications_pkey."""
    number = people.lock_reader(connection, reader) + 1
    return _mark_many(connection, reader, number, verb, MARK_IDS[verb], {"ids": list(ids)})


def mark_through(connection: Connection, reader: Reader, verb: str, through: int) -> dict[str, int]:
    """Does `verb` to what is listed up to the version `through`: nothing that its reader has not been shown.

    422 for a version that the inbox has not reached. The newest 10,000 rows at most: the caller repeats while
    `changed` is that many. Indexes: notifications_unread for read and seen, else notifications_pkey.
    """
    version = people.lock_reader(connection, reader)
    if through > version:
        problem = FieldError("through", f"must not be above the inbox's version, which is {version}")
        raise Problem(422, "The inbox has not reached that version.", [problem])
    return _mark_many(connection, reader, version + 1, verb, MARK_THROUGH[verb], {"through": through})


FIND_UNDO = text(f"""
    SELECT verb FROM undos WHERE user_id = :user_id AND version = :undo AND now() < at + {UNDO_FOR}
""")


def undo(connection: Connection, reader: Reader, token: int) -> dict[str, int]:
    """Puts back the rows that still are as that bulk action left them; a second time it changes nothing.

    404 for an action that is unknown, somebody else's, or older than 10 minutes. Index: undos_pkey.
    """
    number = people.lock_reader(connection, reader) + 1
    parameters = {"user_id": reader.user_id, "number": number, "undo": token}
    verb = connection.execute(FIND_UNDO, parameters).scalar_one_or_none()
    if verb is None:
        raise not_found()
    changed = _count_changed(connection, UNDO[verb], parameters)
    return {**unread.count(connection, reader), "changed": changed}


def _mark_many(
    connection: Connection, reader: Reader, number: int, verb: str, statement: TextClause, which: dict[str, Any]
) -> dict[str, int]:
    parameters = {"user_id": reader.user_id, "number": number, "verb": verb, **which}
    changed = _count_changed(connection, statement, parameters)
    # Versions begin at 1, so 0 names no action: where nothing changed there is nothing to undo.
    return {**unread.count(connection, reader), "changed": changed, "undo": number if changed else 0}


def _count_changed(connection: Connection, statement: TextClause, parameters: dict[str, Any]) -> int:
    changed: int = connection.execute(statement, parameters).scalar_one_or_none() or 0
    if changed:
        changes.tell(connection, {parameters["user_id"]: parameters["number"]})
    return changed
