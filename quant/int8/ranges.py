"""Find the range of every activation of an ONNX network over calibration images.

A range is (low, high) by min-max, percentile or entropy. Images pass in small batches, so memory does not grow with
their number, and one pass serves all methods. onnxruntime's own
calibrators keep all activations of all images, and their entropy has as many bins as levels, which makes it min-max.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tutelage.records import InputError

from .calibration import Array

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

# Resolution of a histogram between a tensor's own lowest and highest value; TensorRT's calibrator uses as many.
NUM_BINS = 2048
NUM_LEVELS = 256  # levels of the candidate distribution in the KL search (Migacz, GTC 2017): those of uint8
PERCENTILE = 99.99
# At most so many values an image and tensor enter a histogram: a stride over more changes no percentile visibly.
MAX_VALUES = 16384
_BATCH = 8


@dataclass(frozen=True)
class Histogram:
    """What one tensor held: its extremes, and counts (NUM_BINS,) of equal bins between them."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    def range(self, method: Method, percentile: float = PERCENTILE) -> tuple[float, float]:
        """Give the clipping range by a method, inside [low, high]."""
        if method == "minmax" or not self.high > self.low:
            return self.low, self.high
        if method == "percentile":
            return self._percentile(percentile)
        return self._entropy()

    def _percentile(self, percentile: float) -> tuple[float, float]:
        fraction = np.cumsum(self.counts) / self.counts.sum()
        tail = (1 - percentile / 100) / 2
        width = (self.high - self.low) / len(self.counts)
        left = int(np.searchsorted(fraction, tail, side="right"))
        right = int(np.searchsorted(fraction, 1 - tail, side="left"))
        return self.low + left * width, self.low + (right + 1) * width

    def _entropy(self) -> tuple[float, float]:
        """Cut the high end, and the low end in proportion, where KL(values || their 8-bit form) is least."""
        counts = self.counts.astype(np.float64)
        # A ReLU puts half its values on 0 exactly, which any grid holds without error: left in, that spike hides the
        # cost of cutting all the rest away.
        spike = int(counts.argmax())
        counts[spike] = counts[spike + 1] if spike + 1 < len(counts) else counts[spike - 1]
        if not counts.any():
            return self.low, self.high
        best, best_size = np.inf, len(counts)
        # The side with more mass is kept: cut from the right for (nearly) non-negative tensors, else from both.
        both = self.low < -0.05 * self.high
        for size in range(NUM_LEVELS, len(counts) + 1, 16):
            kept, start = _keep(counts, size, both, self.low, self.high)
            divergence = _divergence(counts, kept, start)
            if divergence < best:
                best, best_size = divergence, size
        kept, start = _keep(counts, best_size, both, self.low, self.high)
        width = (self.high - self.low) / len(counts)
        return self.low + start * width, self.low + (start + len(kept)) * width


def collect(graph: Path, images: Array, *, threads: int = 1) -> dict[str, Histogram]:
    """Run `images` twice (extremes, then counts) and give a histogram for every float tensor of the graph."""
    session, names, entry = _open_with_all_outputs(graph, threads)
    low = dict.fromkeys((entry, *names), np.inf)
    high = dict.fromkeys((entry, *names), -np.inf)
    for tensors in _activations(session, names, entry, images):
        for name, values in tensors.items():
            low[name] = min(low[name], float(values.min()))
            high[name] = max(high[name], float(values.max()))
    for name in low:
        if not (np.isfinite(low[name]) and np.isfinite(high[name])):
            raise InputError(f"{graph}: activation {name} is NaN or infinite on the calibration images; train again")
    counts = {name: np.zeros(NUM_BINS, np.int64) for name in low}
    for tensors in _activations(session, names, entry, images):
        for name, values in tensors.items():
            flat = values.reshape(len(values), -1)
            sample = flat[:, :: max(1, flat.shape[1] // MAX_VALUES)].ravel().astype(np.float64)
            if high[name] > low[name]:
                place = ((sample - low[name]) / (high[name] - low[name]) * NUM_BINS).astype(np.int64)
                counts[name] += np.bincount(np.minimum(place, NUM_BINS - 1), minlength=NUM_BINS)
    return {name: Histogram(low[name], high[name], counts[name]) for name in low}


def write_ranges(path: Path, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Write ranges as the calibration cache that `onnxruntime.quantization.quantize_static` reads instead of images."""
    data = {
        name: {"CLS": "TensorData", "lowest": _scalar(low), "highest": _scalar(high)}
        for name, (low, high) in ranges.items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    cache = {"CLS": "TensorsData", "data": data, "calibration_method": method, "smooth_quant": False}
    path.write_text(json.dumps(cache), encoding="utf-8")


def _scalar(value: float) -> dict[str, Any]:
    return {"CLS": "numpy.array", "dtype": "float32", "data": value}


def _open_with_all_outputs(graph: Path, threads: int) -> tuple[Any, list[str], str]:
    """Open a session that gives every float activation; fused operators would hide some, so nothing is fused."""
    import onnx
    import onnxruntime

    model = onnx.load(str(graph))
    known = {value.name: value for value in itertools.chain(model.graph.value_info, model.graph.output)}
    produced = [name for node in model.graph.node for name in node.output if name]
    names = [
        name for name in produced if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(known[name] for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, names, session.get_inputs()[0].name


def _activations(session: Any, names: list[str], entry: str, images: Array) -> Iterator[dict[str, Array]]:
    """Yield every named tensor for a few images at a time; constants and empty tensors are left out."""
    for batch in whole_batches(images, session.get_inputs()[0].shape[0], _BATCH):
        found = session.run(names, {entry: batch})
        yield {
            entry: batch,
            **{name: np.atleast_1d(value) for name, value in zip(names, found, strict=True) if value.size},
        }


def whole_batches(images: Array, size: object, otherwise: int) -> Iterator[Array]:
    """Yield images in batches of a graph's fixed `size`, or of `otherwise` where it is free (a name or None).

    A last batch that is short of a fixed size is filled with the first images again, so that none is left out.
    """
    fixed = size if isinstance(size, int) and size > 0 else 0
    step = fixed or otherwise
    for start in range(0, len(images), step):
        stop = start + step if fixed else min(start + step, len(images))
        yield images[np.arange(start, stop) % len(images)]


def _keep(
    counts: npt.NDArray[np.float64], size: int, both: bool, low: float, high: float
) -> tuple[npt.NDArray[np.float64], int]:
    """Give the `size` bins that are kept and the first one's index: around zero when values have both signs."""
    if not both:
        return counts[:size], 0
    zero = round(-low / (high - low) * len(counts)) if high > 0 else len(counts)
    start = min(max(0, round(zero * (1 - size / len(counts)))), len(counts) - size)
    return counts[start : start + size], start


def _divergence(counts: npt.NDArray[np.float64], kept: npt.NDArray[np.float64], start: int) -> float:
    """Give KL(p || q): p are the kept bins with what was cut added at their ends, q is p in NUM_LEVELS steps."""
    p = kept.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[start + len(kept) :].sum()
    level = _levels(len(kept))
    filled = kept > 0
    mass = np.bincount(level, weights=kept, minlength=NUM_LEVELS)
    places = np.bincount(level, weights=filled, minlength=NUM_LEVELS)
    q = np.where(filled, (mass / np.maximum(places, 1))[level], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1.0)
    here = p > 0
    return float((p[here] * np.log(p[here] / np.maximum(q[here], 1e-10))).sum())


@functools.cache
def _levels(size: int) -> npt.NDArray[np.int64]:
    """Give the level `(size,)` of each of so many bins: the search asks for the same hundred sizes for every tensor."""
    edges = np.linspace(0, size, NUM_LEVELS + 1).astype(int)
    return np.repeat(np.arange(NUM_LEVELS), np.diff(edges))
