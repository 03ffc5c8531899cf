"""Begin with a user's own images: `start` looks at them, chooses, measures, checks and writes a first recipe."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.accelerator import find_accelerator, use
from tutelage.bench.devices.profiles import known_profile, profile_names, target_profile
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.distill.data.cache import decode_all
from tutelage.distill.data.containers.hub import is_hub_name
from tutelage.distill.data.dataset import Listing
from tutelage.distill.data.registry import open_images
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.files import write_text
from tutelage.pipeline.context import images_request
from tutelage.pipeline.device import Device, check_energy, memory_target, open_device
from tutelage.pipeline.preflight import open_checked
from tutelage.pipeline.recipe import Recipe, built_in_recipes
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages.bundle import BUNDLED
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quantities import latency_budgets, millijoules, size_in_bytes
from tutelage.records import DeviceProfile, InfeasibleBudgetError, InputError
from tutelage.search.spaces.space import Space, find_space

from . import choices, pretrained
from .choices import Choice, Epochs, Memory
from .chosen import Chosen, Wish, memory_of, written
from .findings import Findings, look
from .timing import STATED_SIDE, StepTimes, measure_steps, stated_steps

MOST_UNREADABLE = 0.05  # of the pictures: a few damaged ones are left out, more are refused
DRAWN = 2000  # subnets whose latencies are predicted, for the range and the fraction within the budget
_TRIED_SPACE, _TRIED_BATCH = "ofa_mbv3_w1.0", 16  # of the first timing, which chooses the image size
_UNNAMED = re.compile(r"[^\w.-]+")
_NOT_YET = Epochs(1, 1, 1, choices.FEWEST_EVALUATIONS, "")


@dataclass(frozen=True)
class LatencyRange:
    """Predicted latencies (means) of a space on the device in ms, and the fraction of subnets within the budget."""

    smallest_ms: float
    largest_ms: float
    holds_from_ms: float  # the least upper end of a prediction's interval: smaller budgets are infeasible
    budget_ms: float | None
    within: float | None


@dataclass(frozen=True)
class Started:
    """A written recipe and what it was written from."""

    out: Path
    chosen: Chosen
    recipe: Recipe
    latency: LatencyRange
    seconds: Mapping[str, float]  # of each part of a run
    disk_bytes: int
    times: StepTimes

    @property
    def minutes(self) -> float:
        """Give the minutes that a run will take."""
        return sum(self.seconds.values()) / 60

    def to_dict(self) -> dict[str, Any]:
        """Give what was found, chosen and estimated as JSON-able values."""
        found = self.chosen.found
        path = None if found.path is None else str(found.path)
        return {
            "recipe": str(self.out),
            "found": {**asdict(found), "path": path},
            "latency": asdict(self.latency),
            "seconds": dict(self.seconds),
            "minutes": self.minutes,
            "disk_bytes": self.disk_bytes,
            "seconds_an_image": asdict(self.times),
            "chosen": self.recipe.model_dump(mode="json"),
        }


def check_wish(wish: Wish) -> None:
    """Refuse what no data could make right, before anything is read."""
    budgets: list[tuple[str, str | None, Callable[[str], object]]] = [
        ("--max-latency", wish.max_latency, latency_budgets),
        ("--max-size", wish.max_size, size_in_bytes),
        ("--max-ram", wish.max_ram, size_in_bytes),
        ("--max-energy", wish.max_energy, millijoules),
    ]
    for option, value, read in budgets:
        if value is not None:
            try:
                read(value)
            except InputError as error:
                raise InputError(f"{option}: {error}") from None
    if not 1 <= wish.minutes <= 14 * 24 * 60:
        raise InputError(f"--minutes is {wish.minutes:g}: give the minutes that a run may take, from 1 to two weeks")
    if wish.side is not None and not 16 <= wish.side <= 1024:
        raise InputError(f"--size is {wish.side}: give 16 to 1024 pixels")
    if wish.runtime is not None and not find_runtime(wish.runtime).files_rows:
        filing = ", ".join(one.listed for one in RUNTIMES.values() if one.files_rows)
        raise InputError(f"--runtime {wish.runtime}: a run files no rows for it; give one of {filing}")


def look_first(wish: Wish) -> Findings:
    """Look at the images, before the workspace is locked and the recipe's place is checked.

    Raises InputError for images that cannot be used: no other message is of use until they can.
    """
    check_wish(wish)
    return look(_absolute(wish.path), wish.dataset)


def start(wish: Wish, found: Findings, workspace: Workspace, report: Report, threads: int, out: Path) -> Started:
    """Choose a recipe for the images (`look_first`) and the device, check it as a run does, and write it to `out`.

    Raises InputError for data or a device that cannot be used, and InfeasibleBudgetError, with the range of latencies,
    for a budget that no subnet keeps.
    """
    section, profile = _device(wish, workspace)
    memory = memory_of(wish, None if wish.target is None else memory_target(workspace.path, wish.target), profile)
    check_energy(workspace.path, [section], wish.max_energy)
    use(find_accelerator(wish.accelerator))
    torch.set_num_threads(threads)  # as a run does
    unknown = profile is None and not wish.add_device  # refused before anything is timed
    side, space = _size_and_space(replace(wish, timing=wish.timing and not unknown), found, profile, memory, report)
    place = find_space(space.value).with_resolutions((side.value,))
    if unknown:
        raise InputError(_unknown_device(section, workspace, place, found))
    first = _first_choice(wish, found, section, side, space)
    first = replace(first, unreadable=_unreadable(first, workspace, threads))
    device = open_device(
        workspace, section, place, len(found.class_counts), first.channels, report,
        tolerance=first.recipe.measure.tolerance,
    )  # fmt: skip
    latency = latency_range(device, place)
    try:
        ctx = open_checked(first.recipe, workspace, report, threads, "run")
    except InfeasibleBudgetError as error:
        if section.max_latency is None:
            raise
        raise InfeasibleBudgetError(
            f"{error}. Subnets of {place.name} at {side.value} px take {latency.smallest_ms:.3g} to "
            f"{latency.largest_ms:.3g} ms on {device.name} by the means of the predictions; a smaller --size is faster"
        ) from None
    counts = [len(ctx.dataset.indices(name)) for name in ("train", "val", "test")]
    chosen, times, seconds = _with_schedule(first, place, counts, report)
    disk = _disk(chosen, place)
    known_by = "steps timed on this host" if times.measured else "stated times of a 2-core server, rough estimates"
    cost = f"a run takes {about(sum(seconds.values()) / 60)} and {about_bytes(disk)} of disk, by {known_by}"
    notes = (_range_words(device, latency, chosen), cost)
    chosen = replace(chosen, notes=notes)
    write_text(out, written(chosen))
    return Started(out, chosen, chosen.recipe, latency, seconds, disk, times)


def latency_range(device: Device, space: Space) -> LatencyRange:
    """Predict the latencies of a space's subnets: its smallest and largest, and many that are drawn."""
    drawn = space.decode(space.random(DRAWN, np.random.default_rng(0)))
    mean, _, high = device.model.predict([space.smallest(), space.largest(), *drawn], 1 - 2 * device.risk)
    budget = device.max_latency_ms
    within = None if budget is None else float(np.mean(high[2:] <= budget))
    return LatencyRange(float(mean.min()), float(mean.max()), float(high.min()), budget, within)


def about(minutes: float) -> str:
    """Round minutes as honestly as they are known: tens of seconds, whole ones, then fives, then quarters of hours."""
    if minutes < 2:
        return f"about {10 * max(1, round(minutes * 6))} s"
    if minutes < 10:
        return f"about {round(minutes)} min"
    if minutes < 90:
        return f"about {5 * round(minutes / 5)} min"
    return f"about {round(minutes / 15) / 4:g} h"


def about_bytes(number: int) -> str:
    """Round bytes up to tens of megabytes, or tenths of gigabytes."""
    tens = -(-number // 10_000_000) * 10
    return f"about {tens} MB" if tens < 1000 else f"about {tens / 1000:.1f} GB"


def _absolute(path: Path | None) -> Path | None:
    """Give a place on this disk from any folder; names of the hub and patterns of shards stay as they are."""
    if path is None or is_hub_name(path) or not path.expanduser().exists():
        return path
    return Path(os.path.abspath(path.expanduser()))


def _device(wish: Wish, workspace: Workspace) -> tuple[DeviceSection, DeviceProfile | None]:
    """Give the device as the recipe names it and its profile, None where it is not measured yet."""
    known = known_profile(wish.device, workspace.path)
    if target_profile(wish.device, workspace.path) is not None:
        raise InputError(
            f"device {wish.device} is known by its memories alone, and nothing is measured on it: give --target "
            f"{wish.device}, and a device that is timed for --device"
        )
    if known is None:
        return DeviceSection(
            name=wish.device, runtime=wish.runtime or "onnxruntime", max_latency=wish.max_latency
        ), None
    profile = known[0]
    if wish.runtime not in (None, profile.runtime):
        raise InputError(
            f"device {profile.name} runs {profile.runtime}, and --runtime is {wish.runtime}: leave it out, or name "
            "another device"
        )
    section = DeviceSection(
        name=profile.name, runtime=profile.runtime, threads=profile.threads, batch=profile.batch,
        max_latency=wish.max_latency,
    )  # fmt: skip
    return section, profile


def _unknown_device(section: DeviceSection, workspace: Workspace, space: Space, found: Findings) -> str:
    names = profile_names(workspace.path)
    near = difflib.get_close_matches(section.name, names, n=1)
    known = (", ".join(names) or "none") + (f" (did you mean {near[0]!r}?)" if near else "")
    words = [
        "tutelage", "device", "add", section.name, "--runtime", section.runtime, "--space", space.name,
        "--resolution", str(space.resolutions[0]), "--channels", str(found.channels),
        "--classes", str(len(found.class_counts)), "-w", str(workspace.path),
    ]  # fmt: skip
    return (
        f"no device {section.name!r}: known are {known}. Give --add-device to measure this machine under that name "
        f"(3 min), or add it: `{shlex.join(words)}`"
    )


def _size_and_space(
    wish: Wish, found: Findings, profile: DeviceProfile | None, memory: Memory, report: Report
) -> tuple[Choice[int], Choice[str]]:
    """Choose the image size and the space; a known device's latency model bounds both."""
    sides = profile.resolutions if profile is not None else ()
    spaces = profile.spaces if profile is not None else ()
    if wish.side is not None and sides and wish.side not in sides:
        raise InputError(
            f"--size {wish.side}: the latency model of device {wish.device} knows {', '.join(map(str, sides))} px; "
            "leave --size out, or name a device of another name with --add-device"
        )
    times = stated_steps(STATED_SIDE)
    if wish.timing and wish.side is None and len(sides) != 1:
        report("time a training step", 0, 2)
        times = measure_steps(
            find_space(_TRIED_SPACE), STATED_SIDE, found.channels, len(found.class_counts), _TRIED_BATCH,
            accelerator=find_accelerator(wish.accelerator),
        )  # fmt: skip
        report("time a training step", 1, 2)
    side = choices.choose_side(found, wish.side, sides, times, STATED_SIDE, wish.minutes)
    if wish.side is None and not sides:
        side = choices.within_ram(side, found, memory)
    return side, choices.choose_space(found, side.value, spaces, memory, _budget_ms(wish))


def _budget_ms(wish: Wish) -> float | None:
    """Give the smallest budget in milliseconds, where it is not a fraction of the device's range."""
    read = latency_budgets(wish.max_latency) if wish.max_latency is not None else ()
    return min((amount for amount, relative in read if not relative), default=None)


def _first_choice(wish: Wish, found: Findings, section: DeviceSection, side: Choice[int], space: Choice[str]) -> Chosen:
    """Give what can be chosen before the images are decoded and split."""
    channels = found.channels
    where = found.path if found.path is not None else Path(found.dataset)
    name = (_UNNAMED.sub("-", where.name.split(".")[0]).strip("-.") or "images")[:80]
    return Chosen(
        name=f"my-{name}" if name in built_in_recipes() else name,
        wish=wish,
        found=found,
        device=section,
        side=side,
        space=space,
        split="",
        weighting=choices.choose_weighting(found),
        teacher=Choice(("", ""), ""),
        pretrained_supernet=side.value >= pretrained.MIN_SIDE
        and pretrained.has_supernet_weights(space.value, channels),
        pretrained_baseline=side.value >= pretrained.MIN_SIDE
        and pretrained.has_network_weights(pretrained.BASELINE, channels),
        batch=8,
        calibration_images=16,
        epochs=_NOT_YET,
        bundles=section.runtime in BUNDLED,
    )


def _unreadable(chosen: Chosen, workspace: Workspace, threads: int) -> int:
    """Decode the pictures into the workspace's cache, where a run finds them, and count those that cannot be read.

    Some damaged files among many are left out by the recipe; more are refused, since something else is wrong then.
    """
    request = images_request(chosen.recipe, workspace, threads)
    listing = open_images(request)
    if not isinstance(listing, Listing):
        return 0
    faults = [*decode_all(listing, request).errors.values(), *(f"{one} is not there" for one in listing.missing)]
    if len(faults) > MOST_UNREADABLE * len(listing.paths):
        raise InputError(
            f"{len(faults)} of {len(listing.paths)} pictures cannot be read, e.g. {faults[0]}: mend or remove them; "
            f"`tutelage data check {shlex.quote(str(chosen.found.path))}` names all"
        )
    return len(faults)


def _with_schedule(
    first: Chosen, space: Space, counts: list[int], report: Report
) -> tuple[Chosen, StepTimes, dict[str, float]]:
    """Choose what hangs on the splits and on this host's times: teacher, batch, epochs; estimate the parts of a run."""
    (num_train, num_val, num_test), found, wish = counts, first.found, first.wish
    teacher = choices.choose_teacher(found, first.side.value, first.channels, num_train, wish.minutes)
    batch = choices.choose_batch(num_train)
    times = stated_steps(first.side.value)
    if wish.timing:
        report("time a training step", 1, 2)
        times = measure_steps(
            space, first.side.value, first.channels, len(found.class_counts), batch, teacher=teacher.value[0],
            multi_label=found.multi_label, accelerator=find_accelerator(wish.accelerator),
        )  # fmt: skip
        report("time a training step", 2, 2)
    work = choices.Work(
        num_train, num_val, first.winners, first.seeds, has_teacher=bool(teacher.value[0]),
        fresh_baseline=not first.pretrained_baseline,
    )  # fmt: skip
    epochs = choices.choose_epochs(times, work, wish.minutes)
    chosen = replace(
        first,
        split=choices.choose_split(found, num_test),
        teacher=teacher,
        batch=batch,
        calibration_images=min(128, num_train),
        epochs=epochs,
    )
    return chosen, times, choices.run_seconds(epochs, times, work)


def _disk(chosen: Chosen, space: Space) -> int:
    params = 0
    if name := chosen.teacher.value[0]:
        params = sum(one.numel() for one in build_teacher(name, 2, 3, resolution=chosen.side.value).parameters())
    networks = (chosen.winners + 1) * (2 if params else 1) * chosen.seeds
    found = chosen.found
    return choices.disk_bytes(found.num_images, chosen.channels, space, len(found.class_counts), networks, params)


def _range_words(device: Device, latency: LatencyRange, chosen: Chosen) -> str:
    words = (
        f"subnets of {chosen.space.value} at {chosen.side.value} px take {latency.smallest_ms:.3g} to "
        f"{latency.largest_ms:.3g} ms on {device.name} (predicted), and budgets hold from "
        f"{latency.holds_from_ms:.3g} ms on (the upper end of a prediction)"
    )
    if latency.budget_ms is None or latency.within is None:
        return words
    if latency.within == 1:
        return f"{words}; all of them are within {latency.budget_ms:.3g} ms: a larger --size could use the rest"
    part = "fewer than 1%" if latency.within < 0.01 else f"{latency.within:.0%}"
    return f"{words}; {part} of those drawn at random are within {latency.budget_ms:.3g} ms"


def words_of(started: Started, next_command: str) -> list[str]:
    """Say in lines what was found and chosen and why, what a run will take, and the next command."""
    chosen, found = started.chosen, started.chosen.found
    counts = ", ".join(f"{name} {number:,}" for name, number in found.class_counts.items())
    epochs = chosen.epochs
    teacher = chosen.teacher.value[0] or "none"
    parts = ", ".join(
        f"{name} {about(value / 60).removeprefix('about ')}" for name, value in started.seconds.items() if value >= 5
    )
    return [
        f"found: {found.num_images:,} {'colour' if found.colour else 'gray'} images ({found.dataset}"
        f"{', multi-label' if found.multi_label else ''}): {counts}",
        *(f"note: {note}" for note in found.notes),
        *([f"note: {chosen.unreadable} pictures cannot be read and are left out"] if chosen.unreadable else []),
        f"split: {chosen.split}",
        f"image size: {chosen.side.value} px ({chosen.side.why})",
        f"space: {chosen.space.value} ({chosen.space.why})",
        f"teacher: {teacher} ({chosen.teacher.why.removeprefix('none. ')})",
        f"epochs: supernet {epochs.supernet}, students {epochs.student} ({epochs.why}); {epochs.evaluations} subnets "
        "evaluated by the search",
        f"class weights: {chosen.weighting.value} ({chosen.weighting.why})",
        *chosen.notes,
        *([f"of that {parts}"] if parts else []),
        f"written: {started.out}; next: {next_command}",
    ]
