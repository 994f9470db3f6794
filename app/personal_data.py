"""A person's data, as the law has it: all of it handed out, or all of it gone."""

from typing import Any

from sqlalchemy import Connection, text

from app.errors import Problem

LOCK = text("SELECT id FROM users WHERE subject = :subject FOR UPDATE")
# An inbox may hold a million notifications: half a second to erase, seconds to export.
PATIENCE = text("SET LOCAL statement_timeout = '60s'")
ERASE = [
    PATIENCE,
    text("DELETE FROM notifications WHERE user_id = :user_id"),
    text("DELETE FROM undos WHERE user_id = :user_id"),
    text("DELETE FROM tickets WHERE user_id = :user_id"),
    text("DELETE FROM preferences WHERE user_id = :user_id"),
    # Texts that went to nobody else. No notification has them any more, so nobody waits for these rows.
    text("DELETE FROM events WHERE only_user_id = :user_id"),
    text("DELETE FROM users WHERE id = :user_id"),
]


def erase(connection: Connection, subject: str) -> None:
    """Deletes the person with everything that is theirs alone, in one transaction; 404 for nobody.

    Indexes: the keys that begin with the user, tickets_user_id, events_only_user_id.
    """
    user_id = connection.execute(LOCK, {"subject": subject}).scalar_one_or_none()
    if user_id is None:
        raise _nobody(subject)
    for statement in ERASE:
        connection.execute(statement, {"user_id": user_id})


# All of one moment, whatever is erased or published meanwhile.
ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
USER = text("""
    SELECT id, subject, display_name, password_hash IS NOT NULL AS has_password, is_active, inbox_version, created_at
    FROM users WHERE subject = :subject
""")
NOTIFICATIONS = text("""
    SELECT n.id, n.group_count, n.seen_at, n.read_at, n.archived_at, n.expires_at, e.type, e.title, e.body_text,
        e.body_html, e.url, e.actor_name, e.actor_url, e.actor_image, e.data, e.priority, e.group_key, e.created_at
    FROM notifications AS n JOIN events AS e ON e.id = n.event_id WHERE n.user_id = :user_id ORDER BY n.id
""")
OTHERS = {
    "preferences": text("SELECT type, muted FROM preferences WHERE user_id = :user_id ORDER BY type"),
    "sign_in_links": text("SELECT return_to, expires_at, used_at FROM tickets WHERE user_id = :user_id"),
    "undos": text("SELECT version, verb, ids, was, at FROM undos WHERE user_id = :user_id ORDER BY version"),
    # Events that a group moved on from, or that expired: no notification shows them, but they went to this person only.
    "former_events": text("""
        SELECT type, title, body_text, body_html, url, actor_name, actor_url, actor_image, data, priority, group_key,
            created_at, expires_at, retracted_at FROM events
        WHERE only_user_id = :user_id AND NOT EXISTS (SELECT FROM notifications WHERE event_id = events.id)
        ORDER BY id
    """),
}


def export(connection: Connection, subject: str) -> dict[str, Any]:
    """Everything that is held about the person; 404 for nobody. On a connection of `write`."""
    connection.execute(ONE_MOMENT)
    connection.execute(PATIENCE)
    user = connection.execute(USER, {"subject": subject}).one_or_none()
    if user is None:
        raise _nobody(subject)
    content: dict[str, Any] = {name: value for name, value in user._mapping.items() if name != "id"}
    for name, statement in {"notifications": NOTIFICATIONS, **OTHERS}.items():
        content[name] = [dict(row._mapping) for row in connection.execute(statement, {"user_id": user.id})]
    return content


def _nobody(subject: str) -> Problem:
    return Problem(404, f"There is no such user: {subject}.")
