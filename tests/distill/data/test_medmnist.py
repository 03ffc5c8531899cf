"""MedMNIST archives: official splits, copies across them, and damaged files."""

import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tutelage.distill.data.check import check_path
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets.medmnist import CLASS_NAMES
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
        (
            {"train_labels": np.where(np.arange(40) == 7, np.nan, 0.0)[:, None]},
            "label 7 of train: label 'nan' is missing or NaN",
        ),
        ({"val_labels": np.zeros((9, 1), dtype=np.uint8)}, "val has 10 images and 9 labels"),
        (
            {"test_images": np.zeros((20, 28, 28), dtype=np.float32)},
            "test_images are float32 .*, and train_images uint8",
        ),
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A real web server of this machine: a folder and its address."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_the_package_downloads_what_is_not_there(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    medmnist = pytest.importorskip("medmnist")
    served = _archive(server[0] / "breastmnist_64.npz")
    entry = medmnist.INFO["breastmnist"]
    monkeypatch.setitem(entry, "url_64", f"{server[1]}/{served.name}")
    monkeypatch.setitem(entry, "MD5_64", hashlib.md5(served.read_bytes()).hexdigest())
    options = {"flag": "breastmnist", "archive_size": 64}
    data = load_dataset("medmnist", path=tmp_path / "sets", size=28, options=options)
    assert data.class_names == ("malignant", "normal, benign")
    assert [item.name for item in (tmp_path / "sets").iterdir()] == ["breastmnist_64.npz"]
    served.unlink()  # what was downloaded is not asked for again
    assert load_dataset("medmnist", path=tmp_path / "sets", size=28, options=options).manifest == data.manifest
    with pytest.raises(InputError, match=r"other\.npz, and it could not be downloaded: get breastmnist_64\.npz from"):
        load_dataset("medmnist", path=tmp_path / "other.npz", size=28, options=options)
    _archive(served, seed=1)  # not the file that the package knows
    with pytest.raises(InputError, match="could not be downloaded"):
        load_dataset("medmnist", path=tmp_path / "other.npz", size=28, options=options)
    assert [item.name for item in tmp_path.iterdir() if ".partial" in item.name or item.suffix == ".npz"] == []


def test_without_the_package_the_file_and_its_place_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medmnist", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"tutelage\[medmnist\].* get bloodmnist\.npz .*/\.medmnist/bloodmnist\.npz"):
        load_dataset("medmnist", size=28, options={"flag": "bloodmnist"})
    with pytest.raises(InputError, match=r"flag 'bloodmnst' is not one of MedMNIST's: pathmnist, "):
        load_dataset("medmnist", path=tmp_path, size=28, options={"flag": "bloodmnst"})
    with pytest.raises(InputError, match=r"archive_size 32 is not one of MedMNIST's: 28, 64"):
        load_dataset("medmnist", path=tmp_path, size=28, options={"flag": "bloodmnist", "archive_size": 32})


def test_class_names_are_the_packages() -> None:
    info = pytest.importorskip("medmnist").INFO
    flat = {flag: tuple(entry["label"].values()) for flag, entry in info.items() if not flag.endswith("3d")}
    assert flat == CLASS_NAMES
