"""Version 8 keeps the hash of what a row is compared by: rows are parted, and their peers found, by one column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.rewriting import add_columns, fill
from tutelage.records import COMPARABLE, comparable_id

revision, down_revision = "0008", "0007"


def upgrade() -> None:
    """Add the column with its index and fill it."""
    add_columns([sa.Column("comparable", sa.String(32), nullable=False, server_default="")])
    fill(op.get_bind(), ("comparable",), lambda row: {"comparable": comparable_id(row)}, reads=COMPARABLE)
    op.create_index("rows_by_comparable", "rows", ["comparable"])
