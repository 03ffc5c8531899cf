"""Collections read by torchxrayvision's classes, and our own readers on the real tables that come with that package."""

import csv
import gzip
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.distill.data.check import check_path
from tutelage.distill.data.dataset import Listing, Request
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets import chest
from tutelage.records import InputError


@pytest.fixture(scope="module")
def xrv() -> Any:
    return pytest.importorskip("torchxrayvision")


def _tables(xrv: Any) -> Path:
    return Path(xrv.__file__).parent / "data"


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)).save(path)


def _brax(root: Path) -> Path:
    findings = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema",
                "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
                "Fracture", "Support Devices"]  # fmt: skip
    header = [
        "DicomPath",
        "PngPath",
        "PatientID",
        "PatientSex",
        "PatientAge",
        *findings,
        "ViewPosition",
        "Rows",
        "Columns",
    ]
    with (root / "master_spreadsheet_update.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for number in range(60):
            patient, picture = f"id_{number // 2}", f"images/id_{number // 2}/Study_1/Series_1/image-{number}.png"
            values = [["1", "0", "-1", ""][(number // 2 + k) % 4] if k else "" for k in range(14)]
            view = "L" if number % 10 == 9 else "PA"
            table.writerow(["a.dcm", picture, patient, "F", "45", *values, view, 2000, 2000])
            _picture(root / picture, number)
    return root


@pytest.mark.usefixtures("xrv")
def test_brax_keeps_patients_and_labels_that_are_not_known(tmp_path: Path) -> None:
    state = np.random.get_state()[1].copy()
    data = load_dataset("torchxrayvision", path=_brax(tmp_path), size=24, options={"collection": "brax"})
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert data.labels.shape == (54, 13)
    report = check_path(tmp_path)
    assert (report.kind, report.num_images, report.num_groups) == ("torchxrayvision", 54, 30)
    assert report.options == {"collection": "brax"}
    assert report.ok
    assert len(set(data.groups.tolist())) == 30
    parts = [set(data.groups[indices]) for indices in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30
    # patient 0: Cardiomegaly is the third column, values[2 % 4] = -1; Lung Lesion values[3] is blank: both unknown
    first = dict(zip(data.class_names, data.labels[0], strict=True))
    assert np.isnan(first["Cardiomegaly"])
    assert np.isnan(first["Lung Lesion"])
    assert (first["Lung Opacity"], first["Edema"]) == (1, 0)
    zeros = load_dataset(
        "torchxrayvision", path=tmp_path, size=24,
        options={"collection": "brax", "unknown": "zeros", "labels": ["Edema", "Cardiomegaly"], "views": ["L"]},
    )  # fmt: skip
    assert zeros.labels.shape == (6, 2)
    assert not np.isnan(zeros.labels).any()


def test_pixels_are_those_that_the_class_itself_reads(xrv: Any, tmp_path: Path) -> None:
    data = load_dataset("torchxrayvision", path=_brax(tmp_path), size=24, options={"collection": "brax"})
    own = xrv.datasets.BRAX_Dataset(
        str(tmp_path / "images"), str(tmp_path / "master_spreadsheet_update.csv"), ["PA", "AP"], unique_patients=False
    )
    assert len(own) == len(data.images)
    for index in (0, 17, 53):
        pixels = (own[index]["img"][0] / 1024 + 1) / 2 * 255
        np.testing.assert_allclose(data.images[index, :, :, 0], pixels, atol=0.01)
        np.testing.assert_array_equal(own[index]["lab"], data.labels[index])


@pytest.mark.usefixtures("xrv")
def test_mimic_cxr_takes_the_official_splits(tmp_path: Path) -> None:
    labels = ["subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,"
              "Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,"
              "Support Devices"]  # fmt: skip
    metadata = ["dicom_id,subject_id,study_id,ViewPosition,StudyDate"]
    splits = ["dicom_id,study_id,subject_id,split"]
    for number in range(30):
        patient, study = 10000032 + number // 2, 50414267 + number
        labels.append(f"{patient},{study},1.0,0.0,,-1.0,,,,,,1.0,,,,")
        for view in ("PA", "LATERAL"):
            metadata.append(f"d{number}-{view},{patient},{study},{view},21800506")
            word = ("train", "validate", "test")[min(number // 10, 2)]
            splits.append(f"d{number}-{view},{study},{patient},{word}")
            _picture(tmp_path / "files" / "p10" / f"p{patient}" / f"s{study}" / f"d{number}-{view}.jpg", number)
    for name, lines in (("chexpert", labels), ("metadata", metadata), ("split", splits)):
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    options = {"collection": "mimic-cxr", "labels": ["Atelectasis", "Effusion"]}
    data = load_dataset("torchxrayvision", path=tmp_path, size=16, options=options)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [10, 10, 10]
    assert data.groups[0] == "10000032"
    np.testing.assert_array_equal(data.labels, np.ones((30, 2)))


@pytest.mark.usefixtures("xrv")
def test_covid_19_groups_by_patient(tmp_path: Path) -> None:
    lines = ["patientid,offset,finding,view,filename"]
    for number in range(40):
        finding = ("Pneumonia/Viral/COVID-19", "Pneumonia/Bacterial", "No Finding", "Unknown")[number % 4]
        lines.append(f"{number // 4},3,{finding},{'PA' if number % 2 else 'AP Supine'},{number}.png")
        _picture(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    data = load_dataset("torchxrayvision", path=tmp_path, size=16, options={"collection": "covid-19"})
    assert data.class_names == ("Bacterial", "COVID-19", "No Finding", "Pneumonia", "Viral")
    np.testing.assert_array_equal(data.labels[:3], [[0, 1, 0, 1, 1], [1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    assert data.groups[:3].tolist() == ["0", "0", "0"]
    assert len(data.images) == 30


@pytest.mark.slow
def test_collections_whose_tables_come_with_the_package(xrv: Any, tmp_path: Path) -> None:
    rsna = xrv.datasets.RSNA_Pneumonia_Dataset(str(tmp_path), views=["PA", "AP"])
    for number in range(40):
        _picture(tmp_path / "stage_2_train_images" / f"{rsna.csv['patientId'][number]}.jpg", number)
    data = load_dataset(
        "torchxrayvision", path=tmp_path, size=16, skip_bad=True, options={"collection": "rsna-pneumonia"}
    )
    np.testing.assert_array_equal(data.labels, rsna.labels[:40])
    assert data.class_names == ("Lung Opacity", "Pneumonia")
    openi = xrv.datasets.Openi_Dataset(str(tmp_path), views=["PA", "AP"], unique_patients=False)
    for number in range(40):
        _picture(tmp_path / "openi" / f"{openi.csv['imageid'].iloc[number]}.png", number)
    data = load_dataset(
        "torchxrayvision", path=tmp_path / "openi", size=16, skip_bad=True, options={"collection": "openi"}
    )
    np.testing.assert_array_equal(data.labels, openi.labels[:40])


@pytest.mark.usefixtures("xrv")
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"option collection='' .* is not one of rsna-pneumonia, openi, mimic-cxr"):
        load_dataset("torchxrayvision", path=tmp_path, size=16)
    with pytest.raises(InputError, match=r"no master_spreadsheet\*\.csv in"):
        load_dataset("torchxrayvision", path=tmp_path, size=16, options={"collection": "brax"})
    table = _brax(tmp_path) / "master_spreadsheet_update.csv"
    with pytest.raises(InputError, match="label 'Edemma' is not one of brax's"):
        load_dataset("torchxrayvision", path=tmp_path, size=16, options={"collection": "brax", "labels": ["Edemma"]})
    table.write_text(table.read_text().replace("ViewPosition", "View"))
    with pytest.raises(InputError, match=r"BRAX_Dataset cannot read the tables .*KeyError: 'ViewPosition'"):
        load_dataset("torchxrayvision", path=tmp_path, size=16, options={"collection": "brax"})
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(InputError, match=r"pip install 'tutelage\[xray\]'"):
        load_dataset("torchxrayvision", path=tmp_path, size=16, options={"collection": "brax"})


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real tables are here and their hundreds of thousands of pictures are not: list all rows."""

    def keep_all(listing: Listing) -> Listing:
        return listing

    monkeypatch.setattr(chest, "keep_present", keep_all)


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_our_reader_counts_the_whole_of_chestxray14(xrv: Any, tmp_path: Path) -> None:
    with (
        gzip.open(_tables(xrv) / "Data_Entry_2017_v2020.csv.gz") as packed,
        (tmp_path / "Data_Entry_2017.csv").open("wb") as out,
    ):
        shutil.copyfileobj(packed, out)
    listing = chest.list_chestxray14(Request("chestxray14", tmp_path, 16))
    assert len(listing.paths) == 112_120
    assert len(set(listing.groups.tolist())) == 30_805
    counts = dict(zip(listing.class_names, listing.labels.sum(0).astype(int).tolist(), strict=True))
    # Wang et al., CVPR 2017, table of ChestX-ray14 on the NIH's page
    published = {"Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894, "Mass": 5782,
                 "Nodule": 6331, "Pneumonia": 1431, "Pneumothorax": 5302, "Consolidation": 4667, "Edema": 2303,
                 "Emphysema": 2516, "Fibrosis": 1686, "Pleural_Thickening": 3385, "Hernia": 227}  # fmt: skip
    assert counts == published


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_our_reader_takes_the_real_table_of_padchest(xrv: Any, tmp_path: Path) -> None:
    with gzip.open(next(_tables(xrv).glob("PADCHEST*.csv.gz")), "rt", encoding="utf-8", newline="") as packed:
        lines = packed.read().splitlines(keepends=True)[:20_001]
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    options = {"labels": list(chest.PADCHEST_LABELS), "projections": ["PA"]}
    ours = chest.list_padchest(Request("padchest", tmp_path, 16, options=options))
    theirs = xrv.datasets.PC_Dataset(str(tmp_path), str(tmp_path / name), views=["PA"], unique_patients=False)
    row_of = {image: row for row, image in enumerate(theirs.csv["ImageID"])}
    both = [(i, row_of[path.name]) for i, path in enumerate(ours.paths) if path.name in row_of]
    assert len(both) > 10_000
    mine, other = (np.array(rows) for rows in zip(*both, strict=True))
    assert set(ours.groups[mine]) == set(theirs.csv["patientid"].iloc[other])
    for label, column in (("cardiomegaly", "Cardiomegaly"), ("pneumonia", "Pneumonia"), ("emphysema", "Emphysema")):
        word = ours.labels[mine, ours.class_names.index(label)] == 1
        substring = theirs.labels[other, theirs.pathologies.index(column)] == 1
        assert not (word & ~substring).any()  # every word that we find contains itself; theirs finds longer words too
        assert word.any()


# It stands here, and not with the other sources of weights, because the library takes seconds to import.
@pytest.mark.parametrize("old_format", [True, False], ids=["torch 1.5", "torch 1.6"])
def test_a_pickled_network_of_torchxrayvision_computes_what_it_computed_there(
    old_format: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its release files are whole networks, saved by versions before the format of torch 1.6."""
    import torch
    import torchxrayvision as xrv

    from tests.served import Served, serving
    from tutelage.distill.teachers.zoo import build_teacher
    from tutelage.distill.training.normalisation import Renormalisation
    from tutelage.pipeline.weights.entry import Wanted
    from tutelage.pipeline.weights.given import find_weights, given_weights

    small: dict[str, Any] = {"growth_rate": 4, "block_config": (2, 2, 2, 2)}
    theirs = xrv.models.DenseNet(num_classes=18, in_channels=1, num_init_features=8, **small).eval()
    for name, value in theirs.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    torch.save(theirs, tmp_path / "net.pt", _use_new_zipfile_serialization=not old_format)
    text, wanted = "xrv:densenet121-res224-all", Wanted("DenseNet121", 1, "densenet121")
    name = getattr(find_weights(text, wanted).location, "name", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serving(Served(plain={f"/{name}": (tmp_path / "net.pt").read_bytes()})) as served:
        monkeypatch.setenv("TUTELAGE_WEIGHTS_MIRROR", served.url)
        given = given_weights(text, wanted, 224)
    net = build_teacher("densenet121", 18, 1, weights=given.path, **small).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 1, 224, 224))
    seen = torch.from_numpy(np.stack([xrv.utils.normalize(one, 255) for one in pixels])).float()
    assert given.normalisation is not None
    ours = Renormalisation(*given.normalisation.values)((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(ours, seen, rtol=1e-5, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(net(ours), theirs(seen), rtol=1e-4, atol=1e-4)
