"""The noise of every kind of layer by hand, what is refused and left out, and the picture of the worst layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from matplotlib.figure import Figure
from onnx import TensorProto, helper, numpy_helper

from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.saturation import WEIGHT_STEPS, weight_bits
from tutelage.quant.int8.sensitivity import (
    LayerSensitivity,
    Sensitivity,
    _channel_axis,
    draw_sensitivity,
    rounded,
    sensitivity,
)
from tutelage.records import InputError

Floats = npt.NDArray[np.float32]


def _weights(seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    shapes = {
        "stem": (5, 3, 1, 1),
        "conv": (6, 5, 1, 1),
        "bias": (6,),
        "turned": (7, 6),
        "plain": (7, 4),
        "last": (4, 3),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _write(path: Path, weights: dict[str, Floats], batch: int | str = "n") -> Path:
    """stem -> Relu -> conv -> pool -> Gemm (7, 6) transposed -> Gemm (7, 4) -> MatMul (4, 3) -> logits."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "stem"], ["a"], name="stem"),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("Conv", ["b", "conv", "bias"], ["c"], name="conv"),
            helper.make_node("GlobalAveragePool", ["c"], ["d"], name="pool"),
            helper.make_node("Flatten", ["d"], ["e"], name="flatten"),
            helper.make_node("Gemm", ["e", "turned"], ["f"], name="turned", transB=1),
            helper.make_node("Gemm", ["f", "plain"], ["g"], name="plain", transB=0),
            helper.make_node("MatMul", ["g", "last"], ["logits"], name="last"),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def _run(weights: dict[str, Floats], images: Floats) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Give each layer's input (n, places, inputs), weights (inputs, outputs) and output, in double precision."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = images.astype(np.float64).reshape(len(images), 3, -1).transpose(0, 2, 1)
    x = np.maximum(x @ w["stem"][:, :, 0, 0].T, 0)
    layers = {"conv": (x, w["conv"][:, :, 0, 0].T, x @ w["conv"][:, :, 0, 0].T + w["bias"])}
    x = layers["conv"][2].mean(axis=1, keepdims=True)
    for name, matrix in (("turned", w["turned"].T), ("plain", w["plain"]), ("last", w["last"])):
        layers[name] = x, matrix, x @ matrix
        x = x @ matrix
    return layers


def _noises(weights: dict[str, Floats], calibration: Floats, images: Floats) -> dict[str, float]:
    """Round each layer's input to 256 levels of its calibrated range and its weights by output; compare its outputs."""
    held, noises = _run(weights, calibration), {}
    for name, (x, matrix, output) in _run(weights, images).items():
        low, high = min(held[name][0].min(), 0.0), max(held[name][0].max(), 0.0)
        step = (high - low) / 255
        zero = round(-low / step)
        levels = np.clip(np.rint(x / step) + zero, 0, 255) - zero
        scale = np.abs(matrix).max(axis=0) / WEIGHT_STEPS[weight_bits()]
        error = (levels * step) @ (np.rint(matrix / scale) * scale) - x @ matrix
        noises[name] = float(np.square(error).mean() / np.square(output).mean())
    return noises


def _images(n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("num", [20, 22])  # the last batch of 16 is short
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_the_noise_of_every_kind_of_layer(tmp_path: Path, num: int, size: float) -> None:
    weights = _weights()
    for name in ("conv", "bias"):
        weights[name] *= np.float32(size)  # noise is relative to the output's power, however small that is
    calibration, images = _images(12, seed=1), _images(num, seed=2)
    report = sensitivity(str(_write(tmp_path / "m.onnx", weights)), calibration, images)
    expected = _noises(weights, calibration, images)
    # The image's own convolution stays in float where its sums are short, so it has no noise.
    assert [layer.name for layer in report.layers] == ["conv", "turned", "plain", "last"]
    assert [layer.operator for layer in report.layers] == ["Conv", "Gemm", "Gemm", "MatMul"]
    assert [layer.num_weights for layer in report.layers] == [30, 42, 28, 12]
    for layer in report.layers:
        assert layer.noise == pytest.approx(expected[layer.name], rel=0.01)
    assert (report.method, report.num_images, report.model) == ("minmax", num, tmp_path / "m.onnx")
    assert [layer.noise for layer in report.worst()] == sorted(expected.values(), reverse=True) or np.allclose(
        [layer.noise for layer in report.worst()], sorted(expected.values(), reverse=True), rtol=0.01
    )


def test_values_on_the_grid_make_no_noise(tmp_path: Path) -> None:
    """The highest value of a range is its last level, 255, where none lies below 0."""
    weights = {name: np.ones_like(value) for name, value in _weights().items()}
    images = np.ones((4, 3, 4, 4), np.float32)
    report = sensitivity(_write(tmp_path / "m.onnx", weights), images, images)
    assert [layer.noise for layer in report.layers] == pytest.approx([0] * 4, abs=1e-9)  # a level off is 1.5e-5


def test_outputs_are_the_last_axis_of_a_product_however_many_it_has() -> None:
    assert _channel_axis(helper.make_node("MatMul", ["x", "w"], ["y"])) == -1


def test_a_layer_that_reads_zeros_has_no_noise(tmp_path: Path) -> None:
    weights = _weights()
    weights["conv"][:], weights["bias"][:] = 0, 0
    report = sensitivity(_write(tmp_path / "m.onnx", weights), _images(4, 1), _images(4, 2))
    assert [layer.noise for layer in report.layers] == [0, 0, 0, 0]


def test_an_int8_network_is_refused(tmp_path: Path) -> None:
    images = _images(4, 1)
    made = quantize_onnx(_write(tmp_path / "m.onnx", _weights()), tmp_path / "int8.onnx", images)
    with pytest.raises(InputError, match=r"int8\.onnx is quantized already; give its fp32 model"):
        sensitivity(made.path, images, images)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_weights_are_rounded_to_steps_of_their_channel(axis: int) -> None:
    weight = np.random.default_rng(3).standard_normal((2, 3, 4)).astype(np.float32)
    weight[0] *= 50
    weight[:, :, 3] *= 9
    found = np.moveaxis(rounded(weight, axis), axis, 0)
    for channel, values in zip(found, np.moveaxis(weight, axis, 0), strict=True):
        step = np.abs(values).max() / WEIGHT_STEPS[weight_bits()]
        np.testing.assert_allclose(channel, np.rint(values / step) * step, rtol=1e-5, atol=1e-9)
        assert not np.allclose(channel, values, rtol=1e-6)
    assert (rounded(np.zeros((2, 2), np.float32), axis % 2) == 0).all()


def _report(noises: list[float]) -> Sensitivity:
    layers = [
        LayerSensitivity(name=f"/layer{i}/", operator="Conv", noise=noise, num_weights=9)
        for i, noise in enumerate(noises)
    ]
    return Sensitivity(model=Path("net.onnx"), method="minmax", num_images=4, layers=tuple(layers))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep the figures that are saved; drawing takes long, so only the first is drawn."""
    kept, save = [], Figure.savefig

    def keep(figure: Figure, path: Path, **options: Any) -> None:
        kept.append(figure)
        if len(kept) == 1:
            save(figure, path, **options)
        else:
            path.write_bytes(b"not drawn")

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_the_picture_shows_the_worst_first(tmp_path: Path, figures: list[Figure]) -> None:
    report = _report([0.01, 0.2, 0.0, 0.05])
    draw_sensitivity(report, tmp_path / "worst.png", kept=("/layer3/",), num_layers=4)
    draw_sensitivity(report, str(tmp_path / "two.svg"), num_layers=2)
    assert (tmp_path / "worst.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.svg", "worst.png"]
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer1", "layer3", "layer0", "layer2"]
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.05, 0.01, 0.01]  # a log scale has no 0
    assert [bar.get_hatch() for bar in axes.patches] == [None, "//", None, None]
    assert axes.get_xscale() == "log"
    assert axes.yaxis_inverted()  # the first bar is the uppermost
    assert axes.get_xlabel() == "noise from the layer's own rounding (fraction of its output's power)"
    assert axes.get_title() == "net.onnx: the 4 most sensitive of 4 layers, hatched: kept in fp32"
    assert figures[1].axes[0].get_title() == "net.onnx: the 2 most sensitive of 4 layers"


def test_every_bar_has_the_same_room(tmp_path: Path, figures: list[Figure]) -> None:
    for num in (1, 11, 21):
        draw_sensitivity(_report([0.1] * num), tmp_path / "bars.png")
    heights = [figure.get_figheight() for figure in figures]
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0])
    assert 0.2 < (heights[1] - heights[0]) / 10 < 0.4  # inches a line of small letters
    assert heights[0] - (heights[1] - heights[0]) / 10 > 1  # and room for the title and the axis


def test_layers_without_noise_are_drawn_too(tmp_path: Path, figures: list[Figure]) -> None:
    draw_sensitivity(_report([0.0, 0.0]), tmp_path / "none.png")
    assert [bar.get_width() for bar in figures[0].axes[0].patches] == [1e-9, 1e-9]
