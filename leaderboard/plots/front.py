"""Plots of fronts for a paper or a README: PNG, SVG or PDF by the file's ending, readable at column width.

`pareto_plot` draws rows; `save`, `style_axis` and `add_legend` give the other plots the same style. The colour says
what a network is (Okabe and Ito's palette, safe for the colour-blind), the shape says it again; a filled mark is int8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.files import whole_file
from tutelage.leaderboard import names, pareto
from tutelage.leaderboard.columns import COLUMNS, Column, column, direction, directions
from tutelage.leaderboard.names import data_names, device_names
from tutelage.quantities import no_formula
from tutelage.records import DATA_KEY, DEVICE_KEY, InputError, Row

from .labels import place_labels
from .ranges import mark_below, usual_range

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and marker of each kind (`names.KINDS`); the page's style sheet holds the same.
MARKS = {
    "teacher": ("#D55E00", "s"),
    "baseline": ("#666666", "^"),
    "distilled": ("#0072B2", "o"),
    "control": ("#009E73", "D"),
    "imported": ("#AA4499", "P"),
}
# Two columns of a page are about 3.4 inches each; type below 7 points is not read in print.
PANEL_INCHES = (3.4, 2.9)
STYLE: dict[Any, Any] = {
    **{"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7},
    **{"xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "svg.hashsalt": "tutelage"},
    **{"axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.5, "axes.axisbelow": True},
    **{"pdf.fonttype": 42, "svg.fonttype": "none", "figure.dpi": 100, "savefig.dpi": 220},
}
_MAX_GROUPS = 6
_MOST_MARKS = 2_000
# What an entry of a legend takes at 7 points: its mark, and each letter.
_MARK_INCHES, _LETTER_INCHES = 0.4, 0.058


def kind_of(row: Row) -> str:
    """Say which of `names.KINDS` a row is drawn as."""
    return names.kind_of(row.role, row.teacher, row.source)


def axis_of(name: str) -> Column:
    """Give the column that an axis shows: a quality or a cost. InputError names those that there are."""
    if direction(name) is None:
        raise InputError(f"{name!r} cannot be an axis: choose among {', '.join(directions())}")
    return column(name)


def axes_of(figures: Sequence[str]) -> tuple[list[str], str]:
    """Split the figures of a front into costs, one column of panels each, and the quality they are drawn against.

    Raises InputError for what cannot be an axis, and where there is not one quality and at least one cost.
    """
    named = [axis_of(name) for name in figures]
    costs = [one.name for one in named if one.better == "min"]
    qualities = [one.name for one in named if one.better == "max"]
    if len(qualities) != 1 or not costs:
        said = ", ".join(figures)
        raise InputError(f"a picture needs costs and one quality, not {said}: e.g. latency_p50_ms,size_bytes,accuracy")
    return costs, qualities[0]


def chosen_ids(found: pd.DataFrame) -> list[str]:
    """Choose the rows of a large leaderboard that a picture draws.

    Those of its largest data set and device: all on a front, and an even share of the others.
    """
    if len(found) <= _MOST_MARKS:
        return list(found["row_id"])
    ground = found.groupby(list(pareto.GROUP), dropna=False, sort=False).indices
    found = found.iloc[max(ground.values(), key=len)]
    kept = np.zeros(len(found), dtype=bool)
    kept[:: -(-len(found) // _MOST_MARKS)] = True
    quality = "auc" if found["auc"].notna().any() else "accuracy"
    for cost in pareto.COSTS:
        kept |= np.array(pareto.front(found, (cost, quality)))
    return list(found["row_id"][kept])


def pareto_plot(
    rows: Sequence[Row],
    path: Path | Iterable[Path],
    *,
    x: str | Sequence[str] = ("latency_p50_ms", "size_bytes"),
    y: str = "",
    title: str = "",
) -> None:
    """Draw quality against costs, one column of panels a cost, one line of panels a data set and device.

    A panel shows where its front lives (`ranges.py`), and names those rows of the front that have room for a name.
    The front of each panel is stepped: between two of its rows nothing better than the worse one exists. Without `y`
    it is AUC, or accuracy where no row has an AUC.
    """
    costs = [x] if isinstance(x, str) else list(x)
    quality = y or ("auc" if any(row.auc is not None for row in rows) else "accuracy")
    up, across = axis_of(quality), [axis_of(name) for name in costs]
    groups = [group for group in comparable(rows) if any(up.of(row) is not None for row in group)]
    if not groups:
        raise InputError(f"no row has a {up.heading}: there is nothing to draw")
    groups = sorted(groups, key=len, reverse=True)[:_MAX_GROUPS]
    size = (PANEL_INCHES[0] * len(costs), PANEL_INCHES[1] * len(groups) + 0.4)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(groups), len(costs), squeeze=False)
        longest = 0
        for line, group, name in zip(axes, groups, group_titles(groups), strict=True):
            for panel, cost in zip(line, across, strict=True):
                longest = max(longest, _draw_panel(panel, group, cost, up))
            line[0].set_title(name, loc="left", fontweight="bold")
        _legend(figure, [row for group in groups for row in group], has_line=longest > 1)
        if title:
            figure.suptitle(no_formula(title), x=0.01, ha="left", fontsize=9)

    save(path, size, draw, has_leaders=False)


def save(path: Path | Iterable[Path], size: tuple[float, float], draw: Any, *, has_leaders: bool = True) -> None:
    """Draw once for each file, without pyplot: no window, no global state, nothing to close.

    has_leaders: whether a name may stand away from its mark, joined to it by a hairline; else it is left out there.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        for file in [path] if isinstance(path, Path) else list(path):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure)
            figure.canvas.draw()
            for panel in figure.axes:
                place_labels(panel, has_leaders=has_leaders)
            # No date in the file: the same rows give the same bytes.
            dated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
            try:
                with whole_file(file) as aside:
                    figure.savefig(aside, metadata=dated.get(file.suffix))
            except (OSError, ValueError) as error:
                raise InputError(f"{file} cannot be drawn ({error}): name a .png, .svg or .pdf") from error


def comparable(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows into groups whose figures may share a front."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in pareto.GROUP if name != "source"), []).append(row)
    return list(groups.values())


def style_axis(panel: Axes, name: str, way: str, figures: Sequence[float]) -> None:
    """Name an axis and make a cost that spans more than a decade logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = panel.xaxis if way == "x" else panel.yaxis
    axis.set_label_text(column(name).heading)
    if column(name).better == "max" or not figures or min(figures) <= 0 or max(figures) / min(figures) < 10:
        return
    (panel.set_xscale if way == "x" else panel.set_yscale)("log")
    decades = np.log10(max(figures) / min(figures))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, marks: Sequence[Any]) -> None:
    """Lay the legend below the panels, in as many lines as the figure's width asks for."""
    longest = max(len(str(mark.get_label())) for mark in marks)
    columns = max(1, int(figure.get_figwidth() / (_MARK_INCHES + _LETTER_INCHES * longest)))
    lines = -(-len(marks) // columns)
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=-(-len(marks) // lines),  # lines of one length
        frameon=False,
        handlelength=1.5,
        columnspacing=1.2,
    )


def _draw_panel(panel: Axes, group: Sequence[Row], cost: Column, quality: Column) -> int:
    """Draw the rows of a group and their front; give the number of its places: from two on it has a line."""
    drawn = [row for row in group if cost.of(row) is not None and quality.of(row) is not None]
    if not drawn:
        panel.text(0.5, 0.5, f"no {cost.heading} measured", transform=panel.transAxes, ha="center", color="#666666")
        panel.set_axis_off()
        return 0

    def spot(row: Row) -> tuple[float, float]:
        return cost.of(row) / cost.scale, quality.of(row)

    flags = pareto.front(drawn, (cost.name, quality.name))
    low, high = usual_range(
        [quality.of(row) for row in drawn], [quality.of(row) for row, flag in zip(drawn, flags, strict=True) if flag]
    )
    alike: dict[tuple[str, bool, bool], list[Row]] = {}
    for row, on_front in zip(drawn, flags, strict=True):
        alike.setdefault((kind_of(row), "int8" in row.scheme, on_front), []).append(row)
    for (kind, full, on_front), some in alike.items():
        _draw_marks(panel, [spot(row)[0] for row in some], some, quality, kind, full, on_front)
    best = [row for row, flag in zip(drawn, flags, strict=True) if flag and row.source == "measured"]
    corners = sorted({spot(row) for row in best})
    if corners:
        across, up = zip(*corners, strict=True)
        panel.step(across, up, where="post", color="#222222", linewidth=0.9, zorder=2)
    named: set[tuple[float, float]] = set()
    for row in best:
        if spot(row) not in named and quality.of(row) >= low:
            panel.annotate(_short_name(row), spot(row), fontsize=6.5, color="#222222", zorder=6)
            named.add(spot(row))
    style_axis(panel, cost.name, "x", [spot(row)[0] for row in drawn])
    panel.set_ylabel(quality.heading)
    panel.margins(x=0.12)
    usual = [row for row in best if quality.of(row) >= low]
    ends = [end.of(row) for row in usual for end in _ends(quality) if end.of(row) is not None]
    mark_below(panel, [spot(row) for row in drawn], min([low, *ends]), max([high, *ends]))
    return len(corners)


def _ends(quality: Column) -> list[Column]:
    """Give the columns that hold the ends of a quality's interval."""
    return [COLUMNS[f"{quality.name}{end}"] for end in ("_lo", "_hi") if f"{quality.name}{end}" in COLUMNS]


def _draw_marks(
    panel: Axes, across: Sequence[float], rows: Sequence[Row], quality: Column, kind: str, full: bool, on_front: bool
) -> None:
    """Draw rows that look alike at once; those on the front are larger and have their intervals."""
    colour, marker = MARKS[kind]
    ends = [COLUMNS.get(f"{quality.name}{end}") for end in ("_lo", "_hi")]
    for x, row in zip(across, rows, strict=True):
        low, high = (None if end is None else end.of(row) for end in ends)
        if on_front and low is not None and high is not None:
            panel.plot([x, x], [low, high], color=colour, linewidth=0.7, alpha=0.55, zorder=1.5)
    panel.plot(
        across,
        [quality.of(row) for row in rows],
        marker=marker,
        markersize=5.2 if on_front else 4.2,
        linestyle="none",
        zorder=4 if on_front else 3,
        markerfacecolor=colour if full else "white",
        markeredgecolor=colour,
        markeredgewidth=1.0,
        alpha=1.0 if on_front else 0.6,
    )


def _legend(figure: Figure, rows: Sequence[Row], has_line: bool) -> None:
    from matplotlib.lines import Line2D

    seen = {kind_of(row) for row in rows}
    hollow: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markersize": 5}
    marks = [
        Line2D([], [], color=colour, marker=marker, label=names.KINDS[kind], **hollow)
        for kind, (colour, marker) in MARKS.items()
        if kind in seen
    ]
    if any("int8" in row.scheme for row in rows):
        marks.append(Line2D([], [], color="#444444", marker="o", linestyle="none", markersize=5, label="filled: int8"))
    # A front of one network has no line to be found in the picture: what is large and named is on it.
    label = "Pareto front" if has_line else "Pareto front: one network, the large mark"
    marks.append(Line2D([], [], color="#222222", linewidth=0.9 if has_line else 0.0, label=label))
    add_legend(figure, marks)


def group_titles(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Name the data and device of each group for Matplotlib, apart from those of the others."""
    first = [group[0] for group in groups]
    columns = {name: [getattr(row, name) for row in first] for name in (*DATA_KEY, *DEVICE_KEY)}
    both = zip(data_names(columns), device_names(columns), strict=True)
    return [no_formula(" · ".join(part for part in parts if part)) for parts in both]


def _short_name(row: Row) -> str:
    """Name a mark by model, teacher and scheme, for Matplotlib."""
    return no_formula(names.short_title(row.model, row.teacher, row.scheme))
