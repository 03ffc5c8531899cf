"""Version 7 calls the student without a teacher `control`; before it was `twin`."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0007", "0006"


def upgrade() -> None:
    """Rename the column, which moves no data."""
    op.execute("ALTER TABLE rows RENAME COLUMN twin TO control")
