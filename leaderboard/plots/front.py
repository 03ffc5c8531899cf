"""Pictures for a paper or a README: PNG, SVG or PDF by the file's ending, readable at column width.

Enters: rows. Leaves: files. The colour says what a network is (Okabe and Ito's palette, safe for the colour-blind), the
shape says it again, and a full mark is int8, a hollow one is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.files import whole_file
from tutelage.leaderboard import pareto
from tutelage.records import InputError, Row

from .labels import place_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and marker of each kind; the page's style sheet holds the same.
KINDS = {
    "teacher": ("#D55E00", "s", "teacher"),
    "baseline": ("#666666", "^", "baseline"),
    "taught": ("#0072B2", "o", "student with teacher"),
    "alone": ("#009E73", "D", "student without teacher"),
    "imported": ("#AA4499", "P", "imported"),
}
# What a column is called on an axis, and the unit it is drawn in.
AXES = {
    "accuracy": ("accuracy", 1.0),
    "auc": ("AUC", 1.0),
    "latency_p50_ms": ("latency, p50 (ms)", 1.0),
    "size_bytes": ("size on disk (MB)", 1e6),
    "macs": ("MACs (M)", 1e6),
    "params": ("parameters (M)", 1e6),
    "energy_mj": ("energy per image (mJ)", 1.0),
    "peak_rss_bytes": ("peak memory (MB)", 1e6),
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
# What an entry of a legend takes at 7 points, on average.
_LEGEND_INCHES = 1.1


def kind_of(row: Row) -> str:
    """Say which of `KINDS` a row is drawn as."""
    if row.source == "imported":
        return "imported"
    if row.role != "student":
        return row.role
    return "taught" if row.teacher else "alone"


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

    The front of each panel is stepped: between two of its rows nothing better than the worse one exists. Without `y`
    it is AUC, or accuracy where no row has an AUC.
    """
    costs = [x] if isinstance(x, str) else list(x)
    quality = y or ("auc" if any(row.auc is not None for row in rows) else "accuracy")
    for name in (quality, *costs):
        if name not in AXES:
            raise InputError(f"{name!r} cannot be an axis: choose among {', '.join(AXES)}")
    groups = [group for group in comparable(rows) if any(getattr(row, quality) is not None for row in group)]
    if not groups:
        raise InputError(f"no row has a {AXES[quality][0]}: there is nothing to draw")
    groups = sorted(groups, key=len, reverse=True)[:_MAX_GROUPS]
    size = (PANEL_INCHES[0] * len(costs), PANEL_INCHES[1] * len(groups) + 0.4)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(groups), len(costs), squeeze=False)
        for line, group in zip(axes, groups, strict=True):
            for panel, cost in zip(line, costs, strict=True):
                _draw_panel(panel, group, cost, quality)
            line[0].set_title(_group_name(group[0]), loc="left", fontweight="bold")
        _legend(figure, [row for group in groups for row in group])
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9)

    save(path, size, draw)


def save(path: Path | Iterable[Path], size: tuple[float, float], draw: Any) -> None:
    """Draw once for each file, without pyplot: no window, no global state, nothing to close."""
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
                place_labels(panel)
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
    axis.set_label_text(AXES[name][0])
    if name in pareto.QUALITY or not figures or min(figures) <= 0 or max(figures) / min(figures) < 10:
        return
    (panel.set_xscale if way == "x" else panel.set_yscale)("log")
    decades = np.log10(max(figures) / min(figures))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, marks: Sequence[Any]) -> None:
    """Lay the legend below the panels, in as many lines as the figure's width asks for."""
    columns = max(1, int(figure.get_figwidth() / _LEGEND_INCHES))
    lines = -(-len(marks) // columns)
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=-(-len(marks) // lines),  # lines of one length
        frameon=False,
        handlelength=1.5,
        columnspacing=1.2,
    )


def _draw_panel(panel: Axes, group: Sequence[Row], cost: str, quality: str) -> None:
    drawn = [row for row in group if getattr(row, cost) is not None and getattr(row, quality) is not None]
    if not drawn:
        panel.text(0.5, 0.5, f"no {AXES[cost][0]} measured", transform=panel.transAxes, ha="center", color="#666666")
        panel.set_axis_off()
        return
    scale = AXES[cost][1]
    flags = pareto.front(drawn, (cost, quality))
    alike: dict[tuple[str, bool, bool], list[Row]] = {}
    for row, on_front in zip(drawn, flags, strict=True):
        alike.setdefault((kind_of(row), "int8" in row.scheme, on_front), []).append(row)
    for (kind, full, on_front), some in alike.items():
        _draw_marks(panel, [getattr(row, cost) / scale for row in some], some, quality, kind, full, on_front)
    best = [row for row, flag in zip(drawn, flags, strict=True) if flag and row.source == "measured"]
    corners = sorted({(getattr(row, cost) / scale, getattr(row, quality)) for row in best})
    if corners:
        across, up = zip(*corners, strict=True)
        panel.step(across, up, where="post", color="#222222", linewidth=0.9, zorder=2)
    named: set[tuple[float, float]] = set()
    for row in best:
        spot = (getattr(row, cost) / scale, getattr(row, quality))
        if spot not in named:
            panel.annotate(_short_name(row), spot, fontsize=6.5, color="#222222", zorder=6)
            named.add(spot)
    style_axis(panel, cost, "x", [getattr(row, cost) / scale for row in drawn])
    panel.set_ylabel(AXES[quality][0])
    panel.margins(x=0.12, y=0.12)


def _draw_marks(
    panel: Axes, across: Sequence[float], rows: Sequence[Row], quality: str, kind: str, full: bool, on_front: bool
) -> None:
    """Draw rows that look alike at once; those on the front are larger and have their intervals."""
    colour, marker, _ = KINDS[kind]
    for x, row in zip(across, rows, strict=True):
        low, high = getattr(row, f"{quality}_lo"), getattr(row, f"{quality}_hi")
        if on_front and low is not None and high is not None:
            panel.plot([x, x], [low, high], color=colour, linewidth=0.7, alpha=0.55, zorder=1.5)
    panel.plot(
        across,
        [getattr(row, quality) for row in rows],
        marker=marker,
        markersize=5.2 if on_front else 4.2,
        linestyle="none",
        zorder=4 if on_front else 3,
        markerfacecolor=colour if full else "white",
        markeredgecolor=colour,
        markeredgewidth=1.0,
        alpha=1.0 if on_front else 0.6,
    )


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    seen = {kind_of(row) for row in rows}
    marks = [
        Line2D(
            [], [], color=colour, marker=marker, linestyle="none", markerfacecolor="white", markersize=5, label=label
        )
        for kind, (colour, marker, label) in KINDS.items()
        if kind in seen
    ]
    if any("int8" in row.scheme for row in rows):
        marks.append(Line2D([], [], color="#444444", marker="o", linestyle="none", markersize=5, label="full: int8"))
    marks.append(Line2D([], [], color="#222222", linewidth=0.9, label="Pareto front"))
    add_legend(figure, marks)


def _group_name(row: Row) -> str:
    parts = [row.dataset, row.device, f"batch {row.batch}" if row.batch not in (None, 1) else ""]
    return " · ".join(part for part in parts if part).replace("$", r"\$")


def brief_teacher(teacher: str) -> str:
    """Name a teacher as short as it can be told apart: without patch size and side, several by their number."""
    names = teacher.split("+")
    return f"{len(names)} teachers" if len(names) > 1 else re.sub(r"_patch\d+.*$", "", teacher)


def _short_name(row: Row) -> str:
    """Name a mark by model, teacher and scheme; `$` would start a formula."""
    name = row.model
    name += f" ← {brief_teacher(row.teacher)}" if row.teacher and row.teacher not in name else ""
    name += " int8" if "int8" in row.scheme and "int8" not in name else ""
    name = name if len(name) <= 30 else f"{name[:17]}..{name[-11:]}"
    return name.replace("$", r"\$")
