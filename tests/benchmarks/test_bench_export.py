"""How long a small subnet takes to export, quantize and answer: parts of a latency table and of the last stages."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.quant.export.normalise import normalise
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.run import onnx_session, openvino_model

SHAPE = (1, 3, 64, 64)


@pytest.fixture(scope="module")
def subnet() -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = OFAMobileNetV3(n_classes=4, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4])
    net.set_active_subnet(3, 3, 2)
    model: nn.Module = net.get_active_subnet().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, *SHAPE[1:]))
    return model.eval()


@pytest.fixture(scope="module")
def files(subnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    export_onnx(subnet, folder / "fp32.onnx", SHAPE)
    images = np.random.default_rng(0).normal(size=(16, *SHAPE[1:])).astype(np.float32)
    quantize_onnx(folder / "fp32.onnx", folder / "int8.onnx", images)
    return {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}


def test_normalise(benchmark, subnet) -> None:
    benchmark(normalise, subnet)


def test_export_a_small_subnet(benchmark, subnet, tmp_path) -> None:
    """Meant to stay under 1.5 s: a device profile exports some tens of these."""
    benchmark.pedantic(lambda: export_onnx(subnet, tmp_path / "net.onnx", SHAPE), rounds=5, warmup_rounds=1)


def test_quantize_a_small_subnet(benchmark, files, tmp_path) -> None:
    images = np.random.default_rng(0).normal(size=(16, *SHAPE[1:])).astype(np.float32)
    benchmark.pedantic(lambda: quantize_onnx(files["fp32"], tmp_path / "int8.onnx", images), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_answers(precision, benchmark, files) -> None:
    session = onnx_session(files[precision])
    image = np.zeros(SHAPE, np.float32)
    benchmark(lambda: session.run(None, {"input": image}))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_answers(precision, benchmark, files) -> None:
    model = openvino_model(files[precision])
    image = np.zeros(SHAPE, np.float32)
    benchmark(lambda: model(image))
