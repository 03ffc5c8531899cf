"""Objectives of a search, read from their names in a recipe: `read_objectives`, `objectives_of`, `weighed_devices`.

The names are `error`, `error@int8`, `loss`, `auc`, `latency_ms@DEVICE`, `latency_ms@DEVICE:int8` and those of counts. A
device at int8 has its own profile, measured on int8 blocks and networks. Where nearly every subnet classifies the
validation images rightly, `loss` and `auc` still order them. Error at int8 is that of the file that the recipe would
deploy: the extracted subnet, exported, quantized after training (PTQ) by `quantize.method` within `quantize.max_drop`,
and run by the runtime.
"""

from __future__ import annotations

import difflib
import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.micro.convert import convert_for_micro
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.pipeline.operations.devices import int8_block_runtimes
from tutelage.pipeline.stages.quantization import (
    Quantization,
    Validation,
    calibration_images,
    quantized_file,
    validation,
)
from tutelage.pipeline.stages.training import SupernetInput
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Arch, InputError, NotAvailableError
from tutelage.search.objectives import COUNTS, Again, Direction, Objective, Score, Scores
from tutelage.search.spaces.space import Space
from tutelage.search.supernet import extract
from tutelage.search.supernet.scoring import SubnetScore, recalibrate_bn, resize, score_logits, score_subnets
from tutelage.search.supernet.standard_errors import error_std

from .context import Context, Opened, derived_seed
from .device import Device, open_device
from .recipe import Recipe
from .runtime_files import answers, runtime_file
from .sections import DeviceSection

log = logging.getLogger(__name__)

ERROR, LATENCY, INT8 = "error", "latency_ms@", "int8"
# What is scored on validation images, by the figure of `SubnetScore`, and which way is better.
SCORED: dict[str, Direction] = {ERROR: "min", "loss": "min", "auc": "max"}


@dataclass(frozen=True)
class Named:
    """One objective of a recipe: its name, what it is (error, latency_ms or a count), where, and at which precision."""

    name: str
    figure: str
    device: str = ""
    int8: bool = False


def read_objectives(recipe: Recipe) -> tuple[Named, ...]:
    """Read `search.objectives`, or give the default; raise InputError for a name that means nothing here."""
    devices = [section.name for section in recipe.devices]
    memories = ("int8_ram_bytes", "int8_file_bytes") if recipe.search.target else ("size_bytes",)
    default = (ERROR, *(f"{LATENCY}{name}" for name in devices), *memories)
    known = [*SCORED, f"{ERROR}@{INT8}", *(f"{LATENCY}{name}{end}" for name in devices for end in ("", f":{INT8}"))]
    names = recipe.search.objectives or default
    for name in names:
        if name not in (*known, *COUNTS):
            near = difflib.get_close_matches(name, [*known, *COUNTS], n=1)
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise InputError(f"search.objectives: unknown {name!r}{hint}; known: {', '.join([*known, *COUNTS])}")
    scored = [name for name in names if name.split("@")[0] in SCORED]
    if len(scored) != 1 or len(set(names)) < len(names):
        choice = ", ".join((ERROR, f"{ERROR}@{INT8}", *(name for name in SCORED if name != ERROR)))
        raise InputError(f"search.objectives {list(names)}: name each once, and one of {choice}")
    return named_objectives(names)


def deploys_int8(recipe: Recipe) -> bool:
    """Say whether the file that is deployed is the int8 one: to a target, or where an objective is at int8."""
    return recipe.search.target is not None or any(one.int8 for one in read_objectives(recipe))


def named_objectives(names: Sequence[str]) -> tuple[Named, ...]:
    """Read the names of objectives that were checked before."""
    return tuple(_named(name) for name in names)


def weighed_devices(ctx: Context, space: Space, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Give the devices whose latency is weighed; one named at int8 is opened (measured at first use) as NAME-int8.

    A budget of the recipe binds the precision that is weighed, each where both are.
    """
    opened: list[Device] = []
    sections = {section.name: section for section in ctx.recipe.devices}
    wanted = {(one.device, one.int8) for one in read_objectives(ctx.recipe) if one.device}
    for device in devices:
        check_weighed(ctx.recipe, sections[device.name])
        if (device.name, False) in wanted:
            opened.append(device)
        if (device.name, True) not in wanted:
            continue
        section = int8_section(sections[device.name])
        tolerance = ctx.recipe.measure.tolerance
        int8 = open_device(
            ctx.workspace, section, space, ctx.num_classes, ctx.channels, ctx.report,
            tolerance=tolerance, precision=INT8, sibling=device.profile,
        )  # fmt: skip
        if (int8.profile.host, int8.profile.command) != (device.profile.host, device.profile.command):
            raise InputError(
                f"device {int8.name} is on host {int8.profile.command or int8.profile.host}, {device.name} on "
                f"{device.profile.command or device.profile.host}: `tutelage device remove {int8.name}`, and it is "
                "measured where it is"
            )
        if int8.profile.precision != INT8:
            raise InputError(
                f"device {int8.name} is a profile at {int8.profile.precision}: `tutelage device remove {int8.name}`, "
                "and it is measured at int8"
            )
        opened.append(int8)
    return tuple(opened)


def check_weighed(recipe: Recipe, section: DeviceSection) -> None:
    """Refuse a budget on a device whose latency no objective names, and a latency at int8 that is not measured."""
    wanted = {one.int8 for one in read_objectives(recipe) if one.device == section.name}
    if section.max_latency is not None and not wanted:
        raise InputError(
            f"device {section.name} has max_latency {section.max_latency}, and search.objectives name no latency on "
            f"it: add {LATENCY}{section.name}, or leave the budget out"
        )
    if True in wanted and section.runtime not in int8_block_runtimes():
        raise InputError(
            f"{LATENCY}{section.name}:{INT8}: subnets are quantized for {', '.join(int8_block_runtimes())} "
            f"while they are searched, not for {section.runtime}: name another device"
        )


def weighed_sections(recipe: Recipe) -> list[DeviceSection]:
    """List the devices whose latency is weighed, those at int8 by the names of their own profiles."""
    wanted = {(one.device, one.int8) for one in read_objectives(recipe) if one.device}
    plain = [section for section in recipe.devices if (section.name, False) in wanted]
    return plain + [int8_section(section) for section in recipe.devices if (section.name, True) in wanted]


def int8_section(section: DeviceSection) -> DeviceSection:
    """Name the device at int8: its profile is another one."""
    return section.model_copy(update={"name": f"{section.name}-{INT8}"})


def latency_name(device: Device) -> str:
    """Name a device's latency as an objective and a bound: latency_ms@NAME, or latency_ms@NAME:int8."""
    if device.profile.precision == INT8 and device.name.endswith(f"-{INT8}"):
        return f"{LATENCY}{device.name.removesuffix(f'-{INT8}')}:{INT8}"
    return f"{LATENCY}{device.name}"


def scored_name(names: Sequence[Named]) -> Named:
    """Give the one objective that is scored on validation images."""
    return next(one for one in names if one.figure in SCORED)


def objectives_of(
    names: Sequence[Named], devices: Sequence[Device], score: Score, again: Again | None = None, most: int = 1
) -> tuple[Objective, ...]:
    """List what is weighed, in the order of `names`; `again` scores archs on further images, see `Objective`.

    Latency is the upper end of the model's interval at the device's risk, so that a budget is kept even where the
    model is unsure.
    """
    latencies = {latency_name(device): upper_latency(device.model, device.risk) for device in devices}
    return objectives_by(names, latencies, score, again, most)


def objectives_by(
    names: Sequence[Named],
    latencies: Mapping[str, Score],
    score: Score,
    again: Again | None = None,
    most: int = 1,
) -> tuple[Objective, ...]:
    """List objectives by their names; `latencies` predicts each that is named on a device."""
    found = []
    for one in names:
        if one.figure in SCORED:
            found.append(Objective(one.name, SCORED[one.figure], score, cheap=False, again=again, most=most))
        elif one.device:
            found.append(Objective(one.name, "min", latencies[one.name]))
        else:
            found.append(Objective(one.name))
    return tuple(found)


def int8_runtime(recipe: Recipe, devices: Sequence[Device]) -> str:
    """Name the runtime whose int8 file `error@int8` is of: a device's that is weighed at int8, else the first one's."""
    weighed = [device.profile.runtime for device in devices if device.profile.precision == INT8]
    runtimes = [*weighed, *(device.profile.runtime for device in devices), *(one.runtime for one in recipe.devices)]
    runtime = next(iter(runtimes), "onnxruntime")
    if INT8 not in find_runtime(runtime).precisions:
        raise InputError(f"{ERROR}@{INT8}: {runtime} has no int8 here: name a device of another runtime first")
    return runtime


class Subnets:
    """Subnets of a trained supernet as a search scores them: recalibrated, and their int8 files."""

    def __init__(
        self,
        here: Opened,
        supernet: SupernetInput,
        batch_size: int,
        num_batches: int,
        seed: int,
        num_images: int | None = None,
    ) -> None:
        """Load the supernet. BN is recalibrated on `num_batches` of `batch_size` training images for each subnet.

        `num_images` validation images are an evaluation: the first is on the same ones for every subnet, a further one
        on others. None: all are.
        """
        self._here, self._seed, self._num_images = here, seed, num_images
        self.net, self.side = here.accelerator.place(supernet.load(here)), max(supernet.resolutions)
        self.calibration = recalibration_images(here, self.side, batch_size, num_batches, seed)
        self._images: dict[int, tuple[NDArray[np.float32], Validation]] = {}

    @cached_property
    def parts(self) -> list[NDArray[np.int64] | None]:
        """Divide the validation images, each class alike, into one part for each evaluation of a subnet; None: all."""
        if self._num_images is None:
            return [None]
        labels = self._here.dataset.labels[self._here.dataset.indices("val")]
        number = max(1, len(labels) // self._num_images)
        rng = np.random.default_rng(derived_seed(self._seed, "validation parts"))
        order = rng.permutation(len(labels))
        if labels.ndim == 1:
            order = order[np.argsort(labels[order], kind="stable")]
        return [np.sort(order[start::number]) for start in range(number)]

    def score(self, archs: Sequence[Arch], figure: str, before: Sequence[int] | None = None) -> Scores:
        """Give a figure of `SubnetScore` for each subnet with inherited weights, on the part of images that is next."""

        def scores(chosen: Sequence[Arch], part: NDArray[np.int64] | None) -> list[SubnetScore]:
            images, labels = self._here.split("val", self.side, part)
            return score_subnets(
                self.net, chosen, self.calibration, images, labels,
                multi_label=self._here.dataset.multi_label, workers=self._here.threads,
            )  # fmt: skip

        return self._by_part(archs, figure, before, scores)

    def int8_errors(
        self, archs: Sequence[Arch], how: Quantization, runtime: str, before: Sequence[int] | None = None
    ) -> Scores:
        """Give the validation error of each subnet's int8 file, made as the recipe deploys it; 1 where none is made."""

        def scores(chosen: Sequence[Arch], part: NDArray[np.int64] | None) -> list[SubnetScore]:
            return [self._int8_score(arch, how, runtime, part) for arch in chosen]

        return self._by_part(archs, ERROR, before, scores)

    def _by_part(
        self,
        archs: Sequence[Arch],
        figure: str,
        before: Sequence[int] | None,
        scores: Callable[[Sequence[Arch], NDArray[np.int64] | None], Sequence[SubnetScore]],
    ) -> Scores:
        """Score archs, those with equally many evaluations before together, on the images of their next one."""
        turn = np.array(before if before is not None else [0] * len(archs), dtype=np.int64)
        values, errors = np.zeros(len(archs)), np.zeros(len(archs))
        for number in sorted({*turn.tolist()}):
            places = [place for place, had in enumerate(turn) if had == number]
            found = scores([archs[place] for place in places], self.parts[number])
            values[places] = [getattr(one, figure) for one in found]
            errors[places] = [getattr(one, f"{figure}_std") for one in found]
        return Scores(values, errors)

    def int8_file(self, arch: Arch, how: Quantization, runtime: str, folder: Path) -> Path:
        """Write the int8 file of a subnet into `folder`, by the recipe's method and within its `max_drop`."""
        subnet = self._recalibrated(arch)
        if arch.r not in self._images:
            images = calibration_images(self._here, arch.r, how.calibration_images, self._seed)
            self._images[arch.r] = images, validation(self._here, arch.r, self._seed)
        calibration, val = self._images[arch.r]
        onnx = folder / f"{arch.id}.onnx"
        export_onnx(subnet, onnx, (1, self._here.channels, arch.r, arch.r), check=False)
        fp32 = runtime_file(self._here, runtime, subnet, onnx, arch.r)
        return quantized_file(self._here, how, runtime, subnet, fp32, arch.r, calibration, val)[1]

    def micro_files(self, archs: Sequence[Arch], num_calibration: int, folder: Path) -> dict[str, Path]:
        """Write the int8 file of each subnet that a microcontroller runs into `folder`; gives them by arch id."""
        found = dict[str, Path]()
        for side in sorted({arch.r for arch in archs}):
            shape = (1, self._here.channels, side, side)
            conversions = []
            for arch in (arch for arch in archs if arch.r == side):
                found[arch.id] = folder / f"{arch.id}-micro.tflite"
                onnx = folder / f"{arch.id}-micro.onnx"
                export_onnx(self._recalibrated(arch), onnx, shape, dynamic_batch=False, check=False)
                conversions.append(Conversion(onnx, found[arch.id], shape))
            convert_for_micro(conversions, calibration_images(self._here, side, num_calibration, self._seed))
        return found

    def _recalibrated(self, arch: Arch) -> torch.nn.Module:
        subnet = extract(self.net, arch)
        device = self._here.accelerator.device
        recalibrate_bn(subnet, [resize(batch.to(device), arch.r) for batch in self.calibration])
        return subnet.cpu().eval()

    def _int8_score(self, arch: Arch, how: Quantization, runtime: str, part: NDArray[np.int64] | None) -> SubnetScore:
        images, labels = self._here.split("val", arch.r, part)
        with tempfile.TemporaryDirectory(prefix="tutelage-int8-") as folder:
            try:
                path = self.int8_file(arch, how, runtime, Path(folder))
            except NotAvailableError:
                raise
            except InputError as error:  # no int8 row of it would be filed
                log.warning("%s has no int8 file for %s: %s", arch.id, runtime, error)
                return SubnetScore(1.0, math.nan, math.nan, error_std(1.0, len(labels)))
            logits = answers(runtime, path, images.numpy(), self._here.threads)
        return score_logits(torch.from_numpy(logits), labels, multi_label=self._here.dataset.multi_label)


def _named(name: str) -> Named:
    if name.startswith(LATENCY):
        device, _, precision = name.removeprefix(LATENCY).partition(":")
        return Named(name, "latency_ms", device, precision == INT8)
    figure, _, precision = name.partition("@")
    return Named(name, figure, int8=precision == INT8)


def upper_latency(model: LatencyModel, risk: float) -> Score:
    """Score subnets by the upper end, in ms, of the interval that the model gives their latency at this risk."""
    return lambda archs: model.predict(archs, coverage=1 - 2 * risk)[2]


def recalibration_images(here: Opened, side: int, batch_size: int, num_batches: int, seed: int) -> list[torch.Tensor]:
    """Draw batches of training images `(b, c, side, side)` on which batch norm of a subnet is recalibrated."""
    rng = np.random.default_rng(derived_seed(seed, "recalibration"))
    places = rng.permutation(len(here.dataset.indices("train")))[: batch_size * num_batches]
    drawn = here.split("train", side, np.sort(places))[0]
    return [drawn[start : start + batch_size] for start in range(0, len(drawn), batch_size)]
