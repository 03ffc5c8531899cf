"""Profiles that are contributed to the catalogue: `write_contribution` makes the folder of one, `check_contribution`
finds what is wrong with such a folder: its files, its fields, and whether its table gives the error that it states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.latency.model import LatencyModel
from tutelage.records import UNREACHABLE, DeviceProfile, InputError

from .entries import PROVENANCE, Entry, Provenance, read_entry, write_provenance
from .profiles import load_latency_model, write_profile
from .table import read_table, table_path, write_table

MAX_ENTRY_BYTES = 200_000
_TEXTS = ("LICENSE", "README.md")
# A fit repeated with another BLAS moves its error by less; a table of other measurements by more.
_SAME_ERROR, _SAME_ERROR_ABSOLUTE = 0.05, 0.0005


@dataclass(frozen=True)
class ContributionCheck:
    """What is wrong with a folder, a line each, and the error that its table gives on nets left out."""

    folder: Path
    faults: tuple[str, ...]
    left_out_error: float | None = None
    left_out_nets: int | None = None


def write_contribution(profile: DeviceProfile, folder: Path, into: Path) -> Path:
    """Copy a profile of one's own with its model and table into the folder `into`/NAME; returns that folder.

    How the device is reached from here stays out. What only its owner can say of it (description, licence) is left
    empty in `provenance.yaml`; an earlier one there keeps what was filled in.
    """
    if not profile.latency_model and profile.ram_bytes is None and profile.flash_bytes is None:
        raise InputError(
            f"device {profile.name} has no latency model and no ram_bytes or flash_bytes: there is nothing in it that "
            "another person could use"
        )
    target = Path(into) / profile.name
    target.mkdir(parents=True, exist_ok=True)
    model, nets, error = None, None, None
    if profile.latency_model:
        model = load_latency_model(profile, folder)
        table = read_table(folder, profile.name)
        write_table(table_path(target, profile.name), table.archs, table.latency_ms)
        nets, error = model.num_nets, round(model.error, 5)
    write_profile(profile.model_copy(update={"host": UNREACHABLE, "command": ""}), target, model)
    if not (target / PROVENANCE).is_file():
        write_provenance(
            target / PROVENANCE,
            Provenance(
                kind="measured" if model else "memory-only", description="", made="", licence="",
                date=profile.created[:10], left_out_error=error, left_out_nets=nets,
            ),
        )  # fmt: skip
    return target


def check_contribution(folder: Path) -> ContributionCheck:
    """Check a folder that is to become an entry of the catalogue; its model is fitted again from its table."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give a profile's name, or the folder of one that is contributed")
    try:
        entry = read_entry(folder)
    except InputError as broken:
        return ContributionCheck(folder, (str(broken),))
    faults = [*_wrong_files(entry), *_wrong_fields(entry)]
    if not entry.profile.latency_model:
        return ContributionCheck(folder, tuple(faults))
    try:
        error, nets = refitted_error(entry)
    except InputError as problem:
        return ContributionCheck(folder, (*faults, str(problem)))
    faults += _other_figures(entry, error, nets)
    return ContributionCheck(folder, tuple(faults), error, nets)


def refitted_error(entry: Entry) -> tuple[float, int]:
    """Fit an entry's model again from its table; gives its mean relative error on nets left out, and their number."""
    stated = load_latency_model(entry.profile, entry.folder)
    table = read_table(entry.folder, entry.name)
    again = LatencyModel.fit(
        table.archs, table.latency_ms, blocks=stated.blocks, num_classes=stated.num_classes,
        in_channels=stated.in_channels, sources=stated.sources,
    )  # fmt: skip
    return again.error, again.num_nets


def _wrong_files(entry: Entry) -> list[str]:
    name, folder = entry.name, entry.folder
    known = {f"{name}.yaml", PROVENANCE, *_TEXTS}
    if entry.profile.latency_model:
        known |= {entry.profile.latency_model, table_path(folder, name).name}
    faults, total = [], 0
    for path in sorted(folder.iterdir()):
        if path.name not in known or path.is_symlink() or not path.is_file():
            faults.append(f"{path} is no file of an entry: remove it, an entry holds {', '.join(sorted(known))}")
        else:
            total += path.stat().st_size
    if total > MAX_ENTRY_BYTES:
        faults.append(f"{folder} holds {total:,} bytes: at most {MAX_ENTRY_BYTES:,}, give fewer networks in its table")
    return faults


def _wrong_fields(entry: Entry) -> list[str]:
    profile, said, path = entry.profile, entry.provenance, entry.folder / PROVENANCE
    faults = [
        f"{path}: {field} is empty: {what}"
        for field, what in (
            ("description", "say in one line what the device is"),
            ("made", "give the command, and what else is needed to make it again"),
            ("licence", "give the SPDX name of the licence, e.g. CC0-1.0"),
            ("date", "say when it was measured"),
        )
        if not getattr(said, field).strip()
    ]
    if said.kind != "measured" and not said.source.strip():
        faults.append(f"{path}: source is empty: cite the table or the datasheet")
    if profile.host != UNREACHABLE or profile.command:
        faults.append(f"{entry.name}.yaml: host is {profile.host!r}: write {UNREACHABLE}, nobody else reaches it")
    if said.kind == "memory-only" and profile.latency_model:
        faults.append(f"{path}: kind is memory-only, but the profile has a latency model: say measured or public-table")
    if said.kind != "memory-only" and not profile.latency_model:
        faults.append(f"{entry.name}.yaml: latency_model is empty: a {said.kind} entry has one, with its table")
    return faults


def _other_figures(entry: Entry, error: float, nets: int) -> list[str]:
    """Compare what profile and provenance state with what the table gives."""
    said, path = entry.provenance, entry.folder / PROVENANCE
    faults = []
    stated: tuple[tuple[str, float | None], ...] = (
        (f"{path}: left_out_error", said.left_out_error),
        (f"{entry.folder / entry.name}.yaml: model_error", entry.profile.model_error),
    )
    for place, value in stated:
        if value is None or not math.isclose(value, error, rel_tol=_SAME_ERROR, abs_tol=_SAME_ERROR_ABSOLUTE):
            faults.append(f"{place} is {value}: the table gives {error:.5f} on {nets} nets left out")
    if said.left_out_nets != nets:
        faults.append(f"{path}: left_out_nets is {said.left_out_nets}: the table has {nets}")
    return faults
