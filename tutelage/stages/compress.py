"""Export a trained network to the runtimes and quantize it; what is filed here is what is measured and deployed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.bench.conversion import size_bytes
from tutelage.bench.runtimes import find_runtime
from tutelage.distill.evaluate import evaluate, probabilities
from tutelage.quant.calibration import draw_calibration
from tutelage.quant.choose import quantize_best
from tutelage.quant.export import export_onnx
from tutelage.quant.mixed import Latency, quantize_mixed
from tutelage.quant.openvino_ptq import Control, quantize_openvino
from tutelage.quant.ptq import QuantReport, quantize_onnx
from tutelage.records import Artifact, InputError, Student

from . import networks
from .context import Context, file_hash
from .runtime_files import answers, int8_file, runtime_file

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
# Validation images that choose a calibration method: the difference of logits is steady long before accuracy is.
_CHOOSING_IMAGES = 512


@dataclass(frozen=True)
class Variant:
    """One file of a trained network for one runtime: fp32, or int8 by a scheme that is that runtime's own."""

    student: Student
    scheme: str
    runtime: str
    file: Artifact
    quantization: dict[str, Any] = field(default_factory=dict)  # how it was made: method, images, their hash, trials

    @property
    def title(self) -> str:
        taught = f" from {self.student.teacher}" if self.student.teacher else ""
        return f"{self.student.model}{taught} {self.scheme} {self.runtime}"


def compress(ctx: Context, student: Student, runtimes: Sequence[str]) -> list[Variant]:
    """Make the fp32 file and the int8 file of each runtime of the recipe's devices, from one ONNX file where it can.

    A runtime that cannot load or quantize a network (an operator that it does not know) is left out and the reason
    said.
    """
    taught = f" from {student.teacher}" if student.teacher else ""

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"export and quantize {student.model}{taught}", 0, 1)
        side = ctx.side(student)
        fp32, network = folder / "model.onnx", networks.load(ctx, student)
        export = export_onnx(network, fp32, (1, ctx.channels, side, side))
        files = float_files(ctx, student, network, fp32, runtimes)
        variants = [
            {"scheme": "fp32", "runtime": name, "file": filed(ctx, path).to_dict()} for name, path in files.items()
        ]
        variants += quantized(ctx, student, network, files)
        ctx.report(f"export and quantize {student.model}{taught}", 1, 1)
        return {"variants": variants, "max_difference": export.max_difference}

    stage = ctx.workspace.stage(f"compress {student.model}{taught}", inputs_of(ctx, student, runtimes), work)
    return read_variants(student, stage.result["variants"])


def float_files(
    ctx: Context, student: Student, network: nn.Module, onnx: Path, runtimes: Sequence[str]
) -> dict[str, Path]:
    """Give the fp32 file of each runtime that can load the network; the others are left out and the reason said."""
    files = {}
    for runtime in runtimes:
        try:
            files[runtime] = runtime_file(ctx, runtime, network, onnx, ctx.side(student))
        except InputError as error:
            _left_out(ctx, f"no row of {student.model} for {runtime}: {error}")
    return files


def quantized(
    ctx: Context, student: Student, network: nn.Module, files: Mapping[str, Path], scheme: str = ""
) -> list[dict[str, Any]]:
    """Quantize each runtime's fp32 file beside it; `scheme` names the rows where it is not the quantizer's own."""
    side = ctx.side(student)
    calibration = calibration_images(ctx, side)
    val_images, val_labels = ctx.split("val", side)
    val, score = val_images.numpy(), scorer(ctx, val_labels.numpy())
    variants = []
    for runtime, fp32 in files.items():
        try:
            if fp32.suffix == ".onnx":
                out = fp32.with_suffix(".int8.xml" if runtime == "openvino" else ".int8.onnx")
                report = quantize_for(ctx, runtime, fp32, out, calibration, val, score)
                own, made = report.scheme, told(report)
            else:
                out, made = int8_file(ctx, runtime, network, fp32, side, calibration)
                own = "int8-ptq"
                _check_drop(ctx, runtime, fp32, out, val, score)
        except InputError as error:
            _left_out(ctx, f"no int8 row of {student.model} for {runtime}: {error}")
            continue
        variants.append(
            {"scheme": scheme or own, "runtime": runtime, "file": filed(ctx, out).to_dict(), "quantization": made}
        )
    return variants


def quantize_for(
    ctx: Context,
    runtime: str,
    fp32: Path,
    out: Path,
    calibration: Floats,
    val: Floats,
    score: Callable[[Floats], float],
    latency: Latency | None = None,
) -> QuantReport:
    """Quantize as the recipe says, by the scheme that is fast on `runtime`; choices are made on validation images.

    latency: measures files, so that of several choices of float layers the fastest is kept (ONNX Runtime).
    """
    section = ctx.recipe.quantize
    if runtime == "openvino":
        control = None if section.max_drop is None else Control(val, score, section.max_drop)
        return quantize_openvino(fp32, out, calibration, control=control)
    if section.max_drop is not None:
        method = "minmax" if section.method == "auto" else section.method
        report, _ = quantize_mixed(
            fp32, out, calibration, val, score,
            max_drop=section.max_drop, method=method, threads=ctx.threads, latency=latency,
        )  # fmt: skip
        return report
    if section.method == "auto":
        return quantize_best(fp32, out, calibration, val[:_CHOOSING_IMAGES], threads=ctx.threads)
    return quantize_onnx(fp32, out, calibration, method=section.method, threads=ctx.threads)


def calibration_images(ctx: Context, side: int) -> Floats:
    """Draw the recipe's number of training images, by class: normalised float32 (n, c, side, side)."""
    labels = ctx.dataset.labels[ctx.dataset.indices("train")]
    rng = np.random.default_rng(ctx.seed("calibration"))
    drawn = draw_calibration(None, labels, ctx.recipe.quantize.calibration_images, rng)
    return np.asarray(ctx.split("train", side, drawn)[0].numpy(), dtype=np.float32)


def scorer(ctx: Context, labels: NDArray[Any]) -> Callable[[Floats], float]:
    """Give the figure that int8 must hold on validation: accuracy, or the AUC where an image has several labels."""

    def score(logits: Floats) -> float:
        probs = probabilities(torch.from_numpy(np.ascontiguousarray(logits)), ctx.dataset.multi_label)
        found = evaluate(probs, labels[: len(logits)], multi_label=ctx.dataset.multi_label, bootstrap=0)
        return float((found.auc if ctx.dataset.multi_label else found.accuracy) or 0.0)

    return score


def inputs_of(ctx: Context, student: Student, runtimes: Sequence[str]) -> dict[str, Any]:
    """Give all that decides the quantized files of a network."""
    return {
        "data": ctx.data_key,
        "weights": student.weights.sha256 if student.weights else "",
        "network": student.to_dict(),
        "quantize": ctx.recipe.quantize.model_dump(mode="json", exclude={"qat_epochs", "qat_lr"}),
        "runtimes": sorted(runtimes),
        "versions": {name: version(name) for name in ("onnxruntime", "openvino", "nncf")}
        | {name: find_runtime(name).version() for name in runtimes if name not in ("onnxruntime", "openvino")},
        "seed": ctx.recipe.seed,
    }


def read_variants(student: Student, entries: Sequence[dict[str, Any]]) -> list[Variant]:
    """Read variants back from a stage's result."""
    return [
        Variant(
            student,
            entry["scheme"],
            entry["runtime"],
            Artifact.from_dict(entry["file"]),
            entry.get("quantization", {}),
        )
        for entry in entries
    ]


def told(report: QuantReport) -> dict[str, Any]:
    """Give what a row says of its quantization."""
    names = (
        "method", "num_calibration", "calibration_sha256", "activation_type", "weight_type", "per_channel",
        "float_operators", "excluded", "stem", "trials", "size_ratio",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names}


def filed(ctx: Context, path: Path) -> Artifact:
    """Record a model file; where weights lie in a second file beside it, both count."""
    return Artifact(
        kind="model", path=ctx.workspace.relative(path), sha256=file_hash(path), size_bytes=size_bytes(path)
    )


def _check_drop(
    ctx: Context, runtime: str, fp32: Path, int8: Path, val: Floats, score: Callable[[Floats], float]
) -> None:
    """Refuse an int8 file that loses more than the recipe allows, where no layer can go back to float."""
    allowed = ctx.recipe.quantize.max_drop
    if allowed is None:
        return
    before, after = (score(answers(runtime, path, val, ctx.threads)) for path in (fp32, int8))
    if 100 * (before - after) > allowed + 1e-9:
        raise InputError(
            f"int8 loses {100 * (before - after):.2f} points on validation, more than max_drop {allowed}, and layers "
            f"are not returned to float for {runtime}"
        )


def _left_out(ctx: Context, reason: str) -> None:
    log.warning("%s", reason)
    ctx.report(reason, 1, 1)
