"""The tables, their constraints, and their indexes with the function that each serves. No queries here.

An inbox is a numbered log: `users.inbox_version` is the number of its latest change, and a notification's id is
the number of the change that put it there (docs/decisions.md).
"""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

Moment = DateTime(timezone=True)
OPEN = "read_at IS NULL AND archived_at IS NULL"


def _created_at() -> Column[datetime]:
    return Column("created_at", Moment, nullable=False, server_default=text("now()"))


# Every change of an inbox updates its user's row, so half of each page is kept free for HOT updates (96 % measured).
users = Table(
    "users",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # The host's own name for the person, compared byte for byte whatever the database's collation is.
    Column("subject", Text(collation="C"), nullable=False),
    Column("display_name", Text),
    Column("password_hash", Text),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    # Raise it and every session of the user is dead.
    Column("session_epoch", Integer, nullable=False, server_default=text("0")),
    Column("inbox_version", BigInteger, nullable=False, server_default=text("0")),
    _created_at(),
    UniqueConstraint("subject"),  # people.find_for_sign_in, publishing.find_or_make_users
    postgresql_with={"fillfactor": 50, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_threshold": 1000},
)

# What happened, once: a fan-out to many people writes narrow rows in notifications and this text a single time.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body_text", Text, nullable=False),
    Column("body_html", Text, nullable=False),
    Column("url", Text),
    Column("actor_name", Text),
    Column("actor_url", Text),
    Column("actor_image", Text),
    Column("data", JSONB, nullable=False),
    Column("priority", Text, nullable=False),
    Column("group_key", Text),
    # How many inboxes received it; counted at publishing, for rows move on with their group, expire and are erased.
    Column("received", Integer, nullable=False),
    # The recipient where there is but one, so that erasing the person finds the text too.
    Column("only_user_id", BigInteger),
    _created_at(),
    Column("expires_at", Moment, nullable=False),
    # Who sent it; null: the command line.
    Column("api_key_id", BigInteger, ForeignKey("api_keys.id")),
    # For "everyone": the last user it was delivered to, and the last there was when it was published.
    Column("fanned_out_to", BigInteger),
    Column("fan_out_until", BigInteger),
    Column("retracted_at", Moment),
    # Marked first, so that it is out of sight while its notifications are still being taken away.
    Column("is_retracting", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("priority IN ('low', 'normal', 'high')", name="priority"),
    Index(None, "expires_at"),  # retention.DELETE
    Index(None, "only_user_id", postgresql_where=text("only_user_id IS NOT NULL")),  # personal_data.erase
    # publishing.find_cut_off: all but empty
    Index("events_fanning_out", "id", postgresql_where=text("fanned_out_to < fan_out_until")),
    Index("events_retracting", "id", postgresql_where=text("is_retracting")),  # unread.IN_SIGHT; all but empty
)

# Marking read changes a partial index, so it cannot be a HOT update; marking seen is one on 100 % with this fillfactor.
notifications = Table(
    "notifications",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("id", BigInteger, nullable=False),
    # No CASCADE: a row that vanishes with its event would be a change without a number.
    Column("event_id", BigInteger, ForeignKey("events.id"), nullable=False),
    Column("group_key", Text),
    Column("group_count", Integer, nullable=False, server_default=text("1")),
    Column("seen_at", Moment),
    Column("read_at", Moment),
    Column("archived_at", Moment),
    Column("expires_at", Moment, nullable=False),
    PrimaryKeyConstraint("user_id", "id"),  # inbox.list_notifications, inbox.find_notification
    # inbox.unread_snapshot, unread.count
    Index("notifications_unread", "user_id", text("id DESC"), postgresql_where=text(OPEN)),
    # inbox.list_notifications of what is archived
    Index("notifications_archived", "user_id", text("id DESC"), postgresql_where=text("archived_at IS NOT NULL")),
    # publishing.deliver: a second unread notification joins the group instead of standing beside it
    Index(
        "notifications_open_group",
        "user_id",
        "group_key",
        unique=True,
        postgresql_where=text(f"{OPEN} AND group_key IS NOT NULL"),
    ),
    Index(None, "expires_at"),  # retention.DELETE
    Index(None, "event_id"),  # retracting.find_all, events.state; retention.DELETE: whether anybody has the event still
    postgresql_with={
        "fillfactor": 80,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_insert_scale_factor": 0.05,
    },
)

# What a bulk action changed and what was there before; its token is the number of the action.
undos = Table(
    "undos",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("verb", Text, nullable=False),
    Column("ids", ARRAY(BigInteger), nullable=False),
    Column("was", ARRAY(Moment), nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("user_id", "version"),  # marking.undo
    Index(None, "at"),  # retention.DELETE
)

# Sessions that signed out before their time; a replayed cookie finds itself here.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("session_id", Text, primary_key=True),  # people.MAY_READ
    Column("until", Moment, nullable=False),
    Index(None, "until"),  # retention.DELETE
)

# One-use sign-in links; only the digest of what stands in the link is kept.
tickets = Table(
    "tickets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # tickets.find_ticket, tickets.spend_ticket
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("return_to", Text),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
    Index(None, "expires_at"),  # retention.DELETE
    Index(None, "user_id"),  # personal_data.erase
)

# A sender's keys: `digest` is of the secret part, which is kept nowhere.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _created_at(),
    Column("last_used_at", Moment),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    UniqueConstraint("prefix"),  # keys.find
)

# What a user does not want to hear of. A type without a row is not muted.
preferences = Table(
    "preferences",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("muted", Boolean, nullable=False),
    PrimaryKeyConstraint("user_id", "type"),  # publishing.deliver, preferences.list_preferences
)

# What a sender's retried call is answered with again; written in the transaction that publishes.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # 0 is the command line, which has no key of its own.
    Column("api_key_id", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", JSONB, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("api_key_id", "key"),  # idempotency.claim
    Index(None, "created_at"),  # retention.DELETE
)

# Counters shared by all workers. Unlogged: a crash of the server empties it, and every count begins anew.
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("key", Text, primary_key=True),  # counters.PostgresStorage
    Column("count", Integer, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index(None, "expires_at"),  # retention.DELETE
    prefixes=["UNLOGGED"],
    postgresql_with={"fillfactor": 50},
)

# What the clean-up has done so far, a row for each of its chores: how many rows it took care of in all, and when it
# last came to the chore's end.
chores = Table(
    "chores",
    metadata,
    Column("name", Text, primary_key=True),  # retention.note
    Column("rows", BigInteger, nullable=False, server_default=text("0")),
    Column("done_at", Moment),
)
