"""Export: the file's outputs are the network's, for every family that the product exports, and it is quick."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tutelage.quant.export.normalise import TOLERANCE, largest_difference, normalise
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.run import run_onnx, run_openvino
from tutelage.records import InputError


def _settle(model: nn.Module, channels: int, side: int) -> nn.Module:
    """Give a random network BN statistics that fit its activations, so that outputs are of ordinary size."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(8, channels, side, side))
    return model.eval()


def test_normalised_student_equals_the_original(digits) -> None:
    images = torch.from_numpy(digits.val_images[:64])
    before = {name: value.clone() for name, value in digits.student.state_dict().items()}
    twin = normalise(digits.student)
    size = float(np.abs(digits.logits).max())
    assert largest_difference(digits.student, twin, images) <= TOLERANCE * max(1.0, size)
    kinds = {type(module).__name__ for module in twin.modules()}
    assert {"Hardswish", "Hardsigmoid", "AdaptiveAvgPool2d"} <= kinds
    assert not kinds & {"Hswish", "Hsigmoid", "SEModule", "MyGlobalAvgPool2d"}
    assert all(torch.equal(value, before[name]) for name, value in digits.student.state_dict().items())


def test_normalised_graph_has_the_runtimes_operators(digits) -> None:
    import onnx

    kinds = {node.op_type for node in onnx.load(digits.fp32).graph.node}
    assert {"HardSwish", "HardSigmoid", "GlobalAveragePool"} <= kinds
    assert not kinds & {"ReduceMean", "Clip", "Div", "BatchNormalization"}


def test_exported_logits_are_the_students_for_any_batch(digits) -> None:
    for size in (1, 7):
        found = run_onnx(digits.fp32, digits.val_images[:size])
        np.testing.assert_allclose(found, digits.logits[:size], atol=1e-4)
    np.testing.assert_allclose(run_onnx(digits.fp32, digits.val_images), digits.logits, atol=1e-4)


def test_openvino_agrees_in_float32(digits) -> None:
    """bf16 keeps 8 bits: its logits would be off by .4 % of their size, .02 here."""
    np.testing.assert_allclose(run_openvino(digits.fp32, digits.val_images), digits.logits, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "options", "channels", "side"),
    [
        ("mobilenetv2_100", {}, 3, 64),
        ("mobilenetv3_small_100", {"in_chans": 1}, 1, 64),
        ("deit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "depth": 2}, 3, 64),
        pytest.param("densenet121", {}, 3, 64, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {"img_size": 48, "in_chans": 1}, 1, 48, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", {}, 3, 64, marks=pytest.mark.slow),
    ],
)
def test_timm_networks_export(name, options, channels, side, tmp_path) -> None:
    model = _settle(timm.create_model(name, num_classes=4, **options), channels, side)
    report = export_onnx(model, tmp_path / "net.onnx", (1, channels, side, side))
    assert report.max_difference is not None
    assert report.max_difference <= 1e-4
    assert report.size_bytes == (tmp_path / "net.onnx").stat().st_size
    images = torch.randn(3, channels, side, side)
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", images.numpy()), expected, atol=1e-4)


def test_same_network_same_bytes(digits, tmp_path) -> None:
    first = export_onnx(digits.student, tmp_path / "a.onnx", (1, 3, 32, 32))
    second = export_onnx(digits.student, tmp_path / "b.onnx", (1, 3, 32, 32))
    assert first.sha256 == second.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_fixed_batch_is_padded(digits, tmp_path) -> None:
    export_onnx(digits.student, tmp_path / "four.onnx", (4, 3, 32, 32), dynamic_batch=False)
    np.testing.assert_allclose(run_onnx(tmp_path / "four.onnx", digits.val_images[:6]), digits.logits[:6], atol=1e-4)


def test_a_network_in_training_mode_is_exported_in_eval_mode_and_left_alone(tmp_path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.train()
    report = export_onnx(model, tmp_path / "net.onnx", (1, 1, 8, 8))
    assert model.training
    assert model[2].training
    assert report.max_difference is not None
    assert report.max_difference < 1e-5


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 0, 32)])
def test_impossible_shapes_are_refused(shape, digits, tmp_path) -> None:
    with pytest.raises(InputError, match="input_shape"):
        export_onnx(digits.student, tmp_path / "net.onnx", shape)


def test_channels_that_do_not_fit_are_named(digits, tmp_path) -> None:
    with pytest.raises(InputError, match="does not run on an input of shape"):
        export_onnx(digits.student, tmp_path / "net.onnx", (1, 1, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_size_are_refused_in_one_line(digits) -> None:
    with pytest.raises(InputError, match=r"takes images of shape .* got"):
        run_onnx(digits.fp32, np.zeros((1, 3, 16, 16), np.float32))


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    for path in (broken, empty, tmp_path / "missing.onnx"):
        with pytest.raises(InputError, match=path.name):
            run_onnx(path, np.zeros((1, 3, 8, 8), np.float32))
