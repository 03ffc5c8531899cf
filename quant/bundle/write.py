"""A bundle: the folder a person deploys. The model, how to feed it, what its outputs mean, and every file's hash.

`write_bundle` makes one of a model file that was evaluated and the row of its figures, `load_bundle` accepts it only
while every byte is as it was written. Nothing in it is ever unpickled, and nothing it names may lie outside it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from tutelage.files import sync, sync_tree
from tutelage.quant.files import read_graph
from tutelage.quant.int8.calibration import Array
from tutelage.quant.run import run_onnx, run_openvino
from tutelage.records import InputError, Record, Row

from . import predict_script
from .card import model_card
from .manifest import COMPANION, MANIFEST, RUNTIMES, checked_manifest, parsed, to_json, write_manifest

__all__ = ["MANIFEST", "Bundle", "Parity", "Preprocess", "Thresholds", "compare", "load_bundle", "write_bundle"]


class Preprocess(Record):
    """How pixels become the model's input: 8 bits, resized (Pillow's bilinear), / 255, - mean, / std, channels first.

    `fit`: what is done to an image that is not square: squashed, cropped to the middle, or padded with black.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Literal["bilinear"] = "bilinear"
    fit: Literal["squash", "crop", "pad"] = "squash"


class Thresholds(Record):
    """When a class is called: by its probability for two classes or many labels, by the largest one otherwise."""

    values: tuple[float, ...]
    multi_label: bool = False


class Parity(Record):
    """How far the deployed file's outputs are from the reference's, over `num_images` validation images."""

    reference: str
    num_images: int
    largest_difference: float
    mean_difference: float
    same_top1: float  # fraction of images whose largest output is the same class
    evaluated_difference: float | None = None  # largest, of probabilities from those the row was evaluated with


class Bundle(Record):
    """A bundle whose every file has the hash its manifest names."""

    folder: Path
    manifest_id: str
    runtime: Literal["onnxruntime", "openvino"]
    model_name: str
    preprocess: Preprocess
    labels: tuple[str, ...]
    thresholds: Thresholds
    parity: Parity

    @property
    def model(self) -> Path:
        return self.folder / self.model_name

    def run(self, images: npt.ArrayLike, *, threads: int = 1) -> Array:
        """Give logits (n, classes) for normalised float32 images (n, c, h, w)."""
        return run_file(self.model, self.runtime, images, threads)


def write_bundle(
    folder: Path | str,
    model: Path | str,
    row: Row,
    *,
    preprocess: Preprocess,
    labels: Sequence[str],
    thresholds: Sequence[float] | None,
    validation: npt.ArrayLike,
    reference_logits: npt.ArrayLike,
    reference: str = "the fp32 network in torch",
    evaluated_difference: float | None = None,
    multi_label: bool = False,
    data: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Bundle:
    """Write a bundle to `folder`, which must not hold one yet, whole or not at all; give it as loaded again.

    model: the evaluated .onnx or OpenVINO .xml file. row: its line of the leaderboard, whose runtime the bundle is for.
    thresholds: one probability a class, chosen on validation (None: .5 each). validation: normalised images (n, c, h,
    w) on which the file's outputs are compared with `reference_logits` (n, classes). data, notes: lines for the card.
    """
    folder, model = Path(folder), Path(model)
    check_empty(folder)
    runtime = _runtime_of(model, row)
    cuts = Thresholds(values=tuple(thresholds or [0.5] * len(labels)), multi_label=multi_label)
    parity = compare(model, validation, reference_logits, reference, runtime=runtime)
    parity = parity.model_copy(update={"evaluated_difference": evaluated_difference})
    _check_fit(model, preprocess, labels, cuts, np.asarray(reference_logits))
    texts = {
        "preprocess.json": to_json(preprocess.to_dict()),
        "labels.json": to_json(list(labels)),
        "thresholds.json": to_json(cuts.to_dict()),
        "parity.json": to_json(parity.to_dict()),
        "MODEL_CARD.md": model_card(row, labels, parity.to_dict(), cuts.to_dict(), data, notes),
        "predict.py": Path(predict_script.__file__).read_text(encoding="utf-8"),
    }
    suffixes = (model.suffix, *([COMPANION[model.suffix]] if model.suffix in COMPANION else []))
    files = {f"model{suffix}": model.with_suffix(suffix) for suffix in suffixes}
    with whole_folder(folder, files, texts) as aside:
        write_manifest(aside, f"model{model.suffix}", runtime)
    return load_bundle(folder)


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds anything: a bundle is a new one."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; give a new folder for the bundle")


@contextmanager
def whole_folder(folder: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> Iterator[Path]:
    """Write a folder whole or not at all: copies of files and texts by name, and what is added before the end.

    Yields the folder aside that takes the place of `folder`, which must hold nothing, when the block ends. Raises
    InputError where it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            aside = Path(scratch) / "bundle"
            aside.mkdir()
            for name, path in files.items():
                shutil.copyfile(path, aside / name)
            for name, text in texts.items():
                (aside / name).write_text(text, encoding="utf-8")
            yield aside
            sync_tree(aside)
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
            sync(folder.parent)
    except OSError as error:
        raise InputError(f"cannot write the bundle {folder}: {error.strerror}; choose another folder") from error


def load_bundle(folder: Path | str) -> Bundle:
    """Open a bundle; raise InputError when a file is missing, changed, added, too large, or points outside it."""
    folder = Path(folder)
    manifest = checked_manifest(folder)
    if manifest.model.endswith(".onnx"):
        read_graph(folder / manifest.model)
    try:
        return Bundle(
            folder=folder,
            manifest_id=manifest.id,
            runtime=manifest.runtime,
            model_name=manifest.model,
            preprocess=Preprocess.from_dict(parsed(folder / "preprocess.json")),
            labels=tuple(parsed(folder / "labels.json")),
            thresholds=Thresholds.from_dict(parsed(folder / "thresholds.json")),
            parity=Parity.from_dict(parsed(folder / "parity.json")),
        )
    except (ValidationError, TypeError) as error:
        raise InputError(f"{folder}: {str(error).splitlines()[0]}; make the bundle again") from error


def compare(
    model: Path, images: npt.ArrayLike, reference_logits: npt.ArrayLike, reference: str, *, runtime: str = ""
) -> Parity:
    """Run a model file on validation images (n, c, h, w) and compare its logits with the reference's (n, classes)."""
    expected = np.asarray(reference_logits, dtype=np.float32)
    logits = run_file(model, runtime or RUNTIMES[model.suffix][0], images, 1)
    if logits.shape != expected.shape:
        raise InputError(
            f"{model} gives outputs {logits.shape}, the reference {expected.shape}; they are not one model's"
        )
    difference = np.abs(logits - expected)
    return Parity(
        reference=reference,
        num_images=len(logits),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        same_top1=float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )


def run_file(model: Path, runtime: str, images: npt.ArrayLike, threads: int) -> Array:
    """Give the logits (n, classes) of a model file in the runtime it is deployed on."""
    run = run_openvino if runtime == "openvino" else run_onnx
    return run(model, images, threads=threads)


def _runtime_of(model: Path, row: Row) -> str:
    """Give the row's runtime where it reads such a file, or the file's own where the row names none."""
    known = RUNTIMES.get(model.suffix)
    if known is None:
        raise InputError(
            f"a bundle holds an .onnx or OpenVINO .xml model, this row's is {model.name}: "
            "bundle a row of onnxruntime or openvino"
        )
    if row.runtime and row.runtime not in known:
        raise InputError(f"the row is of {row.runtime}, and {model.name} is for {' or '.join(known)}: give another row")
    return row.runtime or known[0]


def _check_fit(
    model: Path, how: Preprocess, labels: Sequence[str], cuts: Thresholds, logits: npt.NDArray[np.generic]
) -> None:
    """Raise InputError unless preprocessing, labels and thresholds have the model's numbers."""
    if not len(labels) == len(cuts.values) == logits.shape[1]:
        counts = f"{len(labels)} labels, {len(cuts.values)} thresholds, {logits.shape[1]} outputs"
        raise InputError(f"{model.name}: {counts}; give one label and one threshold an output")
    if not len(how.mean) == len(how.std) == how.channels:
        raise InputError(f"preprocess: {len(how.mean)} means and {len(how.std)} deviations for {how.channels} channels")
