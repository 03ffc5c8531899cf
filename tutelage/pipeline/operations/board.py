"""Open the leaderboard of a workspace to be read (`open_board`)."""

from __future__ import annotations

import os
from pathlib import Path

from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.migrating import is_older
from tutelage.pipeline.workspace import database


def open_board(workspace: Path) -> Store:
    """Open a workspace's leaderboard, or the team's server, for reading.

    A file of an older version is copied and brought up to date first, where it may be written; a server is not: there
    InputError names the verb that does it.
    """
    place = database(workspace)
    file = Path(place)
    if file.is_file() and os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) and is_older(file):
        Store(file).close()
    return Store(place, read_only=True)
