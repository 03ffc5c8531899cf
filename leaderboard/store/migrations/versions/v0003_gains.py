"""Version 3 has the gain over a student without a teacher as columns, filled from the details of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.rewriting import fill
from tutelage.leaderboard.store.schema import held_of

revision, down_revision = "0003", "0002"

_GAINS = tuple(f"gain_{quality}{end}" for quality in ("auc", "accuracy") for end in ("", "_lo", "_hi", "_p"))


def upgrade() -> None:
    """Add the columns; of a row without a gain they stay empty."""
    for name in _GAINS:
        op.add_column("rows", sa.Column(name, sa.Double))
    fill(op.get_bind(), _GAINS, _gains, '"gain_over_twin"')


def _gains(row: Mapping[str, Any]) -> dict[str, float | None]:
    said = held_of(row["details"])
    return {name: said[name] for name in _GAINS}
