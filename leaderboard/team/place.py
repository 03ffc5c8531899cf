"""A team's shared files, named by content: `open_place` opens those that `TUTELAGE_ARTIFACTS` names."""

from __future__ import annotations

import os

from .shared_files import SharedFiles

VARIABLE = "TUTELAGE_ARTIFACTS"
_REMEDY = "who made it runs `tutelage leaderboard share`"


def place_at(url: str) -> SharedFiles:
    """Open a team's files at a folder or URL."""
    return SharedFiles(url, VARIABLE, _REMEDY)


def open_place() -> SharedFiles | None:
    """Open the files that `TUTELAGE_ARTIFACTS` names; None where it names none."""
    url = os.environ.get(VARIABLE, "").strip()
    return place_at(url) if url else None
