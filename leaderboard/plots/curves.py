"""Pictures of how a result came about: what distillation and int8 did, how good predictions were, how a search went.

Enters: rows or plain arrays. Leaves: PNG, SVG or PDF files in the style of `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError, Row

from .front import AXES, KINDS, PANEL_INCHES, add_legend, comparable, kind_of, save, style_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch

Floats = NDArray[np.float64]
# Okabe and Ito once more, for curves that are told apart by dashes as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666", "#B8860B")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))


def arrows_plot(rows: Sequence[Row], path: Path | Iterable[Path], *, x: str = "latency_p50_ms", y: str = "") -> None:
    """Draw student without teacher -> with teacher -> int8 as arrows, the teachers beside them, one panel a device."""
    quality = y or ("auc" if any(row.auc is not None for row in rows) else "accuracy")
    scale = AXES[x][1]

    def known(row: Row) -> bool:
        return getattr(row, x) is not None and getattr(row, quality) is not None

    groups = [group for group in comparable([row for row in rows if known(row)]) if _steps(group)]
    if not groups:
        raise InputError("no row names its twin without a teacher or its fp32 parent: there is no arrow to draw")

    def spot(row: Row) -> tuple[float, float]:
        return getattr(row, x) / scale, getattr(row, quality)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(groups), squeeze=False, sharey=len({g[0].dataset for g in groups}) == 1)[0]
        for panel, group in zip(panels, groups, strict=True):
            steps = _steps(group)
            shown = {row.key: row for pair in steps for row in pair} | {r.key: r for r in group if r.role == "teacher"}
            for row in shown.values():
                colour, marker, _ = KINDS[kind_of(row)]
                face = colour if "int8" in row.scheme else "white"
                panel.plot(
                    *spot(row), marker=marker, color=colour, markerfacecolor=face, markersize=5, linestyle="none"
                )
                if row.role == "teacher" and "int8" not in row.scheme:
                    panel.annotate(row.model.replace("$", r"\$"), spot(row), fontsize=6.5, color="#222222")
            for start, end in steps:
                colour = KINDS[kind_of(end)][0]
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
            panel.set_title(f"{group[0].dataset} · {group[0].device}".strip(" ·"), loc="left", fontweight="bold")
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
            asked, volume = np.asarray(trace, dtype=float).T
            style = _DASHES[place % len(_DASHES)]
            panel.step(asked, volume, where="post", color=_COLOURS[place % len(_COLOURS)], linestyle=style, label=name)
        panel.set(xlabel="evaluations", ylabel="hypervolume")
        panel.legend(frameon=False, loc="lower right")

    save(path, PANEL_INCHES, draw)


def sensitivity_plot(drops: Mapping[str, float], path: Path | Iterable[Path], *, figure_name: str = "accuracy") -> None:
    """Draw what quantizing each layer alone costs (shares; positive is a loss), the worst on top, at most 30."""
    if not drops:
        raise InputError("no layer was measured: there is nothing to draw")
    worst = sorted(drops.items(), key=lambda item: item[1], reverse=True)[:30]

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        places = np.arange(len(worst))
        costs = [100 * drop for _, drop in worst]
        colours = [_COLOURS[1] if cost > 0 else _COLOURS[0] for cost in costs]
        panel.barh(places, costs, height=0.7, color=colours)
        panel.set_yticks(places, [_cut(name) for name, _ in worst], fontsize=6.5)
        panel.invert_yaxis()
        panel.axvline(0, color="#222222", linewidth=0.6)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(f"{figure_name} lost, this layer in int8 (points)")

    save(path, (PANEL_INCHES[0] * 1.15, 0.9 + 0.155 * len(worst)), draw)


def reliability_plot(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path | Iterable[Path], *, num_bins: int = 10
) -> None:
    """Draw confidence against how often it was right, in bins of equal width: name -> (confidence, correct 0 or 1).

    Below, how many predictions each bin holds; the expected calibration error (Naeini 2015) stands in the legend.
    """
    tables = {name: _bins(*_pair(*pair), num_bins) for name, pair in curves.items()}
    if not tables:
        raise InputError("no predictions: there is nothing to draw")

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color="#222222", linewidth=0.8)
        for place, (name, (confidence, right, share)) in enumerate(tables.items()):
            ece = float(np.nansum(share * np.abs(confidence - right)))
            look: dict[str, Any] = {
                "color": _COLOURS[place % len(_COLOURS)],
                "linestyle": _DASHES[place % len(_DASHES)],
            }
            upper.plot(confidence, right, marker="o", markersize=3.5, label=f"{name} (ECE {ece:.3f})", **look)
            lower.step(np.linspace(0, 1, num_bins + 1), np.append(share, share[-1]) * 100, where="post", **look)
        upper.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1.02))
        lower.set(xlabel="confidence", ylabel="of all (%)", ylim=(0, None))
        upper.legend(frameon=False, loc="upper left")

    save(path, (PANEL_INCHES[0], PANEL_INCHES[1] * 1.25), draw)


def _steps(group: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Find the pairs to join: twin -> taught student (both fp32), fp32 parent -> int8."""
    # A teacher, a twin, its student and their int8 files may share a model name: role, teacher and scheme tell them
    # apart.
    plain = {
        (row.role != "teacher", row.model, row.teacher, row.seed): row for row in group if "int8" not in row.scheme
    }
    pairs = []
    for row in group:
        if row.parent:
            start = plain.get((row.role != "teacher", row.parent, row.teacher, row.seed))
        else:
            start = plain.get((True, row.twin, "", row.seed)) if row.twin else None
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
        Line2D(
            [], [], color=KINDS[kind][0], marker=KINDS[kind][1], markerfacecolor="white", linestyle="none", label=label
        )
        for kind, label in (
            *(
                ("teacher", "teacher"),
                ("baseline", "baseline"),
                ("alone", "student alone"),
                ("taught", "student, taught"),
            ),
        )
        if kind in seen
    ]
    marks.append(Line2D([], [], color=KINDS["taught"][0], label="teaching"))
    marks.append(Line2D([], [], color="#444444", linestyle="--", label="to int8 (full mark)"))
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


def _bins(confidence: Floats, correct: Floats, num_bins: int) -> tuple[Floats, Floats, Floats]:
    """Mean confidence, share right and share of all in each bin; NaN where a bin is empty."""
    place = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    count = np.bincount(place, minlength=num_bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, num_bins) / count
        right = np.bincount(place, correct, num_bins) / count
    return mean, right, count / len(confidence)


def _cut(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:13]}..{name[-13:]}"
