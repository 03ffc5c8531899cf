"""Measure the finalists of a search on every device in reach, and their files for a target (`measure_finalists`)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tutelage.bench.converters.convert import converter_version
from tutelage.bench.micro.arena import arena_of
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import one_way_to
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.files import model_bytes
from tutelage.pipeline.context import Context, Resources, run_stage
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import ON_CPU, AcceleratorInput, ImagesInput, Part, StageInputs, versions_of
from tutelage.pipeline.objectives import INT8, Subnets
from tutelage.pipeline.runtime_files import network_file
from tutelage.records import Arch
from tutelage.search.supernet import extract

from .budgets import memories_of
from .measure import DeviceInput, device_versions
from .quantization import Quantization, quantizers
from .supernet import Supernet
from .training import SupernetInput

# What is kept of a finalist's measurement; the second is on the scale of the latency model's predictions.
FIGURES = ("p50_ms", "anchored_ms", "drift")
ENERGY, FILE_BYTES = "energy_mj", "file_bytes"
# Of a file for a microcontroller, what TFLite Micro's arena takes, as counted from that file.
ARENA_BYTES = "arena_bytes"
Measured = dict[str, dict[str, dict[str, Any]]]  # device or target -> arch id -> figure -> value


class TargetFiles(Part):
    """The int8 files of finalists for a microcontroller, whose bytes and arena are read."""

    name: str
    calibration_images: int


class FinalistsInputs(StageInputs):
    """What is measured of a search's finalists, with inherited weights: on devices in reach, of files for a target."""

    STAGE: ClassVar[str] = "measure finalists"

    finalists: tuple[Arch, ...]
    supernet: SupernetInput
    devices: tuple[DeviceInput, ...]
    figures: tuple[str, ...]
    samples: int
    tolerance: float
    num_classes: int
    channels: int
    int8: Quantization | None  # of files for devices at int8
    target: Annotated[TargetFiles | None, Former(None)]
    # What int8 files are made of, for devices and the target.
    images: ImagesInput | None
    accelerator: Annotated[AcceleratorInput | None, Former(None, ON_CPU)]
    batch_size: int | None
    calibration_batches: int | None
    seed: int | None

    @property
    def places(self) -> dict[str, str]:
        files = {"int8": "quantize", "target": "search.target or quantize"}
        return {"samples": "measure.samples", "tolerance": "measure.tolerance", **files}

    def promise(self, key: str) -> dict[str, Any]:
        return {"measured": {}}


def measure_finalists(
    ctx: Context, supernet: Supernet, devices: Sequence[Device], finalists: Sequence[Arch]
) -> Measured:
    """Give the figures of each finalist by device or target and arch id; a device out of reach is not in it."""
    for device in devices:
        if not device.reachable:
            ctx.report(f"finalists on {device.name}: predicted, not measured", 1, 1)
    found: Measured = run_stage(ctx, _inputs(ctx, supernet, devices, finalists), _verify).result["measured"]
    return found


def _bounded_figures(ctx: Context) -> tuple[str, ...]:
    """Name what finalists are measured for where the recipe bounds it: energy, and bytes of the very file."""
    bounds = {ENERGY: ctx.recipe.search.max_energy, FILE_BYTES: memories_of(ctx)[0]}
    return tuple(name for name, bound in bounds.items() if bound is not None)


def _inputs(ctx: Context, supernet: Supernet, devices: Sequence[Device], finalists: Sequence[Arch]) -> FinalistsInputs:
    """Give what the measurement of finalists reads; images only where files are quantized for it."""
    reached = [device for device in devices if device.reachable]
    int8 = any(device.profile.precision == INT8 for device in reached)
    target = _target_files(ctx)
    quantized = int8 or target is not None
    runtimes = [find_runtime(device.profile.runtime) for device in reached]
    libraries = {name for device in reached if int8 for name in quantizers(device.profile.runtime)}
    versions = versions_of(("torch", "ofa", "onnx", *libraries))
    for device, runtime in zip(reached, runtimes, strict=True):
        versions |= {**device_versions(device), **converter_version(runtime)}
    if target is not None:
        versions |= {**versions_of(quantizers("litert")), **converter_version(find_runtime("litert"))}
    return FinalistsInputs(
        title="measure finalists",
        versions=versions,
        finalists=tuple(finalists),
        supernet=supernet.part,
        devices=tuple(DeviceInput.of(device) for device in reached),
        figures=(*FIGURES, *_bounded_figures(ctx)),
        samples=ctx.recipe.measure.samples,
        tolerance=ctx.recipe.measure.tolerance,
        num_classes=ctx.num_classes,
        channels=ctx.channels,
        int8=Quantization.of(ctx.recipe.quantize) if int8 else None,
        target=target,
        images=ctx.images_input if quantized else None,
        accelerator=ctx.accelerator_input() if quantized else None,
        batch_size=ctx.recipe.supernet.batch_size if quantized else None,
        calibration_batches=ctx.recipe.search.calibration_batches if quantized else None,
        seed=ctx.recipe.seed if quantized else None,
    )


def _target_files(ctx: Context) -> TargetFiles | None:
    if ctx.recipe.search.target is None:
        return None
    return TargetFiles(name=ctx.recipe.search.target, calibration_images=ctx.recipe.quantize.calibration_images)


def _verify(inputs: FinalistsInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Measure the finalists, with their inherited weights, on every device and of files for the target.

    Gives figures by device, or target, and arch id. On a device that is weighed at int8 the files are quantized, as the
    students' will be. What is compared with a prediction or a budget is `anchored_ms`, on the scale of the anchors that
    the latency model was made with.
    """
    net = inputs.supernet.load(here)
    converted = here.workspace.path / "cache" / "converted"
    subnets = None
    if inputs.batch_size is not None and inputs.calibration_batches is not None and inputs.seed is not None:
        subnets = Subnets(here, inputs.supernet, inputs.batch_size, inputs.calibration_batches, inputs.seed)
    measured: dict[str, dict[str, dict[str, float | None]]] = {}
    if inputs.target is not None:
        assert subnets is not None, "a target is among the inputs"
        here.report(f"files for {inputs.target.name}", 0, 1)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # two numbers of each file are kept
            files = subnets.micro_files(inputs.finalists, inputs.target.calibration_images, Path(scratch))
            measured[inputs.target.name] = {
                arch: {FILE_BYTES: path.stat().st_size, ARENA_BYTES: arena_of(path).total}
                for arch, path in files.items()
            }
        here.report(f"files for {inputs.target.name}", 1, 1)
    for device in inputs.devices:
        by_side: dict[int, dict[str, Path]] = {}
        for arch in inputs.finalists:
            if device.precision == INT8:
                assert subnets is not None, "an int8 device is among the inputs"
                assert inputs.int8 is not None, "an int8 device is among the inputs"
                path = subnets.int8_file(arch, inputs.int8, device.runtime, folder)
            else:
                shape = (device.batch, inputs.channels, arch.r, arch.r)
                path = network_file(extract(net, arch), device.runtime, folder, arch.id, shape, converted)
            by_side.setdefault(arch.r, {})[arch.id] = path
        with one_way_to(device.profile) as launcher:
            for side, models in by_side.items():
                found = measure(
                    models,
                    device.profile,
                    (inputs.channels, side, side),
                    samples=inputs.samples,
                    tolerance=inputs.tolerance,
                    anchor_ms=device.anchor_ms,
                    progress=lambda text, done, total: here.report(inputs.title, done, total),
                    launcher=launcher,
                )
                for arch_id, value in found.items():
                    figures = {name: getattr(value, name) for name in inputs.figures if name != FILE_BYTES}
                    if FILE_BYTES in inputs.figures:
                        figures[FILE_BYTES] = model_bytes(models[arch_id])
                    measured.setdefault(device.name, {})[arch_id] = figures
    return {"measured": measured}
