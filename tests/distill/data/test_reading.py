"""Tables, label codes, ids, paths and folders as people have them: read right, or refused with the place named."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.reading.ids import canonical_id, group_ids
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)


def _table(root: Path, labels: list[str] | None = None, write: Callable[[int, str], str] | None = None) -> Path:
    """Write 24 pictures and a CSV of `path,label`; `write` makes a row of its number and label."""
    labels = labels or ["a", "b"] * 12
    rows = []
    for number, label in enumerate(labels):
        _picture(root / "images" / f"{number:03d}.png", number)
        cell = f'"{label}"' if "," in label else label
        rows.append(write(number, label) if write else f"images/{number:03d}.png,{cell}")
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return root / "labels.csv"


def _load(table: Path, **options: object) -> Dataset:
    return load_dataset("table", path=table, size=8, options=options)


@pytest.mark.parametrize("code", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_delimiters_and_encodings_give_the_same_images(tmp_path: Path, code: str, encoding: str) -> None:
    table = _table(tmp_path, ["böse", "gut"] * 12)
    text = table.read_text().replace(",", code)
    table.write_bytes(text.encode(encoding))
    data = _load(table)
    assert data.class_names == ("böse", "gut")
    assert data.labels.tolist() == [0, 1] * 12


def test_quotes_spreadsheet_lines_and_packed_tables(tmp_path: Path) -> None:
    table = _table(tmp_path, write=lambda n, label: f'"images/{n:03d}.png"; "{label}";"a; b"')
    text = "sep=;\n" + table.read_text().replace("path,label", " Path ; Label;note")
    table.write_text(text)
    assert _load(table).labels.tolist() == [0, 1] * 12
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "packed.csv.zip", "w") as archive:
        archive.writestr("inside.csv", text)
    for name in ("packed.csv.gz", "packed.csv.zip"):
        assert _load(tmp_path / name).labels.tolist() == [0, 1] * 12
        assert check_path(tmp_path / name).ok


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/003.png", r"labels\.csv, line 6: 1 cells, and the header has 2; the row is truncated"),
        ("images/003.png,left,b", r"labels\.csv, line 6: 3 cells, and the header has 2; quote a cell that holds a com"),
        ('images/003.png,"b', r"labels\.csv, line 6: unexpected end of data: is a quote left open"),
        (",b", r"labels\.csv, line 6: path is blank: name a file, or remove the row"),
        ("./images/../images/002.png,b", r"labels\.csv, line 6: .*002\.png has another label than on line 4"),
        ("images/002.png,b", r"labels\.csv, line 6: .*002\.png has another label than on line 4"),
    ],
)
def test_a_faulty_row_is_named_by_its_own_line(tmp_path: Path, row: str, message: str) -> None:
    # a blank line before it: rows and lines are not the same count
    table = _table(tmp_path, write=lambda n, label: f"images/{n:03d}.png,{label}" if n != 3 else f"\n{row}")
    with pytest.raises(InputError, match=message):
        _load(table)
    assert not check_path(table).ok


def test_ids_that_a_join_rewrote_are_one_and_blank_ids_stay_apart(tmp_path: Path) -> None:
    written = ["100", "100.0", " 100", "0100", "", "nan", "P7", "p 8"]
    table = _table(tmp_path, write=lambda n, label: f"images/{n:03d}.png,{label},{written[n % 8]}")
    table.write_text(table.read_text().replace("path,label", "path,label,group"))
    data = _load(table)
    patient = data.groups.reshape(3, 8)
    assert set(patient[:, :4].ravel()) == {"100"}
    assert len(set(patient[:, 4:6].ravel())) == 6
    assert len(set(patient[:, 6])) == len(set(patient[:, 7])) == 1
    assert "6 of 24 images have no group: each is a group of its own" in data.notes
    assert any("written in several ways" in note for note in data.notes)
    assert {split for split, at in data.splits.items() if "100" in data.groups[at]} in ({"train"}, {"val"}, {"test"})
    assert check_path(table).notes == data.notes
    assert [canonical_id(text) for text in ("007", "7.00", "7.5", "A.0", "１２")] == ["7", "7", "7.5", "A.0", "12"]
    assert "rounded" in group_ids(["1.23457e+08", "2"], ["a", "b"], "id")[1][0]


def test_a_code_for_no_id_is_blank_and_odd_ids_are_noted() -> None:
    names = [f"{number}.png" for number in range(48)]
    codes = ["-1"] * 24 + [str(number) for number in range(24)]
    groups, notes = group_ids(codes, names, "patient")
    assert len(set(groups)) == 48
    assert notes == ("24 of 48 images have no patient: each is a group of its own",)
    groups, notes = group_ids(["0" if code == "-1" else str(int(code) + 1) for code in codes], names, "patient")
    assert notes == ("24 of 48 images have the patient '0': if it stands for none, leave it blank",)
    _, notes = group_ids(["P1", "p1", "p2", "-1"] * 12, names, "patient")
    assert len(notes) == 1
    assert "1 ids of patient differ in case only, e.g. 'P1' and 'p1'" in notes[0]


@pytest.mark.parametrize("kind", ["absolute", "elsewhere", "windows", "drive", "moved", "above", "bare"])
def test_paths_are_found_wherever_the_table_comes_from(tmp_path: Path, kind: str) -> None:
    form = {
        "absolute": f"{tmp_path}/set/images/{{:03d}}.png",
        "elsewhere": f"{tmp_path}/set/images/{{:03d}}.png",
        "windows": r"images\{:03d}.png",
        "drive": r"D:\studies\set\images\{:03d}.png",
        "moved": "/home/other/set/images/{:03d}.png",
        "above": "images/{:03d}.png",
        "bare": "images/{:03d}",
    }[kind]
    table = _table(tmp_path / "set", write=lambda n, label: f"{form.format(n)},{label}")
    if kind in ("above", "elsewhere"):
        (tmp_path / "set" / "tables").mkdir()
        table = table.rename(tmp_path / "set" / "tables" / "labels.csv")
    data = _load(table)
    plain = _load(_table(tmp_path / "plain"))
    np.testing.assert_array_equal(data.images, plain.images)
    assert check_path(table).ok
    assert any("read elsewhere" in note for note in data.notes) == (kind in ("drive", "moved", "above", "bare"))


def test_a_root_is_taken_at_its_word(tmp_path: Path) -> None:
    table = _table(tmp_path / "set", write=lambda n, label: f"{n:03d}.png,{label}")
    assert len(_load(table, root=str(tmp_path / "set" / "images")).images) == 24
    with pytest.raises(InputError, match="none of the 24 listed images is there"):
        _load(table, root=str(tmp_path))
    for number in (1, 2):  # as a hospital's archive is often left
        (tmp_path / f"images_{number:03d}.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"unpack images_001\.tar\.gz \(of 2 such archives\), or check the path"):
        _load(table, root=str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["0", "1.0", "1", " 0 "], ("0", "1")),
        (["10", "9", "2", "9"], ("2", "9", "10")),
        (["-1", "1", "-1", "1"], ("-1", "1")),
        (["no", "yes", "no", "yes"], ("no", "yes")),
        (["900000000000207009", "900000000000207008"] * 2, ("900000000000207008", "900000000000207009")),
    ],
)
def test_codes_are_classes_in_numeric_order(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    data = _load(_table(tmp_path, labels * 6))
    assert data.class_names == names
    expected = [names.index(label if label in names else str(int(float(label)))) for label in labels]
    assert data.labels.tolist() == expected * 6


@pytest.mark.parametrize(
    ("odd", "labels", "message"),
    [
        ("0.5", ["0", "1"], "line 2: label 0.5 is a fraction"),
        ("0,5", ["0", "1"], "line 2: label 0,5 may be a fraction or two labels"),
        ("covid", ["0", "1"], "line 2: label 'covid' stands among labels such as '0'"),
        ("-1", ["0", "1"], "line 2: label '-1' is missing or NaN, or not known"),
        ("NaN", ["0", "1"], "line 2: label 'NaN' is missing or NaN"),
        ("", ["a", "b"], "line 2: label '' is missing or NaN"),
        ("a", ["a", "a"], "holds one class only"),
    ],
)
def test_what_is_no_class_is_refused_by_its_line(tmp_path: Path, odd: str, labels: list[str], message: str) -> None:
    table = _table(tmp_path, [odd, *(labels * 12)[:23]])
    with pytest.raises(InputError, match=message):
        _load(table)
    assert not check_path(table).ok
    if "missing" in message:
        data = _load(table, unknown="drop")
        assert len(data.images) == 23
        assert "1 images whose label is not known are left out" in data.notes


def test_one_hot_columns_are_classes_and_unknown_cells_are_treated_as_asked(tmp_path: Path) -> None:
    table = _table(tmp_path, write=lambda n, label: f"images/{n:03d}.png,{n % 3 == 0:d},{n % 3 == 1},{n % 3 == 2:d}.0")
    table.write_text(table.read_text().replace("path,label", "image,x,y,z"))
    data = _load(table, path_column="image", label_columns=["x", "y", "z"])
    assert data.labels.tolist() == [0, 1, 2] * 8
    assert not data.multi_label
    table.write_text(table.read_text().replace("images/000.png,1", "images/000.png,-1"))
    options = {"path_column": "image", "label_columns": ["x", "y", "z"]}
    with pytest.raises(InputError, match="line 2: x is '-1'"):
        _load(table, **options)
    assert len(_load(table, **options, unknown="drop").images) == 23
    assert np.isnan(_load(table, **options, unknown="ignore").labels[0, 0])
    assert _load(table, **options, unknown="zeros").labels[0, 0] == 0
    table.write_text(table.read_text().replace("images/000.png,-1", "images/000.png,0.4"))
    with pytest.raises(InputError, match=r"x is '0\.4': labels must be 0 or 1; a fraction is no label"):
        _load(table, **options)


def test_labels_that_look_alike_or_like_several_are_read_or_noted(tmp_path: Path) -> None:
    table = _table(tmp_path, ["caf\u00e9", "cafe\u0301", "th\u00e9"] * 8)
    assert _load(table).class_names == ("caf\u00e9", "th\u00e9")
    text = table.read_text()
    lists = text.replace("caf\u00e9", "\"['A', 'B']\"").replace("cafe\u0301", "['A']").replace("th\u00e9", "['B']")
    table.write_text(lists)
    data = _load(table)
    assert data.class_names == ("A", "B")
    assert data.labels.tolist() == [[1, 1], [1, 0], [0, 1]] * 8
    table.write_text(text.replace("caf\u00e9", "A;B").replace("cafe\u0301", "A").replace("th\u00e9", "B"))
    assert "class 'A;B' may be the labels 'A' and 'B'" in " ".join(_load(table).notes)
    table.write_text(text.replace("path,label", "file,dx"))
    with pytest.raises(
        InputError, match="no column 'path'; it has file, dx: call one so, or name it by the option path_column"
    ):
        _load(table)


def test_one_slip_among_one_hot_rows_is_noted(tmp_path: Path) -> None:
    table = _table(tmp_path, write=lambda n, label: f"images/{n:03d}.png,{int(n % 2 or n == 4)},{1 - n % 2}")
    table.write_text(table.read_text().replace("path,label", "path,x,y"))
    data = _load(table, label_columns=["x", "y"])
    assert data.labels.shape == (24, 2)
    assert "all rows but 1 (first " in " ".join(data.notes)
    assert "line 6) have exactly one 1" in " ".join(data.notes)
    assert "all rows" not in " ".join(_load(table, label_columns=["x", "y"], multi_label=True).notes)


def _archive(path: Path, labels: Callable[[int], np.ndarray], **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, num in (("train", 12), ("val", 6), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels(num)
    np.savez(path, **{**arrays, **changes})
    return path


def test_codes_of_an_archive_become_classes_and_are_said(tmp_path: Path) -> None:
    cases = {
        "gap": (lambda n: (np.arange(n) % 2 * 255).astype(np.uint8), ("0", "255"), [0, 1] * 6),
        "from1": (lambda n: 1 + np.arange(n)[:, None] % 3, ("1", "2", "3"), [0, 1, 2] * 4),
        "words": (lambda n: np.array(["no", "yes"] * (n // 2)), ("no", "yes"), [0, 1] * 6),
        "whole": (lambda n: (np.arange(n) % 2).astype(np.float32), ("class 0", "class 1"), [0, 1] * 6),
        "onehot": (lambda n: np.eye(3, dtype=np.uint8)[np.arange(n) % 3], ("class 0", "class 1", "class 2"), [0, 1, 2]),
    }
    for name, (labels, names, expected) in cases.items():
        path = _archive(tmp_path / f"{name}.npz", labels)
        data = load_dataset("medmnist", path=path, size=28)
        assert data.class_names == names
        assert data.labels[: len(expected)].tolist() == expected
        assert bool(data.notes) == (name not in ("words", "whole"))
        assert check_path(path).notes == data.notes
    path = tmp_path / "onehot.npz"
    assert load_dataset("medmnist", path=path, size=28, options={"multi_label": True}).labels.shape == (24, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda n: np.arange(n) % 4 / 2, "label 1 of train: label 0.5 is a fraction"),
        (lambda n: np.arange(n) % 3 - 1, "label 0 of train: label '-1' is missing or NaN, or not known"),
        (lambda n: np.where(np.arange(n) == 4, np.nan, np.arange(n) % 2), "label 4 of train: label 'nan' is missing"),
        (lambda n: np.arange(2 * n).reshape(n, 2) % 3, "label 1 of train: column 0 is '2': labels must be 0 or 1"),
        (lambda n: np.zeros((n, 1, 1)), r"train_labels must be classes \(n,\) or 0/1 columns"),
        (lambda n: np.arange(n) % 2 if n == 12 else 2 + 0 * np.arange(n), "class class 2 of .* has no image in train"),
    ],
)
def test_odd_labels_of_an_archive_are_refused(
    tmp_path: Path, labels: Callable[[int], np.ndarray], message: str
) -> None:
    path = _archive(tmp_path / "odd.npz", labels)
    with pytest.raises(InputError, match=message):
        load_dataset("medmnist", path=path, size=28)
    assert not check_path(path).ok


def test_volumes_are_refused_or_sliced_by_a_stated_rule(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = {f"{s}_images": rng.integers(0, 256, (n, 10, 28, 28), dtype=np.uint8)
               for s, n in (("train", 12), ("val", 6), ("test", 6))}  # fmt: skip
    path = _archive(tmp_path / "nodulemnist3d.npz", lambda n: np.arange(n) % 2, **volumes)
    with pytest.raises(InputError, match=r"holds volumes \(10, 28, 28\).*data\.options\.slices: middle"):
        load_dataset("medmnist", path=path, size=28)
    assert "holds volumes" in check_path(path).problems[0]
    middle = load_dataset("medmnist", path=path, size=28, options={"slices": "middle"})
    np.testing.assert_array_equal(middle.images[:12, :, :, 0], volumes["train_images"][:, 5])
    assert middle.class_names == ("benign", "malignant")
    three = load_dataset("medmnist", path=path, size=28, options={"slices": 3})
    assert len(three.images) == 72
    np.testing.assert_array_equal(three.images[:3, :, :, 0], volumes["train_images"][0, [1, 5, 8]])
    assert three.groups[0] == three.groups[2] != three.groups[3]
    parts = [set(three.groups[at]) for at in three.splits.values()]
    assert sum(map(len, parts)) == 24
    for slices in (0, 11, "all"):
        with pytest.raises(InputError, match="neither middle nor a number from 1 to 10"):
            load_dataset("medmnist", path=path, size=28, options={"slices": slices})
    flat = _archive(tmp_path / "flat.npz", lambda n: np.arange(n) % 2)
    with pytest.raises(InputError, match="slices: middle has no effect"):
        load_dataset("medmnist", path=flat, size=28, options={"slices": "middle"})


def test_deep_pixels_and_channels_first_of_an_archive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = {f"{s}_images": rng.integers(-1000, 1000, (n, 28, 28)).astype(np.int32)
            for s, n in (("train", 12), ("val", 6), ("test", 6))}  # fmt: skip
    path = _archive(tmp_path / "hu.npz", lambda n: np.arange(n) % 2, **deep)
    with pytest.raises(InputError, match=r"holds int32 pixels from -1000 to 999: state"):
        load_dataset("medmnist", path=path, size=28)
    data = load_dataset("medmnist", path=path, size=28, options={"range": [-500, 500]})
    expected = np.clip(np.rint((deep["train_images"] + 500) * 0.255), 0, 255)
    np.testing.assert_array_equal(data.images[:12, :, :, 0], expected)
    first = {key: np.repeat(value[:, None].astype(np.uint8), 3, axis=1) for key, value in deep.items()}
    path = _archive(tmp_path / "chw.npz", lambda n: np.arange(n) % 2, **first)
    data = load_dataset("medmnist", path=path, size=28, channels=3)
    np.testing.assert_array_equal(data.images[:12], np.moveaxis(first["train_images"], 1, 3))
