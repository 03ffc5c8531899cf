"""Open the leaderboard of a workspace to be read (`open_board`, `open_store`)."""

from __future__ import annotations

import os
from pathlib import Path

from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.migrating import is_older
from tutelage.pipeline.workspace import database


def open_board(workspace: Path) -> Store:
    """Open a workspace's leaderboard, or the team's server, for reading, see `open_store`."""
    return open_store(database(workspace))


def open_store(place: str | Path) -> Store:
    """Open a leaderboard for reading.

    A file of an older version is copied and brought up to date first, where it may be written; a server is not: there
    InputError names the verb that does it.
    """
    file = Path(place)
    if file.is_file() and os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) and is_older(file):
        Store(file).close()
    return Store(place, read_only=True)
