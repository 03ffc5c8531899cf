"""Schedules and mixing of images, by hand formulas."""

from typing import Any

import numpy as np
import pytest
import torch

from tutelage.distill.training.mixing import Mix, draw_mix
from tutelage.distill.training.schedule import KDConfig, TrainSchedule, lr_factor
from tutelage.records import InputError


def test_learning_rates_by_hand() -> None:
    cosine = TrainSchedule(epochs=11, warmup_epochs=1)
    assert lr_factor(cosine, 0) == 0.01
    assert lr_factor(cosine, 0.5) == 0.5
    assert lr_factor(cosine, 6) == pytest.approx(0.5)
    assert lr_factor(cosine, 11) == pytest.approx(0)
    step = TrainSchedule(epochs=100, warmup_epochs=0, decay="step")
    assert [lr_factor(step, e) for e in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])
    plateau = TrainSchedule(epochs=100, warmup_epochs=0, decay="plateau", plateau_patience=2)
    assert lr_factor(plateau, 9, [(0.5,), (0.6,), (0.6,), (0.6,)]) == 1
    assert lr_factor(plateau, 9, [(0.5,), (0.6,), (0.6,), (0.6,), (0.6,)]) == pytest.approx(0.1)
    # An undefined AUC (-1, first of the rank) is no plateau while the accuracy behind it rises.
    assert lr_factor(plateau, 9, [(-1.0, 0.1 * epoch) for epoch in range(8)]) == 1


def test_mixing_by_hand() -> None:
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 10, 10)
    mix = Mix(True, 0.7, np.array([1, 0]))
    assert torch.allclose(mix.images(images)[:, 0, 0, 0], torch.tensor([0.3, 0.7]))
    assert torch.allclose(mix.labels(torch.tensor([0, 1]), 2, False), torch.tensor([[0.7, 0.3], [0.3, 0.7]]))
    logits = torch.randn(2, 3)
    got = (mix.logits(logits, 2.0, False) / 2).softmax(1)
    p = (logits / 2).softmax(1)
    assert torch.allclose(got, 0.7 * p + 0.3 * p.flip(0), atol=1e-6)
    got = (mix.logits(logits, 2.0, True) / 2).sigmoid()
    q = (logits / 2).sigmoid()
    assert torch.allclose(got, 0.7 * q + 0.3 * q.flip(0), atol=1e-6)
    cut = Mix(True, 0.75, np.array([1, 0]), (0.0, 0.5, 0.5, 1.0)).images(images)
    assert float(cut[0].sum()) == 25


def test_drawn_shares_match_the_cut_area() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mix = draw_mix(4, 0.0, 1.0, rng)
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert mix.fraction == pytest.approx(np.clip(1 - (bottom - top) * (right - left), 1e-3, 1 - 1e-3))
    assert draw_mix(4, 0.0, 0.0, rng) == Mix()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"epochs": 0}, "epochs >= 1"), ({"optimizer": "lion"}, "unknown optimizer"), ({"decay": "x"}, "unknown decay")],
)
def test_bad_schedules(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainSchedule(**wrong)
    with pytest.raises(InputError, match="alpha must lie"):
        KDConfig(alpha=1.5)
