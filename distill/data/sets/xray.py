"""Chest X-ray collections through torchxrayvision's data set classes: those that no other module here reads by itself.

The package's class reads the tables of the downloaded folder and says the labels (RSNA's and OpenI's tables come with
the package); the pictures are decoded as all others are.

ChestX-ray14, CheXpert and PadChest are read by `chest.py` instead. The package's classes for them know no official
lists, keep one image a patient by default (its labels the first that is known of any of them), find labels by
substring ("mass" is in "breast mass") and know one policy for uncertain labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.distill.data.dataset import DatasetEntry, Listing, Request, has_files
from tutelage.distill.data.reading.folders import SPLIT_FOLDERS
from tutelage.records import InputError

from .table import keep_present

_SUFFIXES = (".png", ".jpg", ".dcm")


@dataclass(frozen=True)
class _Collection:
    """One class of the package: `tables` are its arguments, by the pattern that finds each below the root.

    `file` gives a picture's path, below `images`, from its row of the class's table.
    """

    kind: str
    file: Callable[[Mapping[str, Any]], str]
    images: tuple[str, ...] = ("images", ".")
    tables: Mapping[str, str] = field(default_factory=dict)
    views: tuple[str, ...] = ("PA", "AP")
    arguments: Mapping[str, Any] = field(default_factory=dict)
    splits: str = ""  # a table of official splits by dicom_id


_EVERY_IMAGE = {"unique_patients": False}

COLLECTIONS: dict[str, _Collection] = {
    "rsna-pneumonia": _Collection(
        "RSNA_Pneumonia_Dataset", lambda row: f"{row['patientId']}", ("stage_2_train_images", "images", ".")
    ),
    "openi": _Collection("Openi_Dataset", lambda row: f"{row['imageid']}.png", arguments=_EVERY_IMAGE),
    "mimic-cxr": _Collection(
        "MIMIC_Dataset",
        lambda row: f"p{str(row['subject_id'])[:2]}/p{row['subject_id']}/s{row['study_id']}/{row['dicom_id']}.jpg",
        ("files", "."),
        {"csvpath": "mimic-cxr-2*-chexpert.csv*", "metacsvpath": "mimic-cxr-2*-metadata.csv*"},
        arguments=_EVERY_IMAGE,
        splits="mimic-cxr-2*-split.csv*",
    ),
    "brax": _Collection(
        "BRAX_Dataset",
        lambda row: str(row["PngPath"]).replace("images/", "", 1),
        tables={"csvpath": "master_spreadsheet*.csv"},
        arguments=_EVERY_IMAGE,
    ),
    "covid-19": _Collection(
        "COVID19_Dataset",
        lambda row: str(row["filename"]),
        tables={"csvpath": "metadata.csv"},
        views=("PA", "AP", "AP Supine"),
    ),
}


def list_xray(request: Request) -> Listing:
    """List the collection of `COLLECTIONS` that the option `collection` names, grouped by patient.

    Raises InputError where the package, a table or the pictures are absent.
    """
    name = str(request.option("collection", ""))
    if name not in COLLECTIONS:
        raise InputError(
            f"option collection={name!r} of data set {request.name} is not one of {', '.join(COLLECTIONS)}"
        )
    unknown = str(request.option("unknown", "ignore"))
    if unknown not in ("ignore", "zeros"):
        raise InputError(f"unknown {unknown!r} is not one of ignore, zeros")
    root, collection = request.where(), COLLECTIONS[name]
    images = next((root / folder for folder in collection.images if (root / folder).is_dir()), root)
    views = list(request.option("views", collection.views))
    read = _read(collection, root, images, views)
    table = read.csv
    if len(table) == 0:
        raise InputError(f"{name} at {root} has no image of the views {', '.join(views)}")
    labels = np.asarray(read.labels, dtype=np.float32)
    class_names = tuple(str(label) for label in read.pathologies)
    asked = tuple(request.option("labels", class_names))
    absent = [label for label in asked if label not in class_names]
    if absent:
        raise InputError(f"label {absent[0]!r} is not one of {name}'s: {', '.join(class_names)}")
    labels = labels[:, [class_names.index(label) for label in asked]]
    num_unknown = int(np.isnan(labels).sum())
    rows = table.to_dict("records")
    return keep_present(
        Listing(
            root=root,
            paths=tuple(_with_suffix(images / collection.file(row)) for row in rows),
            labels=labels if unknown == "ignore" else np.nan_to_num(labels),
            class_names=asked,
            groups=table["patientid"].astype(str).to_numpy(dtype=np.str_),
            splits=_official(root, collection, rows),
            multi_label=True,
            notes=(f"{num_unknown} labels that the table leaves open: {unknown}",) if num_unknown else (),
        )
    )


def _read(collection: _Collection, root: Path, images: Path, views: list[str]) -> Any:
    """Make the package's object: it reads the tables and opens no picture. NumPy's global stream is left as it was."""
    try:
        from torchxrayvision import datasets
    except ImportError:
        raise InputError("this data set is read by torchxrayvision: pip install 'tutelage[xray]'") from None
    tables = {argument: str(_find(root, pattern)) for argument, pattern in collection.tables.items()}
    stream = np.random.get_state()  # the class seeds it
    try:
        return getattr(datasets, collection.kind)(imgpath=str(images), views=views, **tables, **collection.arguments)
    except (KeyError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{collection.kind} cannot read the tables at {root} ({reason}): get them again") from None
    finally:
        np.random.set_state(stream)


def _find(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if not found:
        raise InputError(f"no {pattern} in {root}: it belongs to this data set")
    return found[0]


def _with_suffix(path: Path) -> Path:
    """Complete a file's name where a collection is handed on as PNG by some and as JPEG by others."""
    if path.suffix.lower() in _SUFFIXES:
        return path
    return next((whole for suffix in _SUFFIXES if (whole := path.with_name(path.name + suffix)).is_file()),
                path.with_name(path.name + _SUFFIXES[0]))  # fmt: skip


def _official(root: Path, collection: _Collection, rows: list[Any]) -> np.ndarray:
    """Give each image's official split where the folder holds a table of them, else ""."""
    found = sorted(root.glob(collection.splits)) if collection.splits else []
    if not found:
        return np.full(len(rows), "", dtype="<U5")
    import pandas

    split_of = pandas.read_csv(found[0]).set_index("dicom_id")["split"].to_dict()
    unlisted = [row["dicom_id"] for row in rows if row["dicom_id"] not in split_of]
    if unlisted:
        raise InputError(f"{unlisted[0]} ({len(unlisted)} such) is not in {found[0]}")
    words = {"validate": "val"} | SPLIT_FOLDERS
    return np.array([words[str(split_of[row["dicom_id"]]).lower()] for row in rows], dtype="<U5")


def _collection_of(path: Path) -> Mapping[str, str] | None:
    """Recognise a collection by its tables; one whose tables come with the package looks like class folders."""
    for name, collection in COLLECTIONS.items():
        if name in _TOLD_BY_TABLES and has_files(*collection.tables.values())(path) is not None:
            return {"collection": name}
    return None


_TOLD_BY_TABLES = ("mimic-cxr", "brax")

TORCHXRAYVISION = DatasetEntry(
    "torchxrayvision",
    "Chest X-ray collections that the package torchxrayvision reads: RSNA pneumonia, OpenI, MIMIC-CXR, BRAX, COVID-19.",
    list_xray,
    options={
        "collection": f"needed: {', '.join(COLLECTIONS)}",
        "labels": "a list of the collection's labels (default: all)",
        "views": "a list of views (default PA and AP)",
        "unknown": "a label that the table leaves open: ignore (default; left out of loss and figures) or zeros",
    },
    recognise=_collection_of,
    called=lambda request: str(request.option("collection", "")),
)
