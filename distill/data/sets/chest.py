"""Multi-label chest X-ray collections: ChestX-ray14, CheXpert and PadChest, as they lie on disk.

Each lister takes the folder that a person downloaded and groups images by patient.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np

from tutelage.distill.data.containers.paths import children, folder_at, glob, is_dir, is_file, read_bytes, top_of
from tutelage.distill.data.dataset import EXTRA, DatasetEntry, Listing, Request, has_files
from tutelage.distill.data.reading.folders import is_split_folder
from tutelage.distill.data.reading.ids import group_ids
from tutelage.distill.data.reading.tables import read_table
from tutelage.records import InputError

from .table import keep_present, word_columns

CHESTXRAY14_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip

# The five labels of the CheXpert competition (Irvin et al. 2019).
CHEXPERT_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
_BATCHES = "CheXpert-v1.0*batch*"
UNCERTAIN = {"ones": 1.0, "zeros": 0.0, "ignore": float("nan")}

# PadChest has 174 findings; these are the ones that ChestX-ray14 has too. Our choice: the papers do not list theirs.
PADCHEST_LABELS = (
    "atelectasis", "cardiomegaly", "pleural effusion", "infiltrates", "mass", "nodule", "pneumonia", "pneumothorax",
    "consolidation", "pulmonary edema", "emphysema", "pulmonary fibrosis", "pleural thickening", "hiatal hernia",
)  # fmt: skip
PADCHEST_PROJECTIONS = ("PA", "AP", "AP_horizontal")


def list_chestxray14(request: Request) -> Listing:
    """List ChestX-ray14: official test list, patients from the table; val is carved from the rest by patient."""
    root = request.folder()
    table = read_table(_one(root, "Data_Entry_2017*.csv"))
    rows = table.rows  # the header's bracketed commas shift names: read by position
    files = {path.name: path for pattern in ("images*/images/*.png", "images*/*.png") for path in glob(root, pattern)}
    official = dict.fromkeys(_lines(root, "test_list.txt"), "test")
    official.update(dict.fromkeys(_lines(root, "train_val_list.txt"), "train"))
    words: list[list[str]] = []
    known: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        if row[1] not in known:
            known[row[1]] = [word.strip() for word in row[1].split("|")]
            for word in known[row[1]]:
                if word not in CHESTXRAY14_LABELS and word != "No Finding":
                    raise InputError(f"{table.where(number)}: label {word!r} is not one of ChestX-ray14's 14")
        words.append(known[row[1]])
    unlisted = [row[0] for row in rows if row[0] not in official] if official else []
    if unlisted:
        raise InputError(f"{unlisted[0]} ({len(unlisted)} such) is neither in train_val_list.txt nor in test_list.txt")
    groups, notes = group_ids([row[3] for row in rows], [row[0] for row in rows], "Patient ID")
    listing = Listing(
        root=root,
        paths=tuple(files[row[0]] if row[0] in files else root / "images" / row[0] for row in rows),
        labels=word_columns(words, CHESTXRAY14_LABELS),
        class_names=CHESTXRAY14_LABELS,
        groups=groups,
        splits=np.array([official.get(row[0], "") for row in rows], dtype="<U5"),
        multi_label=True,
        notes=notes if official else (*notes, "no official lists: test was split off by patient"),
    )
    return keep_present(listing)


def list_chexpert(request: Request) -> Listing:
    """List CheXpert, grouped by patient; what an uncertain label and the official valid.csv mean is an option."""
    root = request.folder()
    policy = str(request.option("uncertain", "ones"))
    if policy not in UNCERTAIN:
        raise InputError(f"uncertain {policy!r} is not one of {', '.join(UNCERTAIN)}")
    valid_as = str(request.option("valid_as", "test"))
    if valid_as not in ("test", "val", EXTRA):
        raise InputError(f"valid_as {valid_as!r} is not one of test, val, {EXTRA}")
    class_names = tuple(request.option("labels", CHEXPERT_LABELS))
    frontal = bool(request.option("frontal", False))
    paths: list[Path] = []
    values: list[list[float]] = []
    given: list[str] = []
    place = _chexpert_places(root)
    for file, split in (("train.csv", "train"), ("valid.csv", valid_as)):
        table = read_table(_chexpert_table(root, file))
        path_at, side, *places = (table.column(name) for name in ("Path", "Frontal/Lateral", *class_names))
        for number, row in enumerate(table.rows):
            if frontal and row[side] != "Frontal":
                continue
            paths.append(place(row[path_at]))
            values.append([_chexpert_value(table.where(number), row[place], policy) for place in places])
            given.append(split)
    patients = [re.search(r"patient\d+", path.as_posix()) for path in paths]
    if None in patients:
        raise InputError(f"no patientNNNNN in the path {paths[patients.index(None)]}")
    listing = Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(values, dtype=np.float32),
        class_names=class_names,
        groups=np.array([found[0] for found in patients if found], dtype=np.str_),
        splits=np.array(given, dtype="<U5"),
        multi_label=True,
        notes=(f"uncertain labels: {policy}; blank labels are 0",),
    )
    return keep_present(listing)


def list_padchest(request: Request) -> Listing:
    """List PadChest, grouped by patient: some of its labels, some of its projections."""
    root = request.folder()
    class_names = tuple(request.option("labels", PADCHEST_LABELS))
    projections = tuple(request.option("projections", PADCHEST_PROJECTIONS))
    table = read_table(_one(root, "PADCHEST_chest_x_ray_images_labels_160K*.csv*"))
    places = {name: table.column(name) for name in ("ImageID", "PatientID", "Projection", "Labels")}
    image_at, folder_column = places["ImageID"], table.find("ImageDir")
    paths, words, groups = [], [], []
    num_unlabelled = 0
    known: dict[str, list[str]] = {}
    # A numbered folder, or the zip of it that is handed out; None: images lie at the top.
    folder_of = cache(lambda folder: folder_at(root / folder) if folder.strip() else None)
    for number, row in enumerate(table.rows):
        if row[places["Projection"]] not in projections:
            continue
        text = row[places["Labels"]].strip()
        if text in ("", "nan"):
            num_unlabelled += 1
            continue
        if text not in known:
            known[text] = _padchest_words(table.where(number), text)
        words.append(known[text])
        place = folder_of(row[folder_column] if folder_column is not None else "")
        inner = place / row[image_at] if place is not None else None
        paths.append(inner if inner is not None and is_file(inner) else root / row[image_at])
        groups.append(row[places["PatientID"]])
    if not paths:
        raise InputError(f"{table.file} has no labelled row of the projections {', '.join(projections)}")
    if "labels" in request.options:
        _check_known(table.file, class_names, words)
    group_of, notes = group_ids(groups, [path.name for path in paths], "PatientID")
    if num_unlabelled:
        notes = (*notes, f"{num_unlabelled} rows without labels were left out")
    listing = Listing(
        root=root,
        paths=tuple(paths),
        labels=word_columns(words, class_names),
        class_names=class_names,
        groups=group_of,
        splits=np.full(len(paths), "", dtype="<U5"),
        multi_label=True,
        notes=notes,
    )
    return keep_present(listing)


def _check_known(table: Path, labels: Sequence[str], words: Sequence[Sequence[str]]) -> None:
    """Refuse a label that no row has: misspelt, it would be a column of zeros."""
    known = sorted({word for row in words for word in row})
    for name in labels:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f"; {len(known)} labels occur"
            raise InputError(f"label {name!r} is in no row of {table}{hint}")


def _padchest_words(where: str, text: str) -> list[str]:
    """Read labels written as a Python list: a literal, never evaluated; blanks around words are stripped."""
    try:
        words = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        words = None
    if not isinstance(words, list):
        raise InputError(f"{where}: Labels {text!r} is not a list of words")
    return [str(word).strip().lower() for word in words]


def _chexpert_value(where: str, text: str, policy: str) -> float:
    if text.strip() == "":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value == -1.0:
        return UNCERTAIN[policy]
    if value in (0.0, 1.0):
        return value
    raise InputError(f"{where}: label {text!r} is not 1.0, 0.0, -1.0 or blank")


def _chexpert_table(root: Path, name: str) -> Path:
    """Find a table: at the root, or in the batch folder that holds both (`CheXpert-v1.0 batch 1 (validate & csv)`)."""
    found = [root / name, *glob(root, f"{_BATCHES}/{name}")]
    return next((file for file in found if is_file(file)), found[0])


def _chexpert_places(root: Path) -> Callable[[str], Path]:
    """Make the function from a listed path to its file: `CheXpert-v1.0[-small]/train/patient00001/...`.

    The first folder is the root, whatever it is called. At full resolution the patients lie in batch folders (or their
    zips) at the root or beside it, without the split's folder: `CheXpert-v1.0 batch 2 (train 1)/patient00001/...`.
    """
    tops = [*glob(root, _BATCHES), *(glob(root.parent, _BATCHES) if fnmatch(root.name, _BATCHES) else [])]
    batches = [top_of(top, is_split_folder) for top in tops if is_dir(top)]
    batch_of = {folder.name: batch for batch in batches for folder in children(batch)}

    def place(listed: str) -> Path:
        """Give the file of a listed path, which may not be there."""
        inner = listed.split("/", 1)[1] if "/" in listed else listed
        split, _, below = inner.partition("/")
        patient = below.split("/", 1)[0]
        if patient in batch_of and split == "train":
            return batch_of[patient] / below
        if split in batch_of and is_file(batch_of[split] / inner):
            return batch_of[split] / inner
        return root / inner if not is_file(root / listed) else root / listed

    return place


def _one(root: Path, pattern: str) -> Path:
    found = glob(root, pattern)
    if not found:
        raise InputError(f"no {pattern} in {root}: it belongs to this data set")
    return found[0]


def _lines(root: Path, name: str) -> list[str]:
    file = root / name
    lines = read_bytes(file).decode(errors="replace").splitlines() if is_file(file) else []
    return [line.strip() for line in lines if line.strip()]


CHESTXRAY14 = DatasetEntry(
    "chestxray14",
    "ChestX-ray14: 14 labels, the official test list, validation split off the rest by patient.",
    list_chestxray14,
    recognise=has_files("Data_Entry_2017*.csv"),
)

_AT_ROOT = has_files("train.csv", "valid.csv")
_IN_BATCHES = has_files(f"{_BATCHES}/train.csv", f"{_BATCHES}/valid.csv")

CHEXPERT = DatasetEntry(
    "chexpert",
    "CheXpert: chest X-rays with uncertain labels, grouped by patient.",
    list_chexpert,
    options={
        "uncertain": "what an uncertain label is: ones (default), zeros, or ignore (left out of the loss)",
        "labels": f"a list of label columns (default: the competition's {len(CHEXPERT_LABELS)})",
        "frontal": "true leaves lateral views out",
        "valid_as": "the official valid.csv is test (default), val, or extra (a second test split)",
    },
    recognise=lambda path: _AT_ROOT(path) if _AT_ROOT(path) is not None else _IN_BATCHES(path),
)

PADCHEST = DatasetEntry(
    "padchest",
    "PadChest: chest X-rays of 174 findings, grouped by patient.",
    list_padchest,
    options={
        "labels": f"a list of findings (default: the {len(PADCHEST_LABELS)} that ChestX-ray14 has too)",
        "projections": f"a list of projections (default {', '.join(PADCHEST_PROJECTIONS)})",
    },
    recognise=has_files("PADCHEST_chest_x_ray_images_labels_160K*.csv*"),
)
