"""Objectives of a search, read from their names in a recipe: `read_objectives`, `objectives_of`, `weighed_devices`.

The names are `error`, `error@int8`, `latency_ms@DEVICE`, `latency_ms@DEVICE:int8` and those of counts. A device at int8
has its own profile, measured on int8 blocks and networks. Error at int8 is that of the extracted subnet, exported,
quantized after training (PTQ) and run by the runtime: the file that would be deployed, not a simulation.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.pipeline.operations.devices import int8_block_runtimes
from tutelage.pipeline.stages.supernet import Supernet
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.calibration import draw_by_class
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.run import run_onnx
from tutelage.records import Arch, InputError
from tutelage.search.objectives import COUNTS, Objective, Score
from tutelage.search.spaces.space import Space
from tutelage.search.supernet import extract
from tutelage.search.supernet.scoring import recalibrate_bn, score_logits, score_subnets

from .context import Context
from .device import Device, open_device
from .recipe import Recipe

ERROR, LATENCY, INT8 = "error", "latency_ms@", "int8"


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
    default = (ERROR, *(f"{LATENCY}{name}" for name in devices), "size_bytes")
    known = [ERROR, f"{ERROR}@{INT8}", *(f"{LATENCY}{name}{end}" for name in devices for end in ("", f":{INT8}"))]
    names = recipe.search.objectives or default
    for name in names:
        if name not in (*known, *COUNTS):
            near = difflib.get_close_matches(name, [*known, *COUNTS], n=1)
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise InputError(f"search.objectives: unknown {name!r}{hint}; known: {', '.join([*known, *COUNTS])}")
    errors = [name for name in names if name.split("@")[0] == ERROR]
    if len(errors) != 1 or len(set(names)) < len(names):
        raise InputError(f"search.objectives {list(names)}: name each once, and one of {ERROR}, {ERROR}@{INT8}")
    return tuple(_named(name) for name in names)


def weighed_devices(ctx: Context, space: Space, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Give the devices whose latency is weighed; one named at int8 is opened (measured at first use) as NAME-int8.

    A budget of the recipe binds the precision that is weighed, each where both are.
    """
    opened: list[Device] = []
    sections = {section.name: section for section in ctx.recipe.devices}
    wanted = {(one.device, one.int8) for one in read_objectives(ctx.recipe) if one.device}
    for device in devices:
        if (device.name, False) in wanted:
            opened.append(device)
        elif device.max_latency_ms is not None and (device.name, True) not in wanted:
            raise InputError(
                f"device {device.name} has max_latency {sections[device.name].max_latency}, and search.objectives name "
                f"no latency on it: add {LATENCY}{device.name}, or leave the budget out"
            )
        if (device.name, True) not in wanted:
            continue
        if device.profile.runtime not in int8_block_runtimes():
            raise InputError(
                f"{LATENCY}{device.name}:{INT8}: subnets are quantized for {', '.join(int8_block_runtimes())} "
                f"while they are searched, not for {device.profile.runtime}: name another device"
            )
        section = sections[device.name].model_copy(update={"name": f"{device.name}-{INT8}"})
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


def latency_name(device: Device) -> str:
    """Name a device's latency as an objective and a bound: latency_ms@NAME, or latency_ms@NAME:int8."""
    if device.profile.precision == INT8 and device.name.endswith(f"-{INT8}"):
        return f"{LATENCY}{device.name.removesuffix(f'-{INT8}')}:{INT8}"
    return f"{LATENCY}{device.name}"


def objectives_of(ctx: Context, devices: Sequence[Device], error: Score) -> tuple[Objective, ...]:
    """List what is weighed, in the recipe's order.

    Latency is the upper end of the model's interval at the device's risk, so that a budget is kept even where the
    model is unsure.
    """
    latencies = {latency_name(device): device for device in devices}
    found = []
    for one in read_objectives(ctx.recipe):
        if one.figure == ERROR:
            found.append(Objective(one.name, "min", error, cheap=False))
        elif one.device:
            found.append(Objective(one.name, "min", _upper_latency(latencies[one.name])))
        else:
            found.append(Objective(one.name))
    return tuple(found)


def scorer(ctx: Context, supernet: Supernet) -> Score:
    """Make the expensive objective: error on validation images with inherited weights and recalibrated BN."""
    net = supernet.load(ctx)
    side = max(supernet.space.resolutions)
    images, labels = ctx.split("val", side)
    batch = ctx.recipe.supernet.batch_size
    train_images, train_labels = ctx.split("train", side)
    rng = np.random.default_rng(ctx.seed("recalibration"))
    drawn = rng.permutation(len(train_images))[: batch * ctx.recipe.search.calibration_batches]
    chosen = train_images[np.sort(drawn)]
    calibration = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
    if any(one.figure == ERROR and one.int8 for one in read_objectives(ctx.recipe)):
        seen = train_images[calibration_places(ctx, train_images, train_labels)]

        def score_int8(archs: Sequence[Arch]) -> NDArray[np.float64]:
            return np.array([_int8_error(ctx, net, arch, calibration, seen, images, labels) for arch in archs])

        return score_int8

    def score(archs: Sequence[Arch]) -> NDArray[np.float64]:
        multi_label = ctx.dataset.multi_label
        scores = score_subnets(net, archs, calibration, images, labels, multi_label=multi_label, workers=ctx.threads)
        return np.array([value.error for value in scores])

    return score


def calibration_places(ctx: Context, images: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Draw the calibration images of the search by class, as many as the recipe quantizes with."""
    rng = np.random.default_rng(ctx.seed("calibration"))
    return draw_by_class(images, labels.numpy(), ctx.recipe.quantize.calibration_images, rng)


def export_int8(ctx: Context, net: torch.nn.Module, side: int, seen: Tensor, path: Path) -> None:
    """Export a network and quantize it for ONNX Runtime with the calibration images `seen` (n, c, side, side)."""
    with tempfile.TemporaryDirectory(prefix="tutelage-int8-") as folder:
        fp32 = Path(folder) / "model.onnx"
        export_onnx(net, fp32, (1, ctx.channels, side, side), check=False)
        quantize_onnx(fp32, path, seen.numpy(), threads=ctx.threads)


def _int8_error(
    ctx: Context,
    net: torch.nn.Module,
    arch: Arch,
    calibration: Sequence[Tensor],
    seen: Tensor,
    images: Tensor,
    labels: Tensor,
) -> float:
    """Extract a subnet, recalibrate its BN, quantize it and run the int8 file on the validation images."""
    from tutelage.search.supernet.scoring import resize

    subnet = extract(net, arch)
    recalibrate_bn(subnet, [resize(batch, arch.r) for batch in calibration])
    with tempfile.TemporaryDirectory(prefix="tutelage-int8-") as folder:
        path = Path(folder) / "int8.onnx"
        export_int8(ctx, subnet.eval(), arch.r, resize(seen, arch.r), path)
        logits = run_onnx(path, resize(images, arch.r).numpy(), threads=ctx.threads)
    return score_logits(torch.from_numpy(logits), labels, multi_label=ctx.dataset.multi_label).error


def _named(name: str) -> Named:
    if name.startswith(LATENCY):
        device, _, precision = name.removeprefix(LATENCY).partition(":")
        return Named(name, "latency_ms", device, precision == INT8)
    figure, _, precision = name.partition("@")
    return Named(name, figure, int8=precision == INT8)


def _upper_latency(device: Device) -> Score:
    return lambda archs: device.model.predict(archs, coverage=1 - 2 * device.risk)[2]
