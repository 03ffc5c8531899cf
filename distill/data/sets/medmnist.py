"""MedMNIST v2 archives (`.npz`): official splits; images in several splits are removed from the earlier one.

An archive holds `{train,val,test}_{images,labels}`; it lies on disk or is downloaded. `reading/archives.py` reads it.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.dataset import (
    SPLITS,
    DataReport,
    Dataset,
    DatasetEntry,
    Request,
    manifest_hash,
    split_column,
)
from tutelage.distill.data.images import resize_stack, to_channels
from tutelage.distill.data.reading.archives import SLICES_HELP, Archive, HowToRead, read_archive
from tutelage.distill.data.reading.labels import MULTI_LABEL_HELP, UNKNOWN_HELP, Labels, unknown_policy
from tutelage.distill.data.reading.pixels import RANGE_HELP, stated_range
from tutelage.distill.data.splits import (
    absent_classes,
    copies,
    count_labels,
    drop_straddlers,
    limit_request,
    straddling_groups,
)
from tutelage.files import home_folder, sync
from tutelage.records import InputError

log = logging.getLogger(__name__)

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

# The sets of pictures and their classes; source: MedMNIST v2, INFO (CC BY 4.0).
CLASS_NAMES = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
        "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip
# The sets of volumes, which the option `slices` makes pictures of.
VOLUME_CLASS_NAMES = {
    "organmnist3d": (
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
        "lung-left", "spleen", "pancreas",
    ),
    "nodulemnist3d": ("benign", "malignant"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
}  # fmt: skip
ALL_NAMES = {**CLASS_NAMES, **VOLUME_CLASS_NAMES}
ARCHIVE_SIZES = (28, 64, 128, 224)
VOLUME_SIZES = (28, 64)


def load_medmnist(request: Request) -> Dataset:
    """Read an archive at `path` (the file, or a folder that holds one), or download it by the option `flag`."""
    flag = str(request.option("flag", ""))
    if flag:
        path = _fetched(request.path, flag, int(request.option("archive_size", 28)))
    else:
        path = _find(request.where(), str(request.option("file", "")))
    return _assemble(path, read_archive(path, _how(path, request)), request)


def _assemble(path: Path, archive: Archive, request: Request) -> Dataset:
    """Name the classes, keep the official splits apart, resize."""
    labels, class_names = _named(path, archive.labels, request.options.get("class_names"))
    images, given, keys, names = archive.images, archive.splits, archive.groups, archive.names
    if request.limit is not None:
        chosen = limit_request(labels, given, request)
        images, labels, given, keys = images[chosen], labels[chosen], given[chosen], keys[chosen]
        names = names[chosen]
    splits = {split: np.flatnonzero(given == split).astype(np.int64) for split in SPLITS}
    notes = list(archive.notes)
    if request.leaky:
        notes.append("images that stand in several official splits were left in (leaky)")
    else:
        splits, num_dropped = drop_straddlers(keys, splits)
        if num_dropped:
            notes.append(f"{num_dropped} images of train or val stand in a later split too and were left out")
    column = split_column(splits, len(images))
    notes += absent_classes(labels, class_names, splits, path.stem)
    return Dataset(
        name=path.stem,
        images=to_channels(resize_stack(images, request.size), request.channels),
        labels=labels,
        class_names=class_names,
        groups=keys,
        splits=splits,
        multi_label=labels.ndim == 2,
        leaky=request.leaky,
        manifest=manifest_hash(names, labels.tolist(), keys, column),
        notes=tuple(notes),
        names=names,
    )


def _how(path: Path, request: Request) -> HowToRead:
    """Read the options; ChestMNIST is multi-label even where each of a few rows has exactly one label."""
    chest = True if _set_of(path) == "chestmnist" else None
    return HowToRead(
        slices=request.options.get("slices"),
        range=stated_range(request.options.get("range")),
        unknown=unknown_policy(request.option("unknown", "refuse")),
        multi_label=request.options.get("multi_label", chest),
    )


def _set_of(path: Path) -> str:
    return path.stem.split("_")[0]


def _named(path: Path, labels: Labels, asked: Sequence[str] | None) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Name the classes by the option `class_names` or MedMNIST's names, else by their codes.

    Codes count from 0 where names are known: a class without an image keeps its place.
    """
    num = len(labels.class_names)
    names = tuple(map(str, asked)) if asked is not None else ALL_NAMES.get(_set_of(path))
    codes = np.array(labels.codes, dtype=np.int64)
    if names is not None and len(codes) and codes[0] >= 0 and codes[-1] < len(names):
        return codes[labels.values], names
    if names is not None and len(names) == num:
        return labels.values, names
    if asked is not None:
        raise InputError(f"class_names gives {len(names or ())} names, and {path} has {num} classes or labels")
    if labels.codes == tuple(range(num)) or (not labels.codes and labels.class_names[0] == "column 0"):
        return labels.values, tuple(f"class {number}" for number in range(num))
    return labels.values, labels.class_names


def _find(path: Path, file: str) -> Path:
    """Find the archive: the path itself, the named file in it, or the only npz of a folder."""
    if path.is_file():
        return path
    if file:
        if not (path / file).is_file():
            raise InputError(f"no file {file} in {path}")
        return path / file
    found = sorted(path.glob("*.npz"))
    if len(found) != 1:
        names = ", ".join(item.name for item in found[:5]) or "none"
        raise InputError(f"{path} holds {len(found)} npz files ({names}): name one by the option file=")
    return found[0]


def _fetched(path: Path | None, flag: str, size: int) -> Path:
    """Give the archive of a set at `path` (a file, a folder, or the package's own folder), downloaded if need be.

    It is downloaded aside, checked against the package's MD5 and renamed: a run that is stopped leaves no half of it.
    """
    sizes = VOLUME_SIZES if flag in VOLUME_CLASS_NAMES else ARCHIVE_SIZES
    if flag not in ALL_NAMES or size not in sizes:
        what = f"flag {flag!r}" if flag not in ALL_NAMES else f"archive_size {size}"
        known = ALL_NAMES if flag not in ALL_NAMES else map(str, sizes)
        raise InputError(f"{what} is not one of MedMNIST's: {', '.join(known)}")
    file = f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"
    home = home_folder()
    if path is None and home is None:
        raise InputError(
            "data set medmnist is kept in ~/.medmnist, and this user has no home: say where with data.path"
        )
    place = home / ".medmnist" if path is None and home is not None else Path(path or "")
    whole = place if place.suffix == ".npz" else place / file
    if whole.is_file():
        return whole
    by_hand = f"get {file} from medmnist.com and put it at {whole}"
    try:
        import medmnist
    except ImportError:
        raise InputError(f"no data at {whole}: pip install 'tutelage[medmnist]' downloads it, or {by_hand}") from None
    log.info("%s is not there: medmnist downloads it (%s)", whole, medmnist.INFO[flag]["license"])
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=whole.parent) as aside:
            kind = getattr(medmnist, medmnist.INFO[flag]["python_class"])
            kind(split="test", root=aside, size=size, download=True)
            sync(Path(aside) / file)
            (Path(aside) / file).replace(whole)
    except (RuntimeError, OSError) as error:  # the package tells its own remedy in ten lines
        reason = "" if isinstance(error, RuntimeError) else f" ({error.strerror or error})"
        raise InputError(f"no data at {whole}, and it could not be downloaded{reason}: {by_hand}") from None
    return whole


def check_archive(path: Path) -> DataReport:
    """Say what an archive holds, and which of its images stand in several splits; a run reads it by the same code."""
    request = Request("medmnist", path, 28)
    try:
        archive = read_archive(path, _how(path, request))
        data = _assemble(path, archive, request)
    except InputError as error:
        return DataReport(path=str(path), kind="medmnist", num_images=0, class_counts={}, problems=(str(error),))
    return DataReport(
        path=str(path),
        kind="medmnist",
        num_images=len(archive.images),
        class_counts=count_labels(data.labels, data.class_names),
        split_counts=dict(Counter(archive.splits.tolist())),
        num_groups=len(set(archive.groups.tolist())),
        duplicates=copies(archive.names.tolist(), archive.groups.tolist()),
        leaking_groups=tuple(straddling_groups(archive.groups, archive.splits)),
        sizes={f"{archive.images.shape[2]}x{archive.images.shape[1]}": len(archive.images)},
        notes=data.notes,
    )


MEDMNIST = DatasetEntry(
    "medmnist",
    "MedMNIST v2 archives (.npz) of pictures, or of volumes by slice; downloaded by the package medmnist where absent.",
    load_arrays=load_medmnist,
    options={
        "file": "the archive's name, where the path is a folder that holds several",
        "class_names": "a list of names (default: MedMNIST's)",
        "flag": f"which set to download where it is not there: {', '.join(ALL_NAMES)}",
        "archive_size": f"pixels of the archive to download: {', '.join(map(str, ARCHIVE_SIZES))} (volumes: 28, 64)",
        "slices": SLICES_HELP,
        "range": RANGE_HELP,
        "unknown": UNKNOWN_HELP,
        "multi_label": MULTI_LABEL_HELP,
    },
    path="optional",
    of_one=("flag", "archive_size"),
    recognise=lambda path: {} if path.is_file() and path.suffix == ".npz" else None,
    check=check_archive,
)
