"""Run calibration images through an ONNX network and count what every activation holds, in a histogram each.

Images pass in small batches, so memory does not grow with their number, and one pass serves all schemes. onnxruntime's
own calibrators keep all activations of all images, and their entropy has as many bins as levels, which makes it
min-max.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.records import InputError

from .calibration import Array
from .schemes.entry import NUM_BINS, Histogram

# At most so many values an image and tensor enter a histogram: a stride over more changes no percentile visibly.
MAX_VALUES = 16384
_BATCH = 8


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
