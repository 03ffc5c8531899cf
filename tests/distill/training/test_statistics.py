"""Batch norm's running statistics after a training of a few batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.distill.training.test_train import Blobs, same_bits, timeless
from tutelage.distill.training.normalisation import InitialStatistics
from tutelage.distill.training.train import TrainSchedule, start_average, train


def _net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def test_a_mean_of_the_batches_is_left_where_no_weight_moves() -> None:
    """Of 3 batches at momentum 0.1 the initial values would hold 73 %."""
    torch.manual_seed(0)
    net, batches = nn.BatchNorm2d(4), torch.randn(3, 16, 4, 5, 5) * 0.05 + 2
    average = start_average(net, 0.9)
    initial = InitialStatistics(net)
    for number, batch in enumerate(batches, start=1):
        net.train()(batch)
        average.update(net, step=number + 1)
    initial.remove(net, average.module, [average.get_decay(number + 2) for number in range(3)])
    weights = torch.tensor([0.081, 0.09, 0.1]) / 0.271
    for one, tolerance in ((net, 1e-5), (average.module, 0.05)):  # the average weighs the batches otherwise
        assert one.running_mean == pytest.approx((weights @ batches.mean((1, 3, 4))).numpy(), rel=tolerance)
        var = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches])
        assert one.running_var == pytest.approx((weights @ var).numpy(), rel=max(tolerance * 4, 1e-4))


def test_statistics_of_a_frozen_norm_stay() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    average, initial = start_average(net, 0.9), InitialStatistics(net)
    net.train()[0].eval()
    net(torch.randn(8, 3) + 5)
    average.update(net, step=2)
    initial.remove(net, average.module, [average.get_decay(2)])
    for one in (net, average.module):
        assert one[0].running_mean.eq(0).all()
        assert one[0].running_var.eq(1).all()
        assert not one[1].running_mean.eq(0).any()


class Faint(Blobs):
    """Blobs of small values: their variance is far below the 1 that running statistics begin with."""

    def __init__(self) -> None:
        super().__init__(num=48, batch_size=8)
        self.images *= 0.02


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_network_of_a_few_steps_tells_images_apart(ema_decay: float | None) -> None:
    data = Faint()
    schedule = TrainSchedule(epochs=2, lr=0.05, ema_decay=ema_decay)
    spread = {}
    for fresh in (False, True):
        torch.manual_seed(1)
        net = _net()
        train(net, data, (data.images, data.labels), schedule, fresh_statistics=fresh)
        with torch.no_grad():
            spread[fresh] = float(net.eval()(data.images).diff(dim=1).std())
    assert spread[True] > 3 * spread[False], spread


class Stopped(Faint):
    """Ends a training by an interruption when an epoch begins."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def epoch(self, epoch: int) -> Any:
        if epoch == self.at:
            raise KeyboardInterrupt
        return super().epoch(epoch)


@pytest.mark.parametrize("at", [1, 3], ids=["before the initial values are divided out", "after"])
def test_a_stopped_training_divides_the_initial_values_out_once(tmp_path: Path, at: int) -> None:
    data, schedule = Faint(), TrainSchedule(epochs=5, lr=0.05, ema_decay=0.9)
    val = (data.images, data.labels)

    def trained(loader: Any, **more: Any) -> tuple[nn.Module, Any]:
        torch.manual_seed(1)
        net = _net()
        return net, train(net, loader, val, schedule, fresh_statistics=True, **more)

    whole, expected = trained(data)
    with pytest.raises(KeyboardInterrupt):
        trained(Stopped(at), checkpoint=tmp_path)
    resumed, got = trained(Faint(), checkpoint=tmp_path)
    assert timeless(got) == timeless(expected)
    assert same_bits(resumed, whole)
