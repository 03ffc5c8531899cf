"""Export a trained network to the runtimes and quantize it; what is filed here is what is measured and deployed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.bench.converters.conversion import size_bytes
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.distill.evaluation.evaluate import evaluate, probabilities
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, file_hash
from tutelage.pipeline.runtime_files import answers, int8_file, runtime_file
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.choose import quantize_best
from tutelage.quant.int8.mixed import Latency, quantize_mixed
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import Control, quantize_openvino
from tutelage.quant.int8.placement import check_integer
from tutelage.quant.int8.saturation import weight_bits
from tutelage.quant.int8.schemes.entry import QuantReport, Scheme
from tutelage.quant.int8.schemes.registry import SCHEMES
from tutelage.records import Artifact, InputError, Student

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]
# Validation images that choose a calibration method: the difference of logits is steady long before accuracy is.
_CHOOSING_IMAGES = 512
# Validation images that rank layers by their noise; what is kept is decided on all of them.
_RANKING_IMAGES = 64


@dataclass(frozen=True)
class Validation:
    """What int8's choices are made on: all validation images (n, c, h, w), their score, and draws of them by class."""

    images: Floats
    score: Callable[[Floats], float]
    choosing: Floats
    ranking: Floats


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
        origin = f" from {self.student.teacher}" if self.student.teacher else ""
        return f"{self.student.model}{origin} {self.scheme} {self.runtime}"


def compress(ctx: Context, student: Student, runtimes: Sequence[str]) -> list[Variant]:
    """Make the fp32 file and the int8 file of each runtime of the recipe's devices, from one ONNX file where it can.

    A runtime that cannot load or quantize a network (an operator that it lacks) is left out and the reason
    logged.
    """
    origin = f" from {student.teacher}" if student.teacher else ""

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"export and quantize {student.model}{origin}", 0, 1)
        side = ctx.resolution(student)
        fp32, network = folder / "model.onnx", networks.load(ctx, student)
        export = export_onnx(network, fp32, (1, ctx.channels, side, side))
        files = float_files(ctx, student, network, fp32, runtimes)
        variants = [
            {"scheme": "fp32", "runtime": name, "file": filed(ctx, path).to_dict()} for name, path in files.items()
        ]
        variants += quantized(ctx, student, network, files)
        ctx.report(f"export and quantize {student.model}{origin}", 1, 1)
        return {"variants": variants, "max_difference": export.max_difference}

    stage = ctx.workspace.stage(f"compress {student.model}{origin}", inputs_of(ctx, student, runtimes), work)
    return read_variants(student, stage.result["variants"])


def float_files(
    ctx: Context, student: Student, network: nn.Module, onnx: Path, runtimes: Sequence[str]
) -> dict[str, Path]:
    """Give the fp32 file of each runtime that can load the network; the others are left out and the reason logged."""
    files = {}
    for runtime in runtimes:
        try:
            files[runtime] = runtime_file(ctx, runtime, network, onnx, ctx.resolution(student))
        except InputError as error:
            left_out(ctx, f"no row of {student.model} for {runtime}: {error}")
    return files


def quantized(
    ctx: Context, student: Student, network: nn.Module, files: Mapping[str, Path], learnt: Ranges | None = None
) -> list[dict[str, Any]]:
    """Quantize each runtime's fp32 file beside it, with the activation ranges that QAT has `learnt`, if given."""
    side = ctx.resolution(student)
    calibration, val = calibration_images(ctx, side), validation(ctx, side)
    variants = []
    for runtime, fp32 in files.items():
        try:
            _check_int8(runtime)
            if fp32.suffix == ".onnx":
                out = fp32.with_suffix(".int8.xml" if runtime == "openvino" else ".int8.onnx")
                report = quantize_for(ctx, runtime, fp32, out, calibration, val, learnt=learnt)
                check_integer(report)
                scheme, made = report.scheme, report_details(report)
            else:
                chosen = scheme_for(ctx.recipe.quantize.method, runtime, fp32.suffix)
                if chosen is not None and chosen.quantize is not None:
                    report = _made_by(chosen, fp32, fp32.with_suffix(f".int8{fp32.suffix}"), calibration)
                    scheme, out, made = report.scheme, report.path, report_details(report)
                else:
                    out, made = int8_file(ctx, runtime, network, fp32, side, calibration)
                    scheme = "int8-ptq"
                _check_drop(ctx, runtime, fp32, out, val)
        except InputError as error:
            left_out(ctx, f"no int8 row of {student.model} for {runtime}: {error}")
            continue
        variants.append({"scheme": scheme, "runtime": runtime, "file": filed(ctx, out).to_dict(), "quantization": made})
    return variants


def _check_int8(runtime: str) -> None:
    known = find_runtime(runtime)
    if "int8" not in known.precisions:
        raise InputError(f"{runtime} has no int8 here, it runs {', '.join(known.precisions)}: name another runtime")


def quantize_for(
    ctx: Context,
    runtime: str,
    fp32: Path,
    out: Path,
    calibration: Floats,
    val: Validation,
    latency: Latency | None = None,
    learnt: Ranges | None = None,
) -> QuantReport:
    """Quantize as the recipe says, by the scheme that is fast on `runtime`; choices are made on validation images.

    latency: measures files, so that of several choices of float layers the fastest is kept (ONNX Runtime). learnt: the
    ranges of QAT: the recipe's method (`auto`: min-max) is for other tensors only, and a loss beyond `max_drop`
    is refused.
    """
    section = ctx.recipe.quantize
    scheme = scheme_for(section.method, runtime, ".xml" if runtime == "openvino" else fp32.suffix)
    if scheme is not None and scheme.quantize is not None:
        if learnt is not None:
            raise InputError(f"int8 method {scheme.name} takes no ranges that QAT has learnt: leave qat_epochs out")
        report = _made_by(scheme, fp32, out, calibration)
        _check_drop(ctx, runtime, fp32, out, val)
        return report
    if learnt is not None:
        if runtime == "openvino":
            report = quantize_openvino(fp32, out, calibration, learnt=learnt)
        else:
            method = "minmax" if section.method == "auto" else section.method
            report = quantize_onnx(fp32, out, calibration, method=method, learnt=learnt)
        _check_drop(ctx, runtime, fp32, out, val)
        return report
    if runtime == "openvino":
        control = None if section.max_drop is None else Control(val.images, val.score, section.max_drop)
        return quantize_openvino(fp32, out, calibration, control=control)
    if section.max_drop is not None:
        return _held(ctx, fp32, out, calibration, val, section.max_drop, latency)
    if section.method == "auto":
        return quantize_best(fp32, out, calibration, val.choosing, threads=ctx.threads)
    return quantize_onnx(fp32, out, calibration, method=section.method, threads=ctx.threads)


def _held(
    ctx: Context, fp32: Path, out: Path, calibration: Floats, val: Validation, max_drop: float, latency: Latency | None
) -> QuantReport:
    """Choose the method where the recipe leaves it open, then return layers to float until the loss is held."""
    method, trials = ctx.recipe.quantize.method, dict[str, float]()
    if method == "auto":
        with tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
            best = quantize_best(fp32, Path(folder) / "plain.onnx", calibration, val.choosing, threads=ctx.threads)
        method, trials = best.method, best.trials
    report, _ = quantize_mixed(
        fp32, out, calibration, val.images, val.score,
        max_drop=max_drop, method=method, threads=ctx.threads, latency=latency, ranking=val.ranking,
    )  # fmt: skip
    return report.model_copy(update={"trials": trials})


def _made_by(scheme: Scheme, fp32: Path, out: Path, calibration: Floats) -> QuantReport:
    """Have a scheme write its file, and check what rows rely on."""
    assert scheme.quantize is not None, "the caller checks that the scheme quantizes"
    report = scheme.quantize(fp32, out, calibration)
    if not report.scheme.startswith("int8") or report.path != out or not out.is_file():
        raise InputError(
            f"int8 method {scheme.name} reports scheme {report.scheme!r} at {report.path}: it must write {out}, and "
            "its scheme must begin with int8"
        )
    return report


def scheme_for(method: str, runtime: str, suffix: str) -> Scheme | None:
    """Give an int8 scheme by its name, None for `auto`; one that makes no files of a runtime's `suffix` is refused."""
    if method == "auto":
        return None
    scheme = SCHEMES.find(method)
    if suffix not in scheme.formats:
        others = " or ".join(["auto", *(name for name, one in SCHEMES.items() if suffix in one.formats)])
        raise InputError(
            f"quantize.method {method} makes {', '.join(scheme.formats)} files, {runtime} loads {suffix}: give {others}"
        )
    return scheme


def calibration_images(ctx: Context, side: int) -> Floats:
    """Draw the recipe's number of training images, by class: normalised float32 (n, c, side, side)."""
    drawn = ctx.draw("train", ctx.recipe.quantize.calibration_images, "calibration")
    return np.asarray(ctx.split("train", side, drawn)[0].numpy(), dtype=np.float32)


def validation(ctx: Context, side: int) -> Validation:
    """Give the validation images and the draws of them that int8's choices are made on."""
    images, labels = ctx.split("val", side)
    choosing = ctx.draw("val", _CHOOSING_IMAGES, "choosing a calibration method")
    ranking = ctx.draw("val", _RANKING_IMAGES, "ranking layers")
    values = images.numpy()
    return Validation(values, scorer(ctx, labels.numpy()), values[choosing], values[ranking])


def scorer(ctx: Context, labels: NDArray[Any]) -> Callable[[Floats], float]:
    """Give the figure that int8 must hold on validation: accuracy, or AUC of multi-label data."""

    def score(logits: Floats) -> float:
        probs = probabilities(torch.from_numpy(np.ascontiguousarray(logits)), ctx.dataset.multi_label)
        evaluation = evaluate(probs, labels, multi_label=ctx.dataset.multi_label, bootstrap=0)
        return float((evaluation.auc if ctx.dataset.multi_label else evaluation.accuracy) or 0.0)

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
        "weight_bits": weight_bits(),
    } | ({"scheme of": str(plugin)} if (plugin := SCHEMES.origin(ctx.recipe.quantize.method)) else {})


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


def report_details(report: QuantReport) -> dict[str, Any]:
    """Give the fields of a quantization report that a row keeps."""
    names = (
        "method", "num_calibration", "calibration_sha256", "activation_type", "weight_type", "weight_bits",
        "per_channel", "float_operators", "excluded", "stem", "trials", "size_ratio", "num_quantized", "num_learnt",
        "integer_macs",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names}


def filed(ctx: Context, path: Path) -> Artifact:
    """Record a model file; where weights lie in a second file beside it, both count."""
    return Artifact(
        kind="model", path=ctx.workspace.relative(path), sha256=file_hash(path), size_bytes=size_bytes(path)
    )


def _check_drop(ctx: Context, runtime: str, fp32: Path, int8: Path, val: Validation) -> None:
    """Refuse an int8 file that loses more than the recipe allows, where no layer can go back to float."""
    allowed = ctx.recipe.quantize.max_drop
    if allowed is None:
        return
    before, after = (val.score(answers(runtime, path, val.images, ctx.threads)) for path in (fp32, int8))
    if 100 * (before - after) > allowed + 1e-9:
        raise InputError(
            f"int8 loses {100 * (before - after):.2f} points on validation, more than max_drop {allowed}, and no layer "
            f"goes back to float here ({runtime})"
        )


def left_out(ctx: Context, reason: str) -> None:
    """Log why a row is missing, and report it as progress."""
    log.warning("%s", reason)
    ctx.report(reason, 1, 1)
