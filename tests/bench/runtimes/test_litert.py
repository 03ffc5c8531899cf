"""LiteRT and ncnn: converted networks answer as the ONNX file does; the environment is made once and says how."""

from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.converters import litert
from tutelage.bench.converters.conversion import Conversion, size_bytes
from tutelage.bench.converters.convert import convert
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.records import InputError

SHAPE = (1, 3, 32, 32)
needs_litert = pytest.mark.skipif(
    not RUNTIMES["litert"].installed(), reason="LiteRT is not installed: pip install 'tutelage[litert]'"
)
needs_converter = pytest.mark.skipif(
    not litert.converter_ready(),
    reason="the LiteRT converter's environment is not made yet",
)
needs_ncnn = pytest.mark.skipif(not RUNTIMES["ncnn"].installed(), reason="ncnn is not installed")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net of the operators that differ between runtimes: depthwise, stride, h-swish, SE, residual, head."""
    import torch
    from torch import nn

    from tutelage.quant.export.onnx_export import export_onnx

    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid()
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x * self.gate(x)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish(), nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.ReLU(), Squeeze(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    export_onnx(model, path, SHAPE)
    return path


def images(number: int = 1) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((number, *SHAPE[1:]), dtype=np.float32)


def answers(name: str, path: Path, precision: str = "fp32") -> np.ndarray:
    return RUNTIMES[name].load(path, 1, precision, SHAPE).run(images())


@needs_litert
@needs_converter
@pytest.mark.slow
def test_litert_answers_as_onnxruntime_does(net: Path, tmp_path: Path):
    made = tmp_path / "net.tflite"
    convert(find_runtime("litert"), [Conversion(net, made, SHAPE)], tmp_path / "kept")
    np.testing.assert_allclose(answers("litert", made), answers("onnxruntime", net), rtol=1e-4, atol=1e-5)
    # What was converted once is not converted again: a second call finds it, even where nothing could convert.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    convert(find_runtime("litert"), [Conversion(net, tmp_path / "again.tflite", SHAPE)], tmp_path / "kept")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert (tmp_path / "again.tflite").read_bytes() == made.read_bytes()

    small = litert.quantize_litert(made, tmp_path / "int8.tflite", images(16))
    assert RUNTIMES["litert"].load(small, 1, "int8", SHAPE).effective_precision == "int8"
    assert RUNTIMES["litert"].load(made, 1, "fp32", SHAPE).effective_precision == "fp32"
    exact, rough = answers("litert", made), answers("litert", small, "int8")
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max() + 0.02
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx cannot be converted for LiteRT"):
        convert(find_runtime("litert"), [Conversion(broken, tmp_path / "x.tflite", SHAPE)])


@needs_ncnn
@pytest.mark.slow
def test_ncnn_answers_as_onnxruntime_does(net: Path, tmp_path: Path):
    made = tmp_path / "net.param"
    convert(find_runtime("ncnn"), [Conversion(net, made, SHAPE)])
    np.testing.assert_allclose(answers("ncnn", made), answers("onnxruntime", net), rtol=1e-4, atol=1e-5)
    assert size_bytes(made) == made.stat().st_size + made.with_suffix(".bin").stat().st_size
    half = answers("ncnn", made, "bf16")
    assert np.abs(half - answers("ncnn", made)).max() > 0  # the precision asked for is the precision computed in
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx cannot be converted for ncnn"):
        convert(find_runtime("ncnn"), [Conversion(broken, tmp_path / "x.param", SHAPE)])


def test_onnx_is_not_converted_for_runtimes_that_read_other_things(net: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"torch loads \.pt2 files"):
        convert(find_runtime("torch"), [Conversion(net, tmp_path / "x.pt2", SHAPE)])


def test_the_converter_lies_in_the_cache_and_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert litert.converter_folder().parent == tmp_path / "tutelage"
    assert not litert.converter_ready()
    assert litert.describe_converter().startswith("absent: made in ")
    litert.converter_folder().mkdir(parents=True)
    assert not litert.converter_ready()  # an interrupted installation is none
    (litert.converter_folder() / "ready").touch()
    assert litert.describe_converter() == f"ready in {litert.converter_folder()}"


def test_an_environment_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pins = tmp_path / "pins.txt"
    pins.write_text("no such package at all\n")
    monkeypatch.setattr(litert, "PINS", pins)
    monkeypatch.setattr(litert.sys, "executable", "false")
    with pytest.raises(InputError, match="cannot make the LiteRT converter") as caught:
        litert.make_converter()
    assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        litert.make_converter()


def test_pins_name_one_version_each():
    lines = [line for line in litert.PINS.read_text().splitlines() if not line.startswith("#")]
    assert {"onnx2tf", "ai-edge-litert"} <= {line.partition("==")[0] for line in lines}
    assert all(line.count("==") == 1 for line in lines)
