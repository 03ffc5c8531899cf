"""Version 5 has the margin of equivalence of a gain as a column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.rewriting import fill
from tutelage.leaderboard.store.schema import held_of

revision, down_revision = "0005", "0004"


def upgrade() -> None:
    """Add the column and fill it from the details."""
    op.add_column("rows", sa.Column("gain_margin", sa.Double))
    fill(
        op.get_bind(),
        ("gain_margin",),
        lambda row: {"gain_margin": held_of(row["details"])["gain_margin"]},
        '"gain_over_twin"',
    )
