"""The catalogue outside a run: a device that starts from one of its entries, and profiles that are contributed."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tutelage.bench.devices.contribution import ContributionCheck, check_contribution, write_contribution
from tutelage.bench.devices.device import MAX_RESOLUTIONS
from tutelage.bench.devices.entries import Entry, find_entry
from tutelage.bench.devices.profiles import find_profile, load_latency_model, write_profile
from tutelage.bench.devices.table import table_path
from tutelage.pipeline.operations.devices import DeviceRequest, check_reach, checked_name, checked_space
from tutelage.pipeline.workspace import Workspace
from tutelage.records import UNREACHABLE, DeviceProfile, InputError

# What an entry says of how models run there, by option and by field of the request.
_SETTINGS = ("runtime", "threads", "batch", "precision")


def start_from(request: DeviceRequest, like: str, given: Collection[str], *, imported: bool = False) -> DeviceRequest:
    """Complete a request by an entry of the catalogue: what was not `given` on the command line is as there.

    given: names of options. imported: the times come from a file; else `here` says that this machine is measured.
    """
    entry = find_entry(like)
    if entry.profile.memory_only:
        raise InputError(
            f"--like {like}: that device is known by its memories alone and does not say how one is measured: give "
            "--runtime in its place, or --like alone, which copies it"
        )
    found = {field: getattr(entry.profile, field) for field in _SETTINGS if field not in given}
    if entry.profile.latency_model:
        model = load_latency_model(entry.profile, entry.folder)
        if "classes" not in given:
            found["num_classes"] = model.num_classes
        if "channels" not in given:
            found["channels"] = model.in_channels
        space = request.space.name if "space" in given else entry.profile.spaces[0]
        sizes = request.space.resolutions if "resolution" in given else _few(entry.profile.resolutions)
        found["space"] = checked_space(space, sizes)
    if not imported:
        check_reach(request)
        found["here"] = False  # which would say where times of a file come from
    return replace(request, **found)


def _few(resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """Choose as many resolutions as a device is measured at, evenly from the smallest to the largest."""
    if len(resolutions) <= MAX_RESOLUTIONS:
        return resolutions
    last = len(resolutions) - 1
    return tuple(resolutions[round(i * last / (MAX_RESOLUTIONS - 1))] for i in range(MAX_RESOLUTIONS))


def copy_entry(workspace: Workspace, name: str, like: str, given: Collection[str]) -> DeviceProfile:
    """Write a profile that is a copy of an entry with its model: it is predicted, and was not measured here.

    Raises InputError for options that were `given`, since the model is of the settings of the entry.
    """
    entry = find_entry(like)
    checked_name(workspace, name)
    if given:
        options = "--" + ", --".join(sorted(given))
        raise InputError(
            f"--like {like} alone copies its profile ({_settings(entry)}), so {options} would have no effect: leave it "
            "out, or say how the device is reached (--ssh, --adb, --pool, --command, --here) to measure it"
        )
    folder = workspace.path / "devices"
    profile, model = entry.profile, None
    if profile.latency_model:
        model = load_latency_model(profile, entry.folder)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table_path(entry.folder, entry.name), table_path(folder, name))
    copy = profile.model_copy(
        update={"name": name, "host": UNREACHABLE, "latency_model": f"{name}.latency.json" if model else ""}
    )
    write_profile(copy, folder, model)
    return copy


def _settings(entry: Entry) -> str:
    profile = entry.profile
    return f"{profile.runtime}, {profile.threads} threads, batch {profile.batch}, {profile.precision}"


def publish_device(workspace: Path, name: str) -> ContributionCheck:
    """Check a folder that is to be contributed; a profile's name first writes that folder into the workspace."""
    if not Path(name).is_dir():
        if "/" in name:
            raise InputError(f"{name} is no folder: give a profile's name, or the folder that is to be contributed")
        profile, folder = find_profile(name, workspace)
        return check_contribution(write_contribution(profile, folder, workspace / "contributed"))
    return check_contribution(Path(name))
