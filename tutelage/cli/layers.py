"""Print the layers of a profiled model with bars, and draw them as a picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tutelage.files import whole_file
from tutelage.quantities import no_formula

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tutelage.pipeline.operations.layers import Profiled

_BAR = 14
_WIDE, _SHORT_BAR = 110, 8  # columns of a terminal below which bars are shorter
# In the picture: more bars than these are too thin to read.
_DRAWN = 60


def print_layers(found: Profiled, console: Console, as_json: bool = False) -> None:
    """Print a line a layer, in the order in which they run, with its fraction of the sum as a bar."""
    if as_json:
        blocks = [{"block": key, "ms": ms} for key, ms in found.blocks]
        layers = [layer.to_dict() for layer in found.layers]
        whole = {"device": found.device, "runtime": found.runtime, "layers": layers, "blocks": blocks}
        print(json.dumps({**whole, "rows": list(found.rows)}))
        return
    total = sum(layer.ms for layer in found.layers)
    longest = _BAR if console.width >= _WIDE else _SHORT_BAR  # a bar that is cut would say nothing
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="ellipsis", no_wrap=True, max_width=44, ratio=3)
    table.add_column("operator", overflow="ellipsis", no_wrap=True, ratio=2)
    table.add_column("ms", justify="right", no_wrap=True, min_width=6)
    table.add_column("%", justify="right", no_wrap=True, min_width=4)
    table.add_column("", no_wrap=True, min_width=longest)
    table.add_column("ran by", overflow="ellipsis", no_wrap=True, ratio=2)
    for layer in found.layers:
        part = layer.ms / total if total else 0.0
        bar = "█" * round(part * longest / max(_largest(found), 1e-9))
        ran = f"{layer.kernel}; {layer.note}" if layer.note else layer.kernel
        table.add_row(layer.name, layer.operator, f"{layer.ms:.3f}", f"{100 * part:.1f}", bar, ran)
    console.print(table)
    console.print(f"{len(found.layers)} layers, {total:.3f} ms in sum while they are profiled, on {found.device}")
    notes = Counter(layer.note for layer in found.layers if layer.note)
    for note, number in notes.items():
        ms = sum(layer.ms for layer in found.layers if layer.note == note)
        what = f"{number} {'layer' if number == 1 else 'layers'} {note}"
        console.print(f"{what}: {ms:.3f} ms, {100 * ms / total if total else 0:.0f} %")
    if found.rows:
        console.print(
            f"kept for the pages of {', '.join(row[:8] for row in found.rows)} (`tutelage leaderboard build`)"
        )
    if found.blocks:
        console.print(f"\nwhat the latency model of {found.device} takes each block for")
        for key, ms in found.blocks:
            console.print(f"  {ms:8.4f} ms  {key}", highlight=False, markup=False)
        console.print(f"  {sum(ms for _, ms in found.blocks):8.4f} ms  in sum", highlight=False)


def _largest(found: Profiled) -> float:
    total = sum(layer.ms for layer in found.layers)
    return max((layer.ms for layer in found.layers), default=0.0) / total if total else 0.0


def draw_layers(found: Profiled, path: Path) -> None:
    """Draw the layers as bars from the top down, those with a note in another colour; the last bar is the rest.

    The latency model's times of blocks stand beside them, where they are known.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = sorted(found.layers, key=lambda layer: -layer.ms)[:_DRAWN]
    ordered = [layer for layer in found.layers if layer in shown]
    names = [f"{_short(layer.name)}  {layer.operator}" for layer in ordered]
    times = [layer.ms for layer in ordered]
    colours = ["#c2410c" if layer.note else "#2563eb" for layer in ordered]
    if len(found.layers) > len(ordered):
        names.append(f"{len(found.layers) - len(ordered)} smaller layers")
        times.append(sum(layer.ms for layer in found.layers) - sum(times))
        colours.append("#9ca3af")
    panels, rows = 2 if found.blocks else 1, max(len(names), len(found.blocks))
    figure, drawn = plt.subplots(1, panels, figsize=(9 * panels, 1.2 + 0.2 * rows), layout="constrained", squeeze=False)
    axes = drawn[0, 0]
    _bars(axes, names, times, colours, f"Layers on {found.device} ({found.runtime})", "ms an inference, while profiled")
    if found.blocks:
        keys, parts = zip(*found.blocks, strict=True)
        title = f"Blocks by the latency model of {found.device}, {sum(parts):.3f} ms in sum"
        _bars(drawn[0, 1], [_short(key) for key in keys], parts, "#0f766e", title, "ms")
    notes = sorted({layer.note for layer in ordered if layer.note})
    if notes:
        axes.barh([0], [0], color="#c2410c", label=", ".join(notes))
        axes.legend(frameon=False, loc="lower right")
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=150)
    plt.close(figure)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colours: str | Sequence[str], title: str, unit: str
) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), list(map(no_formula, names)), fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(unit)
    axes.set_title(no_formula(title), loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"…{name[-47:]}"
