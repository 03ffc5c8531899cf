"""The store of rows, in SQLite or PostgreSQL: append-only, with migrations and imports of other people's results."""

from .importing import import_file
from .rows import Store

__all__ = ["Store", "import_file"]
