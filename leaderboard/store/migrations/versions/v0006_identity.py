"""Version 6 says of which data and device a row is, what supersedes it by id, and which rows are retracted.

What older rows do not say stays empty, and such rows are comparable with those that lack the same. Their `identity` is
NULL: no row that is there is superseded by this revision. Ids stay as they are.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.details import facts_said
from tutelage.leaderboard.store.rewriting import add_columns, fill
from tutelage.leaderboard.store.schema import forbid_changes

revision, down_revision = "0006", "0005"

_TEXTS = ("manifest", "runtime_version", "processor", "precision", "power_state")
_COUNTS = ("fold", "image_size")
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns, fill them with what details and measurements say, and make the two tables."""
    bind = op.get_bind()
    new: list[sa.Column[Any]] = [
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in _TEXTS),
        *(sa.Column(name, sa.BigInteger) for name in _COUNTS),
        sa.Column("identity", sa.String(32)),
    ]
    add_columns(new)
    fill(bind, (*_TEXTS[:-1], *_COUNTS), lambda row: facts_said(row["details"], row["body"]))
    op.create_index("rows_by_identity", "rows", ["identity"])
    pairs = bind.execute(sa.text("SELECT s.number, r.row_id FROM superseded s JOIN rows r ON r.number = s.number"))
    superseded = [{"number": number, "by_id": row_id} for number, row_id in pairs]
    op.drop_table("superseded")
    table = op.create_table(
        "superseded",
        sa.Column("number", _NUMBER, sa.ForeignKey("rows.number"), primary_key=True, autoincrement=False),
        sa.Column("by_id", sa.String(32), primary_key=True),
    )
    op.bulk_insert(table, superseded)
    op.create_table(
        "retractions",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("row_id", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_index("retractions_by_id", "retractions", ["row_id"])
    forbid_changes(bind, ("superseded", "retractions"))
