"""Structured pruning: what is cut is cut by hand formula, the rest still runs, learns, exports, and answers alike."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.prune.prune import count_params, macs, prune, prune_to
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

from ..conftest import train

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None,
    reason="torch-pruning is not installed: pip install 'tutelage[prune]'",
)
SHAPE = (2, 3, 16, 16)


def _plain(widths: tuple[int, int] = (32, 64)) -> nn.Module:
    torch.manual_seed(0)
    first, second = widths
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, stride=2), nn.BatchNorm2d(second), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 5),
    )  # fmt: skip


def test_macs_are_the_hand_formula() -> None:
    expected = 16 * 16 * 9 * 3 * 32 + 8 * 8 * 9 * 32 * 64 + 64 * 5
    assert macs(_plain(), SHAPE) == expected


@needs_library
def test_half_of_the_channels_are_cut_and_the_classes_kept() -> None:
    """32 and 64 channels become 16 and 32: a network of that size, by parameters and MACs."""
    half = prune(_plain(), SHAPE, 0.5)
    assert count_params(half) == count_params(_plain((16, 32)))
    assert macs(half, SHAPE) == macs(_plain((16, 32)), SHAPE)
    assert half(torch.zeros(SHAPE)).shape == (2, 5)


@needs_library
def test_the_channels_of_least_norm_go_and_the_model_is_left_alone() -> None:
    """Channels that are zero do nothing: without them the outputs are the same to rounding."""
    model = _plain().eval()
    keep = torch.arange(32) % 2 == 0
    with torch.no_grad():
        model[0].weight[~keep] = 0
        model[0].bias[~keep] = 0
        model[3].weight[:, ~keep] = 0
        dead = torch.arange(64) >= 32
        model[3].weight[dead] = 0
        model[3].bias[dead] = 0
        model[8].weight[:, dead] = 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half = prune(model, SHAPE, 0.5)
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(half(images), model(images), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@needs_library
def test_a_target_is_kept_with_the_fewest_channels_removed() -> None:
    model = _plain((64, 128))
    target = 0.4 * macs(model, SHAPE)
    pruned, report = prune_to(model, SHAPE, target, channel_multiple=1)
    assert report.cost == macs(pruned, SHAPE) <= target
    assert report.params == count_params(pruned) < report.params_before
    assert macs(prune(model, SHAPE, report.ratio - 0.02, channel_multiple=1), SHAPE) > target
    by_params, _ = prune_to(model, SHAPE, 20_000, cost=count_params)  # type: ignore[arg-type]
    assert count_params(by_params) <= 20_000


@needs_library
def test_bad_input_is_refused() -> None:
    model = _plain()
    with pytest.raises(InputError, match="within the target"):
        prune_to(model, SHAPE, 1e12)
    with pytest.raises(InputError, match="above the target"):
        prune_to(model, SHAPE, 1.0)
    with pytest.raises(InputError, match="at least 2 images"):
        prune(model, (1, 3, 16, 16), 0.5)
    with pytest.raises(InputError, match=r"0 to 0\.95"):
        prune(model, SHAPE, 1.0)
    with pytest.raises(InputError, match="gradients"):
        prune_to(model, SHAPE, 1.0, importance="taylor")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install tutelage\[prune\]"):
        prune(_plain(), SHAPE, 0.5)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_100", pytest.param("mobilenetv2_100", marks=pytest.mark.long), "resnet10t"]
)
def test_timm_networks_are_pruned(name: str) -> None:
    import timm

    model = timm.create_model(name, num_classes=3).eval()
    pruned, report = prune_to(model, (2, 3, 64, 64), 0.5 * macs(model, (2, 3, 64, 64)))
    assert report.cost <= 0.5 * report.cost_before
    assert report.params < 0.7 * report.params_before
    pruned(torch.randn(2, 3, 64, 64)).sum().backward()  # it can be trained on


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("importance", ["magnitude", pytest.param("taylor", marks=pytest.mark.long)])
def test_a_trained_ofa_subnet_is_pruned_tuned_and_exported(importance, digits, tmp_path) -> None:
    """Half the MACs; after two epochs it answers nearly as before, and its ONNX file as it does."""
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    shape = (2, *digits.images.shape[1:])
    pruned, report = prune_to(
        digits.student,
        shape,
        0.6 * macs(digits.student, shape),
        importance=importance,
        batch=(images[:64], labels[:64]),
    )
    assert report.cost <= 0.6 * report.cost_before
    torch.manual_seed(0)
    train(pruned, images, labels, epochs=3)
    export_onnx(pruned, tmp_path / "pruned.onnx", shape)
    logits = run_onnx(tmp_path / "pruned.onnx", digits.val_images)
    accuracy = float((logits.argmax(1) == digits.val_labels).mean())
    before = float((digits.logits.argmax(1) == digits.val_labels).mean())
    assert accuracy > before - 0.06
    with torch.no_grad():
        np.testing.assert_allclose(pruned(torch.from_numpy(digits.val_images[:8])).numpy(), logits[:8], atol=1e-3)
