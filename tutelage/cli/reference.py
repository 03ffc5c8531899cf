"""The tables of the guide that list a registry: strategies, spaces, distillation methods, runtimes.

`python -m tutelage.cli.reference docs` writes them anew, each between `<!-- table NAME -->` and `<!-- end -->`, with
built-in entries alone, so that an installed plug-in does not change the guide.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .registry_help import registry_of

_TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.S)


def strategies_table() -> str:
    """List the search strategies with their lines of help."""
    rows = [(f"`{name}`", entry.help) for name, entry in registry_of("strategies").builtin.items()]
    return _table(("strategy", "what it proposes"), rows)


def spaces_table() -> str:
    """List the spaces with their choices, and the parameters of their smallest and largest networks (1,000 classes)."""
    from tutelage.search.costs.counts import count

    rows = []
    for name, space in registry_of("spaces").builtin.items():
        low, high = count([space.smallest(), space.largest()]).params / 1e6
        kernels = _listed(space.kernels) if space.family.elastic_kernels else "fixed"
        published = [preset for preset, arch in space.family.presets.items() if arch.space == name]
        cells = (
            kernels,
            _listed(space.expands),
            _listed(space.depths),
            str(space.stem_stride),
            f"{low:.1f} to {high:.1f}",
        )
        rows.append((f"`{name}`", *cells, ", ".join(published)))
    head = ("space", "kernels", "expand ratios", "depths", "stride of the stem", "params (M)", "published subnets")
    return _table(head, rows)


def losses_table() -> str:
    """List the distillation methods with their weights, temperatures and options."""
    rows = []
    # Methods that compare logits come first.
    for name, loss in sorted(registry_of("losses").builtin.items(), key=lambda item: item[1].features):
        options = [f"{key} {loss.numbers[key]:g}" if key in loss.numbers else key for key in loss.options]
        weight = f"{loss.weight:g} ({loss.weight_source})"
        temperature = "-" if loss.temperature is None else f"{loss.temperature:g}"
        rows.append((f"`{name}`", loss.source, weight, temperature, ", ".join(options) or "-", str(loss.min_classes)))
    return _table(("method", "source", "weight", "temperature", "options", "classes, at least"), rows)


def runtimes_table() -> str:
    """List the runtimes with the files that they load, their precisions, what installs them and what to know first."""
    rows = []
    for name, runtime in registry_of("runtimes").builtin.items():
        by = f"`{runtime.installation}`" if runtime.extra or runtime.installed_by else "comes with the package"
        facts = [
            *([f"needs {runtime.needs}"] if runtime.on_gpu else []),
            *([] if runtime.files_rows else ["files no rows of a run"]),
            *([f"**{runtime.caveat}**"] if runtime.caveat else []),
        ]
        rows.append((f"`{name}`", ", ".join(runtime.suffixes), ", ".join(runtime.precisions), by, "; ".join(facts)))
    return _table(("runtime", "model files", "precisions", "installed by", "what to know"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "strategies": strategies_table,
    "spaces": spaces_table,
    "losses": losses_table,
    "runtimes": runtimes_table,
}


def with_tables(text: str) -> str:
    """Give a page with each of its marked tables as the registries are now."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Rewrite the tables of all pages in the folder that the command line names."""
    for path in sorted(Path(sys.argv[1]).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := with_tables(text)) != text:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
