"""Make data sets laid out as ChestX-ray14, CheXpert and PadChest, whole or a fraction, of pictures drawn here.

    python tests/big/made.py chestxray14 FOLDER --fraction 0.1

Tables, folders and names of files are those of the collections, and so are the numbers of images and patients, and the
frequencies of labels (of CheXpert those of its paper's Table 1; of PadChest rounded ones of that order). The pixels are
not: a few drawings are encoded once, and each file is one of them with a comment of its own, so that no two files are
copies. Labels are drawn apart from pixels: nothing can be learnt of such a set.
"""

from __future__ import annotations

import argparse
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# Images that hold each label, of 112,120 (Data_Entry_2017.csv).
CHESTXRAY14 = {
    "Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894, "Mass": 5782, "Nodule": 6331,
    "Pneumonia": 1431, "Pneumothorax": 5302, "Consolidation": 4667, "Edema": 2303, "Emphysema": 2516, "Fibrosis": 1686,
    "Pleural_Thickening": 3385, "Hernia": 227,
}  # fmt: skip
CHESTXRAY14_HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
                      "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],")  # fmt: skip

# Percent of studies that hold a label, and that leave it uncertain (Irvin et al. 2019, Table 1), in the table's order.
CHEXPERT = {
    "No Finding": (8.86, 0.0), "Enlarged Cardiomediastinum": (4.81, 5.41), "Cardiomegaly": (12.26, 3.52),
    "Lung Opacity": (49.39, 2.31), "Lung Lesion": (3.65, 0.57), "Edema": (26.06, 6.17), "Consolidation": (6.78, 12.78),
    "Pneumonia": (2.44, 8.34), "Atelectasis": (15.63, 15.66), "Pneumothorax": (9.23, 1.42),
    "Pleural Effusion": (40.34, 5.02), "Pleural Other": (1.3, 0.94), "Fracture": (3.87, 0.26),
    "Support Devices": (56.4, 0.48),
}  # fmt: skip

PADCHEST = {
    "normal": 0.33, "cardiomegaly": 0.09, "pleural effusion": 0.06, "pneumonia": 0.05, "atelectasis": 0.05,
    "infiltrates": 0.03, "pleural thickening": 0.03, "nodule": 0.03, "consolidation": 0.01, "mass": 0.01,
    "emphysema": 0.01, "pulmonary edema": 0.01, "pulmonary fibrosis": 0.01, "hiatal hernia": 0.01,
    "pneumothorax": 0.003, "copd signs": 0.1, "aortic elongation": 0.06, "scoliosis": 0.05,
}  # fmt: skip
PADCHEST_HEADER = (",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
                   "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Labels")  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How many images and patients the parts of a collection hold."""

    images: int
    patients: int

    def times(self, fraction: float) -> Size:
        patients = max(4, round(self.patients * fraction))
        return Size(max(patients, round(self.images * fraction)), patients)


CHESTXRAY14_TRAIN_VAL, CHESTXRAY14_TEST = Size(86_524, 28_008), Size(25_596, 2_797)
CHEXPERT_TRAIN, CHEXPERT_VALID = Size(223_414, 64_540), Size(234, 200)
PADCHEST_WHOLE = Size(160_861, 67_625)


class Pictures:
    """Encoded drawings, of which every file is one with its own number in a comment."""

    def __init__(self, form: str, px: int, number: int, rng: np.random.Generator, bits: int = 8) -> None:
        self.form, self._encoded = form, [_encoded(form, px, rng, bits) for _ in range(number)]

    def write(self, place: Path, number: int) -> None:
        content = self._encoded[number % len(self._encoded)]
        text = f"Comment\0{number}".encode()
        if self.form == "JPEG":  # a COM segment after the start of the image
            place.write_bytes(content[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + content[2:])
            return
        crc = zlib.crc32(b"tEXt" + text)  # a text chunk after IHDR, which ends at byte 33
        place.write_bytes(content[:33] + struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", crc)
                          + content[33:])  # fmt: skip


def _encoded(form: str, px: int, rng: np.random.Generator, bits: int) -> bytes:
    """Draw blurred spots with some grain, as dense as a radiograph to an encoder, and encode them."""
    spots = Image.fromarray(rng.random((9, 9), np.float32)).resize((px, px), Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(spots) * 0.9 + rng.normal(0, 0.01, (px, px)), 0, 1) * (2**bits - 1)
    file = io.BytesIO()
    options = {"quality": 85} if form == "JPEG" else {"compress_level": 1}
    Image.fromarray(values.astype(np.uint16 if bits > 8 else np.uint8)).save(file, form, **options)
    return file.getvalue()


def visits(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Draw how many images each patient has `(patients,)`: one at least, and few have many."""
    weights = rng.exponential(size=size.patients)
    return 1 + rng.multinomial(size.images - size.patients, weights / weights.sum())


def placed(counts: Sequence[int], num_images: int, num_with: int, rng: np.random.Generator) -> np.ndarray:
    """Place labels of given counts on images `(n, labels)`: each of `num_with` images has one or more, others none."""
    slots = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = rng.permutation(num_images)[:num_with]
    at = np.concatenate([chosen[: len(slots)], rng.choice(chosen, max(0, len(slots) - num_with))])
    held = np.zeros((num_images, len(counts)), bool)
    held[at, slots] = True
    return held


def make_chestxray14(root: Path, fraction: float, pictures: Pictures, rng: np.random.Generator) -> int:
    """Make ChestX-ray14: 12 folders of images, its table, and its official lists."""
    folders = [root / f"images_{number:03d}" / "images" for number in range(1, 13)]
    for folder in folders:
        folder.mkdir(parents=True)
    parts = {"train_val_list.txt": CHESTXRAY14_TRAIN_VAL, "test_list.txt": CHESTXRAY14_TEST}
    lines, number, patient = [CHESTXRAY14_HEADER], 0, 0
    for file, whole in parts.items():
        size, names = whole.times(fraction), []
        scale = size.images / (CHESTXRAY14_TRAIN_VAL.images + CHESTXRAY14_TEST.images)
        held = placed([round(n * scale) for n in CHESTXRAY14.values()], size.images, round(51_759 * scale), rng)
        for num in visits(size, rng):
            patient += 1
            for visit in range(num):
                name = f"{patient:08d}_{visit:03d}.png"
                words = [word for word, has in zip(CHESTXRAY14, held[len(names)], strict=True) if has]
                lines.append(f"{name},{'|'.join(words) or 'No Finding'},{visit},{patient},058,M,PA,2682,2749,0.143,"
                             "0.143,")  # fmt: skip
                pictures.write(folders[min(11, (number + 5000) // 10000)] / name, number)
                names.append(name)
                number += 1
        (root / file).write_text("\n".join(names) + "\n")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    return number


def make_chexpert(root: Path, fraction: float, pictures: Pictures, rng: np.random.Generator) -> int:
    """Make CheXpert-v1.0-small: train and valid, a folder a patient and study, one view in seven from the side."""
    positive, uncertain = (np.array([one[k] for one in CHEXPERT.values()]) / 100 for k in range(2))
    number, patient = 0, 0
    for part, whole in (("train", CHEXPERT_TRAIN), ("valid", CHEXPERT_VALID)):
        lines = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT)}"]
        size = whole.times(fraction)
        draws = rng.random((size.images, len(CHEXPERT)))
        row = 0
        for num in visits(size, rng):
            patient += 1
            for visit in range(num):
                lateral = rng.random() < 32_387 / 223_414
                view = f"view1_{'lateral' if lateral else 'frontal'}.jpg"
                path = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study{visit + 1}/{view}"
                place = root / path.split("/", 1)[1]
                place.parent.mkdir(parents=True)
                pictures.write(place, number)
                unsure = (draws[row] < positive + uncertain) & (part == "train")  # valid was read by radiologists
                blank = ["", "0.0"][part == "valid"]
                cells = np.where(draws[row] < positive, "1.0", np.where(unsure, "-1.0", blank))
                lines.append(f"{path},Female,68,{'Lateral,' if lateral else 'Frontal,AP'},{','.join(cells)}")
                row, number = row + 1, number + 1
        (root / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return number


def make_padchest(root: Path, fraction: float, pictures: Pictures, rng: np.random.Generator) -> int:
    """Make PadChest: numbered folders of 16-bit PNG files, labels as Python lists; a third are lateral views."""
    size = PADCHEST_WHOLE.times(fraction)
    draws = rng.random((size.images, len(PADCHEST))) < np.array(list(PADCHEST.values()))
    projections = rng.choice(["PA", "L", "AP_horizontal", "AP"], size.images, p=[0.575, 0.31, 0.09, 0.025])
    for folder in range(54):
        (root / str(folder)).mkdir(parents=True)
    lines, number = [PADCHEST_HEADER], 0
    for patient, num in enumerate(visits(size, rng)):
        for _ in range(num):
            name = f"{216840111366964012 + number}_00-163-{number % 1000:03d}.png"
            words = [word for word, has in zip(PADCHEST, draws[number], strict=True) if has] or ["unchanged"]
            pictures.write(root / str(number % 54) / name, number)
            text = str([*words, " loc basal"]).replace('"', "'")
            lines.append(f"{number},{name},{number % 54},20140915,S{number},P{patient},1930.0,F,POSTEROANTERIOR,"
                         f'{projections[number]},Manual,No,"{text}"')  # fmt: skip
            number += 1
    (root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(lines) + "\n")
    return number


# Each with the format of its files and their bits.
MAKERS: dict[str, tuple[Callable[[Path, float, Pictures, np.random.Generator], int], str, int]] = {
    "chestxray14": (make_chestxray14, "PNG", 8),
    "chexpert": (make_chexpert, "JPEG", 8),
    "padchest": (make_padchest, "PNG", 16),
}


def make(name: str, root: Path, *, fraction: float = 1.0, px: int = 256, drawings: int = 64, seed: int = 0) -> int:
    """Make a collection in an empty folder; give the number of its images."""
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise SystemExit(f"{root} is not empty: name a new folder")
    maker, form, bits = MAKERS[name]
    rng = np.random.default_rng(seed)
    return maker(root, fraction, Pictures(form, px, drawings, rng, bits), rng)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images and patients (default 1)")
    parser.add_argument("--px", type=int, default=256, help="width and height of each file (default 256)")
    parser.add_argument("--drawings", type=int, default=64, help="drawings that the files are made of (default 64)")
    given = parser.parse_args(arguments)
    num = make(given.name, given.folder, fraction=given.fraction, px=given.px, drawings=given.drawings)
    print(f"{num} images in {given.folder}")


if __name__ == "__main__":
    main()
