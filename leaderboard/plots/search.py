"""Plots of a search: every evaluated architecture, the front, the finalists and the budget (`search_front_plot`), and
the trials in their order beside what decided them (`search_trials_plot`).

It takes plain arrays of error and costs and writes PNG, SVG or PDF files in the style of `front.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.quantities import no_formula
from tutelage.records import InputError

from .front import PANEL_INCHES, add_legend, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
# Okabe and Ito: distinguishable for the colour-blind, and by shape in gray print.
_FRONT, _FINALIST, _REST, _BOUND = "#0072B2", "#D55E00", "#999999", "#444444"
_MOST_BARS = 12
_UNITS = {"bytes": ("MB", 1e6), "macs": ("M", 1e6), "params": ("M", 1e6), "ms": ("ms", 1.0)}
_WORDS = {
    **{"params": "parameters", "macs": "MACs", "bytes": "fp32 weights", "latency ms": "predicted latency"},
    **{"error": "validation error", "loss": "validation loss", "auc": "validation AUC"},
}


def search_front_plot(
    errors: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    path: Path | Iterable[Path],
    *,
    within: Sequence[bool],
    finalists: Sequence[int] = (),
    bounds: Mapping[str, float] | None = None,
    scored: str = "error",
    winners: Mapping[int, str] | None = None,
    slices: Mapping[str, Sequence[float]] | None = None,
    higher_is_better: bool = False,
) -> None:
    """Draw error against each cost, one panel a cost: what kept all bounds (dots) or not (crosses), front, finalists.

    `scored` names what `errors` hold: error, loss or auc, each as it was observed, and not as the search came to
    expect it, which its table prints. `costs` maps a name such as `latency_ms@DEVICE` to one figure an
    architecture, `within` says which kept every bound, `finalists` are indices, and `bounds` are drawn as dashed
    lines where a cost has one. `winners` gives the names of some indices, and `slices`, by cost, where the range
    that they are spread over is divided. The front of a panel is of error and that cost alone, among what kept the
    bounds; `higher_is_better` says so of a figure that is no error.
    """
    error, kept = np.asarray(errors, dtype=np.float64), np.asarray(within, dtype=bool)
    if not costs or not len(error):
        raise InputError(
            "no architecture was evaluated, or there is no cost to draw the error against: there is nothing to draw"
        )

    def draw(figure: Figure) -> None:
        """Draw the panels and their legend; `save` places the names."""
        panels = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
        for panel, (name, figures) in zip(panels, costs.items(), strict=True):
            label, scale = axis_words(name)
            scaled = np.asarray(figures, dtype=np.float64) / scale
            _draw_panel(panel, scaled, error, kept, list(finalists), higher_is_better)
            for edge in (slices or {}).get(name, ()):
                panel.axvline(edge / scale, color=_REST, linestyle=":", linewidth=0.8)
            _mark_winners(panel, scaled, error, winners or {})
            bound = (bounds or {}).get(name)
            if bound is not None:
                panel.axvline(bound / scale, color=_BOUND, linestyle="--", linewidth=0.8)
            panel.set_xlabel(label)
        panels[0].set_ylabel(f"{axis_words(scored)[0]}, as observed")
        add_legend(
            figure,
            _marks(bool((~kept).any()), bool(bounds), bool(finalists), bool(winners), any((slices or {}).values())),
        )

    save(path, (PANEL_INCHES[0] * len(costs), PANEL_INCHES[1] + 0.3), draw)


def search_trials_plot(
    errors: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    path: Path | Iterable[Path],
    importances: Mapping[str, float],
    *,
    scored: str = "error",
) -> None:
    """Draw error against each cost, coloured by the order of evaluation, and the importance of each parameter as bars.

    `errors` and `costs` are in the order of evaluation; `importances` are falls of R2, empty where none is on file.
    """
    if not costs or not len(errors):
        raise InputError(
            "no architecture was evaluated, or there is no cost to draw the error against: there is nothing to draw"
        )
    error = np.asarray(errors, dtype=np.float64)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(costs) + 1, squeeze=False)[0]
        for panel, (name, figures) in zip(panels, costs.items(), strict=False):
            label, scale = axis_words(name)
            order = np.arange(1, len(error) + 1)
            # Viridis rises in lightness: the order is read in gray print and by the colour-blind.
            spots = panel.scatter(
                np.asarray(figures, dtype=np.float64) / scale, error, c=order, cmap="viridis_r", s=9, linewidths=0
            )
            panel.set_xlabel(label)
            panel.set_ylabel(f"{axis_words(scored)[0]}, as observed")
        figure.colorbar(spots, ax=list(panels[:-1]), label="order of evaluation")
        _draw_importances(panels[-1], importances)

    save(path, (PANEL_INCHES[0] * (len(costs) + 1) + 0.6, PANEL_INCHES[1] + 0.3), draw)


def _draw_importances(panel: Axes, importances: Mapping[str, float]) -> None:
    shown = list(importances.items())[:_MOST_BARS]
    if not shown:
        panel.text(0.5, 0.5, "no importance on file:\ntoo few trials, nothing explains\nthe scores, or an older search",
                   transform=panel.transAxes, ha="center", va="center", color="#666666")  # fmt: skip
        panel.set_axis_off()
        return
    panel.barh([name for name, _ in shown][::-1], [value for _, value in shown][::-1], color=_FRONT, height=0.7)
    panel.set_xlabel("importance: fall of R² when shuffled")
    panel.grid(visible=False, axis="y")


def axis_words(name: str) -> tuple[str, float]:
    """Say an objective as Matplotlib writes it (`objective_words`), and what divides its figures."""
    said, scale = objective_words(name)
    return no_formula(said), scale


def objective_words(name: str) -> tuple[str, float]:
    """Say an objective (`latency_ms@DEVICE:int8`, `params`) in words with its unit, and what divides its figures."""
    figure, _, where = name.partition("@")
    device, _, precision = where.partition(":")
    if device == "int8":
        device, precision = "", device
    unit, scale = next((found for ending, found in _UNITS.items() if figure.endswith(ending)), ("", 1.0))
    words = figure.replace("_", " ")
    words = _WORDS.get(words) or words.removesuffix(" ms").removesuffix(" bytes")
    said = " ".join([words, *([f"on {device}"] if device else []), *([f"in {precision}"] if precision else [])])
    return f"{said} ({unit})" if unit else said, scale


def _draw_panel(
    panel: Axes,
    cost: Floats,
    error: Floats,
    kept: NDArray[np.bool_],
    finalists: list[int],
    higher_is_better: bool = False,
) -> None:
    panel.plot(cost[kept], error[kept], "o", markersize=3, color=_REST, markeredgewidth=0)
    panel.plot(cost[~kept], error[~kept], "x", markersize=3.5, color=_REST, markeredgewidth=0.7)
    front = _front(cost, -error if higher_is_better else error, kept)
    panel.step(cost[front], error[front], where="post", color=_FRONT, linewidth=1)
    panel.plot(cost[front], error[front], "o", markersize=4, color=_FRONT)
    panel.plot(cost[finalists], error[finalists], "o", markersize=8, markerfacecolor="none", color=_FINALIST)


def _mark_winners(panel: Axes, cost: Floats, error: Floats, winners: Mapping[int, str]) -> None:
    rows = list(winners)
    panel.plot(cost[rows], error[rows], "*", markersize=11, color=_FINALIST, markeredgecolor="white", zorder=4)
    for row, name in winners.items():
        panel.annotate(name, (cost[row], error[row]), fontsize=7, color=_FINALIST, zorder=5)


def _front(cost: Floats, error: Floats, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give the indices that no other kept one beats in cost and error, by rising cost."""
    places = np.flatnonzero(kept)
    order = places[np.lexsort((error[places], cost[places]))]
    best = np.minimum.accumulate(np.r_[np.inf, error[order]])[:-1] if len(order) else error[order]
    return np.asarray(order[error[order] < best], dtype=np.int64)


def _marks(broken: bool, bounded: bool, finalists: bool, winners: bool, sliced: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", markersize=3, linestyle="none", color=_REST, label="evaluated, as observed")]
    if broken:
        marks.append(Line2D([], [], marker="x", markersize=3.5, linestyle="none", color=_REST, label="over a bound"))
    marks.append(Line2D([], [], marker="o", markersize=4, color=_FRONT, label="front"))
    if finalists:
        ring = Line2D([], [], marker="o", markersize=8, linestyle="none", color=_FINALIST, label="finalist")
        ring.set_markerfacecolor("none")
        marks.append(ring)
    if winners:
        # The table of a search prints what it expects of a winner: the star lies where the figure was observed.
        label = "winner, as observed (table: mean of its posterior)"
        marks.append(Line2D([], [], marker="*", markersize=9, linestyle="none", color=_FINALIST, label=label))
    if sliced:
        marks.append(Line2D([], [], color=_REST, linestyle=":", label="slice"))
    if bounded:
        marks.append(Line2D([], [], color=_BOUND, linestyle="--", label="budget"))
    return marks
