"""Explanations of a small network whose evidence is known: maps fall on it, and the figures say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.distill.explain.faithfulness import (
    agreement,
    energy_in_mask,
    insertion_deletion,
    pointing_game,
    randomised,
    road,
)
from tutelage.distill.explain.maps import METHODS, Explained, cam_layer, compare, explain
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.schedule import TrainSchedule
from tutelage.distill.training.train import train
from tutelage.records import InputError


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor


class Spots:
    """Noise with an 8 x 8 patch somewhere: horizontal stripes are class 0, vertical ones class 1."""

    def __init__(self, num: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.images = 0.3 * torch.randn(num, 1, 32, 32, generator=g)
        self.labels = torch.randint(0, 2, (num,), generator=g)
        self.masks = np.zeros((num, 32, 32), np.uint8)
        stripes = torch.tensor([1.0, 1, -1, -1] * 2).repeat(8, 1) * 1.5
        for i, label in enumerate(self.labels.tolist()):
            y, x = torch.randint(0, 24, (2,), generator=g).tolist()
            self.images[i, 0, y : y + 8, x : x + 8] += stripes if label else stripes.T
            self.masks[i, y : y + 8, x : x + 8] = 1

    def __len__(self) -> int:
        return len(self.images) // 32

    def epoch(self, k: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(k))
        for rows in order.split(32):
            yield Batch(self.images[rows], self.labels[rows], rows, torch.zeros_like(rows))


@pytest.fixture(scope="module")
def seer() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU()),
        nn.Sequential(nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        nn.Linear(24, 2),
    )
    held_out = Spots(64, 1)
    result = train(net, Spots(320, 0), (held_out.images, held_out.labels), TrainSchedule(epochs=5, lr=0.02))
    assert result.val_accuracy > 0.9
    return net.eval()


SHOWN = Spots(24, 2)


@pytest.mark.parametrize("method", METHODS)
def test_maps_fall_on_the_evidence(seer: nn.Module, method: str) -> None:
    maps = explain(seer, SHOWN.images, SHOWN.labels, method=method)
    assert maps.shape == (24, 32, 32)
    assert 0 <= maps.min() <= maps.max() <= 1
    energy, share = energy_in_mask(maps, SHOWN.masks)
    assert energy is not None
    assert share == pytest.approx(64 / 1024)
    assert energy > 2 * share
    if method in ("gradcam", "hirescam"):
        pointing = pointing_game(maps, SHOWN.masks)
        assert pointing is not None
        assert pointing > 0.7


def test_good_maps_score_better_than_bad_ones(seer: nn.Module) -> None:
    maps = explain(seer, SHOWN.images, SHOWN.labels, method="gradcam")

    def answer(images: Tensor) -> Tensor:
        return predict_logits(seer, images)

    good = insertion_deletion(answer, SHOWN.images, maps, SHOWN.labels)
    bad = insertion_deletion(answer, SHOWN.images, 1 - maps, SHOWN.labels)
    assert good[0] > bad[0]
    assert good[1] < bad[1]
    assert road(answer, SHOWN.images[:8], maps[:8], SHOWN.labels[:8]) > road(
        answer, SHOWN.images[:8], 1 - maps[:8], SHOWN.labels[:8]
    )


def test_an_uncapped_score_cam_is_grad_cams_own(seer: nn.Module) -> None:
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images, labels = SHOWN.images[:3], SHOWN.labels[:3]
    theirs = ScoreCAM(seer, [seer.get_submodule("1")])(images, [ClassifierOutputTarget(int(k)) for k in labels])
    ours = explain(seer, images, labels, method="scorecam", layer="1", max_channels=99)
    assert np.allclose(ours, theirs, atol=1e-4)
    capped = explain(seer, images, labels, method="scorecam", layer="1", max_channels=4)
    assert not np.allclose(ours, capped, atol=1e-3)


def test_insertion_and_deletion_of_a_counting_model() -> None:
    # The answer is the logit of the share of bright pixels: probability of class 1 = that share, up to the clamp.
    def answer(images: Tensor) -> Tensor:
        share = (images > 0.5).float().mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - share).log(), share.log()], 1)

    image = torch.zeros(1, 1, 64, 64)
    image[:, :, :, :32] = 1.0
    marks = image[:, 0].numpy()
    insertion, deletion = insertion_deletion(answer, image, marks, [1], steps=64)
    # Deletion: the share falls from 1/2 to 0 linearly over the first half of the steps: area 1/2 x 1/2 x 1/2.
    assert deletion == pytest.approx(1 / 8, abs=0.01)
    assert insertion == pytest.approx(1 / 2, abs=0.03)  # the blurred half is bright already


def test_agreement_by_hand() -> None:
    maps = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    assert agreement(maps, maps**2) == pytest.approx((1.0, 1.0))
    assert agreement(maps, -maps) == pytest.approx((-1.0, 0.0))
    shifted = np.roll(maps.ravel(), -5).reshape(1, 10, 10)  # the top ten share five pixels: IoU 5 / 15
    assert agreement(maps, shifted)[1] == pytest.approx(5 / 15)
    assert agreement(maps, np.zeros_like(maps)) == (None, None)


def test_pointing_and_energy_by_hand() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 3, 1
    maps[1, 2, 2] = 5
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, :2, :2] = 255  # one pixel of the map
    assert pointing_game(maps, masks) == 1.0  # the second image has no lesion
    assert energy_in_mask(maps, masks) == pytest.approx((0.75, 1 / 16))
    assert pointing_game(maps, np.zeros_like(masks)) is None
    flat = np.ones((1, 4, 4), np.float32)
    assert pointing_game(flat, masks[:1]) == pytest.approx(1 / 16)


def test_shuffled_weights_keep_their_values_and_lose_their_sense(seer: nn.Module) -> None:
    other = randomised(seer)
    for own, theirs in zip(seer.parameters(), other.parameters(), strict=True):
        assert torch.equal(own.reshape(-1).sort().values, theirs.reshape(-1).sort().values)
    answers = predict_logits(other, SHOWN.images).argmax(1)
    assert float((answers == SHOWN.labels).float().mean()) < 0.8


@pytest.mark.slow
def test_models_side_by_side(seer: nn.Module, tmp_path: Path) -> None:
    asked = []

    def coarse(images: Tensor) -> Tensor:  # an int8 file's answers: a callable, no network
        asked.append(len(images))
        return (predict_logits(seer, images) * 4).round() / 4

    models: dict[str, Any] = {"teacher": seer, "student": randomised(seer), "int8": Explained(seer, coarse)}
    images, labels, masks = SHOWN.images[:4], SHOWN.labels[:4], SHOWN.masks[:4]
    figures = compare(models, images, labels, masks=masks, pictures=tmp_path)
    assert figures == compare(models, images, labels, masks=masks)
    assert figures["teacher"].agreement_spearman is None
    assert figures["int8"].agreement_spearman is not None
    assert figures["student"].agreement_spearman is not None
    assert figures["int8"].agreement_spearman > figures["student"].agreement_spearman
    assert figures["int8"].sanity_spearman is None
    assert asked
    assert type(figures["int8"]).from_dict(figures["int8"].to_dict()) == figures["int8"]
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    with Image.open(pictures[0]) as picture:
        assert picture.width > 3 * picture.height * 0.8


def _ofa_subnet() -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    net = OFAMobileNetV3(n_classes=3, width_mult=1.0, ks_list=[3], expand_ratio_list=[3], depth_list=[2])
    net.set_active_subnet(ks=3, e=3, d=2)
    subnet: nn.Module = net.get_active_subnet()
    return subnet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (lambda: build_teacher("ViT-Ti", 3, 3, 64, depth=2, embed_dim=24, num_heads=3), "blocks.1.norm1"),
        (lambda: build_teacher("Swin-T", 3, 3, 64, depths=(1, 1), num_heads=(1, 2), embed_dim=12, window_size=4),
         "layers.1.blocks.0.norm2"),
        (lambda: build_teacher("densenet121", 3, 3, 64), "features.denseblock3"),
        (lambda: build_teacher("ResNet50", 3, 3, 64), "layer3"),
        (_ofa_subnet, "blocks.8"),  # of strides 2, 2, 2, 1, 2 the fourth stage is the last on 4 x 4 cells
    ],
)  # fmt: skip
def test_every_family_gives_maps_and_is_left_as_it_was(build: Any, layer: str) -> None:
    net = build().train()
    first = next(net.parameters()).requires_grad_(False)
    images = torch.randn(2, 3, 64, 64)
    assert cam_layer(net, images[:1]) == layer
    for method in METHODS:
        maps = explain(net, images, [0, 1], method=method, max_channels=4)
        assert maps.shape == (2, 64, 64)
        assert np.isfinite(maps).all()
    assert net.training
    assert not first.requires_grad
    assert sum(p.requires_grad for p in net.parameters()) == len(list(net.parameters())) - 1
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_bad_requests(seer: nn.Module) -> None:
    with pytest.raises(InputError, match="unknown explanation 'lime'"):
        explain(seer, SHOWN.images[:1], method="lime")
    with pytest.raises(InputError, match="use scorecam"):
        explain(seer, SHOWN.images[:1], method="gradcam", predict=lambda images: images)
    with pytest.raises(InputError, match="gives no feature map"):
        explain(seer, SHOWN.images[:1], method="gradcam", layer="3")
    with pytest.raises(InputError, match="no model 'other'"):
        compare({"seer": seer}, SHOWN.images[:1], [0], reference="other")
