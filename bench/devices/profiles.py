"""Device profiles on disk: where they lie, how they are read, checked and written.

A profile is a readable, editable YAML file; its latency model lies beside it as JSON. Profiles come from the
workspace, then the user's folder, then the package: the first of a name is used.
"""

from __future__ import annotations

import difflib
import importlib.resources
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tutelage.bench.boards.adb import PREFIX
from tutelage.bench.boards.pool import POOL, pool_of
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.files import home_folder, write_text
from tutelage.records import UNREACHABLE, DeviceProfile, InputError, bounded_text, parsed_yaml

log = logging.getLogger(__name__)

# A profile is a page of text; anything larger is not one.
MAX_PROFILE_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# What stands beside each field of a written profile.
_COMMENTS = {
    "name": "name of this device in budgets and rows",
    "runtime": "what runs the models: onnxruntime, openvino, torch, ...",
    "runtime_version": "of the runtime when the profile was made",
    "threads": "threads of one inference; part of the device",
    "batch": "images of one inference; part of the device, as times of batch 1 and 64 rank networks differently",
    "precision": "the precision requested of the runtime for fp32 models: fp32, bf16, fp16 or int8",
    "effective_precision": "what the runtime said it computes in",
    "cpu_model": "the processor that was measured",
    "host": "local, USER@HOST reached by ssh, adb:SERIAL, or unreachable: predicted from its latency model only",
    "command": "for what ssh does not reach: a launcher with {runner}, or a program that speaks the device protocol",
    "program": "of a device reached by adb: the runtime's benchmark program, a file here; empty: found",
    "cores": "that inferences are pinned to; empty: chosen",
    "latency_model": "file beside this one; empty: no predictions, only measurements",
    "spaces": "search spaces the latency model covers",
    "resolutions": "input resolutions in pixels it covers",
    "steadiness": "relative error of the nets' measured times, 95 % of them within it (0.02 is 2 %)",
    "model_error": "mean relative error of the latency model on nets held out of its fit, a fraction",
    "session_noise": "relative standard deviation of a later session's times about the model's; it is in its intervals",
    "processor": "what ran the models, a GPU with its driver",
    "system": "operating system and C library when it was measured",
    "reanchored": "when `tutelage device check --reanchor` measured the model's scale again; empty: never",
    "ram_bytes": "RAM that a network may take, in bytes: bounds a search that gives no max_ram; empty: no bound",
    "flash_bytes": "flash that its file may take, in bytes: bounds a search that gives no max_flash; empty: no bound",
    "created": "when it was measured; `tutelage device check` says whether it still holds",
}


def user_folder() -> Path | None:
    """Give the folder of the user's own profiles: `TUTELAGE_HOME`/devices, else ~/.config/tutelage/devices.

    None for a user without a home.
    """
    named, home = os.environ.get("TUTELAGE_HOME"), home_folder()
    if named:
        return Path(named) / "devices"
    return None if home is None else home / ".config" / "tutelage" / "devices"


def profile_folders(workspace: Path | None) -> list[Path]:
    """List the folders that are searched for profiles, in order of precedence: workspace, user, package."""
    package = Path(str(importlib.resources.files("tutelage.bench.devices")))
    own = user_folder()
    return [*([Path(workspace) / "devices"] if workspace else []), *([own] if own else []), package]


def list_profiles(workspace: Path | None) -> list[tuple[DeviceProfile, Path]]:
    """List the profiles with their folders, each name once; one that cannot be used is left out with a warning.

    Commands that name another device go on beside it, e.g. where the package of its runtime was uninstalled.
    """
    found: dict[str, tuple[DeviceProfile, Path]] = {}
    for name in profile_names(workspace):
        try:
            found[name] = find_profile(name, workspace)
        except InputError as error:
            log.warning("left out: %s", error)
    return list(found.values())


def profile_names(workspace: Path | None) -> list[str]:
    """List the names that profiles have, broken ones too."""
    names = {path.stem for folder in profile_folders(workspace) for path in folder.glob("*.yaml")}
    return sorted(name for name in names if not name.startswith("template"))


def known_profile(name: str, workspace: Path | None) -> tuple[DeviceProfile, Path] | None:
    """Give a profile and its folder, or None where there is none of that name. Raises InputError for a broken one."""
    check_name(name)
    for folder in profile_folders(workspace):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return read_profile(path), folder
    return None


def target_profile(name: str, workspace: Path | None) -> DeviceProfile | None:
    """Give the profile of a device that is known by its memories alone, the catalogue's too; None for another name."""
    known = known_profile(name, workspace)
    shipped = profile_folders(None)[-1] / "catalogue" / name / f"{name}.yaml"
    profile = known[0] if known is not None else read_profile(shipped) if shipped.is_file() else None
    return profile if profile is not None and profile.memory_only else None


def find_profile(name: str, workspace: Path | None) -> tuple[DeviceProfile, Path]:
    """Find a profile by name; returns it and its folder. Raises InputError that lists the known ones."""
    found = known_profile(name, workspace)
    if found is not None:
        return found
    known = profile_names(workspace)
    if (profile_folders(None)[-1] / "catalogue" / name).is_dir():
        raise InputError(
            f"device {name} is in the catalogue and has no profile here: `tutelage device add {name} --like {name}` "
            "makes one"
        )
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    listed = ", ".join(known) if known else "none yet"
    raise InputError(
        f"no device named {name!r}{hint} (known: {listed}): `tutelage device list` shows them, `tutelage device add` "
        "makes one"
    )


def load_latency_model(profile: DeviceProfile, folder: Path) -> LatencyModel:
    """Load the latency model beside a profile. Raises InputError where the profile has none."""
    if not profile.latency_model:
        raise InputError(
            f"device {profile.name} has no latency model: make one with `tutelage device add {profile.name}`"
        )
    return LatencyModel.load(Path(folder) / profile.latency_model)


def read_fields(path: Path, most_bytes: int, what: str, without: str) -> dict[Any, Any]:
    """Read the fields of a YAML file. Raises InputError that calls it `what`, or says `without` where it has none."""
    try:
        data = parsed_yaml(bounded_text(path, most_bytes))
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(without)
    return data


def read_profile(path: Path) -> DeviceProfile:
    """Read and check a profile, made or hand-written. Raises InputError naming field, value and what is allowed."""
    data = read_fields(
        path,
        MAX_PROFILE_BYTES,
        "device profile",
        f"{path} is not a device profile: it must hold `field: value` lines, at least name and runtime",
    )
    for field in data:
        if field not in DeviceProfile.model_fields:
            near = difflib.get_close_matches(str(field), DeviceProfile.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(DeviceProfile.model_fields)}"
            raise InputError(f"{path}: unknown field {field!r}{hint}")
    try:
        # An empty YAML value is None: it stands for "not said" and takes the default.
        profile = make_checked({key: value for key, value in data.items() if value is not None})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if profile.name != Path(path).stem:
        raise InputError(
            f"{path}: name is {profile.name!r}, but the file is named {Path(path).stem!r}: make them equal"
        )
    if _from_elsewhere(profile):
        return profile.model_copy(update={"host": UNREACHABLE})
    return profile


def _from_elsewhere(profile: DeviceProfile) -> bool:
    """Recognise a profile of imported measurements that was written as `local`, before a profile said otherwise.

    Its latency model was fitted, but nothing was measured: no processor, no runtime's version, no steadiness.
    """
    measured = profile.cpu_model or profile.runtime_version or profile.steadiness is not None
    return profile.local and bool(profile.latency_model) and not measured


def make_checked(values: Mapping[str, Any]) -> DeviceProfile:
    """Make a profile of named values. Raises InputError naming field, value and what is allowed."""
    try:
        profile = DeviceProfile.from_dict(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "profile"
        raise InputError(f"{where} is {first['input']!r}: {first['msg']}") from error
    check_profile_values(profile)
    return profile


def check_profile_values(profile: DeviceProfile) -> None:
    """Refuse values that are well-typed but make no sense together."""
    check_name(profile.name)
    runtime = find_runtime(profile.runtime)
    if profile.precision not in runtime.precisions:
        raise InputError(f"precision is {profile.precision!r}; {profile.runtime} runs {', '.join(runtime.precisions)}")
    if profile.threads > 1024:
        raise InputError(f"threads is {profile.threads}: give the threads of one inference, 1 to 1024")
    if profile.host != "local" and profile.command:
        raise InputError("host and command are both set: give a host for ssh, or a command for another way, not both")
    phone, program = profile.host.startswith(PREFIX), bool(profile.command) and "{runner}" not in profile.command
    if profile.host == PREFIX:
        raise InputError("host is 'adb:': give the serial after it, as `adb devices` lists it")
    if profile.host.startswith(POOL):
        pool_of(profile)
    if profile.program and not phone:
        raise InputError(
            "program is set, which is what a device reached by adb runs: give host adb:SERIAL, or leave it out"
        )
    if profile.cores and not (phone or program):
        raise InputError(
            f"cores is {list(profile.cores)}: only a device reached by adb or by a program of its own is pinned to "
            "given cores, others take the quietest; leave it out"
        )
    if any(core < 0 for core in profile.cores) or len(set(profile.cores)) < len(profile.cores):
        raise InputError(f"cores is {list(profile.cores)}: give each core once, 0 or more")
    if profile.cores and len(profile.cores) < profile.threads:
        raise InputError(f"cores is {list(profile.cores)}, fewer than {profile.threads} threads: give as many, or more")
    if profile.latency_model and Path(profile.latency_model).name != profile.latency_model:
        raise InputError(f"latency_model is {profile.latency_model!r}: give a file name beside the profile, no folders")
    for field in ("steadiness", "model_error", "session_noise"):
        value = getattr(profile, field)
        if value is not None and not 0 <= value < 10:
            raise InputError(f"{field} is {value}: it is a fraction, 0.02 for 2 %")
    if any(side < 1 for side in profile.resolutions):
        raise InputError(f"resolutions is {list(profile.resolutions)}: give input resolutions in pixels, 1 or more")


def write_profile(profile: DeviceProfile, folder: Path, model: LatencyModel | None = None) -> Path:
    """Write a profile as commented YAML, whole or not at all; returns its path.

    `model` is its latency model: it is filed first, under the name that the profile gives, so that a profile that is
    there has its model.
    """
    check_profile_values(profile)
    path = Path(folder) / f"{profile.name}.yaml"
    lines = ["# A device profile of Tutelage: edit it freely; `tutelage device show` checks it."]
    for field, value in profile.to_dict().items():
        lines.append(f"{field}: {_plain(value)}".rstrip() + f"  # {_COMMENTS[field]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if model is not None:
            model.save(path.parent / profile.latency_model)
        write_text(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise InputError(f"cannot write device profile {path}: {error.strerror}; choose another workspace") from error
    return path


def remove_profile(name: str, workspace: Path | None) -> list[Path]:
    """Remove a profile, a broken one too, and its data; returns the files removed. Profiles of the package stay."""
    check_name(name)
    folder = next((one for one in profile_folders(workspace) if (one / f"{name}.yaml").is_file()), None)
    if folder is None:
        _, folder = find_profile(name, workspace)  # says which there are
    if folder == profile_folders(None)[-1]:
        raise InputError(
            f"device {name} comes with the package and cannot be removed; one of your own of that name hides it"
        )
    try:
        model = read_profile(folder / f"{name}.yaml").latency_model
    except InputError:
        model = f"{name}.latency.json"
    files = [folder / f"{name}.yaml", *([folder / model] if model else []), folder / f"{name}.measurements.csv"]
    present = [path for path in files if path.is_file()]
    for path in present:
        path.unlink()
    return present


def check_name(name: str) -> None:
    """Refuse device names that could not be file names."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"device name {name!r}: use letters, digits, dots, dashes and underscores, starting with a letter or digit"
        )


def _plain(value: Any) -> str:
    """Write one value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()
