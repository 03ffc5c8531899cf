"""The RSNA pneumonia challenge as Kaggle ships it: DICOM files and a table with one row for each box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tutelage.distill.data.containers.paths import folder_at, glob
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request, has_files
from tutelage.distill.data.reading.dicom_listing import with_heads
from tutelage.distill.data.reading.ids import group_ids
from tutelage.distill.data.reading.tables import read_table
from tutelage.records import InputError

from .table import keep_present

_TABLE = "stage_2_train_labels.csv*"
_DETAILS = "stage_2_detailed_class_info.csv*"
_FOLDERS = ("stage_2_train_images", "train", ".")

TARGETS = ("no pneumonia", "pneumonia")
DETAILED = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")


def list_rsna(request: Request) -> Listing:
    """List the challenge's training images, one for each patientId, by the column Target or by the detailed classes.

    The images of its test set have no labels and are not read; test and validation are split off by patientId.
    """
    root = request.folder()
    kind = str(request.option("classes", "target"))
    if kind not in ("target", "detailed"):
        raise InputError(f"classes {kind!r} is not one of target, detailed")
    table = read_table(_one(root, _TABLE if kind == "target" else _DETAILS))
    patient_at, label_at = table.column("patientId"), table.column("Target" if kind == "target" else "class")
    words = ("0", "1") if kind == "target" else DETAILED
    label_of: dict[str, int] = {}
    for row, cells in enumerate(table.rows):
        patient, word = cells[patient_at].strip(), cells[label_at].strip()
        if word not in words:
            raise InputError(f"{table.where(row)}: {table.header[label_at]} {word!r} is not one of {', '.join(words)}")
        if label_of.setdefault(patient, words.index(word)) != words.index(word):
            raise InputError(f"{table.where(row)}: patient {patient} has another {table.header[label_at]} before")
    places = [folder for name in _FOLDERS if (folder := folder_at(root / name)) is not None]
    folder = next((place for place in places if glob(place, "*.dcm")), root / _FOLDERS[0])
    groups, notes = group_ids(list(label_of), list(label_of), "patientId")
    listing = Listing(
        root=root,
        paths=tuple(folder / f"{patient}.dcm" for patient in label_of),
        labels=np.array(list(label_of.values()), dtype=np.int64),
        class_names=TARGETS if kind == "target" else DETAILED,
        groups=groups,
        splits=np.full(len(label_of), "", dtype="<U5"),
        notes=(*table.notes, *notes),
    )
    return with_heads(keep_present(listing), grouped=True)


def _one(root: Path, pattern: str) -> Path:
    found = glob(root, pattern)
    if not found:
        raise InputError(f"no {pattern.rstrip('*')} in {root}: it belongs to this data set")
    return found[0]


RSNA_PNEUMONIA = DatasetEntry(
    "rsna-pneumonia",
    "RSNA pneumonia challenge as Kaggle ships it: DICOM chest X-rays, grouped by patientId.",
    list_rsna,
    options={"classes": "target (default; pneumonia or not) or detailed (normal, abnormal, lung opacity)"},
    recognise=has_files(_TABLE),
)
