"""Training and scoring on a second device mix it with the CPU nowhere: what of `second_device_checks.py` takes seconds.

Few imports, few operators: most of the time of this process is torch's own start. A supernet imports twice as much.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from tests.second_device import NAME, MixedDevicesError, second_device
from tutelage.accelerator import CPU, Accelerator, drawing
from tutelage.distill.training.batches import InMemory
from tutelage.distill.training.schedule import TrainSchedule
from tutelage.distill.training.train import train
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, score_subnets
from tutelage.search.supernet.train_state import start
from tutelage.search.supernet.training import SupernetSchedule, train_step

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
IMAGES = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


@pytest.fixture(scope="module")
def second() -> Iterator[Accelerator]:
    with second_device() as device:
        yield Accelerator(device)


def test_an_operator_of_both_devices_is_an_error(second: Accelerator) -> None:
    """What the tests below rest on."""
    there, here = torch.ones(2).to(second.device), torch.ones(2)
    with pytest.raises(MixedDevicesError, match="add"):
        there + here
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        there.numpy()


def test_a_network_trains_there_as_on_the_cpu(second: Accelerator) -> None:
    schedule = TrainSchedule(epochs=1, batch_size=4, warmup_epochs=0, ema_decay=0.5, optimizer="sgd", lr=0.02)
    nets, losses = [], []
    for accelerator in (second, CPU):
        with drawing(0):
            nets.append(nn.Sequential(nn.Conv2d(1, 4, 3, stride=8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4)))
        batches = InMemory(IMAGES, LABELS, batch_size=4)
        losses.append(train(nets[-1], batches, (IMAGES, LABELS), schedule, accelerator=accelerator).history[0]["loss"])
    assert {one.device.type for one in nets[0].parameters()} == {NAME}
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(value.cpu(), nets[1].state_dict()[name])


@pytest.mark.long
def test_a_step_of_a_supernet_and_its_scoring_stay_there(second: Accelerator) -> None:
    net = second.place(build_supernet(SPACE, 4, 1, seed=3))
    archs = [SPACE.smallest()]
    there = score_subnets(net, archs, [IMAGES], IMAGES, LABELS)
    here = score_subnets(deepcopy(net).to("cpu"), archs, [IMAGES], IMAGES, LABELS)
    assert [one.loss for one in there] == pytest.approx([one.loss for one in here], rel=1e-4)
    schedule = SupernetSchedule(epochs=1, method="random", num_random=1)
    batch = IMAGES.to(second.device), LABELS.to(second.device), None
    train_step(start(net, 1e-3, 1e-4, None), SPACE, schedule, 1, np.random.default_rng(0), batch, accelerator=second)
    assert {one.device.type for one in net.parameters()} == {NAME}
