"""The measuring protocol: polish takes drift out, halves are compared, real models give real samples."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.protocol.anchors import STREAMING, AnchorNet, anchor_files, anchor_onnx
from tutelage.bench.protocol.drift import halves_apart, polish
from tutelage.bench.protocol.measure import measure
from tutelage.records import DeviceProfile, InputError, UnsteadyDeviceError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A net and the same net three times as deep."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, layers in (("shallow", 4), ("deep", 12)):
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(anchor_onnx(AnchorNet("dense", 32, 20, 1, layers)))
    return paths


def test_polish_recovers_additive_effects_exactly():
    models, rounds = np.array([0.0, 1.0, -2.0]), np.array([0.3, -0.1, 0.0, 0.2, 5.0])
    effects = polish(models[:, None] + rounds)
    np.testing.assert_allclose(effects - effects[0], models, atol=1e-12)
    assert effects[0] == pytest.approx(np.median(rounds))  # a typical round, not the disturbed one


def test_polish_ignores_single_disturbed_cells():
    rng = np.random.default_rng(0)
    models = np.array([0.0, 1.0, -2.0, 0.5])
    table = models[:, None] + 0.3 * rng.standard_normal(30)
    spoiled = table.copy()
    spoiled[rng.integers(4, size=10), rng.integers(30, size=10)] += 3
    effects = polish(spoiled)
    np.testing.assert_allclose(effects - effects[0], models, atol=1e-9)


def test_halves_agree_under_common_drift_and_differ_when_one_model_changes():
    drift = np.linspace(0, 0.5, 20)  # the host gets slower by 65 %
    table = np.array([0.0, 1.0, 2.0, 3.0])[:, None] + drift
    np.testing.assert_allclose(halves_apart(table, num_anchors=1), 0, atol=1e-12)
    table[1, 10:] += np.log(1.2)
    np.testing.assert_allclose(halves_apart(table, num_anchors=1), [0, 0.2, 0], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_measure_real_models(models: dict[str, Path], runtime: str):
    stages = set()
    device = DeviceProfile(name="here", runtime=runtime)
    result = measure(
        models, device, (32, 20, 20), rounds=10, samples=100, min_seconds=0.02, tolerance=10.0,
        progress=lambda stage, done, total: stages.add(stage),
    )  # fmt: skip
    assert list(result) == ["shallow", "deep"]
    for measured in result.values():
        assert len(measured.samples_ms) >= 100
        assert measured.effective_precision == "fp32"  # OpenVINO left alone would say bf16 on some hosts
        assert measured.peak_rss_bytes > measured.runtime_rss_bytes
        assert measured.load_ms > 0
        assert measured.runtime_version
        assert 0.2 < measured.anchored_ms / measured.p50_ms < 5
    assert result["deep"].anchored_ms > result["shallow"].anchored_ms
    assert {"loading", "measuring"} <= stages


def test_anchor_ms_sets_the_scale(models: dict[str, Path], tmp_path: Path):
    """On a device that takes a nanosecond a byte of a file, the anchors' too, however busy this host is."""
    speaker = Path(__file__).parents[1] / "boards" / "speaker.py"
    command = shlex.join([sys.executable, "-I", "-S", str(speaker)])
    device = DeviceProfile(name="board", runtime="onnxruntime", command=command)
    anchors = anchor_files("onnxruntime", tmp_path)[-len(STREAMING) :]
    anchors_ms = np.exp(np.mean([np.log(Path(anchor.path).stat().st_size / 1e6) for anchor in anchors]))
    ms = models["shallow"].stat().st_size / 1e6
    short = {"rounds": 8, "samples": 40, "min_seconds": 0.0}
    one = {"shallow": models["shallow"]}
    plain = measure(one, device, (32, 20, 20), **short)["shallow"]
    scaled = measure(one, device, (32, 20, 20), anchor_ms=1000.0, **short)["shallow"]
    assert plain.anchored_ms == pytest.approx(ms)
    assert scaled.anchored_ms == pytest.approx(ms * 1000.0 / anchors_ms)
    assert plain.drift is None  # without the anchors of an earlier session nothing is known of it
    assert "drift" not in plain.to_dict()
    assert scaled.drift == pytest.approx(anchors_ms / 1000.0 - 1)


def test_what_is_not_steady_is_refused_after_five_tries(models: dict[str, Path]):
    device = DeviceProfile(name="here", runtime="onnxruntime")
    tries = set()
    with pytest.raises(UnsteadyDeviceError, match="5 tries"):
        measure(
            models, device, (32, 20, 20), rounds=8, samples=8, min_seconds=0.0, tolerance=-1.0,
            progress=lambda stage, done, total: tries.add(stage),
        )  # fmt: skip
    assert "measuring, try 5" in tries


def test_bad_input_is_named(models: dict[str, Path], tmp_path: Path):
    device = DeviceProfile(name="here", runtime="onnxruntime")
    with pytest.raises(InputError, match="no model was given"):
        measure({}, device, (32, 20, 20))
    with pytest.raises(InputError, match=r"no model file .*gone\.onnx"):
        measure({"gone": tmp_path / "gone.onnx"}, device, (32, 20, 20))
    with pytest.raises(InputError, match="unknown runtime 'onnxruntme': did you mean 'onnxruntime'"):
        measure(models, device.model_copy(update={"runtime": "onnxruntme"}), (32, 20, 20))
    with pytest.raises(InputError, match=r"precision 'bf16' .* fp32, int8"):
        measure(models, device.model_copy(update={"precision": "bf16"}), (32, 20, 20))
    with pytest.raises(InputError, match="shallow"):  # the file is fine, the input shape is not
        measure({"shallow": models["shallow"]}, device, (3, 20, 20))
