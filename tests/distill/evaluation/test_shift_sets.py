"""Further test sets: labels are numbered as the training data's, copies are left out, shared groups are counted."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.decoded.stored import open_stored
from tutelage.distill.data.registry import load_dataset, request_for
from tutelage.distill.evaluation.shift_sets import ShiftSets, _opened, check_classes
from tutelage.records import InputError


def pictures(folder: Path, names: list[str], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / name)
    return folder


NAMES = [f"{label}/p{patient}_{image}.png" for label in "ab" for patient in range(8) for image in range(2)]
OPTIONS = {"group": r"(\w\d+)_"}


def test_copies_are_left_out_and_shared_groups_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = load_dataset("folder", path=pictures(tmp_path / "own", NAMES, 0), size=16, options=OPTIONS)
    trained = sorted(own.names[np.concatenate([own.splits["train"], own.splits["val"]])])
    there = pictures(tmp_path / "there", ["a/q1_0.png", "a/q1_1.png", "b/q2_0.png", "b/q3_0.png"], 1)
    (there / "b" / "q4_0.png").write_bytes((tmp_path / "own" / trained[0]).read_bytes())
    shared = str(own.groups[own.splits["train"][0]])
    Image.fromarray(np.full((16, 16), 9, dtype=np.uint8)).save(there / "a" / f"{shared}_9.png")
    request = request_for("folder", path=there, size=16, options=OPTIONS)
    with caplog.at_level(logging.WARNING):
        found = ShiftSets({"b": request}, own)["b"]
    seen = found.indices("test")
    assert sorted(found.names[seen]) == sorted(
        ["a/q1_0.png", "a/q1_1.png", f"a/{shared}_9.png", "b/q2_0.png", "b/q3_0.png"]
    )
    assert "1 of its 6 images are training or validation images and were left out" in caplog.text
    assert "1 of its images are of groups (patients, series) whose names the training data have" in caplog.text


def test_a_set_of_nothing_but_training_images_is_refused(tmp_path: Path) -> None:
    own = load_dataset("folder", path=pictures(tmp_path / "own", NAMES, 0), size=16, options=OPTIONS)
    for place in own.splits["train"]:
        file = tmp_path / "again" / str(own.names[place])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((tmp_path / "own" / str(own.names[place])).read_bytes())
    sets = ShiftSets({"b": request_for("folder", path=tmp_path / "again", size=16, options=OPTIONS)}, own)
    with pytest.raises(InputError, match="all images of b are training or validation images"):
        sets["b"]


def test_a_test_split_of_its_own_is_what_is_read(tmp_path: Path) -> None:
    own = load_dataset("folder", path=pictures(tmp_path / "own", NAMES, 0), size=16)
    names = [f"{split}/{label}/{split}.png" for split in ("train", "test") for label in "ab"]
    parted = pictures(tmp_path / "there", names, 1)
    found = ShiftSets({"b": request_for("folder", path=parted, size=16)}, own)["b"]
    assert sorted(found.names) == ["test/a/test.png", "test/b/test.png"]


def small(class_names: tuple[str, ...], labels: np.ndarray, seed: int) -> Dataset:
    num = len(labels)
    images = np.random.default_rng(seed).integers(0, 255, (num, 8, 8, 1), dtype=np.uint8)
    groups = np.array([f"{seed}-{place}" for place in range(num)])
    splits = {name: np.arange(num) for name in ("train", "val", "test")}
    return Dataset("d", images, labels, class_names, groups, splits, multi_label=labels.ndim == 2)


def resident(file: Path) -> int:
    """Give how many bytes of a file's map count as memory of this process."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            here = line.endswith(str(file))
        elif here and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is in memory")
def test_images_in_files_stay_there_also_where_one_of_them_is_a_copy(tmp_path: Path) -> None:
    own, other = (small(("x", "y"), np.arange(600) % 2, seed) for seed in (0, 1))
    other.images[[5, 300, 599]] = own.images[[590, 1, 2]]
    other.images[7] = own.images[9]
    other.images[7, 0] ^= 1  # its middle line alone is that of a training image
    files = [tmp_path / "own.npy", tmp_path / "other.npy"]
    for file, data in zip(files, (own, other), strict=True):
        np.save(file, data.images)
    own, other = replace(own, images=open_stored(files[0])), replace(other, images=open_stored(files[1]))
    found = _opened("b", other, own)
    assert np.setdiff1d(np.arange(600), found.indices("test")).tolist() == [5, 300, 599]
    assert found.images is other.images
    assert [resident(file) for file in files] == [0, 0]
    assert int(found.images[:, 0].max()) == 254
    assert resident(files[1]) > 0  # as is seen where the map is read


def test_labels_are_numbered_as_the_training_data_number_them() -> None:
    own = small(("x", "y", "z"), np.array([0, 1, 2]), 0)
    found = _opened("b", small(("z", "x", "y"), np.array([0, 1, 2, 0]), 1), own)
    assert found.labels.tolist() == [2, 0, 1, 2]
    many = small(("x", "y"), np.eye(2, dtype=np.float32), 0)
    found = _opened("b", small(("y", "x"), np.array([[1, 0], [1, 1]], dtype=np.float32), 1), many)
    assert found.labels.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("names", "multi_label", "said"),
    [
        (("x",), False, "b lacks the class y: "),
        (("x", "y", "w"), False, "b has the class w: "),
        (("x", "w"), False, "b lacks the class y and has the class w: "),
        (("x", "y"), True, "b is multi-label, and the training data are single-label"),
    ],
)
def test_other_classes_are_refused(names: tuple[str, ...], multi_label: bool, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_classes("b", names, multi_label, small(("x", "y"), np.array([0, 1]), 0))
