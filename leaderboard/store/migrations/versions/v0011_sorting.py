"""Version 11 indexes what tables are sorted by, and what the usual filters test beside the figures of a front."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0011", "0010"

_FRONT = ("comparable", "auc", "accuracy", "latency_p50_ms", "size_bytes")
_BESIDE = ("auc", "accuracy", "size_bytes")
_SORTED = {"auc": "auc", "accuracy": "accuracy", "size": "size_bytes", "params": "params", "macs": "macs"}


def upgrade() -> None:
    """Replace the index of fronts by one that holds role and scheme, and add those of the figures."""
    op.drop_index("rows_by_front", "rows")
    op.create_index("rows_by_front", "rows", [*_FRONT, "role", "scheme"])
    op.create_index("rows_by_group_latency", "rows", ["comparable", "latency_p50_ms", *_BESIDE])
    for short, name in _SORTED.items():
        op.create_index(f"rows_by_{short}", "rows", [name])
