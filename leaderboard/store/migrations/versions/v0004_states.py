"""Version 4 keeps several states of a row under one id and says beside them which are superseded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tutelage.leaderboard.store.schema import forbid_changes

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Let an id stand in several rows. SQLite drops no constraint: the table is copied, and its triggers made anew."""
    bind = op.get_bind()
    op.add_column("rows", sa.Column("state", sa.String(16)))
    if bind.dialect.name == "postgresql":
        for unique in sa.inspect(bind).get_unique_constraints("rows"):
            op.drop_constraint(str(unique["name"]), "rows")
    else:
        there = sa.Table("rows", sa.MetaData(), autoload_with=bind)
        for constraint in [one for one in there.constraints if isinstance(one, sa.UniqueConstraint)]:
            there.constraints.remove(constraint)
        with op.batch_alter_table("rows", recreate="always", copy_from=there):
            pass
    op.create_index("rows_by_id", "rows", ["row_id"])
    op.create_table(
        "superseded",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("rows.number"),
                  primary_key=True),
    )  # fmt: skip
    forbid_changes(bind, ("rows", "superseded"))
