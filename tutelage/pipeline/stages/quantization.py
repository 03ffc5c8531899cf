"""Quantize one network for one runtime: by which scheme, with which calibration images, within which loss.

`quantized_file` makes the int8 file that a run deploys, from the runtime's fp32 file; a search scores subnets by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.bench.runtimes.registry import find_runtime
from tutelage.distill.evaluation.evaluate import evaluate, probabilities
from tutelage.pipeline.context import Opened, derived_seed
from tutelage.pipeline.keys.stage_inputs import Part
from tutelage.pipeline.runtime_files import answers, int8_file
from tutelage.pipeline.sections import QuantizeSection
from tutelage.quant.int8.choose import quantize_best
from tutelage.quant.int8.mixed import Latency, quantize_mixed
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import Control, quantize_openvino
from tutelage.quant.int8.placement import check_integer
from tutelage.quant.int8.saturation import weight_bits
from tutelage.quant.int8.schemes.entry import QuantReport, Scheme
from tutelage.quant.int8.schemes.registry import SCHEMES
from tutelage.records import InputError, Normalisation

Floats = NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]
# Validation images that choose a calibration method: the difference of logits is steady long before accuracy is.
_CHOOSING_IMAGES = 512
# Validation images that rank layers by their noise; what is kept is decided on all of them.
_RANKING_IMAGES = 64
# Libraries that quantize for a runtime, besides the runtime itself.
_QUANTIZERS = {
    "openvino": ("openvino", "nncf"),
    "litert": ("ai-edge-quantizer", "ai-edge-quantizer-nightly"),
    "executorch": ("torch", "torchao", "executorch"),
}


class Quantization(Part):
    """How a recipe's networks become int8 after training."""

    method: str
    origin: str  # distribution and version of the plug-in that has the scheme; empty: built in
    calibration_images: int
    max_drop: float | None
    weight_bits: int  # of this processor's integer kernels, where a method asks for them

    @classmethod
    def of(cls, section: QuantizeSection) -> Quantization:
        """Take what quantizing after training reads of a recipe's section."""
        return cls(
            method=section.method,
            origin=SCHEMES.origin_name(section.method),
            calibration_images=section.calibration_images,
            max_drop=section.max_drop,
            weight_bits=weight_bits(),
        )


def quantizers(runtime: str) -> tuple[str, ...]:
    """Name the libraries that quantize for a runtime."""
    known = find_runtime(runtime)
    return ("onnx", known.distribution, *_QUANTIZERS.get(runtime, ("onnxruntime",)))


@dataclass(frozen=True)
class Validation:
    """What int8's choices are made on: all validation images (n, c, h, w), their score, and draws of them by class."""

    images: Floats
    score: Callable[[Floats], float]
    choosing: Floats
    ranking: Floats


def quantized_file(
    here: Opened,
    how: Quantization,
    runtime: str,
    network: nn.Module | None,
    fp32: Path,
    side: int,
    calibration: Floats,
    val: Validation,
    learnt: Ranges | None = None,
) -> tuple[str, Path, dict[str, Any]]:
    """Quantize a runtime's fp32 file beside it; give the scheme, the file and what a row says of how it was made.

    network: what the file was exported from, for formats that are quantized before they are exported (.pte). learnt:
    activation ranges of QAT. Raises InputError where the network cannot be quantized so or loses more than `max_drop`.
    """
    _check_int8(runtime)
    if fp32.suffix == ".onnx":
        out = fp32.with_suffix(".int8.xml" if runtime == "openvino" else ".int8.onnx")
        report = quantize_for(how, runtime, fp32, out, calibration, val, threads=here.threads, learnt=learnt)
        check_integer(report)
        return report.scheme, out, report_details(report)
    chosen = scheme_for(how.method, runtime, fp32.suffix)
    if chosen is not None and chosen.quantize is not None:
        report = _made_by(chosen, fp32, fp32.with_suffix(f".int8{fp32.suffix}"), calibration)
        scheme, out, made = report.scheme, report.path, report_details(report)
    else:
        out, made = int8_file(here, runtime, network, fp32, side, calibration)
        scheme = "int8-ptq"
    _check_drop(how.max_drop, here.threads, runtime, fp32, out, val)
    return scheme, out, made


def _check_int8(runtime: str) -> None:
    known = find_runtime(runtime)
    if "int8" not in known.precisions:
        raise InputError(f"{runtime} has no int8 here, it runs {', '.join(known.precisions)}: name another runtime")


def quantize_for(
    how: Quantization,
    runtime: str,
    fp32: Path,
    out: Path,
    calibration: Floats,
    val: Validation,
    *,
    threads: int,
    latency: Latency | None = None,
    learnt: Ranges | None = None,
) -> QuantReport:
    """Quantize as the recipe says, by the scheme that is fast on `runtime`; choices are made on validation images.

    latency: measures files, so that of several choices of float layers the fastest is kept (ONNX Runtime). learnt: the
    ranges of QAT: the recipe's method (`auto`: min-max) is for other tensors only, and a loss beyond `max_drop`
    is refused.
    """
    scheme = scheme_for(how.method, runtime, ".xml" if runtime == "openvino" else fp32.suffix)
    if scheme is not None and scheme.quantize is not None:
        if learnt is not None:
            raise InputError(f"int8 method {scheme.name} takes no ranges that QAT has learnt: leave qat_epochs out")
        report = _made_by(scheme, fp32, out, calibration)
        _check_drop(how.max_drop, threads, runtime, fp32, out, val)
        return report
    if learnt is not None:
        if runtime == "openvino":
            report = quantize_openvino(fp32, out, calibration, learnt=learnt)
        else:
            method = "minmax" if how.method == "auto" else how.method
            report = quantize_onnx(fp32, out, calibration, method=method, learnt=learnt)
        _check_drop(how.max_drop, threads, runtime, fp32, out, val)
        return report
    if runtime == "openvino":
        control = None if how.max_drop is None else Control(val.images, val.score, how.max_drop)
        return quantize_openvino(fp32, out, calibration, control=control)
    if how.max_drop is not None:
        return _held(how, fp32, out, calibration, val, how.max_drop, latency, threads)
    if how.method == "auto":
        return quantize_best(fp32, out, calibration, val.choosing, threads=threads)
    return quantize_onnx(fp32, out, calibration, method=how.method, threads=threads)


def _held(
    how: Quantization,
    fp32: Path,
    out: Path,
    calibration: Floats,
    val: Validation,
    max_drop: float,
    latency: Latency | None,
    threads: int,
) -> QuantReport:
    """Choose the method where the recipe leaves it open, then return layers to float until the loss is held."""
    method, trials = how.method, dict[str, float]()
    if method == "auto":
        with tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
            best = quantize_best(fp32, Path(folder) / "plain.onnx", calibration, val.choosing, threads=threads)
        method, trials = best.method, best.trials
    report, _ = quantize_mixed(
        fp32, out, calibration, val.images, val.score,
        max_drop=max_drop, method=method, threads=threads, latency=latency, ranking=val.ranking,
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


def check_method(section: QuantizeSection, runtimes: Sequence[str]) -> None:
    """Refuse an int8 scheme that makes no file of any of these runtimes; one that makes some is left out for others."""
    refused = []
    for name in runtimes:
        runtime = find_runtime(name)
        if "int8" not in runtime.precisions:
            continue
        try:
            scheme_for(section.method, name, ".xml" if name == "openvino" else runtime.suffixes[0])
        except InputError as error:
            refused.append(error)
        else:
            return
    if refused:
        raise refused[0]


def calibration_images(
    here: Opened, side: int, number: int, seed: int, normalisation: Normalisation | None = None
) -> Floats:
    """Draw `number` training images, by class, for the recipe's `seed`: float32 (n, c, side, side).

    normalisation: of the network that is quantized; None: the run's.
    """
    drawn = here.draw("train", number, derived_seed(seed, "calibration"))
    return np.asarray(here.split("train", side, drawn, normalisation)[0].numpy(), dtype=np.float32)


def validation(here: Opened, side: int, seed: int, normalisation: Normalisation | None = None) -> Validation:
    """Give the validation images, as the network takes them, and the draws of them that int8's choices are made on."""
    images, labels = here.split("val", side, normalisation=normalisation)
    choosing = here.draw("val", _CHOOSING_IMAGES, derived_seed(seed, "choosing a calibration method"))
    ranking = here.draw("val", _RANKING_IMAGES, derived_seed(seed, "ranking layers"))
    values = images.numpy()
    return Validation(values, scorer(here, labels.numpy()), values[choosing], values[ranking])


def scorer(here: Opened, labels: NDArray[Any]) -> Callable[[Floats], float]:
    """Give the figure that int8 must hold on validation: accuracy, or AUC of multi-label data."""

    def score(logits: Floats) -> float:
        probs = probabilities(torch.from_numpy(np.ascontiguousarray(logits)), here.dataset.multi_label)
        evaluation = evaluate(probs, labels, multi_label=here.dataset.multi_label, bootstrap=0)
        return float((evaluation.auc if here.dataset.multi_label else evaluation.accuracy) or 0.0)

    return score


def _check_drop(allowed: float | None, threads: int, runtime: str, fp32: Path, int8: Path, val: Validation) -> None:
    """Refuse an int8 file that loses more than the recipe allows, where no layer can go back to float."""
    if allowed is None:
        return
    before, after = (val.score(answers(runtime, path, val.images, threads)) for path in (fp32, int8))
    if 100 * (before - after) > allowed + 1e-9:
        raise InputError(
            f"int8 loses {100 * (before - after):.2f} points on validation, more than max_drop {allowed}, and no layer "
            f"goes back to float here ({runtime})"
        )


def report_details(report: QuantReport) -> dict[str, Any]:
    """Give the fields of a quantization report that a row keeps."""
    names = (
        "method", "num_calibration", "calibration_sha256", "activation_type", "weight_type", "weight_bits",
        "per_channel", "float_operators", "excluded", "stem", "trials", "size_ratio", "num_quantized", "num_learnt",
        "integer_macs",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names}
