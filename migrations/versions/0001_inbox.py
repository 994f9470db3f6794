"""The tables of the polling service: people, events, numbered inboxes, and what their upkeep needs.

The indexes' reasons are in app/models.py; a test holds that models and migrations make the same schema.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATE = """
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT users_pkey PRIMARY KEY,
    subject text COLLATE "C" NOT NULL CONSTRAINT users_subject_key UNIQUE,
    display_name text,
    password_hash text,
    is_active boolean NOT NULL DEFAULT true,
    session_epoch integer NOT NULL DEFAULT 0,
    inbox_version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT events_pkey PRIMARY KEY,
    type text NOT NULL,
    title text NOT NULL,
    body_text text NOT NULL,
    body_html text NOT NULL,
    url text,
    actor_name text,
    actor_url text,
    actor_image text,
    data jsonb NOT NULL,
    priority text NOT NULL CONSTRAINT events_priority_check CHECK (priority IN ('low', 'normal', 'high')),
    group_key text,
    received integer NOT NULL,
    only_user_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX events_expires_at ON events (expires_at);

CREATE TABLE notifications (
    user_id bigint NOT NULL CONSTRAINT notifications_user_id_fkey REFERENCES users,
    id bigint NOT NULL,
    event_id bigint NOT NULL CONSTRAINT notifications_event_id_fkey REFERENCES events,
    group_key text,
    group_count integer NOT NULL DEFAULT 1,
    seen_at timestamptz,
    read_at timestamptz,
    archived_at timestamptz,
    expires_at timestamptz NOT NULL,
    CONSTRAINT notifications_pkey PRIMARY KEY (user_id, id)
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05
);
CREATE INDEX notifications_unread ON notifications (user_id, id DESC) WHERE read_at IS NULL AND archived_at IS NULL;
CREATE INDEX notifications_archived ON notifications (user_id, id DESC) WHERE archived_at IS NOT NULL;
CREATE UNIQUE INDEX notifications_open_group ON notifications (user_id, group_key)
    WHERE read_at IS NULL AND archived_at IS NULL AND group_key IS NOT NULL;
CREATE INDEX notifications_expires_at ON notifications (expires_at);
CREATE INDEX notifications_event_id ON notifications (event_id);

CREATE TABLE undos (
    user_id bigint NOT NULL CONSTRAINT undos_user_id_fkey REFERENCES users,
    version bigint NOT NULL,
    verb text NOT NULL,
    ids bigint[] NOT NULL,
    was timestamptz[] NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT undos_pkey PRIMARY KEY (user_id, version)
);
CREATE INDEX undos_at ON undos (at);

CREATE TABLE ended_sessions (
    session_id text CONSTRAINT ended_sessions_pkey PRIMARY KEY,
    until timestamptz NOT NULL
);
CREATE INDEX ended_sessions_until ON ended_sessions (until);

CREATE TABLE tickets (
    digest bytea CONSTRAINT tickets_pkey PRIMARY KEY,
    user_id bigint NOT NULL CONSTRAINT tickets_user_id_fkey REFERENCES users,
    return_to text,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX tickets_expires_at ON tickets (expires_at);

CREATE TABLE idempotency_keys (
    api_key_id bigint NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    status integer NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (api_key_id, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE UNLOGGED TABLE rate_limits (
    key text CONSTRAINT rate_limits_pkey PRIMARY KEY,
    count integer NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX rate_limits_expires_at ON rate_limits (expires_at);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE rate_limits, idempotency_keys, tickets, ended_sessions, undos, notifications, events, users")
