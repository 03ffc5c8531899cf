"""OpenVINO's accuracy control on a trained network: operators go back to float until what may be lost is kept."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tutelage.quant.int8.openvino_ptq import Control, quantize_openvino
from tutelage.quant.run import run_onnx, run_openvino

from ..conftest import Digits

pytestmark = pytest.mark.slow


def test_operators_go_back_to_float_until_the_loss_is_kept(digits: Digits, small: Path, tmp_path: Path) -> None:
    """The score is minus the logits' mean error: int8 surely loses some, and half of that surely asks for float."""
    images, calibration = digits.val_images[:100], digits.images[:32]  # no whole number of batches
    exact = run_onnx(small, images)
    assert (exact.argmax(1) == digits.val_labels[:100]).mean() > 0.8  # chance is .1

    def score(logits: npt.NDArray[np.float32]) -> float:
        return -float(np.abs(logits - exact).mean())

    plain = quantize_openvino(small, tmp_path / "plain.xml", calibration)
    lost = -score(run_openvino(plain.path, images))
    assert plain.scheme == "int8-ptq"
    held = quantize_openvino(
        small, tmp_path / "held.xml", calibration, control=Control(images, score, 100 * 0.5 * lost)
    )
    assert held.scheme == "int8-mixed"
    assert held.num_quantized < plain.num_quantized  # none may be left of so small a network
    assert -score(run_openvino(held.path, images)) <= 0.5 * lost + 1e-6
    loose = quantize_openvino(small, tmp_path / "loose.xml", calibration, control=Control(images, score, 200 * lost))
    assert loose.scheme == "int8-ptq"
    assert loose.num_quantized == plain.num_quantized
