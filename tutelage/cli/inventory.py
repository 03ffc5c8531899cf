"""What there is to work with, as verbs print it: the data sets, what a folder holds, what this machine has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tutelage.cli.output import print_figures
from tutelage.cli.registry_help import registry_of
from tutelage.plugins import GROUPS, Registry, origins
from tutelage.quantities import in_units

if TYPE_CHECKING:
    from tutelage.distill.data.dataset import DataReport, DatasetEntry

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


def print_doctor(console: Console, as_json: bool = False) -> None:
    """Print what this host is and has: runtimes, converters, pruners, energy counters."""
    from tutelage.bench.converters.litert import describe_converter
    from tutelage.bench.protocol.energy import find_meter
    from tutelage.bench.protocol.host import describe_host
    from tutelage.bench.runtimes.registry import RUNTIMES

    facts: dict[str, Any] = dict(describe_host())
    for name, runtime in RUNTIMES.items():
        facts[f"runtime {name}"] = runtime.version() if runtime.installed() else f"absent: {runtime.remedy()}"
    facts["converter of litert"] = describe_converter()
    for package, extra in PRUNERS.items():
        facts[f"pruner {package}"] = _version_or_remedy(package, extra)
    facts["energy counter"] = "RAPL" if find_meter() else "none that this user can read: energy stays empty"
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
