"""Zips and tars read in place: class folders, tables and collections give what their unpacked folders give."""

import io
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.containers import packed
from tutelage.distill.data.containers.paths import children, folder_at, glob, is_dir, is_file, read_bytes, tree
from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)


def _classes(root: Path) -> Path:
    for number in range(20):
        _picture(root / "sick" / f"{number}.png", number)
        _picture(root / "well" / "inner" / f"{number}.png", 100 + number)
        _picture(root / "well" / "masks" / f"{number}.png", 200 + number)
    (root / "sick" / "notes.txt").write_text("x")
    _picture(root / "__MACOSX" / "sick" / "0.png", 1)
    return root


def pack(folder: Path, file: Path, inner: str = "") -> Path:
    """Pack a folder as zip or tar, below the folder `inner` of it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{inner}{path.relative_to(folder).as_posix()}" for path in paths]
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for path, name in zip(paths, names, strict=True):
                made.write(path, name)
    else:
        with tarfile.open(file, "w") as tar:
            for path, name in zip(paths, names, strict=True):
                tar.add(path, name)
    return file


def _same(one: Dataset, other: Dataset) -> None:
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.labels, other.labels)
    assert one.class_names == other.class_names
    for split, indices in one.splits.items():
        assert np.array_equal(indices, other.splits[split])


@pytest.mark.parametrize(("suffix", "inner"), [(".zip", ""), (".zip", "set-v1/"), (".tar", ""), (".tar", "./")])
def test_class_folders_in_an_archive_are_read_as_the_folders(tmp_path: Path, suffix: str, inner: str) -> None:
    folder = _classes(tmp_path / "set")
    file = pack(folder, tmp_path / f"packed{suffix}", inner)
    plain = load_dataset("folder", path=folder, size=12)
    data = load_dataset("folder", path=file, size=12, workers=3, cache=tmp_path / "cache")
    _same(plain, data)
    assert (plain.manifest, list(plain.names)) == (data.manifest, list(data.names))
    assert [note.replace("1 .txt", "") for note in data.notes] == [note.replace("1 .txt", "") for note in plain.notes]
    _same(data, load_dataset("folder", path=file, size=12, cache=tmp_path / "cache"))  # from the cache
    report = check_path(file)
    assert (report.ok, report.kind, report.num_images) == (True, "folder", 40)


def test_an_archive_inside_an_archive_and_a_tar_without_classes_say_what_they_lack(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    pack(_classes(tmp_path / "c"), tmp_path / "set" / "inner.zip")
    (problem,) = check_path(pack(tmp_path / "set", tmp_path / "outer.zip")).problems
    assert "holds 0 class folders (none)" in problem
    assert problem.endswith("outer.zip holds inner.zip, and no archive is read inside another: unpack it")
    _picture(tmp_path / "loose" / "0.png", 0)
    (problem,) = check_path(tmp_path / "loose").problems
    assert problem.endswith("1 pictures lie in no class folder")


def test_folders_of_splits_in_a_zip(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("valid", 50), ("test", 70)):
        for number in range(8):
            _picture(tmp_path / "s" / split / ("a" if number % 2 else "b") / f"{number}.png", first + number)
    data = load_dataset("folder", path=pack(tmp_path / "s", tmp_path / "s.zip"), size=12)
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [8, 8, 8]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_table_finds_its_pictures_in_archives(tmp_path: Path, suffix: str) -> None:
    names = []
    for number in range(24):
        names.append(f"part{number % 2}/{number}.png")
        _picture(tmp_path / "set" / names[-1], number)
    (tmp_path / "set" / "t.csv").write_text("path,label\n" + "\n".join(f"{n},{i % 2}" for i, n in enumerate(names)))
    plain = load_dataset("table", path=tmp_path / "set" / "t.csv", size=12)
    inside = pack(tmp_path / "set", tmp_path / f"all{suffix}") / "t.csv"  # the table is in it too
    _same(plain, load_dataset("table", path=inside, size=12))
    for part in ("part0", "part1"):  # an archive in the place of each folder
        pack(tmp_path / "set" / part, tmp_path / "set" / f"{part}{suffix}", inner="part1/" if part == "part1" else "")
        shutil.rmtree(tmp_path / "set" / part)
    data = load_dataset("table", path=tmp_path / "set" / "t.csv", size=12)
    assert np.array_equal(plain.images, data.images)
    assert check_path(tmp_path / "set" / "t.csv").ok


def test_padchest_in_its_zips(tmp_path: Path) -> None:
    lines = ["ImageID,ImageDir,PatientID,Projection,Labels"]
    for number in range(40):
        lines.append(f"{number}.png,{number % 3},P{number // 2},PA,\"['{('pneumonia', 'mass')[number % 2]}']\"")
        _picture(tmp_path / str(number % 3) / f"{number}.png", number)
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(lines))
    plain = load_dataset("padchest", path=tmp_path, size=12)
    for part in "012":
        pack(tmp_path / part, tmp_path / f"{part}.zip")
        shutil.rmtree(tmp_path / part)
    _same(plain, load_dataset("padchest", path=tmp_path, size=12))
    report = check_path(tmp_path)
    assert (report.kind, report.ok) == ("padchest", True)


def test_chestxray14_in_zips_and_in_one(tmp_path: Path) -> None:
    lines, root = ["Image Index,Finding Labels,Follow-up #,Patient ID"], tmp_path / "nih"
    for number in range(30):
        lines.append(f"{number:08d}_000.png,{('Mass', 'Hernia', 'No Finding')[number % 3]},0,{number}")
        _picture(root / f"images_{number % 2 + 1:03d}" / "images" / f"{number:08d}_000.png", number)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    plain = load_dataset("chestxray14", path=root, size=12)
    whole = pack(root, tmp_path / "archive.zip")
    _same(plain, load_dataset("chestxray14", path=whole, size=12))
    assert check_path(whole).kind == "chestxray14"
    for part in ("images_001", "images_002"):
        pack(root / part, root / f"{part}.zip")
        shutil.rmtree(root / part)
    _same(plain, load_dataset("chestxray14", path=root, size=12))


def test_rsna_as_one_zip(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from .test_dicom import RAMP, write_dicom

    rows = ["patientId,x,y,width,height,Target"]
    for number in range(20):
        rows.append(f"p{number},,,,,{number % 2}")
        write_dicom(tmp_path / "r" / "stage_2_train_images" / f"p{number}.dcm", RAMP + number, PatientID=f"p{number}")
    (tmp_path / "r" / "stage_2_train_labels.csv").write_text("\n".join(rows))
    plain = load_dataset("rsna-pneumonia", path=tmp_path / "r", size=8)
    whole = pack(tmp_path / "r", tmp_path / "rsna-pneumonia-detection-challenge.zip")
    _same(plain, load_dataset("rsna-pneumonia", path=whole, size=8))
    assert check_path(whole).facts["DICOM files"] == 20


@pytest.mark.parametrize("packed_batches", [False, True])
@pytest.mark.parametrize("inside", ["", "CheXpert-v1.0 batch 1 (validate & csv)"])
def test_chexpert_at_full_resolution_lies_in_batches(tmp_path: Path, packed_batches: bool, inside: str) -> None:
    header = "Path,Frontal/Lateral,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion"
    batches = ["CheXpert-v1.0 batch 1 (validate & csv)", "CheXpert-v1.0 batch 2 (train 1)",
               "CheXpert-v1.0 batch 3 (train 2)"]  # fmt: skip
    expected = {}
    for file, start, num in (("train", 1, 30), ("valid", 901, 6)):
        lines = [header]
        for patient in range(start, start + num):
            below = f"patient{patient:05d}/study1/view1_frontal.jpg"
            labels = ",".join(str((patient + k) % 2) for k in range(5))
            lines.append(f"CheXpert-v1.0/{file}/{below},Frontal,{labels}")
            at = f"{batches[0]}/valid" if file == "valid" else batches[1 + patient % 2]
            _picture(tmp_path / at / below, patient)
            expected[f"patient{patient:05d}"] = Image.open(tmp_path / at / below).convert("L")
        (tmp_path / batches[0]).mkdir(exist_ok=True)
        (tmp_path / batches[0] / f"{file}.csv").write_text("\n".join(lines))
    if packed_batches:
        for batch in batches[1:]:
            pack(tmp_path / batch, tmp_path / f"{batch}.zip", inner=f"{batch}/")
            shutil.rmtree(tmp_path / batch)
    data = load_dataset("chexpert", path=tmp_path / inside, size=12)
    assert [len(data.images), len(data.indices("test"))] == [36, 6]
    for group, pixels in zip(data.groups, data.images, strict=True):
        assert np.array_equal(pixels[..., 0], np.asarray(expected[str(group)]))
    assert check_path(tmp_path / inside).kind == "chexpert"


def test_paths_into_an_archive_answer_as_paths(tmp_path: Path) -> None:
    file = pack(_classes(tmp_path / "set"), tmp_path / "set.zip")
    inside = tmp_path / "set.zip"
    assert [path.name for path in children(inside)] == ["__MACOSX", "sick", "well"]
    assert [is_file(inside / "sick" / "0.png"), is_file(inside / "sick"), is_file(inside / "no.png")] == [
        True,
        False,
        False,
    ]
    assert [is_dir(file), is_dir(inside / "well" / "inner"), is_dir(inside / "sick" / "0.png")] == [True, True, False]
    assert read_bytes(inside / "sick" / "3.png") == (tmp_path / "set" / "sick" / "3.png").read_bytes()
    assert len(glob(inside, "*/inner/1*.png")) == 11
    walked = {Path(place).relative_to(inside).as_posix(): len(files) for place, _, files in tree(inside, print)}
    assert walked == {
        ".": 0,
        "__MACOSX": 0,
        "__MACOSX/sick": 1,
        "sick": 21,
        "well": 0,
        "well/inner": 20,
        "well/masks": 20,
    }
    shutil.rmtree(tmp_path / "set")
    assert folder_at(tmp_path / "set") == inside
    with pytest.raises(InputError, match=r"no\.png: no such file in set\.zip"):
        read_bytes(inside / "no.png")


def _tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_and_names_that_lead_outside_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    links = (_link("a/link.png", "../../secret"), _link("a/hard.png", "a/0.png", tarfile.LNKTYPE))
    content = _tar_of(*((link, b"") for link in links),
                      (tarfile.TarInfo("../out.png"), b"x"), (tarfile.TarInfo("/etc/x.png"), b"x"),
                      (tarfile.TarInfo("a/0.png"), b"y"))  # fmt: skip
    (tmp_path / "x.tar").write_bytes(content)
    members = packed.members_of(tmp_path / "x.tar")
    assert list(members.sizes) == ["a/0.png"]
    assert members.notes() == ["2 members of x.tar are left out: links, devices or sparse files",
                               "2 members of x.tar are left out: names that lead outside"]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../secret")
        archive.writestr("../out.png", "x")
        archive.writestr("a\\0.png", "y")
    assert set(packed.members_of(tmp_path / "x.zip").sizes) == {"a/0.png"}


def _overwritten(content: bytes) -> bytes:
    place = len(content) // 2 // 512 * 512
    return content[:place] + b"\xff" * 2048 + content[place + 2048 :]


def _encrypted(content: bytes) -> bytes:
    """Set the encryption flag of every member, in the local headers and in the directory."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(mark)
        while place >= 0:
            changed[place + offset] |= 1
            place = changed.find(mark, place + 4)
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"this is no archive" * 200,
    "overwritten": _overwritten,
    "encrypted": _encrypted,
}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_is_one_line(tmp_path: Path, suffix: str, kind: str) -> None:
    if (suffix, kind) == (".tar", "encrypted"):
        pytest.skip("a tar is not encrypted")
    file = pack(_classes(tmp_path / "set"), tmp_path / f"x{suffix}")
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    with pytest.raises(InputError) as refused:
        load_dataset("folder", path=file, size=12)
    assert "\n" not in str(refused.value)
    report = check_path(file)
    assert not report.ok
    assert not any("\n" in problem for problem in report.problems)


def test_a_zip_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_MEMBER_BYTES", 100_000)
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(500_000))
        archive.writestr("b/1.png", bytes(500_000))
    with pytest.raises(InputError, match="holds 500000 bytes, and at most 100000 are read"):
        packed.members_of(file).read("a/1.png", packed.MAX_MEMBER_BYTES)
    content = file.read_bytes().replace(struct.pack("<I", 500_000), struct.pack("<I", 50))  # the directory lies
    file.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        packed.members_of(file).read("a/1.png", packed.MAX_MEMBER_BYTES)


@pytest.mark.parametrize("name", ["images.tar.gz", "images.tgz", "images.7z"])
def test_an_archive_that_is_compressed_as_a_whole_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for read in (check_path, lambda path: load_dataset("folder", path=path, size=12)):
        call: Callable[[Path], Any] = read
        with pytest.raises(InputError, match="compressed as a whole and cannot be read in place: unpack it"):
            call(tmp_path / name)


def test_a_tar_with_an_overwritten_header_does_not_end_there(tmp_path: Path) -> None:
    """Python's tarfile takes such a header for the end, and would give the first half of the data set."""
    file = pack(_classes(tmp_path / "set"), tmp_path / "x.tar")
    with tarfile.open(file) as archive:
        header = archive.getmembers()[20].offset
    content = file.read_bytes()
    file.write_bytes(content[:header] + b"\xff" * 512 + content[header + 512 :])
    with pytest.raises(InputError, match=r"x\.tar is damaged or not a tar archive: (no header at byte|bad checksum)"):
        packed.members_of(file)


def test_archives_stand_for_the_folders_of_their_names(tmp_path: Path) -> None:
    plain = load_dataset("folder", path=_classes(tmp_path / "set"), size=12)
    (tmp_path / "classes").mkdir()
    pack(tmp_path / "set" / "sick", tmp_path / "classes" / "sick.zip")
    pack(tmp_path / "set" / "well", tmp_path / "classes" / "well.tar", "well/")
    packed_classes = load_dataset("folder", path=tmp_path / "classes", size=12)
    assert packed_classes.class_names == ("sick", "well")
    assert sorted(map(bytes, packed_classes.images)) == sorted(map(bytes, plain.images))
    for number, split in enumerate(("train", "test")):
        for name, seed in (("sick", 0), ("well", 50)):
            for image in range(12):
                _picture(tmp_path / "parts" / split / name / f"{image}.png", 1000 * number + seed + image)
        (tmp_path / "splits").mkdir(exist_ok=True)
        pack(tmp_path / "parts" / split, tmp_path / "splits" / f"{split}.zip")
    splits = load_dataset("folder", path=tmp_path / "splits", size=12)
    assert (splits.class_names, len(splits.indices("test"))) == (("sick", "well"), 24)


def test_archives_that_may_be_no_class_are_refused(tmp_path: Path) -> None:
    root = _classes(tmp_path / "set")
    shutil.copytree(root, tmp_path / "files")
    pack(tmp_path / "files", root / "download.zip")
    with pytest.raises(InputError, match=r"download\.zip lies beside folders \(sick, well\): unpack it if it is one"):
        load_dataset("folder", path=root, size=12)
    assert not check_path(root).ok
    (root / "download.zip").unlink()
    pack(root / "sick", root / "sick.zip")  # what was unpacked
    assert load_dataset("folder", path=root, size=12).class_names == ("sick", "well")
    for names in (("part1", "part2"), ("train-0", "train-1")):
        place = tmp_path / names[0]
        place.mkdir()
        for name in names:
            pack(tmp_path / "files", place / f"{name}.zip")
        with pytest.raises(
            InputError, match=r"(part1|train-0)\.zip is a part of a data set and no class \(sick, well\)"
        ):
            load_dataset("folder", path=place, size=12)
