"""The anchor nets in other formats compute what the ONNX ones do."""

from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.boards.anchors import runtime_anchors
from tutelage.bench.boards.anchors_pte import anchor_module
from tutelage.bench.converters.litert import converter_ready
from tutelage.bench.protocol.anchors import NUM_ANCHORS, anchor_files
from tutelage.bench.runtimes.registry import find_runtime


@pytest.mark.long
def test_the_anchors_as_pytorch_modules_compute_the_same(tmp_path: Path) -> None:
    import torch

    for one in anchor_files("onnxruntime", tmp_path)[2:4]:  # matrix products, and the smallest with all operators
        images = np.random.default_rng(0).standard_normal(one.shape, dtype=np.float32)
        expected = find_runtime("onnxruntime").load(Path(one.path)).run(images)
        with torch.inference_mode():
            found = anchor_module(Path(one.path))(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ncnn", "executorch", "litert"])
def test_the_anchors_of_a_runtime_compute_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = find_runtime(name)
    if not runtime.installed() or (name == "litert" and not converter_ready()):
        pytest.skip(f"{name} or its converter is not installed")
    monkeypatch.setattr("tutelage.bench.boards.anchors.cache_folder", lambda: tmp_path / "cache")
    expected = anchor_files("onnxruntime", tmp_path)
    found = runtime_anchors(runtime, tmp_path)
    assert len(found) == NUM_ANCHORS
    for onnx, own in zip(expected, found, strict=True):
        assert own.shape == onnx.shape
        images = np.random.default_rng(0).standard_normal(own.shape, dtype=np.float32)
        outputs = [
            np.asarray(one.load(Path(file.path), shape=own.shape).run(images)).ravel()
            for one, file in ((find_runtime("onnxruntime"), onnx), (runtime, own))
        ]
        np.testing.assert_allclose(*outputs, rtol=1e-2, atol=1e-3)
