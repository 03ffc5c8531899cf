"""COVID collections: list COVID-QU-Ex chest X-rays and SARS-CoV-2 CT slices as they lie on disk."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tutelage.distill.data.containers.paths import glob, is_dir
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request, has_files
from tutelage.distill.data.images import is_image
from tutelage.records import InputError

from .folders import NEAR_HELP

COVID_QU_EX_CLASSES = ("COVID-19", "Non-COVID", "Normal")
_COVID_QU_EX_SPLITS = {"Train": "train", "Val": "val", "Test": "test"}

SARS_COV_2_CLASSES = ("COVID", "non-COVID")

# Slices of one patient have neighbouring numbers, some 21 a patient, and the set does not say whose a slice is. Blocks
# of 25 to 75 leave room for the next patient's first slice wherever a split is sought. Our choice.
DEFAULT_BLOCK = 50


def list_covid_qu_ex(request: Request) -> Listing:
    """List COVID-QU-Ex by its official splits; exact copies across splits are detected when files are read."""
    root = request.where()
    near = request.near()
    places = (root / "Lung Segmentation Data" / "Lung Segmentation Data", root / "Lung Segmentation Data", root)
    inner = next((place for place in places if is_dir(place / "Train")), None)
    if inner is None:
        raise InputError(f"{root} has no 'Lung Segmentation Data/Lung Segmentation Data/Train': not COVID-QU-Ex")
    paths: list[Path] = []
    labels: list[int] = []
    given: list[str] = []
    for folder, split in _COVID_QU_EX_SPLITS.items():
        for label, class_name in enumerate(COVID_QU_EX_CLASSES):
            place = inner / folder / class_name / "images"
            files = sorted(path for path in glob(place, "*") if is_image(path))
            if not files:
                raise InputError(f"class {class_name} holds no image in {place}: the download is not whole")
            paths += files
            labels += [label] * len(files)
            given += [split] * len(files)
    names = [path.relative_to(root).as_posix() for path in paths]
    return Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64),
        class_names=COVID_QU_EX_CLASSES,
        groups=np.array(names, dtype=np.str_),
        splits=np.array(given, dtype="<U5"),
        near_duplicates=near,
    )


def list_sars_cov_2_ct(request: Request) -> Listing:
    """List SARS-CoV-2 CT, grouped by blocks of neighbouring slices (option `block`, slices a block).

    The blocks given here are of equal length; once the pictures are decoded, their ends move to where the pixels say
    that one patient ends and the next begins (`slices.py`).
    """
    root = request.where()
    block = int(request.option("block", DEFAULT_BLOCK))
    if block < 1:
        raise InputError(f"block must be at least 1 slice, got {block}")
    paths: list[Path] = []
    labels: list[int] = []
    groups: list[str] = []
    numbers: list[int] = []
    for label, class_name in enumerate(SARS_COV_2_CLASSES):
        folder = root / class_name
        numbered = [(path, re.search(r"\((\d+)\)", path.name)) for path in glob(folder, "*") if is_image(path)]
        if not numbered:
            raise InputError(f"class {class_name} holds no image in {folder}")
        unnumbered = [path for path, found in numbered if found is None]
        if unnumbered:
            raise InputError(f"{unnumbered[0]} has no slice number such as 'Covid (12).png'")
        for number, path in sorted((int(found[1]), path) for path, found in numbered if found):
            paths.append(path)
            labels.append(label)
            numbers.append(number)
            groups.append(f"{class_name}/block{(number - 1) // block:04d}")
    return Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64),
        class_names=SARS_COV_2_CLASSES,
        groups=np.array(groups, dtype=np.str_),
        splits=np.full(len(paths), "", dtype="<U5"),
        slices=np.array(numbers, dtype=np.int64),
        block=block,
        notes=(f"patients are not named: blocks of about {block} neighbouring slices, split where the pixels change",),
    )


COVID_QU_EX = DatasetEntry(
    "covid-qu-ex",
    "COVID-QU-Ex chest X-rays of three classes, in their official splits.",
    list_covid_qu_ex,
    options={"near": NEAR_HELP},
    recognise=has_files("Lung Segmentation Data"),
)

SARS_COV_2_CT = DatasetEntry(
    "sars-cov-2-ct",
    "SARS-CoV-2 CT slices, grouped by blocks of neighbouring slices.",
    list_sars_cov_2_ct,
    options={"block": f"slices a block, about (default {DEFAULT_BLOCK})"},
    recognise=has_files("COVID", "non-COVID"),
)
