"""Single stages on given files: train one architecture (`distil_arch`), measure one model (`bench_file`)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.bench.converters.conversion import Conversion, size_bytes
from tutelage.bench.converters.convert import convert
from tutelage.bench.devices.profiles import (
    find_profile,
    known_profile,
    load_latency_model,
    profile_names,
    target_profile,
)
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.offline import measure_throughput
from tutelage.bench.protocol.preprocess import time_preprocessing
from tutelage.bench.protocol.remote import check_reachable
from tutelage.bench.runtimes.registry import find_runtime, read_shape
from tutelage.pipeline.context import Context
from tutelage.pipeline.keys.foreseen import foreseen
from tutelage.pipeline.keys.plan import Plan, planned_stages
from tutelage.pipeline.preflight import open_checked
from tutelage.pipeline.recipe import MAX_RECIPE_BYTES, Recipe, with_options
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages.students import choices, train_choices
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.entries import image_first, image_input, inputs_of
from tutelage.quant.files import read_graph
from tutelage.records import Arch, DeviceProfile, InputError, Measurement, Student, content_id, parsed_json
from tutelage.search.spaces.space import SPACES


def named_devices(
    recipe: Recipe, names: Sequence[str], max_latency: str | None, workspace: Path, risk: float | None = None
) -> list[DeviceSection]:
    """Give the devices a verb names, as the recipe or their profile has them, each with the budget and risk given."""
    sections = {section.name: section for section in recipe.devices}
    for name in names:
        if name in sections:
            continue
        found = known_profile(name, workspace)
        if found is None:
            known = list(dict.fromkeys((*sections, *profile_names(workspace))))
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            listed = ", ".join(known) or "none"
            raise InputError(f"no device {name!r}: known are {listed}{hint}; `tutelage device add {name}` makes it")
        profile, _ = found
        sections[name] = DeviceSection(name=name, runtime=profile.runtime, threads=profile.threads, batch=profile.batch)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--device {twice[0]} is given twice: name each device once")
    chosen = [sections[name] for name in names] or list(recipe.devices)
    if (max_latency is not None or risk is not None) and not chosen:
        raise InputError(
            f"--{'max-latency' if max_latency is not None else 'risk'} needs a device and recipe {recipe.name} has "
            "none: name one, e.g. --device host-ort"
        )
    if risk is not None and not 0 < risk < 0.5:
        raise InputError(
            f"risk is {risk}: give the probability of breaking the budget, above 0 and below 0.5, e.g. 0.05"
        )
    given = {"max_latency": max_latency, "risk": risk}
    update = {key: value for key, value in given.items() if value is not None}
    return [section.model_copy(update=update) for section in chosen]


def target_among(names: Sequence[str], workspace: Path) -> tuple[str | None, list[str]]:
    """Divide named devices into the one that is known by its memories alone, if any, and those that are timed."""
    targets = [name for name in names if target_profile(name, workspace) is not None]
    if len(targets) > 1:
        raise InputError(f"--device {targets[0]} and {targets[1]} are both targets by memory: name the smaller one")
    return (targets[0] if targets else None), [name for name in names if name not in targets]


def on_target(
    recipe: Recipe, target: str | None, timed: Sequence[str], max_latency: str | None, risk: float | None
) -> Recipe:
    """Give the recipe of a search for a target; where no other device is named, nothing is timed."""
    if target is None:
        return recipe
    if not timed:
        for option, value in (("--max-latency", max_latency), ("--risk", risk)):
            if value is not None:
                raise InputError(
                    f"{option} {value}: device {target} is known by its memories alone and no latency is predicted on "
                    "it: leave it out, or name a device that is timed beside it"
                )
        recipe = recipe.model_copy(update={"devices": ()})
    return with_options(recipe, {"search.target": target})


def with_budgets(
    recipe: Recipe, devices: Sequence[DeviceSection], max_latency: str | None, winners: int | None
) -> Recipe:
    """Give the recipe of a search on these devices; of several budgets that a verb names each has its winner.

    Both are set together: a number of winners goes with the budgets that are given, not with those of the recipe.
    """
    budgets = 0 if max_latency is None else len(max_latency.split(","))
    if winners is None and budgets > 1:
        winners = budgets
    return with_options(recipe, {"search.winners": winners}, devices)


def distil_arch(
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    *,
    path: Path,
    announce: Callable[[Plan], None] | None = None,
) -> list[Student]:
    """Train one architecture, given as OFA's JSON, from fresh weights with the recipe's teachers and schedule."""
    arch = read_arch(path)
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "arch")
        if announce is not None:
            announce(planned_stages(ctx, lambda planning: bool(_train_arch(planning, arch))))
        ctx.workspace.look_ahead(lambda: foreseen(ctx, lambda planning: bool(_train_arch(planning, arch))))
        return _train_arch(ctx, arch)


def _train_arch(ctx: Context, arch: Arch) -> list[Student]:
    teachers = [train_teacher(ctx, section) for section in ctx.recipe.teachers]
    student = Student(model=arch.short_name, role="student", arch=arch)
    return train_choices(ctx, student, None, choices(ctx, teachers))


def read_arch(path: Path) -> Arch:
    """Read one architecture from JSON, in the field's form with its space: {"space", "ks", "e", "d", "r"}."""
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise InputError(f"{path} is larger than {MAX_RECIPE_BYTES} bytes: that is not one architecture")
        arch = Arch.from_dict(parsed_json(path.read_text()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, ValidationError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not an architecture in JSON with space, ks, e, d and r: {reason}") from None
    if arch.space not in SPACES:
        raise InputError(f"{path}: unknown space {arch.space!r}, known are {', '.join(SPACES)}")
    SPACES[arch.space].with_resolutions((arch.r,)).check(arch)
    return arch


def bench_file(
    workspace: Workspace,
    report: Report,
    *,
    model: Path,
    device: str,
    resolution: int | None,
    offline: Sequence[int] = (),
    images: Path | None = None,
    entry: str = "",
) -> dict[str, Any]:
    """Measure one model file on a device and give its figures; an ONNX file is converted where the runtime needs it.

    `entry` names the input that takes the image, where an ONNX file has several: the others are given zeros.
    `offline` are batch sizes whose throughput is measured too; of a folder of `images` reading, resizing and
    normalising are timed, apart from the inference.
    """
    must_exist(model)
    profile, folder = find_profile(device, workspace.path)
    check_reachable(profile)
    if images is not None and not profile.local:
        raise InputError(
            f"--images are timed on this machine, and device {profile.name} is {profile.command or profile.host}: "
            "leave them out, or time them there"
        )
    shape = input_shape(model, resolution, entry, several=".onnx" in find_runtime(profile.runtime).suffixes)
    model, zeros = image_first(model, entry, workspace.path / "cache" / "converted")
    model = converted(model, profile, shape, workspace.path / "cache" / "converted")

    def progress_line(text: str, done: int, total: int) -> None:
        report(f"{text} on {profile.name}", done, total)

    anchor_ms = load_latency_model(profile, folder).anchor_ms if profile.latency_model else None
    values = figures(
        measure({model.name: model}, profile, shape, anchor_ms=anchor_ms, progress=progress_line)[model.name]
    )
    values["size_bytes"] = size_bytes(model)
    if zeros:
        values["inputs_of_zeros"] = ", ".join(zeros)
    if offline:
        rates = measure_throughput(model, profile, shape, batches=offline, progress=progress_line)
        values |= {f"images_a_second_batch_{batch}": rates.get(batch) for batch in offline}  # empty: not taken
    if images is not None:
        values |= time_preprocessing(images, shape)
    return values


def converted(model: Path, profile: DeviceProfile, shape: tuple[int, int, int], kept: Path) -> Path:
    """Give the file the device's runtime loads: the model itself, or what its converter makes of an ONNX file."""
    runtime = find_runtime(profile.runtime)
    if model.suffix in runtime.suffixes or model.suffix != ".onnx" or not runtime.converter:
        return model
    kept.mkdir(parents=True, exist_ok=True)
    target = kept / f"{model.stem}-{content_id([str(model.resolve()), profile.batch, *shape])[:8]}{runtime.suffixes[0]}"
    convert(runtime, [Conversion(model, target, (profile.batch, *shape))], kept)
    return target


def figures(found: Measurement) -> dict[str, Any]:
    """Name the figures of a measurement with their units."""
    return {
        "device": found.device,
        "runtime": f"{found.runtime} {found.runtime_version}",
        "threads": found.threads,
        "batch": found.batch,
        "precision": found.effective_precision,
        "samples": len(found.samples_ms),
        **({"inferences_a_sample": found.runs_a_sample} if found.runs_a_sample > 1 else {}),
        "p50_ms": found.p50_ms,
        "p90_ms": found.p90_ms,
        "p99_ms": found.p99_ms,
        "anchored_ms": found.anchored_ms,
        "drift": found.drift,
        "load_ms": found.load_ms,
        "peak_rss_bytes": found.peak_rss_bytes,
        "runtime_rss_bytes": found.runtime_rss_bytes,
        "energy_mj": found.energy_mj,
        **({"energy_method": found.energy_method} if found.energy_method else {}),
        **({"energy_missing": found.energy_missing} if found.energy_missing else {}),
        "host_load_before": found.host_load_before,
        "host_load_after": found.host_load_after,
        **_states(found),
    }


def _states(found: Measurement) -> dict[str, Any]:
    """Name what the device said of its clock, heat and power supply before and after; nothing where it was silent."""
    pairs = (("before", found.state_before), ("after", found.state_after))
    return {
        f"{name}_{when}": value
        for when, state in pairs
        if state is not None
        for name, value in state.to_dict().items()
        if value not in (None, "", [])
    }


def input_shape(
    model: Path, resolution: int | None, entry: str = "", *, several: bool = False, channels: int = 3
) -> tuple[int, int, int]:
    """Read (channels, height, width) from a model file; `channels` and `resolution` stand in for what it leaves free.

    Of an ONNX file's `several` inputs it is the image's: `entry`, or the one that has four dimensions.
    """
    dims: list[int | None]
    if model.suffix != ".onnx":
        if entry:
            raise InputError(f"--input {entry} names an input of an .onnx file, and {model} is none: leave it out")
        dims = read_shape(model)
    else:
        inputs = inputs_of(read_graph(model).graph)
        if len(inputs) != 1 and not (several and inputs):
            names = ", ".join(value.name for value in inputs) or "none"
            raise InputError(f"{model} takes {len(inputs)} inputs ({names}): give a network of one image")
        image = image_input(model, inputs, entry)
        dims = [dimension.dim_value or None for dimension in image.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise InputError(
            f"{model} takes an input of {len(dims)} dimensions; images are (batch, channels, height, width)"
        )
    height, width = dims[2] or resolution, dims[3] or resolution
    if height is None or width is None:
        raise InputError(f"{model} does not fix the input size: give it with --resolution, e.g. --resolution 224")
    return int(dims[1] or channels), int(height), int(width)


def must_exist(model: Path) -> None:
    """Raise InputError unless there is a file."""
    if not model.is_file():
        raise InputError(f"no model at {model}: `tutelage run` leaves them as artifacts/*/model.onnx in the workspace")
