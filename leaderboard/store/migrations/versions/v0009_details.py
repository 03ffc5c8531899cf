"""Version 9 moves the details into a table of their own and keeps by what tables sort a group.

A pass over a million rows then reads none of the long texts. The bounds of the latency become columns, which fronts by
intervals need of every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.rewriting import changeable, fill, rebuilt
from tutelage.leaderboard.store.schema import forbid_changes, held_of

revision, down_revision = "0009", "0008"

_BOUNDS = ("latency_p50_ms_lo", "latency_p50_ms_hi")
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Move the details, add the columns, fill them from what rows say, and index the order of a group."""
    bind = op.get_bind()
    for name in (*_BOUNDS, "rank_key"):
        op.add_column("rows", sa.Column(name, sa.Double))
    fill(bind, _BOUNDS, _bounds, '"latency_p50_ms_')
    with changeable(bind, "rows"):
        op.execute("UPDATE rows SET rank_key = -coalesce(auc, accuracy)")
    op.drop_index("rows_by_comparable", "rows")
    # Set aside first: SQLite copies the table of the rows to drop a column, and nothing may refer to it then.
    op.execute("CREATE TABLE moved AS SELECT number, details AS body FROM rows WHERE details <> '{}'")
    if bind.dialect.name == "postgresql":
        op.drop_column("rows", "details")
    else:
        with rebuilt(bind) as batch:
            batch.drop_column("details")
    op.create_table(
        "details",
        sa.Column("number", _NUMBER, sa.ForeignKey("rows.number"), primary_key=True, autoincrement=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.execute("INSERT INTO details SELECT number, body FROM moved")
    op.drop_table("moved")
    op.create_index("rows_by_rank", "rows", ["comparable", "rank_key", "number"])
    op.create_index("rows_by_front", "rows", ["comparable", "auc", "accuracy", "latency_p50_ms", "size_bytes"])
    op.create_index("rows_by_state", "rows", ["state"])
    forbid_changes(bind, ("details",))


def _bounds(row: Mapping[str, Any]) -> dict[str, float | None]:
    said = held_of(row["details"])
    return {name: said[name] for name in _BOUNDS}
