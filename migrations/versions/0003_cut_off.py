"""What finds the publications to everyone that were cut off, for the clean-up to complete them."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX events_fanning_out ON events (id) WHERE fanned_out_to < fan_out_until")


def downgrade() -> None:
    op.execute("DROP INDEX events_fanning_out")
