"""Plots of how a result came about: what distillation and int8 did, how good predictions were, how a search went.

Each function draws rows or plain arrays into PNG, SVG or PDF files, in the style of `front.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.leaderboard.names import KINDS
from tutelage.quantities import no_formula
from tutelage.records import InputError, Row

from .front import MARKS, PANEL_INCHES, add_legend, axis_of, comparable, group_titles, kind_of, save, style_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch

Floats = NDArray[np.float64]
# Okabe and Ito once more, for curves that dashes distinguish as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666", "#B8860B")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))


def arrows_plot(rows: Sequence[Row], path: Path | Iterable[Path], *, x: str = "latency_p50_ms", y: str = "") -> None:
    """Draw student without teacher -> with teacher -> int8 as arrows, the teachers beside them, one panel a device."""
    quality = y or ("auc" if any(row.auc is not None for row in rows) else "accuracy")
    across, up = axis_of(x), axis_of(quality)

    def known(row: Row) -> bool:
        return across.of(row) is not None and up.of(row) is not None

    groups = [group for group in comparable([row for row in rows if known(row)]) if _steps(group)]
    if not groups:
        raise InputError("no row names its control without a teacher or its fp32 parent: there is no arrow to draw")

    def spot(row: Row) -> tuple[float, float]:
        return across.of(row) / across.scale, up.of(row)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(groups), squeeze=False, sharey=len({g[0].dataset for g in groups}) == 1)[0]
        for panel, group, name in zip(panels, groups, group_titles(groups), strict=True):
            steps = _steps(group)
            shown = {row.key: row for pair in steps for row in pair} | {r.key: r for r in group if r.role == "teacher"}
            for row in shown.values():
                colour, marker = MARKS[kind_of(row)]
                face = colour if "int8" in row.scheme else "white"
                panel.plot(
                    *spot(row), marker=marker, color=colour, markerfacecolor=face, markersize=5, linestyle="none"
                )
                if row.role == "teacher" and "int8" not in row.scheme:
                    panel.annotate(no_formula(row.model), spot(row), fontsize=6.5, color="#222222")
            for start, end in steps:
                colour = MARKS[kind_of(end)][0]
                style: dict[str, Any] = {
                    "arrowstyle": "-|>",
                    "color": colour,
                    "linewidth": 0.8,
                    "shrinkA": 3,
                    "shrinkB": 3,
                    "alpha": 0.8,
                }
                # An arrow without words: an empty label would be placed by `place_labels`.
                panel.add_patch(_arrow(spot(start), spot(end), style, "int8" in end.scheme))
            style_axis(panel, x, "x", [spot(row)[0] for row in shown.values()])
            style_axis(panel, quality, "y", [])
            panel.margins(0.14)
            panel.set_title(name, loc="left", fontweight="bold")
        _key(figure, {kind_of(row) for group in groups for row in group})

    save(path, (PANEL_INCHES[0] * len(groups), PANEL_INCHES[1] + 0.4), draw)


def predicted_plot(
    predicted: Sequence[float], measured: Sequence[float], path: Path | Iterable[Path], *, unit: str = "ms"
) -> None:
    """Draw predicted against measured latency with the diagonal, a 10 % band, and the error in words.

    Kendall's tau says whether networks rank alike; where all predictions or all measurements are one number there is
    no rank, and none is shown.
    """
    guess, truth = _pair(predicted, measured)
    error = float(np.mean(np.abs(guess - truth) / truth))
    tau = _kendall(guess, truth)

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        low, high = min(guess.min(), truth.min()) * 0.95, max(guess.max(), truth.max()) * 1.05
        line = np.array([low, high])
        panel.fill_between(line, line * 0.9, line * 1.1, color="#DDDDDD", linewidth=0, label="within 10 %")
        panel.plot(line, line, color="#222222", linewidth=0.8)
        panel.plot(truth, guess, "o", markersize=3.5, markerfacecolor="white", color=_COLOURS[0])
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        panel.set(xlabel=f"measured ({unit})", ylabel=f"predicted ({unit})")
        words = [f"{len(truth)} networks", f"mean error {100 * error:.1f} %"]
        words += [f"Kendall's tau {tau:.2f}"] if math.isfinite(tau) else []
        panel.set_title(", ".join(words), fontsize=7, loc="left")  # above the marks, which may lie anywhere
        panel.legend(loc="lower right", frameon=False)

    save(path, (PANEL_INCHES[0], PANEL_INCHES[0]), draw)


def hypervolume_plot(traces: Mapping[str, Sequence[tuple[int, float]]], path: Path | Iterable[Path]) -> None:
    """Draw hypervolume against evaluations, one stepped curve a strategy: (evaluations, hypervolume) pairs."""
    if not any(traces.values()):
        raise InputError("no trace holds a point: there is nothing to draw")

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for place, (name, trace) in enumerate(traces.items()):
            evaluations, volume = np.asarray(trace, dtype=float).T
            style = _DASHES[place % len(_DASHES)]
            panel.step(
                evaluations, volume, where="post", color=_COLOURS[place % len(_COLOURS)], linestyle=style, label=name
            )
        panel.set(xlabel="evaluations", ylabel="hypervolume")
        panel.legend(frameon=False, loc="lower right")

    save(path, PANEL_INCHES, draw)


def _steps(group: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Find the pairs to join: control -> distilled student (both fp32), fp32 parent -> int8."""

    def trained(row: Row, model: str, teacher: str) -> tuple[object, ...]:
        """Name a training: a teacher, a control, its student and their int8 files may share a model name.

        So may rows of other recipes, and imported ones: an arrow between those would show what nobody did.
        """
        return row.role != "teacher", model, teacher, row.seed, row.recipe, row.source

    plain = {trained(row, row.model, row.teacher): row for row in group if "int8" not in row.scheme}
    pairs = []
    for row in group:
        if row.parent:
            start = plain.get(trained(row, row.parent, row.teacher))
        else:
            start = plain.get(trained(row, row.control, "")) if row.control and row.role != "teacher" else None
        if start is not None:
            pairs.append((start, row))
    return pairs


def _arrow(
    start: tuple[float, float], end: tuple[float, float], style: Mapping[str, Any], dashed: bool
) -> FancyArrowPatch:
    from matplotlib.patches import FancyArrowPatch

    return FancyArrowPatch(start, end, mutation_scale=6, linestyle="--" if dashed else "-", zorder=2, **style)


def _key(figure: Figure, seen: set[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor="white", linestyle="none", label=KINDS[kind])
        for kind, (colour, marker) in MARKS.items()
        if kind in seen and kind != "imported"
    ]
    marks.append(Line2D([], [], color=MARKS["distilled"][0], label="distillation"))
    marks.append(Line2D([], [], color="#444444", linestyle="--", label="to int8 (filled mark)"))
    add_legend(figure, marks)


def _pair(first: Sequence[float], second: Sequence[float]) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"two lists of one length are compared, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a figure to draw is not finite")
    return a, b


def _kendall(first: Floats, second: Floats) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)
