"""Ranges of activations: histograms against numpy's, percentiles and the KL search against loops over bins."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import TensorsData

from tutelage.quant.int8 import ranges
from tutelage.quant.int8.ranges import collect, whole_batches, write_ranges
from tutelage.quant.int8.schemes.clipping import NUM_LEVELS, entropy, minmax, percentile
from tutelage.quant.int8.schemes.entry import NUM_BINS, Histogram
from tutelage.quant.int8.schemes.registry import automatic, find_ranges
from tutelage.records import InputError

RNG = np.random.default_rng


def _histogram(values: np.ndarray, bins: int = NUM_BINS) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, bins, (low, high))[0])


def _network(path: Path, batch: int | str = "n") -> Path:
    """input (n, 3) -> scaled (n, 3) -> gated -> logits, and an integer and an empty tensor beside them."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["input", "two"], ["scaled"]),
            helper.make_node("Relu", ["scaled"], ["gated"]),
            helper.make_node("Sub", ["two", "two"], ["nothing"]),
            helper.make_node("Shape", ["gated"], ["shape"]),
            helper.make_node("Add", ["gated", "nothing"], ["logits"]),
        ],
        "ranges",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])],
        value_info=[
            helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("gated", TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("nothing", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("batch", ["n", 4])
def test_histograms_hold_what_every_tensor_held(tmp_path: Path, batch: int | str) -> None:
    images = RNG(0).standard_normal((20, 3)).astype(np.float32)
    found = collect(_network(tmp_path / "net.onnx", batch), images)
    assert set(found) == {"input", "scaled", "gated", "nothing", "logits"}
    for name, values in (("input", images), ("scaled", 2 * images), ("gated", np.maximum(2 * images, 0))):
        own = _histogram(values.astype(np.float64).ravel())
        assert (found[name].low, found[name].high) == (own.low, own.high)
        assert found[name].counts.sum() == 60
        assert np.abs(np.cumsum(found[name].counts) - np.cumsum(own.counts)).max() <= 1  # a value on an edge
    # A constant has no width, and no bins to fill.
    assert (found["nothing"].low, found["nothing"].high, found["nothing"].counts.sum()) == (0, 0, 0)
    with np.errstate(all="raise"):
        assert [find_ranges(name)(found["nothing"]) for name in automatic()] == [(0, 0)] * 3


def test_of_many_values_an_image_every_nth_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MAX_VALUES", 1)
    for num in (2, 4):
        images = np.arange(3 * num, dtype=np.float32).reshape(num, 3)
        found = collect(_network(tmp_path / "net.onnx"), images)["input"]
        highest = 3 * num - 1
        assert (found.low, found.high) == (0, highest)  # extremes are those of all
        first = range(0, 3 * num, 3)
        assert np.flatnonzero(found.counts).tolist() == [int(v / highest * NUM_BINS) for v in first]


def test_one_thread_computes_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen, make = [], onnxruntime.InferenceSession

    def keep(model: bytes, options: onnxruntime.SessionOptions, **others: object) -> onnxruntime.InferenceSession:
        seen.append(options.intra_op_num_threads)
        return make(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", keep)
    images = np.ones((2, 3), np.float32)
    collect(_network(tmp_path / "net.onnx"), images)
    collect(_network(tmp_path / "net.onnx"), images, threads=2)
    assert seen == [1, 2]


def test_a_network_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    for bad in (np.nan, np.inf, -np.inf, [0, 1, np.inf], [-np.inf, 0, 1]):
        images = np.full((2, 3), bad, np.float32)
        with pytest.raises(InputError, match="activation input is NaN or infinite on the calibration images"):
            collect(_network(tmp_path / "net.onnx"), images)


def test_a_percentile_leaves_half_of_the_rest_at_each_end() -> None:
    # 1,000 equal bins of one value each over [-1, 9]: 99 % leaves out 5 values at each end.
    held = Histogram(-1.0, 9.0, np.ones(1000, np.int64))
    assert percentile(held, 99.0) == pytest.approx((-0.95, 8.95))
    assert percentile(held, 100.0) == pytest.approx((-1.0, 9.0))
    assert minmax(held) == (-1.0, 9.0)
    values = RNG(1).standard_normal(50_000)
    (low, high), bin_width, tail = percentile(_histogram(values)), np.ptp(values) / NUM_BINS, 0.00005
    assert (values < low).mean() <= tail < (values < low + 1.01 * bin_width).mean()
    assert (values > high).mean() <= tail < (values > high - 1.01 * bin_width).mean()


def _entropy(held: Histogram) -> tuple[float, float]:
    """Do what `_entropy` says, one bin at a time: the search of Migacz (GTC 2017) without the value on the grid."""
    counts = held.counts.astype(float).tolist()
    total, spike = len(counts), max(range(len(counts)), key=lambda i: (counts[i], -i))
    counts[spike] = counts[spike + 1] if spike + 1 < total else counts[spike - 1]
    width = (held.high - held.low) / total
    best: tuple[float, int, int] = (math.inf, 0, 0)
    for size in range(NUM_LEVELS, total + 1, 16):
        start = 0
        if held.low < -0.05 * held.high:
            zero = round(-held.low / width) if held.high > 0 else total
            start = min(max(0, round(zero * (1 - size / total))), total - size)
        kept = counts[start : start + size]
        p = [*kept]
        p[0] += sum(counts[:start])
        p[-1] += sum(counts[start + size :])
        edges = [int(level * size / NUM_LEVELS + 1e-9) for level in range(NUM_LEVELS + 1)]
        q = [0.0] * size
        for a, b in pairwise(edges):
            filled = [i for i in range(a, b) if kept[i] > 0]
            for i in filled:
                q[i] = sum(kept[a:b]) / len(filled)
        sum_p, sum_q = sum(p), max(sum(q), 1.0)
        divergence = sum(
            a / sum_p * math.log(a / sum_p / max(b / sum_q, 1e-10)) for a, b in zip(p, q, strict=True) if a > 0
        )
        if divergence < best[0] - 1e-12:
            best = divergence, size, start
    return held.low + best[2] * width, held.low + (best[2] + best[1]) * width


@pytest.mark.parametrize(
    ("kind", "bins"),
    [
        *((kind, 600) for kind in ("both", "mostly positive", "positive", "negative", "sparse", "top", "gap")),
        *((kind, 271) for kind in ("positive", "both")),  # one size alone, the next is larger than all bins
    ],
)
def test_the_kl_search_is_its_definition(kind: str, bins: int) -> None:
    rng = RNG(2)
    values = {
        "both": rng.standard_t(3, 3000),
        "mostly positive": np.r_[rng.standard_exponential(3000) ** 1.5, np.full(20, -0.3)],
        "positive": np.r_[np.zeros(3000), rng.standard_exponential(2000) ** 2],
        "negative": -1 - rng.standard_exponential(3000) ** 1.5,
        "sparse": rng.choice([0.0, 0.5, 1.0, 8.0], 500, p=[0.6, 0.2, 0.19, 0.01]),
        "top": np.r_[np.zeros(3000), -(rng.standard_exponential(2000) ** 2)],  # the spike is the last bin
        "gap": np.r_[np.zeros(3000), rng.uniform(5, 9, 2000)],  # the bins behind the spike are empty
    }[kind]
    held = _histogram(values, bins)
    with np.errstate(divide="raise", invalid="raise"):
        found = entropy(held)
    assert found == pytest.approx(_entropy(held))
    assert held.low <= found[0] < found[1] <= held.high + 1e-9
    if kind in ("both", "mostly positive", "positive", "top"):
        assert found != pytest.approx((held.low, held.high))  # something was cut


def test_a_single_value_is_kept_whole() -> None:
    counts = np.zeros(NUM_BINS, np.int64)
    counts[0] = 7
    assert entropy(Histogram(0.0, 1.0, counts)) == (0.0, 1.0)


def test_batches_leave_no_image_out_and_repeat_the_first_where_the_size_is_fixed() -> None:
    images = np.arange(7)
    for size, otherwise, expected in (
        (3, 8, [[0, 1, 2], [3, 4, 5], [6, 0, 1]]),
        ("n", 4, [[0, 1, 2, 3], [4, 5, 6]]),
        (None, 8, [[0, 1, 2, 3, 4, 5, 6]]),
        (0, 5, [[0, 1, 2, 3, 4], [5, 6]]),
        (1, 5, [[i] for i in range(7)]),
        (10, 2, [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2]]),
    ):
        assert [batch.tolist() for batch in whole_batches(images, size, otherwise)] == expected


def test_written_ranges_are_the_calibration_cache_of_onnxruntime(tmp_path: Path) -> None:
    write_ranges(tmp_path / "ranges.json", {"x": (-1.5, 2.0), "y": (0.0, 6.0)})
    cache = json.loads((tmp_path / "ranges.json").read_text())
    assert cache["CLS"] == TensorsData.__name__
    assert cache["calibration_method"] == {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    assert cache["smooth_quant"] is False
    found = {name: (held["lowest"]["data"], held["highest"]["data"]) for name, held in cache["data"].items()}
    assert found == {"x": (-1.5, 2.0), "y": (0.0, 6.0)}
    assert {held["CLS"] for held in cache["data"].values()} == {"TensorData"}
    kinds = [held[end] for held in cache["data"].values() for end in ("lowest", "highest")]
    assert all((kind["CLS"], kind["dtype"]) == ("numpy.array", "float32") for kind in kinds)
