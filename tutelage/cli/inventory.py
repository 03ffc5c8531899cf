"""What there is to work with, as verbs print it: data sets, what a folder holds, devices and checks, this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.cli.output import pace, print_figures
from tutelage.cli.registry_help import registry_of
from tutelage.plugins import GROUPS, Registry, origins
from tutelage.quantities import in_units
from tutelage.records import DeviceProfile

if TYPE_CHECKING:
    from tutelage.bench.devices.check import DeviceCheck
    from tutelage.distill.data.dataset import DataReport, DatasetEntry
    from tutelage.pipeline.operations.pools import PoolState

PRUNERS = {"torch-pruning": "prune", "nni": "nni"}  # package -> the extra that installs it


def print_datasets(datasets: Registry[DatasetEntry], console: Console, as_json: bool = False) -> None:
    """Print each data set: what it is, whether it needs a path, its options, and the package that adds it."""
    if as_json:
        print(json.dumps({name: _described(entry, datasets) for name, entry in datasets.items()}))
        return
    for name, entry in datasets.items():
        whose = f" (from {origin})" if (origin := datasets.origin(name)) else ""
        console.print(f"{name:20} {entry.help}{whose}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"{'':20} path: {entry.path}", highlight=False)
        for option, line in entry.all_options.items():
            console.print(f"{'':20} {option}: {line}", highlight=False, markup=False, soft_wrap=True)


def _described(entry: DatasetEntry, datasets: Registry[DatasetEntry]) -> dict[str, Any]:
    origin = datasets.origin(entry.name)
    return {
        "help": entry.help,
        "path": entry.path,
        "options": dict(entry.all_options),
        "plugin": str(origin) if origin else None,
    }


def print_data_report(report: DataReport, console: Console, as_json: bool = False) -> None:
    """Print what a data folder holds, and what is wrong with it."""
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    options = "".join(f", {name} {value}" for name, value in report.options.items() if value)
    lines = [f"{report.path}: {report.kind}{options}, {report.num_images} images, {report.num_groups} groups"]
    for title, counts in (("class", report.class_counts), ("split", report.split_counts), ("size", report.sizes)):
        lines += [f"  {title} {name}: {number}" for name, number in counts.items()]
    lines += [f"  unreadable: {name}" for name in report.unreadable]
    lines += [f"  the same image: {' = '.join(names)}" for names in report.duplicates]
    lines += [f"  in several splits: {name}" for name in report.leaking_groups]
    lines += [f"  {name}: {number}" for name, number in report.facts.items()]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"problem: {problem}" for problem in report.problems]
    if report.ok:
        read_so = "a run can read it, as the notes say" if report.notes else "no problem found"
        lines.append(read_so)
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def print_devices(
    profiles: Sequence[tuple[DeviceProfile, Path]],
    console: Console,
    as_json: bool = False,
    pools: Sequence[PoolState] = (),
) -> None:
    """Print the known devices and the folders their profiles lie in, then the pools of boards."""
    if as_json:
        of = {one.device: {"pool": one.to_dict()} for one in pools}
        print(json.dumps([{**one.to_dict(), "folder": str(place), **of.get(one.name, {})} for one, place in profiles]))
        return
    if not profiles:
        console.print("no device profiles yet: `tutelage device add NAME --runtime onnxruntime` makes one")
        return
    for folder in dict.fromkeys(folder for _, folder in profiles):
        cells = [_device_cells(profile) for profile, place in profiles if place == folder]
        console.print(f"Device profiles in {folder}", highlight=False, markup=False, soft_wrap=True)
        widths = _whole_words(cells, console.width)
        if widths is None:  # too narrow for columns of whole words
            for cell in cells:
                more = ", ".join(f"{name} {value}" for name, value in cell.items() if name != "name" and value)
                console.print(f"{cell['name']}: {more}", highlight=False, markup=False)
            continue
        table = Table(box=None, pad_edge=False)
        for name, width in widths.items():
            table.add_column(name, width=width)
        for cell in cells:
            table.add_row(*map(Text, cell.values()))
        console.print(table)
    for state in pools:
        console.print(state.line, highlight=False, markup=False, soft_wrap=True)


def _whole_words(cells: Sequence[Mapping[str, str]], width: int) -> dict[str, int] | None:
    """Give widths of columns in which no word is broken, as wide as there is room; None where there is none."""
    columns = {name: [name, *(cell[name] for cell in cells)] for name in cells[0]}
    widths = {name: max(len(word) for text in texts for word in text.split()) for name, texts in columns.items()}
    left = width - sum(widths.values()) - 2 * len(widths)  # a gap behind the last, too: rich 13 asks for it
    if left < 0:
        return None
    for name, texts in reversed(columns.items()):
        more = min(left, max(map(len, texts)) - widths[name])
        widths[name] += more
        left -= more
    return widths


def _device_cells(profile: DeviceProfile) -> dict[str, str]:
    return {
        "name": profile.name,
        "host": profile.command or profile.host,
        "runtime": f"{profile.runtime} {profile.runtime_version}",
        "threads": str(profile.threads),
        "batch": str(profile.batch),
        "precision": profile.effective_precision or profile.precision,
        "px": ", ".join(map(str, profile.resolutions)),
        "error": f"{profile.model_error:.1%}" if profile.model_error is not None else "",
    }


def print_doctor(console: Console, as_json: bool = False) -> None:
    """Print what this host is and has: runtimes, converters, pruners, energy counters."""
    from tutelage.bench.converters.litert import describe_converter
    from tutelage.bench.protocol.host import describe_host
    from tutelage.bench.runtimes.energy import EnergyMeter, NoMeter, find_meter
    from tutelage.bench.runtimes.registry import RUNTIMES

    facts: dict[str, Any] = dict(describe_host())
    for name, runtime in RUNTIMES.items():
        state = runtime.version() if runtime.installed() else f"absent: {runtime.remedy()}"
        facts[f"runtime {name}"] = f"{state} ({runtime.caveat})" if runtime.caveat else state
    facts["converter of litert"] = describe_converter()
    for package, extra in PRUNERS.items():
        facts[f"pruner {package}"] = _version_or_remedy(package, extra)
    meter = find_meter()
    facts["energy counter"] = f"none: {meter.reason}" if isinstance(meter, NoMeter) else meter.method
    if isinstance(meter, EnergyMeter) and meter.caveat:
        facts["energy counter"] += f" ({meter.caveat})"
    facts.update(_plugins())
    if not as_json:
        facts["memory_bytes"] = in_units(facts["memory_bytes"], "B")
        facts["cpu_flags"] = ", ".join(facts["cpu_flags"])
    print_figures(facts, console, as_json)


def _plugins() -> dict[str, str]:
    """Say what installed packages add to the registries, and warn of plug-ins that cannot be used."""
    facts = {}
    for group in GROUPS:
        if not origins(group):
            continue  # no package is imported needlessly
        registry = registry_of(group)
        facts.update({f"plug-in {group} {name}": str(whose) for name, whose in registry.added().items()})
        for error in registry.broken():
            facts[f"plug-in {group} {error.origin.name}"] = f"warning: {error}"
    return facts


def _version_or_remedy(package: str, extra: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return f"absent: pip install 'tutelage[{extra}]'"


def print_drift(found: DeviceCheck, console: Console) -> None:
    """Print the result of a device check in words."""
    name = found.profile.name
    pace_said = (
        "Drift unknown: no anchor nets were measured with the profile"
        if found.drift is None
        else f"The anchor nets run {pace(found.drift)} than when the profile was made"
    )
    changes = f" Changed since: {'; '.join(found.changes)}." if found.changes else ""
    if found.reanchored:
        verdict = f"{name} has today's scale: the {found.correction.num_nets} networks are {found.error:.1%} from it"
    elif found.holds:
        verdict = f"{name} holds: its predictions are off by {found.error:.1%}"
    else:
        verdict = (
            f"{name} does not hold: its predictions are off by {found.error:.1%}, {found.correction.apart:.1%} but for "
            f"a common factor; quiet the host and check again, `tutelage device check {name} --reanchor`, or "
            f"`tutelage device remove {name}` and add it anew"
        )
    console.print(f"{pace_said}.{changes} {verdict}.", highlight=False, soft_wrap=True)
