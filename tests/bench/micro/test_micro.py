"""Files for microcontrollers compute the same in less memory, and the memory counted is what TFLite Micro reports."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.bench.micro.arena import Buffer, arena_of, operators_of, planned_bytes, quantization_of
from tutelage.bench.micro.convert import for_micro
from tutelage.bench.micro.interpreter import allocations, installed, run_micro
from tutelage.bench.micro.model import operator_name, read_model, shape_of, values_of, write_model
from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.records import InputError

spec = importlib.util.spec_from_file_location("small_net", Path(__file__).with_name("small_net.py"))
assert spec is not None
assert spec.loader is not None
small = importlib.util.module_from_spec(spec)
sys.modules["small_net"] = small
spec.loader.exec_module(small)

pytestmark = pytest.mark.skipif(not RUNTIMES["litert"].installed(), reason="LiteRT is not installed")
needs_micro = pytest.mark.skipif(not installed(), reason="TFLite Micro is not installed: pip install 'tutelage[micro]'")


def images(number: int = 8, side: int = small.SIDE, channels: int = small.CHANNELS) -> Any:
    return np.random.default_rng(1).normal(size=(number, channels, side, side)).astype(np.float32)


def litert(path: Path, batch: Any, precision: str = "fp32") -> Any:
    session = RUNTIMES["litert"].load(path, 1, precision, (1, *batch.shape[1:]))
    return np.concatenate([session.run(image[None]) for image in batch])


def channels_last(batch: Any) -> Any:
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The converter's file, and what is made of it for microcontrollers: float and int8."""
    folder = tmp_path_factory.mktemp("micro")
    plain = write_model(small.small_net(), folder / "plain.tflite")
    int8 = for_micro(plain, folder / "int8.tflite", images(32))
    return plain, for_micro(plain, folder / "float.tflite"), int8


@pytest.mark.parametrize(("side", "channels", "kernel"), [(16, 3, 3), (15, 3, 5), (20, 1, 7), (18, 3, 5)])
def test_a_rewritten_file_computes_the_same(tmp_path: Path, side: int, channels: int, kernel: int):
    plain = write_model(small.small_net(side, channels, kernel), tmp_path / "plain.tflite")
    made = for_micro(plain, tmp_path / "micro.tflite")
    batch = images(4, side, channels)
    expected = litert(plain, batch)
    np.testing.assert_allclose(litert(made, channels_last(batch)), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    names = operators_of(made)
    assert {"PAD", "TRANSPOSE"} <= set(operators_of(plain))
    assert not {"PAD", "TRANSPOSE"} & set(names)
    assert arena_of(made).head < 0.75 * arena_of(plain).head


def test_the_peak_is_that_of_the_widest_bottleneck(files: tuple[Path, Path, Path]):
    # Its depthwise convolution, at 8 x 8: what is kept for the addition, its input and its output.
    _, plain, int8 = files
    widest = 8 * 8 * (8 + 24 + 24)
    assert arena_of(plain).head == 4 * widest
    assert arena_of(int8).head == widest


@needs_micro
@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_count_is_what_tflite_micro_reports(files: tuple[Path, Path, Path], which: int):
    counted, reported = arena_of(files[which]), allocations(files[which])
    assert counted.head == reported.head
    assert counted.total == pytest.approx(reported.total, rel=0.05)
    assert reported.total == reported.head + reported.tail


@needs_micro
def test_tflite_micro_gives_what_litert_gives(files: tuple[Path, Path, Path]):
    _, plain, int8 = files
    batch = images(6)
    np.testing.assert_allclose(run_micro(plain, channels_last(batch)), litert(plain, channels_last(batch)), atol=1e-5)
    # At int8 two kernels may round apart by one step of the output.
    (scale, _), step = quantization_of(int8)[1] or (0.0, 0), 1.01
    found, expected = run_micro(int8, channels_last(batch)), litert(int8, channels_last(batch), "int8")
    assert np.abs(found - expected).max() <= step * scale
    exact = litert(plain, channels_last(batch))
    assert 0 < np.abs(found - exact).max() < 0.2 * np.abs(exact).max()


def test_buffers_that_never_meet_share_a_place():
    assert planned_bytes([]) == 0
    assert planned_bytes([Buffer(100, 0, 1), Buffer(50, 1, 2), Buffer(100, 2, 3)]) == 112 + 64
    assert planned_bytes([Buffer(16, 0, 0), Buffer(16, 1, 1), Buffer(16, 2, 2)]) == 16
    # Two of 48 live together with one of 16, which needs a place of its own above both.
    assert planned_bytes([Buffer(48, 0, 2), Buffer(48, 1, 3), Buffer(16, 2, 2)]) == 112


def test_weights_behind_the_flatbuffer_are_taken_into_it(files: tuple[Path, Path, Path], tmp_path: Path):
    model = read_model(files[1])
    number = next(
        one.inputs[1] for one in model.subgraphs[0].operators if operator_name(model, one) == "FULLY_CONNECTED"
    )
    tensor = model.subgraphs[0].tensors[number]
    weights = values_of(model, tensor)
    buffer = model.buffers[tensor.buffer]
    data = bytes(buffer.data)
    buffer.data, buffer.offset, buffer.size = None, 2, len(data)
    size = len(write_model(model, tmp_path / "size.tflite").read_bytes())
    buffer.offset = size
    outside = write_model(model, tmp_path / "outside.tflite")
    outside.write_bytes(outside.read_bytes() + data)
    inside = read_model(outside)
    found = inside.subgraphs[0].tensors[number]
    np.testing.assert_array_equal(values_of(inside, found), weights)
    assert shape_of(found) == shape_of(tensor)
    assert inside.buffers[found.buffer].offset == 0


def test_files_that_are_none_are_refused(files: tuple[Path, Path, Path], tmp_path: Path):
    path = tmp_path / "x.tflite"
    with pytest.raises(InputError, match="cannot be read"):
        read_model(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(InputError, match=r"x\.tflite is no \.tflite file"):
        read_model(path)
    path.write_bytes(files[1].read_bytes()[:60])
    with pytest.raises(InputError, match=r"x\.tflite is damaged"):
        read_model(path)
    if installed():
        with pytest.raises(InputError, match=r"TFLite Micro cannot run .*x\.tflite"):
            allocations(path)


def test_what_the_quantizer_refuses_is_said_in_one_line(tmp_path: Path):
    """Padding with a given value, as before a maximum pooling: its value is quantized along channels it has not."""
    net = small.Builder()
    entry = net.tensor((1, 8, 8, 8), "input")
    x = net.conv(entry, 8, 8, 8)
    padded = net.run("PADV2", [x, net.integers([[0, 0], [1, 1], [1, 1], [0, 0]]), net.weights(1)], (1, 10, 10, 8))
    net.graph.inputs, net.graph.outputs = np.array([entry], np.int32), np.array([padded], np.int32)
    net.model.signatureDefs = [small._signature(net.kinds, entry, padded)]
    plain = write_model(net.model, tmp_path / "plain.tflite")
    with pytest.raises(InputError, match=r"plain-channels-last\.tflite cannot be quantized for LiteRT: ") as caught:
        for_micro(plain, tmp_path / "int8.tflite", images(2, 8, 8).transpose(0, 3, 1, 2))
    assert "\n" not in str(caught.value)
