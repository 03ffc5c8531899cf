"""Where one row stands: on the front of its group for sure, maybe or not, and which rows dominate it by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tutelage.leaderboard import pareto
from tutelage.leaderboard.columns import column, with_interval
from tutelage.leaderboard.names import title
from tutelage.leaderboard.ties import resolutions, tolerances
from tutelage.records import Row

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.leaderboard.store import Store

# More rows than these are counted, not listed.
_LISTED = 8


@dataclass(frozen=True)
class Beaten:
    """A row that is no worse on all objectives and better by more than a tie on one; `gains` are positive then."""

    row_id: str
    name: str
    gains: dict[str, float]


@dataclass(frozen=True)
class Standing:
    """`on_front` goes by the figures, where ties do not dominate; `verdict` by the intervals of the figures.

    `by_tie`: it is on the front only because what dominates it is no better by more than a tie.
    """

    objectives: tuple[str, ...]
    num_peers: int
    on_front: bool
    verdict: pareto.Verdict
    beaten_by: tuple[Beaten, ...]
    by_tie: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def standing_of(store: Store, row: Row, objectives: Sequence[str] | None = None) -> Standing | None:
    """Compare a row with the current ones of the same data and device; None for one that is not current.

    Without `objectives`: AUC (else accuracy), median latency and size, those that the group has.
    """
    wanted = tuple(pareto.directions(objectives)) if objectives else (*pareto.QUALITY, *pareto.COSTS)
    bounds = [f"{name}{end}" for name in with_interval(wanted) for end in ("_lo", "_hi")]
    peers = store.peers(row, ("row_id", "number", "comparable", *wanted, *bounds))
    if row.key not in peers["row_id"]:
        return None
    peers["dataset"] = peers["comparable"]
    ways = pareto.directions(objectives or _usual(peers))
    place = peers["row_id"].index(row.key)
    reasons = pareto.dominated_by(peers, place, ways)
    named = store.by_number([peers["number"][found.by] for found in reasons], ("model", "teacher", "scheme"))
    beaten = tuple(Beaten(peers["row_id"][found.by], _name(named, at), found.gains) for at, found in enumerate(reasons))
    on_front = pareto.front(peers, ways, epsilon=resolutions(ways), tolerance=tolerances())[place]
    return Standing(
        tuple(ways),
        len(peers["row_id"]),
        on_front,
        pareto.front_with_intervals(peers, ways)[place],
        beaten,
        by_tie=on_front and not pareto.front(peers, ways)[place],
    )


def show_standing(standing: Standing, console: Console) -> None:
    """Print the verdict in a sentence and the rows that dominate this one, with what each is better by."""
    from rich.table import Table
    from rich.text import Text

    what = ", ".join(standing.objectives)
    by_figures = f"{'on' if standing.on_front else 'not on'} it by the figures"
    if standing.by_tie:
        by_figures += ", where a tie keeps it"
    console.print(
        f"\nFront of {what} among {standing.num_peers} comparable rows: {by_figures}; "
        f"by their intervals: {standing.verdict}.",
        highlight=False,
        soft_wrap=True,
    )
    if not standing.beaten_by:
        console.print(
            "No row dominates it." if standing.on_front else "It lacks one of these figures.", highlight=False
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("dominated by", "", *standing.objectives):
        table.add_column(name, justify="left" if name in ("dominated by", "") else "right", no_wrap=True)
    for one in standing.beaten_by[:_LISTED]:
        cells = [_gain(one.gains[name], name) for name in standing.objectives]
        table.add_row(one.row_id[:8], Text(one.name), *cells)
    console.print(table)
    if len(standing.beaten_by) > _LISTED:
        console.print(f"and {len(standing.beaten_by) - _LISTED} more rows", highlight=False)


def _usual(peers: Mapping[str, Sequence[Any]]) -> list[str]:
    known = [name for name in (*pareto.QUALITY, *pareto.COSTS) if any(value is not None for value in peers[name])]
    quality = next((name for name in known if name in pareto.QUALITY), "accuracy")
    return [quality, *(name for name in known if name in pareto.COSTS)]


def _name(peers: Mapping[str, Sequence[Any]], place: int) -> str:
    name = title(*(peers[column][place] for column in ("model", "teacher", "scheme")))
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _gain(gain: float, name: str) -> str:
    """Write what the other row is better by: more of a quality, less of a cost."""
    if gain == 0:
        return "same"
    one = column(name)
    if one.better == "max":
        return f"+{one.write(gain)}"
    return f"{one.write(gain)}{f' {one.shown_unit}' if one.shown_unit else ''} less"
