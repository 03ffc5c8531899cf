"""How long one inference takes in each runtime, in this process: for comparing versions by ratio, not for rows."""

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.supernet import build_arch


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_one_inference_of_eeea_net_c2(benchmark: BenchmarkFixture, tmp_path: Path, runtime: str):
    path = tmp_path / "net.onnx"
    export_onnx(build_arch(PRESETS["EEEA-Net-C2"].replace(r=64), 4), path, (1, 3, 64, 64))
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    session = RUNTIMES[runtime].load(path, 1, "fp32", images.shape)
    assert benchmark(session.run, images).shape == (1, 4)
