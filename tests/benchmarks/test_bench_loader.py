"""Images/s of the loader against torchvision's ImageFolder + DataLoader, interleaved in one run.

Both read the same JPEG files (made here, as large as cxr3's), resize to 64 px, turn, shift, scale and normalise. The
loader decodes once, into its cache, which is timed too; an epoch then is what a training run pays again and again.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from tutelage.distill.data.loader import Loader
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets.phantom import draw_slice

_NUM_IMAGES, _SIDE, _SIZE, _BATCH, _ROUNDS = 480, 256, 64, 64, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("jpegs")
    for index in range(_NUM_IMAGES):
        pixels, _, label = draw_slice(index, 128, 0)
        place = root / str(label)
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((_SIDE, _SIDE)).save(place / f"{index:04d}.jpg", quality=90)
    return root


def _torchvision_epoch(root: Path, workers: int) -> Callable[[], int]:
    from torchvision import datasets, transforms

    steps = transforms.Compose([
        transforms.Grayscale(),
        transforms.Resize((_SIZE, _SIZE)),
        transforms.RandomAffine(10, translate=(0.06, 0.06), scale=(0.9, 1.1)),
        transforms.ColorJitter(brightness=0.1, contrast=0.15),
        transforms.ToTensor(),
        transforms.Normalize((0.5,), (0.25,)),
    ])  # fmt: skip
    data = datasets.ImageFolder(str(root), steps)
    loader = torch.utils.data.DataLoader(
        data, batch_size=_BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: sum(len(images) for images, _ in loader)


def test_epochs_are_at_least_three_times_faster_than_torchvision(
    folder: Path, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    """One thread of ours against torchvision with one worker process a core: the comparison that favours it."""
    workers = min(2, os.cpu_count() or 1)
    torch.set_num_threads(1)
    start = time.perf_counter()
    data = load_dataset(
        "folder", path=folder, size=_SIZE, cache=tmp_path / "cache", workers=workers, val_fraction=0, test_fraction=0
    )
    decode_s = time.perf_counter() - start
    loader = Loader(data, "train", _BATCH, augment="medical", shuffle=True)
    theirs = _torchvision_epoch(folder, workers)
    theirs()  # its worker processes start with the first epoch; that is not counted
    speeds: dict[str, list[float]] = {"tutelage": [], "torchvision": []}

    def one_round() -> None:
        start = time.perf_counter()
        num_images = sum(len(batch.images) for batch in loader.epoch(len(speeds["tutelage"])))
        middle = time.perf_counter()
        speeds["tutelage"].append(num_images / (middle - start))
        speeds["torchvision"].append(theirs() / (time.perf_counter() - middle))

    benchmark.pedantic(one_round, rounds=_ROUNDS)
    mine, other = float(np.median(speeds["tutelage"])), float(np.median(speeds["torchvision"]))
    benchmark.extra_info.update(images_per_s=mine, torchvision_images_per_s=other, decoded_per_s=_NUM_IMAGES / decode_s)
    print(f"\n{mine:,.0f} images/s against torchvision's {other:,.0f} with {workers} workers: {mine / other:.1f} times")
    assert mine >= 3 * other


def test_loader_epoch(folder: Path, benchmark: BenchmarkFixture) -> None:
    data = load_dataset("folder", path=folder, size=_SIZE, val_fraction=0, test_fraction=0)
    loader = Loader(data, "train", _BATCH, augment="medical", shuffle=True)
    benchmark(lambda: sum(len(batch.images) for batch in loader.epoch(0)))


def test_phantom_slice(benchmark: BenchmarkFixture) -> None:
    """Drawing must give at least 300 slices/s at 64 px on one quiet core."""
    benchmark(lambda: [draw_slice(index, 64, 0) for index in range(20)])
