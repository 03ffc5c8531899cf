"""Write a student as C sources for TFLite Micro: `bundle_for_micro`, which quantizes it and checks its memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.accelerator import CPU
from tutelage.bench.micro.arena import arena_of, operators_of, quantization_of
from tutelage.bench.micro.interpreter import allocations, installed, run_micro
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.distill.data.loader import NORMALISATION
from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.device import memory_target
from tutelage.pipeline.operations.bundle import class_thresholds, made_of
from tutelage.pipeline.recipe import with_changes
from tutelage.pipeline.stages.fits import micro_files
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.bundle.micro import MicroBundle, MicroModel, Sample, write_micro_bundle
from tutelage.quant.bundle.write import Parity, Preprocess, Thresholds
from tutelage.records import InputError, Row, Student

# Images whose outputs are compared; TFLite Micro's reference kernels take a tenth of a second for one.
MAX_IMAGES = 64


def bundle_for_micro(
    row: Row,
    workspace: Workspace,
    report: Report,
    threads: int,
    *,
    out: Path,
    target: str | None = None,
    changes: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> MicroBundle:
    """Write the network of a row for TFLite Micro, at int8, and compare its outputs with the fp32 network's.

    The outputs are TFLite Micro's where its package is installed, else LiteRT's; the folder says whose. target: a
    device that is known by its memories, which the file and its arena must fit.
    Raises InputError for images or weights that are no longer those of the row, and for a network that does not fit.
    """
    recipe, network, _ = made_of(row)
    recipe = with_changes(recipe, changes)
    limits = memory_target(workspace.path, target) if target is not None else None
    ctx = open_context(recipe, workspace, report, threads, accelerator=CPU)
    if ctx.dataset.manifest != row.details.get("manifest"):
        raise InputError(
            f"data set {ctx.dataset.called} is not the one row {row.key[:8]} was evaluated on (its manifest differs)"
        )
    side = ctx.resolution(network)
    with tempfile.TemporaryDirectory(prefix="tutelage-micro-") as folder:
        report("bundle", 0, 3)
        path = _int8_file(ctx, network, recipe.quantize.calibration_images, Path(folder))
        model = micro_model(path)
        if limits is not None:
            check_fits(model, limits.name, limits.flash_bytes, limits.ram_bytes)
        report("bundle", 1, 3)
        images, _ = ctx.split("val", side, np.arange(_num_images(ctx)), normalisation=network.normalisation)
        expected = predict_logits(networks.load(ctx, network), images).numpy()
        found = _outputs(path, images.numpy())
        report("bundle", 2, 3)
        mean, std = NORMALISATION[ctx.channels] if network.normalisation is None else network.normalisation.values
        how = Preprocess(
            height=side, width=side, channels=ctx.channels, mean=mean, std=std,
            fit=recipe.data.options.get("fit", "squash"),
        )  # fmt: skip
        cuts = class_thresholds(row) or [0.5] * ctx.num_classes
        made = write_micro_bundle(
            out,
            model,
            title=row.model,
            preprocess=how,
            labels=ctx.dataset.class_names,
            thresholds=Thresholds(values=tuple(cuts), multi_label=ctx.dataset.multi_label),
            parity=parity_of(found, expected),
            sample=_sample(model, how, images.numpy()[0]),
            notes=notes,
        )
    report("bundle", 3, 3)
    return made


def micro_model(path: Path) -> MicroModel:
    """Read from an int8 .tflite file what its C code must know; the arena is TFLite Micro's report where it is here."""
    entry, leave = quantization_of(path)
    if entry is None or leave is None:
        raise InputError(f"{path} takes or gives float numbers: a bundle for TFLite Micro is int8")
    counted = arena_of(path)
    reported = allocations(path) if installed() else None
    return MicroModel(
        path=path,
        operators=tuple(operators_of(path)),
        input_scale=entry[0],
        input_zero=entry[1],
        output_scale=leave[0],
        output_zero=leave[1],
        arena_bytes=reported.total if reported else counted.total,
        arena_source="reported by TFLite Micro (the package tflite-micro)" if reported else "counted from the file",
        head_bytes=reported.head if reported else counted.head,
    )


def check_fits(model: MicroModel, device: str, flash: int | None, ram: int | None) -> None:
    """Raise InputError for a model that the memories of a device cannot hold."""
    size = model.path.stat().st_size
    if flash is not None and size > flash:
        raise InputError(
            f"the model has {size:,} bytes, {device} has {flash:,} bytes of flash: search with --max-flash"
        )
    if ram is not None and model.arena_bytes > ram:
        raise InputError(
            f"the model's arena has {model.arena_bytes:,} bytes, {device} has {ram:,} bytes of RAM: "
            "search with --max-ram"
        )


def parity_of(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Parity:
    """Compare the outputs (n, classes) of the int8 file with the fp32 network's."""
    difference = np.abs(found - expected)
    return Parity(
        reference="the fp32 network in torch",
        num_images=len(found),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        same_top1=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )


def _num_images(ctx: Context) -> int:
    return min(MAX_IMAGES, len(ctx.dataset.indices("val")))


def _int8_file(ctx: Context, network: Student, number: int, folder: Path) -> Path:
    """Export, convert and quantize a network, as the run did that compared it with the memories of a target."""
    made = micro_files(ctx, [network], number, ctx.recipe.seed, folder)[0]
    if isinstance(made, InputError):
        raise made
    return made


def _outputs(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the file in TFLite Micro where it is installed, else in LiteRT, on images (n, channels, h, w)."""
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if installed():
        return run_micro(path, channels_last)
    session = find_runtime("litert").load(path, 1, "int8", (1, *channels_last.shape[1:]))
    return np.concatenate([session.run(image[None]) for image in channels_last])


def _sample(model: MicroModel, how: Preprocess, image: NDArray[np.float32]) -> Sample:
    """Take an image back to its pixels, and give what the model answers to these."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
    pixels = np.clip(np.round((image * std + mean) * 255), 0, 255).astype(np.uint8)
    exact = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    logits = _outputs(model.path, exact[None].astype(np.float32))[0]
    outputs = np.clip(np.round(logits / model.output_scale + model.output_zero), -128, 127).astype(np.int8)
    return Sample(np.ascontiguousarray(pixels.transpose(1, 2, 0)), outputs)
