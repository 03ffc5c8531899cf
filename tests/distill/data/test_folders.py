"""Class folders: splits by group, every picture mode, and each fault reported in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.images import decode
from tutelage.distill.data.registry import DATASETS, load_dataset
from tutelage.distill.data.sets.folders import cxr3_group
from tutelage.distill.evaluation.evaluate import evaluate
from tutelage.records import InputError


def _picture(path: Path, seed: int, size: tuple[int, int] = (20, 16), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def _folder(root: Path, num: int = 30, patients: int = 10) -> Path:
    for label, name in enumerate(("sick", "well")):
        for number in range(num):
            _picture(root / name / f"{label}{number % patients:03d}_{number:03d}.png", 1000 * label + number)
    return root


def test_groups_never_straddle_and_shares_hold(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    data = load_dataset("folder", path=root, size=16, options={"group": r"^(\d+)_"})
    assert data.class_names == ("sick", "well")
    places = [set(data.groups[data.splits[name]]) for name in ("train", "val", "test")]
    assert not places[0] & places[1] | places[0] & places[2] | places[1] & places[2]
    assert len(data.splits["test"]) == 12
    assert len(data.splits["val"]) in (6, 9, 12)  # 15 % of 60 is 9; groups are of 3
    assert data.class_counts("test") == {"sick": 6, "well": 6}


def test_folds_partition_the_images_and_a_seed_repeats_them(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    tests = [load_dataset("folder", path=root, size=8, fold=fold, options={"group": r"^(\d+)_"}) for fold in range(5)]
    assert sorted(np.concatenate([data.splits["test"] for data in tests])) == list(range(60))
    again = load_dataset("folder", path=root, size=8, fold=2, options={"group": r"^(\d+)_"})
    assert again.manifest == tests[2].manifest != tests[1].manifest


def test_copies_that_were_mirrored_and_saved_anew_are_one_group_where_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("sick", "well"):
        (tmp_path / name).mkdir()
        for number in range(12):
            field = np.kron(rng.uniform(0, 255, (4, 4)), np.ones((16, 16))).astype(np.uint8)
            Image.fromarray(field).save(tmp_path / name / f"{number:02d}_png.png")
            Image.fromarray(field[:, ::-1]).save(tmp_path / name / f"{number:02d}_jpg.jpg", quality=90)
    apart = load_dataset("folder", path=tmp_path, size=64)
    assert len(set(apart.groups.tolist())) == 48
    data = load_dataset("folder", path=tmp_path, size=64, options={"near": 8})
    assert len(set(data.groups.tolist())) == 24
    original = np.array([name.split("_")[0] for name in data.names.tolist()])
    for group in set(data.groups.tolist()):
        assert len(set(original[data.groups == group])) == 1
    parts = [set(data.groups[indices]) for indices in data.splits.values()]
    assert sum(map(len, parts)) == 24
    lines = ["path,a,b", *(f"{name},{k % 2},{k % 3 // 2}" for k, name in enumerate(data.names.tolist()))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    options = {"near": 8, "label_columns": ["a", "b"]}
    table = load_dataset("table", path=tmp_path / "table.csv", size=64, options=options)
    assert len(set(table.groups.tolist())) == 24
    with pytest.raises(InputError, match="near must be 0"):
        load_dataset("folder", path=tmp_path, size=64, options={"near": -1})


def test_leaky_splits_by_image_and_says_so(tmp_path: Path) -> None:
    data = load_dataset("folder", path=_folder(tmp_path), size=8, leaky=True, options={"group": r"^(\d+)_"})
    assert data.leaky
    assert set(data.groups[data.splits["train"]]) & set(data.groups[data.splits["test"]])
    assert any("leaky" in note for note in data.notes)


def test_official_split_folders_are_kept_and_copies_leave_train(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        _folder(tmp_path / split, num=6)
        for label, name in enumerate(("sick", "well")):
            for number in range(6):
                _picture(tmp_path / split / name / f"{label}{number:03d}_{number:03d}.png", start + 10 * label + number)
    twin = tmp_path / "test" / "sick" / "0000_000.png"
    (tmp_path / "train" / "sick" / "copy.png").write_bytes(twin.read_bytes())
    data = load_dataset("folder", path=tmp_path, size=16)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [12, 12, 12]
    assert any("1 images whose group or exact copy" in note for note in data.notes)
    report = check_path(tmp_path)
    assert [set(same) for same in report.duplicates] == [{"test/sick/0000_000.png", "train/sick/copy.png"}]
    assert report.split_counts == {"train": 13, "val": 12, "test": 12}


def test_bad_files_are_refused_by_name_or_counted(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    whole = (root / "sick" / "0000_000.png").read_bytes()
    (root / "sick" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "well" / "empty.png").write_bytes(b"")
    (root / "well" / "text.jpg").write_text("not a picture")
    with pytest.raises(InputError, match=r"cut\.png is damaged.*and 2 more") as refused:
        load_dataset("folder", path=root, size=16)
    assert "\n" not in str(refused.value)
    data = load_dataset("folder", path=root, size=16, skip_bad=True)
    assert data.skipped == ("sick/cut.png", "well/empty.png", "well/text.jpg")
    assert len(data.images) == 60
    report = check_path(root)
    assert [Path(line.split(" is ")[0]).name for line in report.unreadable] == ["cut.png", "empty.png", "text.jpg"]
    assert not report.ok


def test_a_class_without_images_is_named_and_check_tells_every_fault(tmp_path: Path) -> None:
    root = _folder(tmp_path, num=4)
    (root / "absent").mkdir()
    (root / "sick" / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"class absent .* holds no image"):
        load_dataset("folder", path=root, size=16)
    problems = " / ".join(check_path(root).problems)
    assert "absent" in problems
    assert "empty.png is empty (0 bytes)" in problems


def test_requests_that_cannot_be_met_are_one_line(tmp_path: Path) -> None:
    root = _folder(tmp_path, num=4)
    cases = [
        ({"name": "foldr"}, "unknown data set 'foldr': did you mean 'folder'"),
        ({"path": tmp_path / "nowhere"}, "no data at"),
        ({"path": None}, "say where"),
        ({"size": 4}, "size must be 8 to"),
        ({"channels": 2}, "channels must be 1 or 3"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "must leave room for train"),
        ({"fold": 7}, "fold 7 is not one of 0..4"),
        ({"options": {"grup": "x"}}, "no option 'grup'"),
        ({"options": {"group": "("}}, "neither a rule"),
        ({"options": {"group": "nothing-like-it"}}, "does not match"),
        ({"limit": 0}, "limit must be at least 1"),
    ]
    for change, message in cases:
        asked = {"name": "folder", "path": root, "size": 16, **change}
        with pytest.raises(InputError, match=message.replace("(", r"\(")) as refused:
            load_dataset(asked.pop("name"), **asked)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_decodes_to_the_shape_asked(tmp_path: Path, mode: str, channels: int) -> None:
    gradient = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.fromarray(gradient).convert("RGB").convert(mode).save(file)
    pixels, _ = decode(file, 32, channels)
    assert pixels.shape == (32, 32, channels)
    assert pixels.dtype == np.uint8
    assert pixels[:, 24:].mean() > pixels[:, :8].mean() + 100


def test_alpha_is_laid_on_black_and_nan_pixels_are_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png", 8)[0].max() == 0
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif holds pixels that are NaN"):
        decode(tmp_path / "nan.tif", 8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("00001362_001.jpg", "00001362_017.jpg"),
        ("1.CXRCTThoraximages.pdf-000-fig1a.jpg", "1.CXRCTThoraximages.pdf-000-fig1b.jpg"),
        ("1-s2.0-S0929664620300449-gr2_lrg-a.jpg", "1-s2.0-S0929664620300449-gr2_lrg-d.jpg"),
        ("covid-19-pneumonia-24-day6.jpg", "covid-19-pneumonia-24-day12.jpg"),
        ("nejmc2001573_f1a.jpg", "nejmc2001573_f1b.jpg"),
        ("ryct.2020200034.fig5-day0.jpg", "ryct.2020200034.fig2.jpg"),
    ],
)  # fmt: skip
def test_cxr3_series_are_one_patient(one: str, other: str) -> None:
    assert cxr3_group(one) == cxr3_group(f"covid19/{other}")


def test_cxr3_keeps_different_patients_apart() -> None:
    names = ["00001362_001.jpg", "00001363_001.jpg", "covid-19-pneumonia-2.jpg", "covid-19-pneumonia-28.jpg"]
    names += ["01E392EE-69F9-4E33-BFCE-E5C968654078.jpg", "03BF7561-A9BA-4C3C-B8A0-D3E585F73F3C.jpg"]
    assert len({cxr3_group(name) for name in names}) == len(names)


def test_cxr3_as_it_is(data_dir: Path) -> None:
    if not (data_dir / "cxr3").is_dir():
        pytest.skip(f"no cxr3 in {data_dir}")
    data = load_dataset("cxr3", path=data_dir / "cxr3", size=32)
    assert data.images.shape == (1124, 32, 32, 1)
    assert data.class_names == ("covid19", "no_finding", "pneumonia")
    patient_of = {
        name: {data.groups[i] for i in np.flatnonzero(data.labels == label)} for label, name in ((1, "a"), (2, "b"))
    }
    assert len(patient_of["a"]) == 332
    assert len(patient_of["b"]) == 371
    assert len(patient_of["a"] & patient_of["b"]) == 21
    column = {group: name for name in data.splits for group in data.groups[data.splits[name]]}
    assert all(column[data.groups[i]] == name for name in data.splits for i in data.splits[name])


def test_a_class_absent_from_a_split_is_said_and_its_auc_is_empty(tmp_path: Path) -> None:
    for split, classes in (("train", "abc"), ("val", "abc"), ("test", "ab")):
        for name in classes:
            for number in range(3):
                file = tmp_path / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                seed = [ord(split[0]), ord(split[1]), ord(name), number]
                Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)).save(file)
    data = load_dataset("folder", path=tmp_path, size=16)
    assert "class c has no image in test: its AUC there is undefined" in data.notes
    truth = data.labels[data.splits["test"]]
    figures = evaluate(np.full((len(truth), 3), 1 / 3), truth, bootstrap=20)
    assert [one.auc for one in figures.per_class] == [0.5, 0.5, None]
    shutil.rmtree(tmp_path / "train" / "b")
    with pytest.raises(InputError, match="class b of folder has no image in train"):
        load_dataset("folder", path=tmp_path, size=16)


def test_every_data_set_says_what_it_reads() -> None:
    for name, entry in DATASETS.items():
        assert name == entry.name
        assert len(entry.help) > 20
        assert all(len(line) > 10 for line in entry.all_options.values()), entry.all_options
