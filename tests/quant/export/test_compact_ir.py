"""An IR without what its reader does not read answers to the bit as the whole one."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import timm
import torch
from torch import nn

from tutelage.quant.export.compact_ir import save_ir
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.openvino_ptq import ir_bytes, quantize_openvino

IMAGES = np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32)


def int8_ir(network: nn.Module, folder: Path) -> Path:
    """Export and quantize a network of random weights: it is the file that is tested, not what it learnt."""
    export_onnx(network.eval(), folder / "fp32.onnx", (1, 3, 32, 32))
    return quantize_openvino(folder / "fp32.onnx", folder / "int8.xml", IMAGES).path


def answers(path: Path) -> npt.NDArray[np.float32]:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return np.array(compiled({"input": IMAGES})["logits"])


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "deit_tiny_patch16_224"])
def test_a_compact_ir_answers_to_the_bit_and_is_smaller(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 2} if "deit" in name else {}
    ours = int8_ir(timm.create_model(name, num_classes=3, **options), tmp_path)
    whole = tmp_path / "whole.xml"
    openvino.save_model(openvino.Core().read_model(str(ours)), str(whole), compress_to_fp16=False)
    np.testing.assert_array_equal(answers(ours), answers(whole))
    assert ours.stat().st_size < 0.7 * whole.stat().st_size  # though the whole one has our short names too
    assert ours.with_suffix(".bin").read_bytes() == whole.with_suffix(".bin").read_bytes()


def test_inputs_and_outputs_keep_their_names_and_a_shape_that_is_free(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = int8_ir(timm.create_model("mobilenetv3_small_050", num_classes=3), tmp_path)
    model = openvino.Core().read_model(str(path))
    assert (model.input(0).any_name, model.output(0).any_name) == ("input", "logits")
    assert str(model.input(0).partial_shape) == "[?,3,32,32]"
    assert str(model.output(0).partial_shape) == "[?,3]"
    size = ir_bytes(path)
    save_ir(model, path)  # again: nothing is left to drop
    assert ir_bytes(path) == size
