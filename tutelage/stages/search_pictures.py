"""Draw what a search did: its front under the budget, and hypervolume against evaluations."""

from __future__ import annotations

from pathlib import Path

from tutelage.leaderboard.curves import hypervolume_plot
from tutelage.leaderboard.search_plot import search_front_plot
from tutelage.search.result import SearchResult

FRONT, HYPERVOLUME = "search-front.png", "search-hypervolume.png"


def draw_search(result: SearchResult, folder: Path) -> tuple[Path, Path]:
    """Draw both pictures into a folder and give their paths; costs are the objectives that were not scored."""
    front, volume = folder / FRONT, folder / HYPERVOLUME
    scored = next(name for name, cheap in result.cheap.items() if not cheap)
    search_front_plot(
        [row.value(scored) for row in result.asked],
        {name: [row.value(name) for row in result.asked] for name, cheap in result.cheap.items() if cheap},
        front,
        within=[row.feasible for row in result.asked],
        finalists=result.finalists,
        bounds=result.bounds,
        error_name=f"{scored}, validation",
    )
    hypervolume_plot({result.strategy: result.hypervolume}, volume)
    return front, volume
