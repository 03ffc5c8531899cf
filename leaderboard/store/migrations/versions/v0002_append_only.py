"""Version 2 forbids UPDATE and DELETE and indexes what filters read."""

from __future__ import annotations

from alembic import op

from tutelage.leaderboard.store.schema import forbid_changes

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the indexes and the triggers; version 1 had none."""
    op.create_index("rows_by_dataset_device", "rows", ["dataset", "device"])
    op.create_index("rows_by_model", "rows", ["model"])
    op.create_index("rows_by_latency", "rows", ["latency_p50_ms"])
    forbid_changes(op.get_bind(), ("rows", "measurements"))
