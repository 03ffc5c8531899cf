"""Pretrained weights are trained on gently: what is frozen does not move, what is early moves slowly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.distill.training.test_train import Blobs, Stopping, held_out
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.schedule import TrainSchedule, build_optimizer
from tutelage.distill.training.train import train
from tutelage.distill.training.tuning import Frozen, Tuning, check_tuning, layer_scales
from tutelage.records import InputError
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.supernet import build_arch

NET = "test_resnet"
FEW = tuple(values[:16] for values in held_out())
SCHEDULE = TrainSchedule(epochs=1, lr=0.01, warmup_epochs=0, decay="constant", weight_decay=0.1, ema_decay=0.5)


def network() -> nn.Module:
    return build_teacher(NET, 2, 1, seed=1)


def subnet() -> nn.Module:
    return build_arch(PRESETS["EEEA-Net-C1"].replace(r=32), 2, 1)


def moved(net: nn.Module, tuning: Tuning, **options: Any) -> set[str]:
    """Train a network; name the tensors that changed, the counters of batch norms left out."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train(net, Blobs(32), FEW, SCHEDULE, tuning=tuning, **options)
    after: dict[str, Tensor] = net.state_dict()
    return {name for name, value in after.items() if not torch.equal(value, before[name]) and "num_batches" not in name}


def test_a_linear_probe_trains_the_classifier_alone() -> None:
    net = network()
    assert moved(net, Tuning(freeze=True)) == {"fc.weight", "fc.bias"}
    assert all(parameter.requires_grad for parameter in net.parameters())  # a later training may train them
    assert "conv1.0.weight" in moved(network(), Tuning())


def test_frozen_stages_keep_their_weights_and_statistics() -> None:
    changed = moved(network(), Tuning(freeze=2))
    assert {name.split(".")[0] for name in changed} == {"layer2", "layer3", "layer4", "fc"}
    assert any("running_mean" in name for name in changed)  # of the stages that are trained


def test_a_subnet_of_a_space_has_its_blocks_for_stages() -> None:
    net = subnet()
    frozen = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    Frozen(net, 3)
    frozen -= {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in frozen} == {
        "first_conv.conv",
        "first_conv.bn",
        "blocks.0",
        "blocks.1",
    }
    scales = layer_scales(net, 0.5)
    assert scales["classifier.linear.weight"] == 1
    assert scales["blocks.1.conv.depth_conv.conv.weight"] == scales["blocks.0.conv.depth_conv.conv.weight"] * 2


def test_layer_decay_multiplies_the_learning_rate_from_the_classifier_back() -> None:
    net = network()
    scales = layer_scales(net, 0.5)
    assert scales["fc.weight"] == scales["fc.bias"] == 1
    blocks = [scales[f"layer{stage}.0.conv1.weight"] for stage in (1, 2, 3, 4)]
    assert blocks == sorted(blocks)
    assert blocks[-1] == 0.5
    assert scales["conv1.0.weight"] == min(scales.values()) < blocks[0]
    groups = build_optimizer([net], SCHEDULE, scales).param_groups
    named = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {named[id(one)]: group["lr_scale"] for group in groups for one in group["params"]}
    assert found == scales
    # One step of SGD without momentum or decay moves each tensor by its gradient times its rate.
    plain = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([{**group, "lr": group["lr_scale"], "weight_decay": 0.0} for group in groups], lr=1.0)
    net(torch.randn(4, 1, 32, 32)).sum().backward()
    optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.detach(), plain[name] - scales[name] * parameter.grad)


def test_a_decayed_training_moves_early_layers_less() -> None:
    slow, usual = network(), network()
    start = {name: value.clone() for name, value in slow.state_dict().items()}
    train(slow, Blobs(32), FEW, SCHEDULE, tuning=Tuning(layer_decay=0.1))
    train(usual, Blobs(32), FEW, SCHEDULE)
    far = [(net.state_dict()["conv1.0.weight"] - start["conv1.0.weight"]).abs().mean() for net in (slow, usual)]
    assert far[0] < 0.01 * far[1]


def test_a_stopped_probe_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    longer = TrainSchedule(epochs=2, lr=0.01)
    whole, stopped = network(), network()
    train(whole, Blobs(), FEW, longer, tuning=Tuning(freeze=1, layer_decay=0.5))
    with pytest.raises(KeyboardInterrupt):
        train(stopped, Stopping(1), FEW, longer, tuning=Tuning(1, 0.5), checkpoint=tmp_path)
    again = network()
    train(again, Blobs(), FEW, longer, tuning=Tuning(1, 0.5), checkpoint=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(InputError, match=r"freeze: 5 leaves no stage of ResNet .* it has 5 stages, the stem included"):
        check_tuning(network(), Tuning(freeze=5))
    check_tuning(network(), Tuning(freeze=4, layer_decay=0.7))
    with pytest.raises(InputError, match="Sequential has no classifier that is known"):
        check_tuning(nn.Sequential(nn.Linear(2, 2)), Tuning(freeze=True))
