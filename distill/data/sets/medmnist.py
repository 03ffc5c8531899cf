"""MedMNIST v2 archives (`.npz`): official splits; images in several splits are removed from the earlier one.

An archive holds `{train,val,test}_{images,labels}`; it lies on disk or is downloaded. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import zipfile
from collections import Counter
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
from tutelage.distill.data.splits import copies, drop_straddlers, limit_images, straddling_groups
from tutelage.files import sync
from tutelage.records import InputError

log = logging.getLogger(__name__)

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

# The sets of pictures and their classes; source: MedMNIST v2, INFO (CC BY 4.0). The sets of volumes are not read here.
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
ARCHIVE_SIZES = (28, 64, 128, 224)


def load_medmnist(request: Request) -> Dataset:
    """Read an archive at `path` (the file, or a folder that holds one), or download it by the option `flag`."""
    flag = str(request.option("flag", ""))
    if flag:
        path = _fetched(request.path, flag, int(request.option("archive_size", 28)))
    else:
        path = _find(request.where(), str(request.option("file", "")))
    images, labels, given = read_archive(path)
    name = path.stem
    if request.limit is not None:
        chosen = limit_images(labels, given, request.limit, request.seed)
        images, labels, given = images[chosen], labels[chosen], given[chosen]
    class_names = request.option("class_names", CLASS_NAMES.get(name.split("_")[0]))
    num_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if class_names is None or len(class_names) < num_classes:
        class_names = tuple(f"class {i}" for i in range(num_classes))
    keys = np.array([hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images])
    splits = {split: np.flatnonzero(given == split).astype(np.int64) for split in SPLITS}
    notes: tuple[str, ...] = ()
    if request.leaky:
        notes = ("images that stand in several official splits were left in (leaky)",)
    else:
        splits, num_dropped = drop_straddlers(keys, splits)
        if num_dropped:
            notes = (f"{num_dropped} images of train or val stand in a later split too and were left out",)
    column = split_column(splits, len(images))
    names = np.array([f"{split}/{i}" for i, split in enumerate(given)], dtype=np.str_)
    return Dataset(
        name=name,
        images=to_channels(resize_stack(images, request.size), request.channels),
        labels=labels,
        class_names=tuple(class_names),
        groups=keys.astype(np.str_),
        splits=splits,
        multi_label=labels.ndim == 2,
        leaky=request.leaky,
        manifest=manifest_hash(names, labels.tolist(), keys, column),
        notes=notes,
        names=names,
    )


def read_archive(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.str_]]:
    """Read images `(n, h, w[, 3])`, labels `(n,)` or `(n, L)`, and the split of each from an archive."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [f"{s}_{part}" for s in SPLITS for part in ("images", "labels") if f"{s}_{part}" not in archive]
            if missing:
                raise InputError(f"{path} is not a MedMNIST archive: it lacks {', '.join(missing)}")
            images = [archive[f"{split}_images"] for split in SPLITS]
            labels = [archive[f"{split}_labels"] for split in SPLITS]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or not an npz archive: {str(error).splitlines()[0]}") from None
    for split, pictures, answers in zip(SPLITS, images, labels, strict=True):
        _check_arrays(path, split, pictures, answers)
    given = np.repeat(np.array(SPLITS), [len(part) for part in images])
    stacked = np.concatenate(labels)
    if stacked.ndim == 2 and stacked.shape[1] == 1:
        return np.concatenate(images), stacked[:, 0].astype(np.int64), given
    if stacked.ndim == 1:
        return np.concatenate(images), stacked.astype(np.int64), given
    return np.concatenate(images), stacked.astype(np.float32), given


def _check_arrays(path: Path, split: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: {split}_images must be uint8 (n, h, w) or (n, h, w, 3), got {images.dtype} {images.shape}"
        )
    if len(images) != len(labels):
        raise InputError(f"{path}: {split} has {len(images)} images and {len(labels)} labels")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = int(np.flatnonzero(~np.isfinite(labels).reshape(len(labels), -1).all(axis=1))[0])
        raise InputError(f"{path}: label {bad} of {split} is NaN or infinite: correct or remove it")
    if labels.dtype.kind not in "iubf" or (len(labels) and labels.min() < 0):
        raise InputError(f"{path}: {split}_labels must be classes from 0 up, got {labels.dtype}")


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
    if flag not in CLASS_NAMES or size not in ARCHIVE_SIZES:
        what = f"flag {flag!r}" if flag not in CLASS_NAMES else f"archive_size {size}"
        known = CLASS_NAMES if flag not in CLASS_NAMES else map(str, ARCHIVE_SIZES)
        raise InputError(f"{what} is not one of MedMNIST's: {', '.join(known)}")
    file = f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"
    place = Path.home() / ".medmnist" if path is None else path
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
    """Say what an archive holds, and which of its images stand in several splits."""
    images, labels, given = read_archive(path)
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]
    names = [f"{split}/{i}" for i, split in enumerate(given.tolist())]
    crossing = straddling_groups(np.array(digests), given)
    classes = Counter(labels.tolist()) if labels.ndim == 1 else dict(enumerate(labels.sum(axis=0).astype(int).tolist()))
    problems = (f"{len(crossing)} images stand in more than one split (a load leaves the earlier copies out)",)
    return DataReport(
        path=str(path),
        kind="medmnist",
        num_images=len(images),
        class_counts={str(key): int(value) for key, value in sorted(classes.items())},
        split_counts=dict(Counter(given.tolist())),
        num_groups=len(set(digests)),
        duplicates=copies(names, digests),
        leaking_groups=tuple(crossing),
        sizes={f"{images.shape[2]}x{images.shape[1]}": len(images)},
        problems=problems if crossing else (),
    )


MEDMNIST = DatasetEntry(
    "medmnist",
    "MedMNIST v2 archives (.npz), there or downloaded by the package medmnist; images in several splits are kept once.",
    load_arrays=load_medmnist,
    options={
        "file": "the archive's name, where the path is a folder that holds several",
        "class_names": "a list of names (default: MedMNIST's)",
        "flag": f"which set to download where it is not there: {', '.join(CLASS_NAMES)}",
        "archive_size": f"pixels of the archive to download: {', '.join(map(str, ARCHIVE_SIZES))}",
    },
    path="optional",
    recognise=lambda path: {} if path.is_file() and path.suffix == ".npz" else None,
    check=check_archive,
)
