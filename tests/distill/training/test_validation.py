"""Validation is streamed, in gray and in colour: a few batches are held at a time, to the figures of all at once."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.distill.data.loader import InOrder, LoadedBatch, tensors
from tutelage.distill.data.registry import Dataset
from tutelage.distill.training.batches import InMemory
from tutelage.distill.training.validation import validate


class Counted:
    """The batches of a loader; `most` says of how many of them the images were held at once."""

    def __init__(self, loader: InOrder) -> None:
        self.loader, self.most, self.given = loader, 0, list[weakref.ref[torch.Tensor]]()

    @property
    def identity(self) -> str:
        return self.loader.identity

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, k: int, /, rank: int = 0, num_ranks: int = 1) -> Iterator[LoadedBatch]:
        for batch in self.loader.epoch(k, rank, num_ranks):
            self.given.append(weakref.ref(batch.images))
            self.most = max(self.most, sum(one() is not None for one in self.given))
            yield batch


@pytest.mark.parametrize("channels", [1, 3])
def test_validation_holds_a_few_batches_of_images_at_a_time(channels: int) -> None:
    rng, num = np.random.default_rng(0), 200
    images = rng.integers(0, 256, (num, 16, 16, channels), dtype=np.uint8)
    labels, groups = rng.integers(0, 2, num), np.array([str(one) for one in range(num)])
    data = Dataset("noise", images, labels, ("a", "b"), groups, {"val": np.arange(num)})
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    streamed = Counted(InOrder(data, "val", 8, workers=1))
    found = validate(network, streamed, multi_label=False)
    assert len(streamed.given) == 25
    assert streamed.most <= 3
    at_once = validate(network, InMemory(*tensors(data, "val")[:2], batch_size=num), multi_label=False)
    assert found == pytest.approx(at_once, rel=1e-5)
