"""A CSV of images, and the cache of decoded ones."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data import cache
from tutelage.distill.data.check import check_path
from tutelage.distill.data.images import Picture, read_picture
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError


def _table(root: Path, header: str, rows: list[str]) -> Path:
    (root / "labels.csv").write_text("\n".join([header, *rows]))
    return root / "labels.csv"


def _pictures(root: Path, num: int, size: int = 20) -> list[str]:
    (root / "pictures").mkdir()
    names = [f"pictures/{number}.png" for number in range(num)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return names


def test_single_label_with_groups_and_splits(tmp_path: Path) -> None:
    names = _pictures(tmp_path, 24)
    rows = [
        f"{name},{'ab'[n % 2]},p{n // 4},{('train', 'train', 'valid', 'test')[n // 6]}" for n, name in enumerate(names)
    ]
    data = load_dataset("table", path=_table(tmp_path, "path,label,group,split", rows), size=16)
    assert data.class_names == ("a", "b")
    # p1 holds 4..7 (train), p2 8..11 (train), p3 12..15 (val), p4 16..19: half val, half test -> its val images leave
    assert data.splits["test"].tolist() == list(range(18, 24))
    assert data.splits["val"].tolist() == [12, 13, 14, 15]
    assert check_path(tmp_path / "labels.csv").leaking_groups == ("p4",)


def test_ids_of_patients_that_are_not_read_are_noted(tmp_path: Path) -> None:
    """A column `patient` is not `group`: unread, a patient's images are spread over the splits."""
    names = _pictures(tmp_path, 24)
    rows = [f"{name},{'ab'[n % 2]},p{n // 4},{40 + n // 4},{n}" for n, name in enumerate(names)]
    table = _table(tmp_path, "path,label,Patient ID,Patient Age,study", rows)
    (note,) = check_path(table).notes
    assert "column Patient ID holds 6 ids for 24 images" in note
    assert "group_column to Patient ID" in note
    options = {"group_column": "Patient ID"}
    data = load_dataset("table", path=table, size=16, options=options)
    assert data.notes == ()
    held = [{int(index) // 4 for index in indices} for indices in data.splits.values()]
    assert sum(map(len, held)) == 6  # each patient in one split


def test_several_labels_joined_or_in_columns(tmp_path: Path) -> None:
    names = _pictures(tmp_path, 30)
    joined = _table(tmp_path, "file,findings", [f"{name},{('a|b', 'b', 'c|a')[n % 3]}" for n, name in enumerate(names)])
    options = {"path_column": "file", "label_column": "findings"}
    data = load_dataset("table", path=joined, size=16, options=options)
    assert data.multi_label
    np.testing.assert_array_equal(data.labels[:3], [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    columns = _table(tmp_path, "path,x,y", [f"{name},{n % 2},{1 - n % 2}.0" for n, name in enumerate(names)])
    data = load_dataset("table", path=columns, size=16, options={"label_columns": ["x", "y"], "multi_label": True})
    np.testing.assert_array_equal(data.labels[:2], [[0, 1], [1, 0]])
    one_hot = load_dataset("table", path=columns, size=16, options={"label_columns": ["x", "y"]})
    np.testing.assert_array_equal(one_hot.labels[:2], [1, 0])
    assert "one-hot" in one_hot.notes[0]


@pytest.mark.parametrize(
    ("header", "bad", "options", "message"),
    [
        ("path,label", "pictures/0.png,NaN", {}, r"line 2: label 'NaN' is missing or NaN"),
        ("path,label", "pictures/0.png,", {}, r"line 2: label '' is missing or NaN"),
        ("path,class", "pictures/0.png,a", {}, r"no column 'label'; it has path, class"),
        ("path,x", "pictures/0.png,nan", {"label_columns": ["x"]}, r"line 2: x is 'nan': labels must be 0 or 1"),
        ("path,label,split", "pictures/0.png,a,holdout", {}, r"split 'holdout' is not train, val or test"),
        (
            "path,age,sex,view,date,label",
            "pictures/0.png,50,F,PA",
            {},
            r"line 2: 4 cells, and the header has 6; .*truncated",
        ),
        ("path,label", "\npictures/0.png,a,b", {}, r"line 3: 3 cells, and the header has 2; quote a cell"),
        ("path,label", "pictures/absent.png,b", {}, r"absent\.png is listed and not there"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, header: str, bad: str, options: dict, message: str) -> None:
    names = _pictures(tmp_path, 12)
    extra = ",train" if "split" in header else ""
    good = [f"{name},{'01'[n % 2] if options else 'ab'[n % 2]}{extra}" for n, name in enumerate(names)]
    with pytest.raises(InputError, match=message) as refused:
        load_dataset("table", path=_table(tmp_path, header, [bad, *good]), size=16, options=options)
    assert "\n" not in str(refused.value)


def _labelled(root: Path, num: int = 24, size: int = 20) -> Path:
    return _table(root, "path,label", [f"{name},{'ab'[n % 2]}" for n, name in enumerate(_pictures(root, num, size))])


def test_the_cache_gives_what_decoding_gives_and_is_opened_not_made_again(tmp_path: Path) -> None:
    table = _labelled(tmp_path)
    plain = load_dataset("table", path=table, size=16)
    made = load_dataset("table", path=table, size=16, cache=tmp_path / "cache", workers=2)
    (file,) = (tmp_path / "cache").rglob("images.npy")
    before = file.stat().st_mtime_ns
    opened = load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    for data in (made, opened):
        assert isinstance(data.images, np.memmap)
        np.testing.assert_array_equal(data.images, plain.images)
        assert data.manifest == plain.manifest
    assert file.stat().st_mtime_ns == before


def test_a_stale_or_damaged_cache_is_rebuilt_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = _labelled(tmp_path)
    load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    Image.new("L", (20, 20), 77).save(tmp_path / "pictures" / "5.png")
    data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    pixels = np.array(data.images)  # a copy: the file below it is about to be cut
    assert (pixels[5] == 77).all()
    assert "are stale" in caplog.text
    (file,) = (tmp_path / "cache").rglob("images.npy")
    file.write_bytes(file.read_bytes()[:500])
    again = load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    assert "are damaged" in caplog.text
    np.testing.assert_array_equal(again.images, pixels)


def test_bad_files_are_remembered_by_the_cache(tmp_path: Path) -> None:
    table = _labelled(tmp_path)
    (tmp_path / "pictures" / "3.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match=r"3\.png is empty"):
            load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
        data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache", skip_bad=True)
        assert data.skipped == ("pictures/3.png",)
        assert len(data.images) == 23


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot write decoded images to"):
        load_dataset("table", path=_labelled(tmp_path), size=16, cache=tmp_path / "cache")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of the files that are decoded from now on, four in a part."""
    names: list[str] = []

    def noted(path: Path, *given: Any) -> Picture:
        names.append(path.name)
        return read_picture(path, *given)

    monkeypatch.setattr(cache, "read_picture", noted)
    monkeypatch.setattr(cache, "_MAX_PART", 4)
    return names


def test_one_bad_file_among_many_leaves_the_memory_map_on_the_disk(tmp_path: Path) -> None:
    table = _labelled(tmp_path)
    for name in ("3", "4", "23"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"")
    plain = load_dataset("table", path=table, size=16, skip_bad=True)
    for _ in range(2):  # made, and opened
        data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache", skip_bad=True)
        # A copy of some rows of a memory map is a plain array.
        assert isinstance(data.images, np.memmap)
        np.testing.assert_array_equal(data.images, plain.images)
        assert (len(data.images), data.manifest) == (21, plain.manifest)


def test_a_cache_of_bad_files_only_is_remembered(tmp_path: Path) -> None:
    table = _labelled(tmp_path, 3)
    for n in range(3):
        (tmp_path / "pictures" / f"{n}.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match="all 3 are damaged"):
            load_dataset("table", path=table, size=16, cache=tmp_path / "cache", skip_bad=True)


def test_another_process_that_is_first_with_the_same_images_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found none under the name; a folder cannot be renamed onto one that holds files."""
    rename = Path.rename

    raced: list[Path] = []

    def late(aside: Path, whole: Path) -> Path:
        if (aside / "images.npy").is_file():
            raced.append(whole)
            shutil.copytree(aside, whole)
        return rename(aside, whole)

    table = _labelled(tmp_path)
    monkeypatch.setattr(Path, "rename", late)
    data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    assert len(raced) == 1
    np.testing.assert_array_equal(data.images, load_dataset("table", path=table, size=16).images)
    assert not list(tmp_path.glob("cache/**/.partial*"))


@pytest.mark.parametrize("left", [8, 0], ids=["whole", "cut"])
def test_a_stopped_build_goes_on_after_its_last_part(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    table = _labelled(tmp_path)
    for name in ("1", "10"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"")
    plain = load_dataset("table", path=table, size=16, skip_bad=True)
    noted = cache.read_picture

    def stopped(path: Path, *given: Any) -> Picture:
        if path.name == "9.png":
            raise KeyboardInterrupt
        return noted(path, *given)

    decoded.clear()
    monkeypatch.setattr(cache, "read_picture", stopped)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("table", path=table, size=16, cache=tmp_path / "cache", skip_bad=True)
    monkeypatch.setattr(cache, "read_picture", noted)
    (progress,) = (tmp_path / "cache").rglob("progress.jsonl")
    with progress.open("a") as file, progress.with_name("images.npy").open("ab") as pixels:
        file.write('{"start": 8, "stop": 12, "dig')  # as a power failure may leave it
        pixels.write(b"half of a part")
        pixels.truncate(pixels.tell() if left else 1000)
    decoded.clear()
    data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache", skip_bad=True)
    assert sorted(decoded, key=lambda name: int(name[:-4])) == [f"{n}.png" for n in range(left, 24)]
    np.testing.assert_array_equal(data.images, plain.images)
    assert data.manifest == plain.manifest
    assert not [path for path in progress.parents[1].iterdir() if path.name.startswith(".partial")]


def test_of_a_stale_cache_only_what_changed_is_decoded(tmp_path: Path, decoded: list[str]) -> None:
    table = _labelled(tmp_path)
    bad = tmp_path / "pictures" / "3.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(InputError, match=r"3\.png is empty"):
        load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    bad.write_bytes(good)
    decoded.clear()
    data = load_dataset("table", path=table, size=16, cache=tmp_path / "cache")
    assert decoded == ["3.png"]
    np.testing.assert_array_equal(data.images, load_dataset("table", path=table, size=16).images)


def test_another_seed_decodes_nothing_anew_unless_it_draws_the_images(tmp_path: Path, decoded: list[str]) -> None:
    table = _labelled(tmp_path)
    for seed in (0, 1):
        load_dataset("table", path=table, size=16, cache=tmp_path / "cache", seed=seed)
    assert len(decoded) == 24
    for seed in (0, 1):
        load_dataset("table", path=table, size=16, cache=tmp_path / "cache", seed=seed, limit=20)
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.slow
def test_a_kill_leaves_no_half_made_cache(tmp_path: Path) -> None:
    table = _labelled(tmp_path, 100, 400)
    code = (
        "from pathlib import Path; from tutelage.distill.data.registry import load_dataset;"
        f"load_dataset('table', path=Path({str(table)!r}), size=64, cache=Path({str(tmp_path / 'cache')!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("images.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    data = load_dataset("table", path=table, size=64, cache=tmp_path / "cache")
    np.testing.assert_array_equal(data.images, load_dataset("table", path=table, size=64).images)
    (home,) = (tmp_path / "cache").iterdir()
    assert [folder.name.startswith(".partial") for folder in home.iterdir()] == [False]


def test_empty_cells_beyond_the_header_are_no_fault(tmp_path: Path) -> None:
    names = _pictures(tmp_path, 24)
    table = _table(tmp_path, "path,label", [f"{name},{'ab'[n % 2]},," for n, name in enumerate(names)])
    assert load_dataset("table", path=table, size=16).class_names == ("a", "b")
