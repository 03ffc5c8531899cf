"""Folders as people have them: what is skipped, masks, caches, links, split names; what the check calls fine loads."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path, recognise
from tutelage.distill.data.dataset import SPLITS, Dataset
from tutelage.distill.data.reading.suffixes import SUFFIXES
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError


def _picture(path: Path, seed: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(path))) if seed is None else seed
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)


def _classes(root: Path, num: int = 10, names: tuple[str, ...] = ("sick", "well"), inner: str = "") -> Path:
    for label, name in enumerate(names):
        for number in range(num):
            _picture(root / name / inner / f"{name}-{number}.png", 100 * label + number)
    return root


def _load(root: Path) -> Dataset:
    return load_dataset("folder", path=root, size=8)


def test_the_suffixes_are_all_that_pillow_reads_by_itself() -> None:
    Image.init()
    # other libraries or programs: stubs without a decoder, Ghostscript, Windows
    others = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS", "IPTC"}
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - others}
    assert readable <= set(SUFFIXES)


def test_every_format_is_listed_and_what_is_skipped_is_counted_by_suffix(tmp_path: Path) -> None:
    root = _classes(tmp_path)
    for number, (suffix, kind) in enumerate(
        {".jfif": "JPEG", ".jp2": "JPEG2000", ".qoi": "QOI", ".tga": "TGA"}.items()
    ):
        picture = np.random.default_rng(500 + number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "sick" / f"x{suffix}", format=kind)
    for name in ("notes.txt", "more.txt", "list.csv", "Thumbs.db", ".DS_Store", "._sick-0.png", "README"):
        (root / "sick" / name).write_text("x")
    for cache in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        _picture(root / "sick" / cache / "sick-0.png")
    _picture(root / "@eaDir" / "0.png")
    data = _load(root)
    assert (
        data.class_counts("train")["sick"] + data.class_counts("val")["sick"] + data.class_counts("test")["sick"] == 14
    )
    assert data.notes == (
        "4 files that are no pictures are left out: 2 .txt, 1 .csv, 1 without suffix",
        "3 pictures in folders of the system are left out: .ipynb_checkpoints, @eaDir, __MACOSX",
    )
    assert check_path(root).notes == data.notes


@pytest.mark.parametrize("form", ["masks/{}.png", "lung masks/{}.png", "images/{}_mask.png", "images/{}_mask_1.png",
                                  "images/mask_{}.png", "Segmentations/{}.png", "images/{}_thumb.png",
                                  "thumbs/{}.png"])  # fmt: skip
def test_masks_and_thumbnails_beside_their_pictures_are_left_out_and_said(tmp_path: Path, form: str) -> None:
    root = _classes(tmp_path, 6, inner="images")
    for name in ("sick", "well"):
        for number in range(6):
            _picture(root / name / form.format(f"{name}-{number}"))
    data = _load(root)
    assert len(data.images) == 12
    kind = "thumbnails" if "thumb" in form else "masks"
    assert data.notes[0].startswith(f"12 {kind} of pictures beside them are left out, e.g. sick/")
    report = check_path(root)
    assert (report.num_images, report.ok) == (12, True)


def test_what_only_looks_like_a_mask_stays(tmp_path: Path) -> None:
    root = _classes(tmp_path, 6, names=("with_mask", "without_mask"))
    assert len(_load(root).images) == 12
    assert any("class with_mask is named as masks are" in note for note in _load(root).notes)
    _picture(root / "with_mask" / "9_mask.png")
    data = _load(root)
    assert len(data.images) == 13
    assert any("13 pictures are named as masks and are read as images" in note for note in data.notes)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root, store = _classes(tmp_path / "set"), tmp_path / "store"
    for number in range(5):
        _picture(store / f"{number}.png", 900 + number)
    (root / "sick" / "more").symlink_to(store)
    (root / "sick" / "loop").symlink_to(root / "sick")
    (root / "well" / "again").symlink_to(store)
    data = _load(root)
    assert len(data.images) == 25
    assert sum(note.endswith("leads to a folder that is listed already: left out") for note in data.notes) == 2
    (root / "sick" / "up").symlink_to(root)  # the other class is not this one's
    assert _load(root).labels.tolist() == data.labels.tolist()
    (root / "zzz").symlink_to(root / "sick")
    with pytest.raises(InputError, match=r"class folder .*zzz is a link to a folder that is listed already"):
        _load(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_not_waited_for_and_a_name_of_other_bytes_is_read(tmp_path: Path) -> None:
    root = _classes(tmp_path)
    os.mkfifo(root / "sick" / "pipe")  # might be a DICOM file: those have no suffix
    _picture(root / "well" / "new.png", 900)
    (root / "well" / "new.png").rename(root / "well" / os.fsdecode(b"M\xfcller.png"))
    assert len(_load(root).images) == 21
    os.mkfifo(root / "sick" / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is no regular file"):
        _load(root)


def test_one_folder_named_like_a_split(tmp_path: Path) -> None:
    root = _classes(tmp_path / "a", names=("normal", "test"))  # pictures right inside: a class
    assert _load(root).class_names == ("normal", "test")
    root = _classes(tmp_path / "b")
    _classes(root / "test")
    with pytest.raises(InputError, match="has the folder test, named like a split, and beside it sick, well"):
        _load(root)
    for split in ("train", "val", "test"):
        for name in ("sick", "well"):
            for number in range(4):
                _picture(tmp_path / "c" / split / name / f"{number}.png")
    _picture(tmp_path / "c" / "examples" / "0.png")
    assert "folders beside the splits are left out: examples" in _load(tmp_path / "c").notes


@pytest.mark.parametrize(
    ("train", "test"), [("training_set", "test_set"), ("train_images", "Test Images"), ("train2017", "val2017")]
)
def test_folders_named_as_a_split_and_a_word_that_says_nothing_are_splits(
    tmp_path: Path, train: str, test: str
) -> None:
    """As Kaggle and COCO name them: read as classes, the network would learn which split an image is of."""
    for split, start in ((train, 0), (test, 50)):
        for number in range(start, start + 20):
            _picture(tmp_path / split / ("sick", "well")[number % 2] / f"{number}.png", number)
    data = _load(tmp_path)
    assert data.class_names == ("sick", "well")
    assert len(data.splits["val" if test.startswith("val") else "test"]) == 20


def test_the_same_folders_in_all_classes_are_said(tmp_path: Path) -> None:
    """Folds and sites look like classes, and their classes like folders that say nothing."""
    for number in range(24):
        _picture(tmp_path / f"fold{number % 3}" / ("sick", "well")[number % 2] / f"{number}.png", number)
    (note,) = _load(tmp_path).notes
    assert note.startswith("each of the classes fold0, fold1, fold2 holds the folders sick, well, whose names are not")
    _picture(tmp_path / "fold0" / "24.png", 24)
    assert _load(tmp_path).notes == ()


def test_copies_under_two_labels_are_said(tmp_path: Path) -> None:
    root = _classes(tmp_path)
    (root / "well" / "copy.png").write_bytes((root / "sick" / "sick-3.png").read_bytes())
    assert any("1 files are copies of one with another label, e.g. sick-3.png" in note for note in _load(root).notes)


def _csv(root: Path, text: Callable[[list[str]], str]) -> Path:
    names = []
    for number in range(24):
        _picture(root / f"{number}.png", number)
        names.append(f"{number}.png")
    (root / "t.csv").write_text(text(names))
    return root / "t.csv"


def _rows(names: list[str], *classes: str) -> str:
    return "\n".join(f"{name},{classes[n % len(classes)]}" for n, name in enumerate(names))


def _npz(root: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"{s}_images": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
              for s, n in (("train", 12), ("val", 6), ("test", 6))}  # fmt: skip
    arrays |= {f"{s}_labels": np.arange(n) % 2 for s, n in (("train", 12), ("val", 6), ("test", 6))}
    np.savez(root / "x.npz", **{**arrays, **changes})
    return root / "x.npz"


def _spoiled(root: Path, content: bytes) -> Path:
    _classes(root)
    (root / "sick" / "bad.png").write_bytes(content)
    return root


MADE: dict[str, Callable[[Path], Path]] = {
    "folder": _classes,
    "folder of one image a class": lambda root: _classes(root, 1),
    "folder of two images a class": lambda root: _classes(root, 2),
    "folder with a damaged file": lambda root: _spoiled(root, b"\x89PNG\r\n"),
    "folder with an empty file": lambda root: _spoiled(root, b""),
    "folder of one class": lambda root: _classes(root, names=("sick",)),
    "folder with a train folder only": lambda root: _classes(root / "train").parent,
    "folder with a test folder only": lambda root: _classes(root / "test").parent,
    "folder without pictures": lambda root: (root / "a").mkdir() or (root / "b").mkdir() or root,  # type: ignore[func-returns-value]
    "csv": lambda root: _csv(root, lambda names: "path,label\n" + _rows(names, "a", "b")),
    "csv of ids as labels": lambda root: _csv(root, lambda names: "path,label\n" + _rows(names, *map(str, range(24)))),
    "csv without label": lambda root: _csv(root, lambda names: "path,class\n" + _rows(names, "a", "b")),
    "csv with a missing file": lambda root: _csv(root, lambda n: "path,label\n" + _rows([*n, "no.png"], "a", "b")),
    "csv of one patient": lambda root: _csv(root, lambda n: "path,label,group\n" + _rows(n, "a,1", "b,1.0")),
    "csv with -1": lambda root: _csv(root, lambda names: "path,label\n" + _rows(names, "0", "1", "-1")),
    "csv whose test has a class of its own": lambda root: _csv(
        root, lambda names: "path,label,split\n" + _rows(names, "a,train", "b,train", "c,test")
    ),
    "csv that is empty": lambda root: _csv(root, lambda names: ""),
    "csv with NUL bytes": lambda root: _csv(root, lambda names: "path,label\n\0"),
    "npz": _npz,
    "npz of volumes": lambda root: _npz(
        root, **{f"{s}_images": np.zeros((12 if s == "train" else 6, 9, 28, 28), np.uint8) for s in SPLITS}
    ),
    "npz without val": lambda root: _npz(root, val_images=np.zeros((0, 28, 28), np.uint8), val_labels=np.zeros(0, int)),
    "npz of labels of other widths": lambda root: _npz(root, val_labels=np.zeros((6, 3), int)),
    "npz of a class in test only": lambda root: _npz(root, test_labels=np.full(6, 2)),
    "npz of text": lambda root: _npz(root, train_images=np.full((12, 28, 28), "x")),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_the_check_calls_fine_what_a_run_can_read_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = MADE[name](tmp_path)
    report = check_path(path)
    entry, options = recognise(path)
    if report.ok:
        data = load_dataset(entry.name, path=path, size=28, options=options)
        assert len(data.images) == report.num_images
        assert all(len(data.indices(split)) for split in SPLITS)
        return
    with pytest.raises(InputError) as refused:
        load_dataset(entry.name, path=path, size=28, options=options)
    assert "\n" not in str(refused.value)
    assert any(str(refused.value)[:30] in line for line in report.problems)
