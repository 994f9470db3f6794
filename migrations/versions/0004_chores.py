"""What the clean-up has done, for whoever watches it: it runs in a process of its own, which then is gone."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE chores (
            name text CONSTRAINT chores_pkey PRIMARY KEY,
            rows bigint NOT NULL DEFAULT 0,
            done_at timestamptz
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE chores")
