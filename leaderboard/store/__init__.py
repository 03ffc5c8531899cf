"""The store of rows, in SQLite or PostgreSQL: append-only, with migrations and imports of other people's results.

`Store` and `import_file` are imported when they are first asked for: filters read the schema, and the store filters.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .importing import import_file
    from .rows import Store

__all__ = ["Store", "import_file"]


def __getattr__(name: str) -> Any:
    """Import what the package offers by name."""
    from importlib import import_module

    places = {"Store": "rows", "import_file": "importing"}
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{places[name]}"), name)
