"""What senders need: keys, preferences, and on events who sent them and how far a fan-out or a retraction has come."""

from alembic import op

from migrations.concurrently import make_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CREATE = """
CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT api_keys_pkey PRIMARY KEY,
    name text NOT NULL,
    prefix text NOT NULL CONSTRAINT api_keys_prefix_key UNIQUE,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE preferences (
    user_id bigint NOT NULL CONSTRAINT preferences_user_id_fkey REFERENCES users,
    type text NOT NULL,
    muted boolean NOT NULL,
    CONSTRAINT preferences_pkey PRIMARY KEY (user_id, type)
);

ALTER TABLE events
    ADD COLUMN api_key_id bigint CONSTRAINT events_api_key_id_fkey REFERENCES api_keys,
    ADD COLUMN fanned_out_to bigint,
    ADD COLUMN fan_out_until bigint,
    ADD COLUMN retracted_at timestamptz,
    ADD COLUMN is_retracting boolean NOT NULL DEFAULT false;
"""

DROP = """
DROP INDEX events_only_user_id, tickets_user_id;
ALTER TABLE events
    DROP COLUMN api_key_id,
    DROP COLUMN fanned_out_to,
    DROP COLUMN fan_out_until,
    DROP COLUMN retracted_at,
    DROP COLUMN is_retracting;
DROP TABLE preferences, api_keys;
"""


def upgrade() -> None:
    make_index("events_only_user_id", "events (only_user_id) WHERE only_user_id IS NOT NULL")
    make_index("tickets_user_id", "tickets (user_id)")
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
