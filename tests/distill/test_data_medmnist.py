"""MedMNIST archives: official splits, copies across them, and damaged files."""

from pathlib import Path

import numpy as np
import pytest

from tutelage.distill.data import check_path, load_dataset
from tutelage.records import InputError


def _archive(path: Path, seed: int = 0, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, num in (("train", 40), ("val", 10), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(num) % 2).astype(np.uint8)[:, None]
    np.savez(path, **{**arrays, **changes})
    return path


def test_official_splits_are_kept_and_copies_leave_the_earlier_split(tmp_path: Path) -> None:
    path = _archive(tmp_path / "toymnist.npz")
    arrays = dict(np.load(path))
    arrays["train_images"][0] = arrays["val_images"][3]
    arrays["train_images"][1] = arrays["test_images"][3]
    arrays["val_images"][0] = arrays["test_images"][5]
    np.savez(path, **arrays)
    data = load_dataset("medmnist", path=path, size=28)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [38, 9, 20]
    assert data.notes[0].startswith("3 images")
    np.testing.assert_array_equal(data.images[data.splits["test"], :, :, 0], arrays["test_images"])
    leaky = load_dataset("medmnist", path=tmp_path, size=28, leaky=True)
    assert leaky.leaky
    assert len(leaky.splits["train"]) == 40
    assert len(check_path(path).leaking_groups) == 3


def test_colour_other_sizes_and_many_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = {
        f"{split}_images": rng.integers(0, 256, (num, 28, 28, 3), dtype=np.uint8)
        for split, num in (("train", 40), ("val", 10), ("test", 20))
    }
    many = {
        f"{split}_labels": rng.integers(0, 2, (num, 5)) for split, num in (("train", 40), ("val", 10), ("test", 20))
    }
    data = load_dataset("medmnist", path=_archive(tmp_path / "a.npz", **colour, **many), size=32, channels=3)
    assert data.images.shape == (70, 32, 32, 3)
    assert data.multi_label
    assert data.labels.dtype == np.float32
    gray = load_dataset("medmnist", path=tmp_path / "a.npz", size=28, channels=1)
    weighed = colour["train_images"][0] @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    np.testing.assert_allclose(gray.images[0, :, :, 0], weighed, atol=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.where(np.arange(40) == 7, np.nan, 0.0)[:, None]}, "label 7 of train is NaN"),
        ({"val_labels": np.zeros((9, 1), dtype=np.uint8)}, "val has 10 images and 9 labels"),
        ({"test_images": np.zeros((20, 28, 28), dtype=np.float32)}, "test_images must be uint8"),
    ],
)
def test_faulty_arrays_are_named(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    path = _archive(tmp_path / "bad.npz", **change)
    with pytest.raises(InputError, match=message):
        load_dataset("medmnist", path=path, size=28)


def test_a_truncated_archive_and_a_pickle_are_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.npz is damaged"):
        load_dataset("medmnist", path=path, size=28)
    evil = _archive(tmp_path / "evil.npz", train_images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz is damaged or not an npz archive"):
        load_dataset("medmnist", path=evil, size=28)


def test_pneumoniamnist_as_it_is(data_dir: Path) -> None:
    path = data_dir / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"no pneumoniamnist.npz in {data_dir}")
    data = load_dataset("medmnist", path=path, size=28)
    assert data.class_counts("test") == {"normal": 234, "pneumonia": 390}
    assert data.class_counts("val") == {"normal": 135, "pneumonia": 389}
    train = {image.tobytes() for image in data.images[data.splits["train"]]}
    assert not train & {image.tobytes() for image in data.images[data.splits["val"]]}
    assert 4708 - len(data.splits["train"]) >= 8  # 8 images stand in both train and val
    assert len(check_path(path).leaking_groups) == 8
