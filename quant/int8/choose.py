"""Choose how a network is calibrated, on validation data and never on test.

`quantize_best` tries each scheme that is automatic.
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

from .calibration import Array, checked_calibration
from .onnxruntime_ptq import check_float, default_activation_type, prepared, quantize_graph, report
from .ranges import collect
from .schemes.entry import QuantReport
from .schemes.registry import automatic, find_ranges

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
    methods: Sequence[str] = (),
    per_channel: bool = True,
    threads: int = 1,
) -> QuantReport:
    """Quantize by each of `methods` (default: all automatic schemes) and keep the best on `validation` images.

    Best is the highest `score`; where scores tie, or none is given, the least mean absolute difference of logits from
    the fp32 network's, which needs no labels and is far less noisy than accuracy. (Not squared: a few huge logits that
    are clipped, which changes no prediction, would decide.) `validation` has shape (n, c, h, w). The report's `trials`
    hold the score of each method, or minus the difference. The calibration images pass the network once for all.
    """
    fp32_path, out_path = Path(fp32_path), Path(out_path)
    images, held_out = checked_calibration(calibration), checked_calibration(validation)
    clips = {name: find_ranges(name) for name in methods or automatic()}
    check_float(fp32_path)
    reference = run_onnx(fp32_path, held_out, threads=threads)
    kind = default_activation_type()
    best: tuple[tuple[float, float], str, bytes] | None = None
    trials: dict[str, float] = {}
    with prepared(fp32_path) as graph, tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        histograms = collect(graph, images, threads=threads)
        for method, clip in clips.items():
            ranges = {name: clip(values) for name, values in histograms.items()}
            content = quantize_graph(graph, ranges, per_channel=per_channel, activation_type=kind)
            trial = Path(folder) / f"{method}.onnx"
            trial.write_bytes(content)
            logits = run_onnx(trial, held_out, threads=threads)
            closeness = -float(np.abs(logits - reference).mean())
            merit = (score(logits) if score else 0.0, closeness)
            trials[method] = merit[0] if score else closeness
            if best is None or merit > best[0]:
                best = merit, method, content
    assert best is not None, "some scheme is automatic"
    write_whole(out_path, best[2])
    log.info("calibrated %s by %s; tried %s", out_path, best[1], trials)
    done = report(fp32_path, out_path, images, method=best[1], per_channel=per_channel, activation_type=kind)
    return done.model_copy(update={"trials": trials})
