"""Open a leaderboard to be read (`open_board`, `open_store`) or written (`open_for_run`, `bring_up_to_date`)."""

from __future__ import annotations

from pathlib import Path

from tutelage.leaderboard.store import Store
from tutelage.pipeline.workspace import database


def open_board(workspace: Path) -> Store:
    """Open a workspace's leaderboard, or the team's server, for reading, see `open_store`."""
    return open_store(database(workspace))


def open_store(place: str | Path) -> Store:
    """Open a leaderboard for reading, and change nothing: InputError for an older one names the verb to run."""
    return Store(place, read_only=True)


def open_for_run(place: str | Path) -> Store:
    """Open the leaderboard that a run files its rows in: one's own is brought up to date, a team's server is not."""
    return Store(place) if "://" in str(place) else bring_up_to_date(place)


def bring_up_to_date(place: str | Path) -> Store:
    """Open a leaderboard for writing, migrate it, and file what its older rows can say of the settings of their runs.

    A file is copied before; of a team's server this is asked for by name (`leaderboard migrate`), and so it is by who
    only reads.
    """
    from tutelage.pipeline.keys.settings import file_earlier_settings

    store = Store(place, migrate=True)
    file_earlier_settings(store)
    return store
