"""DICOM files: values by hand for rescale, windows, MONOCHROME1; order, patients and facts of a series; RSNA's set."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.cli.inventory import print_data_report
from tutelage.distill.data.check import check_path
from tutelage.distill.data.dataset import Request
from tutelage.distill.data.images import Decoding, read_picture
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.data.sets.folders import list_folder
from tutelage.records import InputError

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64  # 0 to 4032: 12 bits


def write_dicom(path: Path, values: np.ndarray, **tags: Any) -> Path:
    """Write a file of one frame (or several, by the tag NumberOfFrames) with given tags."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = values.itemsize * 8, 12, 11
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PatientID, data.Modality, data.StudyInstanceUID, data.SeriesInstanceUID = "P1", "CT", "1.2.3", "1.2.3.4"
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _pixels(path: Path, **how: Any) -> np.ndarray:
    return read_picture(path, 8, 1, Decoding(**how)).pixels[:, :, 0]


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255)


def test_values_are_rescaled_and_windowed_by_recipe_tag_or_stored_bits(tmp_path: Path) -> None:
    ct = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    hu = RAMP.astype(float) * 2 - 1024
    plain = write_dicom(tmp_path / "plain.dcm", RAMP, **ct)
    np.testing.assert_array_equal(_pixels(plain), _scaled(hu, -1024, 2 * 4095 - 1024))
    tagged = write_dicom(tmp_path / "tag.dcm", RAMP, **ct, WindowCenter=[40, 500], WindowWidth=[400, 2000])
    np.testing.assert_array_equal(_pixels(tagged), _scaled(hu, 40 - 0.5 - 199.5, 40 - 0.5 + 199.5))  # PS3.3 C.11.2.1.2
    np.testing.assert_array_equal(_pixels(tagged, window="full"), _pixels(plain))
    np.testing.assert_array_equal(_pixels(tagged, range=(-1000.0, 1000.0)), _scaled(hu, -1000, 1000))
    np.testing.assert_array_equal(_pixels(tagged, window=(0.0, 1001.0)), _scaled(hu, -500.5, 499.5))
    exact = write_dicom(tmp_path / "e.dcm", RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(_pixels(exact), _scaled(RAMP, 1500, 2500))
    sigmoid = write_dicom(tmp_path / "s.dcm", RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    np.testing.assert_array_equal(_pixels(sigmoid), np.rint(255 / (1 + np.exp(-4 * (RAMP - 2000.0) / 1000))))
    inverted = write_dicom(tmp_path / "m.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(_pixels(inverted), 255 - _scaled(RAMP, 0, 4095))
    signed = write_dicom(tmp_path / "i.dcm", RAMP.astype(np.int16) - 2048)
    np.testing.assert_array_equal(_pixels(signed), _scaled(RAMP - 2048.0, -2048, 2047))


def test_colour_several_frames_and_files_without_suffix(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "us", colour[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB",
                       PlanarConfiguration=0, BitsStored=8, HighBit=7, PixelData=colour.tobytes())  # fmt: skip
    np.testing.assert_array_equal(read_picture(path, 8, 3, Decoding()).pixels, colour)
    frames = write_dicom(tmp_path / "1.2.840.9", np.stack([RAMP, RAMP // 2]), NumberOfFrames=2)
    found = read_picture(frames, 8, 1, Decoding())
    np.testing.assert_array_equal(found.pixels[:, :, 0], _scaled(RAMP, 0, 4095))
    assert found.remarks == ("have several frames or pages: the first is read",)


def test_damaged_files_and_a_missing_package_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    for number, content in enumerate((whole[:-40], whole[:300], b"x" * 200, bytes(128) + b"DICM" + bytes(400))):
        (tmp_path / f"{number}.dcm").write_bytes(content)
        with pytest.raises(InputError, match=rf"{number}\.dcm is ") as refused:
            read_picture(tmp_path / f"{number}.dcm", 8, 1, Decoding())
        assert "\n" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'tutelage\[dicom\]'"):
        read_picture(tmp_path / "a.dcm", 8, 1, Decoding())


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Two classes of six patients, a series of four slices each, whose files are named against their positions."""
    for patient in range(12):
        for place in range(4):
            write_dicom(
                tmp_path / ("sick", "well")[patient % 2] / f"study{patient}" / f"IM{3 - place}",
                RAMP + 4 * patient + place,
                PatientID=f"{patient}" if place else f"0{patient}.0",
                StudyInstanceUID=f"1.2.{patient}",
                SeriesInstanceUID=f"1.2.{patient}.1",
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[0, 0, 5.0 * place - 20],
                InstanceNumber=9 - place,
                PixelSpacing=[0.7, 0.7],
                WindowCenter=40 + patient % 2,
                WindowWidth=400,
            )
    write_dicom(tmp_path / "sick" / "report.dcm", RAMP, Modality="SR")
    report = pydicom.dcmread(tmp_path / "sick" / "report.dcm")
    for tag in ("Rows", "Columns", "PixelData"):
        delattr(report, tag)
    report.save_as(tmp_path / "sick" / "report.dcm")
    return tmp_path


def test_a_series_is_sorted_by_position_and_grouped_by_patient(
    series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = list_folder(Request("folder", series, 8))
    names = [path.name for path in listing.paths]
    assert names == ["IM3", "IM2", "IM1", "IM0"] * 12
    data = load_dataset("folder", path=series, size=8)
    assert sorted(set(data.groups.tolist())) == sorted(str(patient) for patient in range(12))
    parts = [set(data.groups[at]) for at in data.splits.values()]
    assert sum(map(len, parts)) == 12
    report = check_path(series)
    assert report.facts == {"DICOM files": 48, "patients": 12, "series": 12, "modality CT": 48,
                            "pixel spacing 0.7 x 0.7 mm": 48}  # fmt: skip
    assert report.ok
    assert "1 DICOM files without a picture are left out, e.g. report.dcm" in report.notes
    assert any("2 DICOM windows differ between files" in note for note in report.notes)
    one = load_dataset("folder", path=series, size=8, options={"window": [40, 400]})
    assert not any("windows differ" in note for note in one.notes)

    from rich.console import Console

    print_data_report(report, Console(width=160))
    assert (
        "  patients: 12\n  series: 12\n  modality CT: 48\n  pixel spacing 0.7 x 0.7 mm: 48" in capsys.readouterr().out
    )


def test_files_that_name_no_patient_are_grouped_by_study(series: Path) -> None:
    for path in series.rglob("IM*"):
        data = pydicom.dcmread(path)
        data.PatientID = "Anonymous"
        data.save_as(path)
    found = load_dataset("folder", path=series, size=8)
    assert len(set(found.groups.tolist())) == 12
    assert "48 DICOM files name no patient: the study, or the series, is the group" in found.notes


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    for options, message in (
        ({"range": [0, 4095]}, "range: .* has no effect: no picture has more than 8 bits"),
        ({"window": "full"}, "window: full has no effect: no file is DICOM"),
        ({"range": [5, 5]}, r"range \[5, 5\] is not \[low, high\]"),
        ({"window": "lung"}, "window 'lung' is not tag, full or"),
        ({"window": "full", "range": [0, 1]}, "range and window both say"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset("folder", path=tmp_path, size=8, options=options)


def test_rsna_pneumonia_as_kaggle_ships_it(tmp_path: Path) -> None:
    rows, details = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number in range(30):
        name = f"{number:08x}-73c6"
        boxes = ["264,152,213,379,1", "562,152,256,453,1"] if number % 3 == 0 else [",,,,0"]
        rows += [f"{name},{box}" for box in boxes]
        word = ("Lung Opacity", "Normal", "No Lung Opacity / Not Normal")[number % 3]
        details += [f"{name},{word}"] * len(boxes)
        write_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", RAMP + number, PatientID=name, Modality="CR")
    (tmp_path / "stage_2_train_labels.csv").write_text("\n".join(rows))
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("\n".join(details))
    data = load_dataset("rsna-pneumonia", path=tmp_path, size=8)
    assert data.class_names == ("no pneumonia", "pneumonia")
    assert data.labels.sum() == 10
    assert len(data.images) == len(set(data.groups.tolist())) == 30
    report = check_path(tmp_path)
    assert (report.kind, report.ok, report.facts["modality CR"]) == ("rsna-pneumonia", True, 30)
    three = load_dataset("rsna-pneumonia", path=tmp_path, size=8, options={"classes": "detailed"})
    assert np.bincount(three.labels).tolist() == [10, 10, 10]
    (tmp_path / "stage_2_train_labels.csv").write_text("\n".join([*rows, f"{0:08x}-73c6,,,,,0"]))
    with pytest.raises(InputError, match=r"line 42: patient 00000000-73c6 has another Target before"):
        load_dataset("rsna-pneumonia", path=tmp_path, size=8)


def test_lookup_tables_palettes_and_a_missing_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VOI table that inverts 4 values; a palette of red and blue; JPEG 2000 whose decoders are not installed."""
    from pydicom.dataset import Dataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    stored = np.array([[0, 1], [2, 3]], dtype=np.uint16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], np.array([255, 170, 85, 0], "<u2").tobytes()
    voi = write_dicom(tmp_path / "voi.dcm", stored, VOILUTSequence=[table])
    assert read_picture(voi, 2, 1, Decoding()).pixels[..., 0].tolist() == [[255, 170], [85, 0]]
    full = read_picture(voi, 2, 1, Decoding(window="full")).pixels
    assert full[0, 0, 0] == 0, "the table is the file's window: full leaves it out"

    palette = {f"{name}PaletteColorLookupTableDescriptor": [2, 0, 16] for name in ("Red", "Green", "Blue")}
    data = {"Red": [65535, 0], "Green": [0, 0], "Blue": [0, 65535]}
    tables = {f"{name}PaletteColorLookupTableData": np.array(some, "<u2").tobytes() for name, some in data.items()}
    path = write_dicom(
        tmp_path / "palette.dcm", np.array([[0, 1], [1, 0]], np.uint16),
        PhotometricInterpretation="PALETTE COLOR", **palette, **tables,
    )  # fmt: skip
    shown = read_picture(path, 2, 3, Decoding()).pixels
    assert shown[0].tolist() == [[255, 0, 0], [0, 0, 255]]

    packed = write_dicom(tmp_path / "packed.dcm", RAMP)
    whole = pydicom.dcmread(packed)
    whole.file_meta.TransferSyntaxUID = JPEG2000Lossless
    whole.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
    whole["PixelData"].is_undefined_length = True
    whole.save_as(packed)
    decoder = pydicom.pixels.get_decoder(JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")})
    with pytest.raises(InputError, match=r"packed.* compressed as JPEG 2000 .*no decoder .*pylibjpeg-openjpeg"):
        read_picture(packed, 8, 1, Decoding())
