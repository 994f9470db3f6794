"""What finds the retractions and the publications to everyone that were cut off, for the clean-up to complete them."""

from migrations.concurrently import drop_index, make_index

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEXES = {
    "events_retracting": "events (id) WHERE is_retracting",
    "events_fanning_out": "events (id) WHERE fanned_out_to < fan_out_until",
}


def upgrade() -> None:
    for name, on in INDEXES.items():
        make_index(name, on)


def downgrade() -> None:
    for name in INDEXES:
        drop_index(name)
