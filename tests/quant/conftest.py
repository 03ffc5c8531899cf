"""A really trained small student on scikit-learn's digits: int8 agreement of random networks means nothing."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from tutelage.quant.export.onnx_export import export_onnx

SIDE = 32


@dataclass(frozen=True)
class Digits:
    """Normalised images (n, 3, 32, 32) and labels; a student trained on the first 1,000, the rest for validation."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    val_images: npt.NDArray[np.float32]
    val_labels: npt.NDArray[np.int64]
    student: nn.Module
    fp32: Path
    logits: npt.NDArray[np.float32]  # the torch student's, on the validation images


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """Train the smallest OFA subnet at half width for some five seconds to about 95 %, and export it."""
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    pixels = torch.tensor(raw.images[order], dtype=torch.float32)[:, None] / 8 - 1
    images = F.interpolate(pixels, size=SIDE, mode="bilinear").repeat(1, 3, 1, 1)
    labels = torch.tensor(raw.target[order])
    supernet = OFAMobileNetV3(
        n_classes=10, width_mult=0.5, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    supernet.set_active_subnet(3, 3, 2)
    student = supernet.get_active_subnet()
    _train_once(student, images[:1000], labels[:1000], tmp_path_factory)
    fp32 = tmp_path_factory.mktemp("digits") / "student.onnx"
    export_onnx(student, fp32, (1, 3, SIDE, SIDE))
    with torch.no_grad():
        logits = student.eval()(images[1000:])
    return Digits(
        images[:1000].numpy(), labels[:1000].numpy(), images[1000:].numpy(), labels[1000:].numpy(),
        student, fp32, logits.numpy(),
    )  # fmt: skip


def _train_once(
    student: nn.Module, images: torch.Tensor, labels: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Train the student, or load what another worker of this test run has trained: ten seconds."""
    base = tmp_path_factory.getbasetemp()
    # Workers have folders of their own in the folder of the run; without workers the run's folder is the own one.
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "digits.safetensors"
    if kept.is_file():
        student.load_state_dict(load_file(kept))
        student.eval()
        return
    train(student, images, labels, epochs=9)
    aside = base / "digits.part"
    save_file(student.state_dict(), aside)
    os.replace(aside, kept)


@pytest.fixture(scope="session")
def small(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train five convolutions for two seconds, where every layer is tried in turn; give their ONNX file."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, width, stride in ((3, 8, 2), (8, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    train(model, torch.from_numpy(digits.images), torch.from_numpy(digits.labels), epochs=6)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    export_onnx(model, path, (1, 3, SIDE, SIDE))
    return path


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int = 100) -> None:
    """Train with Adam and one cosine; the seed is torch's global one, as the fixture set it."""
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps + 1)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
