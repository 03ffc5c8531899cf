"""Choose how a network is calibrated, on validation data and never on test.

Enters a float .onnx file, calibration and validation images; leaves the int8 file of the best method and its report.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tutelage.quant.files import write_whole
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

from .calibration import Array, checked_calibration
from .onnxruntime_ptq import QuantReport, check_float, default_activation_type, prepared, quantize_graph, report
from .ranges import METHODS, Method, collect

log = logging.getLogger(__name__)

# Logits (n, classes) -> a figure of merit, higher is better, e.g. the accuracy on the validation labels.
Score = Callable[[Array], float]


def quantize_best(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    validation: npt.ArrayLike,
    *,
    score: Score | None = None,
    methods: Sequence[Method] = METHODS,
    per_channel: bool = True,
    threads: int = 1,
) -> QuantReport:
    """Quantize by each method and keep the one that does best on `validation` images (n, c, h, w).

    Best is the highest `score`; where scores tie, or none is given, the least mean absolute difference of logits from
    the fp32 network's, which needs no labels and is far less noisy than accuracy. (Not squared: a few huge logits that
    are cut, which changes no answer, would decide.) The report's `trials` hold the score of each method, or minus the
    difference. The calibration images pass the network once for all methods.
    """
    fp32_path, out_path = Path(fp32_path), Path(out_path)
    images, held_out = checked_calibration(calibration), checked_calibration(validation)
    if not methods or (unknown := [name for name in methods if name not in METHODS]):
        raise InputError(f"unknown calibration method {unknown[0] if methods else ''!r}; known: {', '.join(METHODS)}")
    check_float(fp32_path)
    reference = run_onnx(fp32_path, held_out, threads=threads)
    kind = default_activation_type()
    best: tuple[tuple[float, float], Method, bytes] | None = None
    trials: dict[str, float] = {}
    with prepared(fp32_path) as graph, tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        histograms = collect(graph, images, threads=threads)
        for method in methods:
            ranges = {name: values.range(method) for name, values in histograms.items()}
            content = quantize_graph(graph, ranges, per_channel=per_channel, activation_type=kind)
            trial = Path(folder) / f"{method}.onnx"
            trial.write_bytes(content)
            logits = run_onnx(trial, held_out, threads=threads)
            closeness = -float(np.abs(logits - reference).mean())
            merit = (score(logits) if score else 0.0, closeness)
            trials[method] = merit[0] if score else closeness
            if best is None or merit > best[0]:
                best = merit, method, content
    assert best is not None, "methods is not empty"
    write_whole(out_path, best[2])
    log.info("calibrated %s by %s; tried %s", out_path, best[1], trials)
    done = report(fp32_path, out_path, images, method=best[1], per_channel=per_channel, activation_type=kind)
    return done.model_copy(update={"trials": trials})
