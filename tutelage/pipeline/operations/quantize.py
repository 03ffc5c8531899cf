"""The verb `quantize`: quantize one fp32 file for the runtime of its new suffix within `max_drop`, and compare both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tutelage.accelerator import CPU
from tutelage.bench.devices.profiles import find_profile
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import check_reachable
from tutelage.files import model_bytes
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.compress import NORMALISATION_KEY
from tutelage.pipeline.stages.quantization import (
    Quantization,
    calibration_images,
    quantize_for,
    scheme_for,
    validation,
)
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.export.onnx_export import read_metadata
from tutelage.quant.files import read_graph
from tutelage.quant.int8.placement import check_integer
from tutelage.quant.int8.schemes.entry import QuantReport
from tutelage.quant.int8.schemes.registry import find_ranges
from tutelage.quant.int8.sensitivity import draw_sensitivity, sensitivity
from tutelage.quant.intake import fix_shape, prepare_model
from tutelage.quant.run import run_onnx, run_openvino
from tutelage.records import InputError, Measurement, Normalisation

from .single_stage import input_shape, must_exist

_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


def quantize_file(
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    *,
    model: Path,
    out: Path,
    device: str | None = None,
    picture: Path | None = None,
    start: str = "",
    end: str = "",
) -> dict[str, Any]:
    """Quantize an fp32 ONNX file for the runtime that `out` is for, and compare both on the validation split.

    The recipe says how (`quantize.method`, `max_drop`, ...). With `device`, of the choices of float layers that hold
    the allowed loss the fastest there is kept, and both files are measured. `picture`: where layers' noise is drawn.
    `start` and `end` name the tensors between which the network lies, where the file holds more.
    """
    must_exist(model)
    runtime = _RUNTIMES.get(out.suffix)
    if runtime is None:
        raise InputError(f"{out}: name the int8 model .onnx (ONNX Runtime) or .xml (OpenVINO)")
    scheme = scheme_for(recipe.quantize.method, runtime, out.suffix)
    if picture is not None and scheme is not None:
        find_ranges(scheme.name)  # the noise that is drawn is that of its ranges
    ctx = open_context(recipe, workspace, report, threads, accelerator=CPU)
    with tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        usable = Path(folder) / model.name
        prepare_model(model, usable, start=start, end=end)
        try:
            return _quantize_usable(ctx, usable, model, out, runtime, device, picture)
        except InputError as error:  # the user knows no file of the temporary folder
            raise type(error)(str(error).replace(str(usable), str(model))) from error


def _normalisation_of(model: Path, channels: int) -> Normalisation | None:
    """Give the normalisation that an exported file names as its network's own; None: the run's."""
    text = read_metadata(model).get(NORMALISATION_KEY)
    try:
        found = None if text is None else Normalisation.model_validate_json(text)
    except ValidationError:
        found = Normalisation(mean=(), std=())
    if found is not None and not len(found.mean) == len(found.std) == channels:
        raise InputError(f"{model} names a normalisation that is not of {channels} channels: export it again")
    return found


def _quantize_usable(
    ctx: Context, usable: Path, model: Path, out: Path, runtime: str, device: str | None, picture: Path | None
) -> dict[str, Any]:
    """Quantize the usable form of `model`; bytes and messages are those of the file that was given."""
    threads, report = ctx.threads, ctx.report
    channels, side, width = input_shape(usable, ctx.size, channels=ctx.channels)
    if side != width or channels != ctx.channels:
        raise InputError(
            f"{model} takes {channels} channels of {side} x {width}, the recipe's images have {ctx.channels} channels "
            "and are square: give another --recipe, or --set data.channels=..."
        )
    own = _normalisation_of(model, channels)
    calibration = calibration_images(ctx, side, ctx.recipe.quantize.calibration_images, ctx.recipe.seed, own)
    val = validation(ctx, side, ctx.recipe.seed, own)
    fix_shape(usable, (1, channels, side, width))
    _check_classes(model, usable, ctx, val.ranking[:2])
    clock = _clock(ctx, device, runtime, (channels, side, width)) if device else None
    report("quantize", 0, 1)
    how = Quantization.of(ctx.recipe.quantize)
    latency = _anchored(clock) if clock is not None else None
    made = quantize_for(how, runtime, usable, out, calibration, val, threads=threads, latency=latency)
    check_integer(made)
    made = made.model_copy(update={"fp32_bytes": model_bytes(model)})
    report("quantize", 1, 1)
    figures = _figures(usable, made, val.images, val.score, threads)
    if clock is not None:
        measured = clock({"fp32": usable, "int8": out})
        figures |= {f"{name}_p50_ms": measured[name].p50_ms for name in ("fp32", "int8")}
    if picture is not None:
        noise = sensitivity(usable, calibration, val.ranking, method=made.method, threads=threads)
        draw_sensitivity(noise, picture, kept=made.excluded)
        figures |= {"picture": str(picture), "noisiest_layer": noise.worst()[0].name}
    return figures


def _check_classes(model: Path, usable: Path, ctx: Context, images: Any) -> None:
    """Refuse a network whose output does not hold one value a class of the recipe's labels."""
    outputs = run_onnx(usable, images, threads=ctx.threads)
    classes = ctx.dataset.num_classes
    if outputs.ndim != 2 or outputs.shape[1] != classes:
        name = read_graph(usable).graph.output[0].name
        raise InputError(
            f"{model}: output {name} has the shape (n, {', '.join(map(str, outputs.shape[1:]))}), the recipe's labels "
            f"have {classes} classes: name another tensor with --output, or give the --recipe of its data"
        )


def _clock(
    ctx: Context, device: str, runtime: str, shape: tuple[int, int, int]
) -> Callable[[Mapping[str, Path]], dict[str, Measurement]]:
    """Give a function that measures files together on a device, as the recipe measures."""
    profile, _ = find_profile(device, ctx.workspace.path)
    check_reachable(profile)
    if profile.runtime != runtime:
        raise InputError(
            f"device {device} runs {profile.runtime}, the file is for {runtime}: name another device or another suffix"
        )

    return partial(
        measure,
        device=profile,
        input_shape=shape,
        samples=ctx.recipe.measure.samples,
        tolerance=ctx.recipe.measure.tolerance,
        progress=lambda text, done, total: ctx.report(f"measure on {device}", done, total),
    )


def _anchored(
    clock: Callable[[Mapping[str, Path]], dict[str, Measurement]],
) -> Callable[[Mapping[str, Path]], dict[str, float]]:
    """Give milliseconds without the host's drift, by which files of one session are compared."""

    def latency(files: Mapping[str, Path]) -> dict[str, float]:
        return {name: value.anchored_ms or value.p50_ms for name, value in clock(files).items()}

    return latency


def _figures(model: Path, made: QuantReport, val: Any, score: Callable[[Any], float], threads: int) -> dict[str, Any]:
    """Compare both files on validation images; `score` is accuracy, or AUC of multi-label data."""
    run = run_openvino if made.runtime == "openvino" else run_onnx
    before, after = run_onnx(model, val, threads=threads), run(made.path, val, threads=threads)
    return {
        "model": str(made.path),
        "scheme": made.scheme,
        "method": made.method,
        "calibration_images": made.num_calibration,
        "calibration_sha256": made.calibration_sha256,
        "size_bytes": made.size_bytes,
        "fp32_bytes": made.fp32_bytes,
        "fraction_of_fp32_bytes": made.size_ratio,
        "share_of_fp32_bytes": made.size_ratio,  # the former name, which scripts read
        "validation_images": len(val),
        "fp32_score": score(before),
        "int8_score": score(after),
        "same_top1": float((before.argmax(1) == after.argmax(1)).mean()),
        "largest_difference": float(np.abs(before - after).max()),
        "mean_difference": float(np.abs(before - after).mean()),
        "weight_bits": made.weight_bits,
        "int8_macs_fraction": made.integer_macs,
        "float_layers": ", ".join(made.excluded) or "none",
    }
