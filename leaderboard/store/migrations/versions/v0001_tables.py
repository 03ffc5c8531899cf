"""The tables of version 1, as they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

_TEXTS = ("model", "role", "teacher", "scheme", "dataset", "split", "device", "runtime")
_FIGURES = ("auc", "auc_lo", "auc_hi", "accuracy", "accuracy_lo", "accuracy_hi")
_TIMES = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")


def upgrade() -> None:
    """Make the record of versions, measurements and rows; each row is named once."""
    op.create_table(
        "schema_version",
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("applied", sa.String(32), nullable=False),
    )
    op.create_table(
        "measurements",
        sa.Column("id", sa.String(32), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("device", "runtime", "body")),
    )
    op.create_table(
        "rows",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("row_id", sa.String(32), nullable=False, unique=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS),
        *(sa.Column(name, sa.BigInteger) for name in ("batch", "threads")),
        *(sa.Column(name, sa.Double) for name in _FIGURES),
        *(sa.Column(name, sa.BigInteger) for name in ("params", "macs", "size_bytes")),
        *(sa.Column(name, sa.Double) for name in _TIMES),
        sa.Column("peak_rss_bytes", sa.BigInteger),
        sa.Column("energy_mj", sa.Double),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("arch", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("recipe", "source")),
        sa.Column("measurement", sa.String(32), sa.ForeignKey("measurements.id")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("twin", "parent", "details")),
    )
