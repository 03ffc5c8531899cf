"""Version 8 keeps the hash of what a row is compared by: rows are parted, and their peers found, by one column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.rewriting import add_columns, fill
from tutelage.records import content_id

revision, down_revision = "0008", "0007"

# The key as it was in this version: a later one may be made of columns that are not there yet.
_KEY = (
    *("dataset", "manifest", "split", "fold", "image_size", "device", "processor", "runtime", "runtime_version"),
    *("threads", "batch", "precision", "power_state", "source"),
)


def upgrade() -> None:
    """Add the column with its index and fill it."""
    add_columns([sa.Column("comparable", sa.String(32), nullable=False, server_default="")])
    fill(
        op.get_bind(), ("comparable",), lambda row: {"comparable": content_id([row[name] for name in _KEY])}, reads=_KEY
    )
    op.create_index("rows_by_comparable", "rows", ["comparable"])
