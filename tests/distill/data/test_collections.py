"""The public collections, on made pictures laid out on disk exactly as the real sets are."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tutelage.distill.data.check import check_path
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets.chest import CHESTXRAY14_LABELS
from tutelage.distill.data.sets.lc25000 import group_near_duplicates
from tutelage.distill.data.sets.phantom import draw_slice
from tutelage.distill.data.slices import nearest_across
from tutelage.records import InputError


def _save(path: Path, seed: int, size: int = 24, bits: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 2**bits, (size, size)).astype(np.uint16 if bits > 8 else np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def chestxray14(tmp_path: Path) -> Path:
    # the real header: unquoted bracket commas and a trailing comma, so that columns after the 7th shift
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
             "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"]  # fmt: skip
    names = []
    for number in range(90):
        patient, visit = divmod(number, 3)
        name = f"{patient + 1:08d}_{visit:03d}.png"
        words = [CHESTXRAY14_LABELS[(patient + k) % 14] for k in range(2)] if patient % 3 else ["No Finding"]
        lines.append(f"{name},{'|'.join(words)},{visit},{patient + 1},058,M,PA,2682,2749,0.143,0.143,")
        _save(tmp_path / f"images_{number % 2 + 1:03d}" / "images" / name, number)
        names.append(name)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:60]) + "\n")
    (tmp_path / "test_list.txt").write_text("\n".join(names[60:]))
    return tmp_path


def test_chestxray14(chestxray14: Path) -> None:
    data = load_dataset("chestxray14", path=chestxray14, size=16)
    assert data.multi_label
    assert data.labels.shape == (90, 14)
    assert len(data.splits["test"]) == 30
    assert data.labels[0].sum() == 0  # No Finding
    first = {name for name, value in zip(data.class_names, data.labels[3], strict=True) if value}
    assert first == {"Cardiomegaly", "Effusion"}  # patient 2, i.e. patient index 1: labels 1 and 2
    assert set(data.groups[data.splits["train"]]).isdisjoint(data.groups[data.splits["val"]])
    assert check_path(chestxray14).kind == "chestxray14"
    assert check_path(chestxray14).ok


def test_chestxray14_faults(chestxray14: Path) -> None:
    shutil.rmtree(chestxray14 / "images_002")
    with pytest.raises(InputError, match=r"is listed and not there \(45 such\)"):
        load_dataset("chestxray14", path=chestxray14, size=16)
    kept = load_dataset("chestxray14", path=chestxray14, size=16, skip_bad=True)
    assert len(kept.images) == 45
    assert len(kept.skipped) == 45
    assert len(check_path(chestxray14).missing) == 45
    table = chestxray14 / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Hernia", "Hernja"))
    with pytest.raises(InputError, match=r"line .*: label 'Hernja' is not one of"):
        load_dataset("chestxray14", path=chestxray14, size=16, skip_bad=True)


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    header = ("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
              "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,"
              "Pleural Other,Fracture,Support Devices")  # fmt: skip
    values = ["1.0", "0.0", "-1.0", ""]
    for file, start, num in (("train", 0, 40), ("valid", 64540, 8)):
        lines = [header]
        for patient in range(start, start + num):
            for view, side in (("view1_frontal", "Frontal,AP"), ("view2_lateral", "Lateral,")):
                path = f"CheXpert-v1.0-small/{file}/patient{patient + 1:05d}/study1/{view}.jpg"
                labels = [values[(patient + k) % 4] for k in range(14)]
                lines.append(f"{path},Female,68,{side},{','.join(labels)}")
                _save(tmp_path / path.split("/", 1)[1], patient)
        (tmp_path / f"{file}.csv").write_text("\n".join(lines))
    return tmp_path


def test_chexpert_policies(chexpert: Path) -> None:
    ones = load_dataset("chexpert", path=chexpert, size=16)
    zeros = load_dataset("chexpert", path=chexpert, size=16, options={"uncertain": "zeros"})
    ignore = load_dataset("chexpert", path=chexpert, size=16, options={"uncertain": "ignore"})
    assert ones.class_names == ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    unsure = np.isnan(ignore.labels)
    assert unsure.any()
    assert (ones.labels[unsure] == 1).all()
    assert (zeros.labels[unsure] == 0).all()
    np.testing.assert_array_equal(ones.labels[~unsure], zeros.labels[~unsure])
    # Atelectasis is the 9th of 14 labels: patient 0 has values[8 % 4] = 1.0; patient 2 has values[10 % 4] = -1.0
    assert ones.labels[0, 0] == 1
    assert unsure[4, 0]
    assert len(ones.splits["test"]) == 16
    assert "patient64541" in set(ones.groups[ones.splits["test"]])
    second = load_dataset("chexpert", path=chexpert, size=16, options={"valid_as": "extra"})
    assert len(second.splits["extra"]) == 16
    assert len(second.splits["test"]) > 0
    parts = [set(second.groups[indices]) for indices in second.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 48


def test_chexpert_views_and_the_role_of_valid(chexpert: Path) -> None:
    data = load_dataset("chexpert", path=chexpert, size=16, options={"frontal": True, "valid_as": "val"})
    assert len(data.images) == 48
    assert len(data.splits["val"]) == 8
    assert set(data.groups[data.splits["train"]]).isdisjoint(data.groups[data.splits["test"]])
    with pytest.raises(InputError, match="uncertain 'maybe' is not one of"):
        load_dataset("chexpert", path=chexpert, size=16, options={"uncertain": "maybe"})
    file = chexpert / "train.csv"
    file.write_text(file.read_text().replace("-1.0", "nan", 1))
    with pytest.raises(InputError, match="line 2: label 'nan' is not"):
        load_dataset("chexpert", path=chexpert, size=16)


def test_padchest(tmp_path: Path) -> None:
    header = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
    header += "Projection,MethodProjection,Pediatric,Labels"
    lines = [header]
    texts = ["['normal']", "\"['pneumonia', ' pleural effusion ', 'loc basal']\"", "\"['cardiomegaly', 'mass']\"", ""]
    for number in range(80):
        projection = "L" if number % 10 == 9 else "PA"
        name = f"{216840111366964012 + number}_00-163-058.png"
        text = texts[number % 4]
        head = f"{number},{name},{number % 3},20140915,S{number},P{number // 2},1930.0,F,POSTEROANTERIOR"
        lines.append(f"{head},{projection},Manual,No,{text}")
        _save(
            tmp_path / str(number % 3) / name, number, bits=12
        )  # 12 bits in a 16-bit PNG: a data set of its own, PadChest's files use all 16
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(lines))
    options = {"labels": ["pneumonia", "pleural effusion", "cardiomegaly", "mass"], "range": [0, 4095]}
    data = load_dataset("padchest", path=tmp_path, size=16, options=options)
    lateral, unlabelled = 8, sum(number % 4 == 3 and number % 10 != 9 for number in range(80))
    assert len(data.images) == 80 - lateral - unlabelled
    assert data.notes == (f"{unlabelled} rows without labels were left out",)
    np.testing.assert_array_equal(data.labels[1], [1, 1, 0, 0])
    assert data.images.max() > 150  # not black: 12 bits were scaled as the recipe states
    dark = load_dataset("padchest", path=tmp_path, size=16, options={"labels": options["labels"]})
    assert dark.images.max() <= 16
    assert dark.notes[-1].endswith("state the range of the data set, e.g. data.options.range: [0, 4095]")
    assert set(data.groups[data.splits["train"]]).isdisjoint(data.groups[data.splits["test"]])
    assert check_path(tmp_path).kind == "padchest"
    table = tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    table.with_name(f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()  # it is shipped packed
    packed = load_dataset("padchest", path=tmp_path, size=16, options=options)
    assert packed.manifest == data.manifest
    with pytest.raises(InputError, match=r"label 'pnemonia' is in no row of .*: did you mean 'pneumonia'"):
        load_dataset("padchest", path=tmp_path, size=16, options={"labels": ["pnemonia", "mass"]})


def test_covid_qu_ex_takes_copies_out_of_train(tmp_path: Path) -> None:
    inner = tmp_path / "Lung Segmentation Data" / "Lung Segmentation Data"
    seed = 0
    for split, num in (("Train", 8), ("Val", 3), ("Test", 4)):
        for name in ("COVID-19", "Non-COVID", "Normal"):
            for _ in range(num):
                seed += 1
                _save(inner / split / name / "images" / f"covid_{seed}.png", seed)
                _save(inner / split / name / "lung masks" / f"covid_{seed}.png", 9999)
    shutil.copy(
        inner / "Test" / "Normal" / "images" / f"covid_{seed}.png", inner / "Train" / "Normal" / "images" / "copy.png"
    )
    data = load_dataset("covid-qu-ex", path=tmp_path, size=16)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [24, 9, 12]
    assert len(check_path(tmp_path).duplicates) == 1


def test_sars_cov_2_ct_groups_neighbouring_slices(tmp_path: Path) -> None:
    for number in range(1, 61):
        _save(tmp_path / "COVID" / f"Covid ({number}).png", number)
        _save(tmp_path / "non-COVID" / f"Non-Covid ({number}).png", 1000 + number)
    data = load_dataset("sars-cov-2-ct", path=tmp_path, size=16, options={"block": 10})
    number_of = [int(name.split("(")[1].split(")")[0]) for name in data.names.tolist()]
    groups = set(data.groups.tolist())
    assert len(groups) >= 8
    for group in groups:
        block = sorted(number_of[i] for i in np.flatnonzero(data.groups == group))
        assert block == list(range(block[0], block[0] + len(block)))
        assert 5 <= len(block) <= 15
        assert len({data.labels[i] for i in np.flatnonzero(data.groups == group)}) == 1
    assert check_path(tmp_path).kind == "sars-cov-2-ct"


def test_blocks_of_ct_slices_end_between_patients(tmp_path: Path) -> None:
    """Sixteen made patients of 15 to 27 slices: no patient is in two splits, and by 1-NN no slice leaks."""
    patient_of = {}
    rng = np.random.default_rng(3)
    for name, kind in (("COVID", 1), ("non-COVID", 0)):  # ground glass and normal patients of the phantom
        number = 0
        (tmp_path / name).mkdir()
        for patient in range(kind, 32, 4):
            for place in range(int(rng.integers(15, 28))):
                number += 1
                pixels, _, _ = draw_slice(patient * 28 + place, 32, 0, per_patient=28)
                file = tmp_path / name / f"{'Covid' if kind else 'Non-Covid'} ({number}).png"
                Image.fromarray(pixels).save(file)
                patient_of[file.relative_to(tmp_path).as_posix()] = patient
    data = load_dataset("sars-cov-2-ct", path=tmp_path, size=32)
    patients = np.array([str(patient_of[name]) for name in data.names.tolist()])
    assert not _cut_patients(patients, data.groups)
    assert nearest_across(data.images, data.groups) < 0.02
    assert any("of the slices have their nearest neighbour (32 px) in another block" in note for note in data.notes)
    # Blocks of 50 by number alone cut patients, and their slices look for their like across the cut.
    numbers = [int(name.split("(")[1].split(")")[0]) for name in data.names.tolist()]
    blocks = np.array([f"{label}/{(n - 1) // 50}" for label, n in zip(data.labels, numbers, strict=True)])
    assert len(_cut_patients(patients, blocks)) >= 4
    assert nearest_across(data.images, blocks) > 0.02
    assert len(set(data.groups.tolist())) >= 5  # not everything in one


def _cut_patients(patients: np.ndarray, groups: np.ndarray) -> list[str]:
    return [patient for patient in np.unique(patients) if len(set(groups[patients == patient].tolist())) > 1]


def _tissue(seed: int) -> Image.Image:
    """A made slide: blobs of its own colours and sizes on a pale ground."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(60, 200, (3, 3))
    field = np.kron(rng.uniform(size=(12, 12)), np.ones((16, 16)))
    pixels = np.where(
        field[..., None] < 0.35, colours[0], np.where(field[..., None] < 0.6, colours[1], colours[2] // 2 + 120)
    )
    return Image.fromarray(pixels.astype(np.uint8))


def _augmented(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn and mirror as Augmentor does: by at most 25 degrees, the turned picture's corners cut off."""
    turned = picture.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC)
    cut = turned.crop((20, 20, picture.width - 20, picture.height - 20)).resize(picture.size)
    return ImageOps.mirror(cut) if rng.uniform() < 0.5 else cut


def test_lc25000_keeps_augmented_copies_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seed = 0
    for organ, names in (("lung", ("lung_aca", "lung_n", "lung_scc")), ("colon", ("colon_aca", "colon_n"))):
        for name in names:
            folder = tmp_path / f"{organ}_image_sets" / name
            folder.mkdir(parents=True)
            for original in range(8):
                seed += 1
                for copy in range(3):
                    _augmented(_tissue(seed), rng).save(
                        folder / f"{name.replace('_', '')}{original * 3 + copy + 1}.jpeg"
                    )
    data = load_dataset("lc25000", path=tmp_path, size=64, channels=3)
    assert data.class_names == ("lung_aca", "lung_n", "lung_scc", "colon_aca", "colon_n")
    original_of = np.repeat(np.arange(40), 3)
    order = [int("".join(filter(str.isdigit, Path(name).stem)) or 0) for name in data.names.tolist()]
    truth = np.array([data.labels[i] * 8 + (number - 1) // 3 for i, number in enumerate(order)])
    assert sorted(truth) == sorted(original_of)
    kept = sum(len(set(data.groups[truth == original])) == 1 for original in range(40))
    assert kept >= 38  # of 40 originals, nearly all keep their copies in one group, by the default that a run has
    assert len(set(data.groups.tolist())) >= 38  # and originals are not thrown together


def test_near_duplicates_of_exact_turns_are_one_group() -> None:
    pictures = [np.asarray(_tissue(seed)) for seed in range(6)]
    turned = [np.rot90(picture) for picture in pictures] + [picture[:, ::-1] for picture in pictures]
    group = group_near_duplicates(np.stack(pictures + turned), np.zeros(18, dtype=np.int64), 0.5)
    np.testing.assert_array_equal(group[:6], group[6:12])
    np.testing.assert_array_equal(group[:6], group[12:])
    assert len(set(group[:6].tolist())) == 6
