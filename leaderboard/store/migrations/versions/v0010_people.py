"""Version 10 says who filed a row, for which project, and what people tagged it with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.schema import forbid_changes

revision, down_revision = "0010", "0009"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns, empty of the rows that are there, and the table of the tags."""
    for name in ("user", "project"):
        op.add_column("rows", sa.Column(name, sa.Text, nullable=False, server_default=""))
        op.create_index(f"rows_by_{name}", "rows", [name])
    op.create_table(
        "tags",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("row_id", sa.String(32), nullable=False),
        sa.Column("tag", sa.String(40), nullable=False),
        sa.Column("is_set", sa.Boolean, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_index("tags_by_id", "tags", ["row_id"])
    op.create_index("tags_by_tag", "tags", ["tag"])
    forbid_changes(op.get_bind(), ("tags",))
