"""Images that are read from a file when they are asked for: the same pixels as an array's, and no pages that stay."""

import copy
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.decoded.stored import StoredImages, open_stored
from tutelage.distill.data.loader import InOrder, Loader, copied, tensors
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets.lc25000 import group_near_duplicates
from tutelage.distill.data.slices import nearest_across
from tutelage.records import InputError

NUM = 20


def drawn(number: int, size: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, size, size, channels), dtype=np.uint8)


@pytest.fixture
def plain() -> np.ndarray:
    return drawn(NUM, 5, 3)


@pytest.fixture
def stored(plain: np.ndarray, tmp_path: Path) -> StoredImages:
    np.save(tmp_path / "images.npy", plain)
    return open_stored(tmp_path / "images.npy")


INDICES: dict[str, Any] = {
    "one": 3, "from the end": -1, "numpy": np.int64(4), "slice": slice(2, 9), "all": slice(None),
    "steps": slice(15, 2, -3), "none": slice(4, 4), "list": [5, 2, 2, -1], "empty": np.array([], dtype=np.int64),
    "runs": np.array([3, 4, 5, 0, 1, 19]), "mask": np.arange(NUM) % 3 == 0, "table": np.array([[1, 2], [2, 0]]),
    "tuple": (slice(1, 3), 0), "rows": (3, slice(None), 1), "ellipsis": ..., "axis": None, "true": True,
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_every_index_gives_what_it_gives_of_an_array(name: str, stored: StoredImages, plain: np.ndarray) -> None:
    found, wanted = stored[INDICES[name]], plain[INDICES[name]]
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("index", [NUM, [0, -NUM - 1], "a", np.ones(3, dtype=bool)])
def test_what_is_no_index_of_an_array_is_none_here(index: Any, stored: StoredImages, plain: np.ndarray) -> None:
    with pytest.raises(IndexError) as theirs:
        plain[index]
    with pytest.raises(IndexError) as mine:
        stored[index]
    assert type(mine.value) is type(theirs.value)


def test_arithmetic_and_copies_are_plain_arrays(stored: StoredImages, plain: np.ndarray) -> None:
    assert type(stored + 1) is type(stored == 1) is type(stored[:3]) is np.ndarray
    assert stored.sum() == plain.sum()
    assert [image.tolist() for image in stored] == plain.tolist()
    for other in (stored.copy(), copy.deepcopy(stored)):
        np.testing.assert_array_equal(other[[3, 1]], plain[[3, 1]])


def test_images_that_were_changed_in_the_file_or_cut_off_are_noticed(stored: StoredImages, tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"images\.npy ends before its last image: remove it"):
        stored[NUM - 1]
    assert stored[NUM - 2].shape == (5, 5, 3)


@pytest.mark.parametrize("other", [np.zeros((3, 4, 4)), np.zeros((3, 4), np.uint8), np.asfortranarray(drawn(3, 4))])
def test_a_file_of_anything_else_is_refused(other: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", other)
    with pytest.raises(ValueError, match="not images"):
        open_stored(tmp_path / "other.npy")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped_bytes() -> int:
    """Give the bytes of pages of decoded images that count as this process's memory."""
    found, images = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            images = "images.npy" in line
        elif images and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_the_file_is_closed_with_the_array(plain: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", plain)
    gc.collect()
    before = descriptors()
    images = open_stored(tmp_path / "images.npy")
    assert descriptors() > before
    part = images[2:4]
    del images
    gc.collect()
    assert descriptors() == before
    np.testing.assert_array_equal(part, plain[2:4])


READERS: dict[str, Callable[[Any], object]] = {
    "batches": lambda data: [batch.num_global for batch in Loader(data, "train", 16, shuffle=True, workers=1).epoch(0)],
    "validation": lambda data: InOrder(data, "train", 64, 8).identity,
    "tensors": lambda data: tensors(data, "train", 8),
    "a device": lambda data: copied(data.images, data.indices("train"), Loader(data, "train", 8).device),
    "slices": lambda data: nearest_across(data.images, data.groups),
    "near-duplicates": lambda data: group_near_duplicates(data.images, data.labels, 1.0),
    "one by one": lambda data: [image.max() for image in data.images],
    "a bad file": lambda data: load_again(data),
}


def load_again(data: Any) -> object:
    """Take all images but one from the cache: a file has changed."""
    root = Path(data.images.filename).parents[3]
    (root / "pictures/0.png").write_bytes(b"no picture")
    return load(root, skip_bad=True)


def load(root: Path, **how: Any) -> Any:
    return load_dataset("table", path=root / "table.csv", size=256, cache=root / "cache", **how)


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    """Give 384 images of 64 KiB in a cache: 24 MiB."""
    (tmp_path / "pictures").mkdir()
    lines = ["path,label"]
    for number, pixels in enumerate(drawn(384, 24)):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"pictures/{number}.png")
        lines.append(f"pictures/{number}.png,{'ab'[number % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return load(tmp_path, val_fraction=0.01, test_fraction=0.01)


@linux
@pytest.mark.parametrize("reader", READERS)
def test_no_page_of_the_file_stays_in_memory_whoever_reads_the_images(reader: str, dataset: Any) -> None:
    READERS[reader](dataset)
    assert mapped_bytes() < 2**20
    dataset.images.view(np.memmap).max()  # a map by itself keeps them
    assert mapped_bytes() > 2**24
