"""A bundle: the folder a person deploys. The model, how to feed it, what it answers, how well, and every file's hash.

Enters a model file that was evaluated and the row of its figures; leaves a folder that `load_bundle` accepts only while
every byte is as it was written. Nothing in it is ever unpickled, and nothing it names may lie outside it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from tutelage.records import InputError, Record, Row, content_id, utc_now

from .calibration import Array
from .card import model_card
from .files import read_bounded, read_graph, sha256_of
from .predict_script import predict_script
from .run import run_onnx, run_openvino

FORMAT = 1
MANIFEST = "manifest.json"
_REQUIRED = ("preprocess.json", "labels.json", "thresholds.json", "parity.json", "MODEL_CARD.md", "predict.py")
_MODELS = {".onnx": ("model.onnx",), ".xml": ("model.xml", "model.bin")}


class Preprocess(Record):
    """How 8-bit pixels become the model's input: resized, / 255, - mean, / std, channels first."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Literal["bilinear"] = "bilinear"


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
    same_top1: float  # share of images whose largest output is the same class


class Bundle(Record):
    """A bundle whose every file has the hash its manifest names."""

    folder: Path
    manifest_id: str
    runtime: Literal["onnxruntime", "openvino"]
    preprocess: Preprocess
    labels: tuple[str, ...]
    thresholds: Thresholds
    parity: Parity

    @property
    def model(self) -> Path:
        return self.folder / ("model.onnx" if self.runtime == "onnxruntime" else "model.xml")

    def run(self, images: npt.ArrayLike, *, threads: int = 1) -> Array:
        """Give logits (n, classes) for normalised float32 images (n, c, h, w)."""
        return _run(self.model, images, threads)


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
    multi_label: bool = False,
    notes: Sequence[str] = (),
) -> Bundle:
    """Write a bundle to `folder`, which must not hold one yet, whole or not at all; give it as loaded again.

    model: the evaluated .onnx or OpenVINO .xml file. row: its line of the leaderboard. thresholds: one probability a
    class, chosen on validation (None: .5 each). validation: normalised images (n, c, h, w) on which the file's outputs
    are compared with `reference_logits` (n, classes). notes: lines for the model card (intended use, limits, data).
    """
    folder, model = Path(folder), Path(model)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give a new folder for the bundle")
    if model.suffix not in _MODELS:
        raise InputError(f"a bundle holds an .onnx or OpenVINO .xml model, got {model.name}")
    cuts = Thresholds(values=tuple(thresholds or [0.5] * len(labels)), multi_label=multi_label)
    parity = compare(model, validation, reference_logits, reference)
    _check_fit(model, preprocess, labels, cuts, np.asarray(reference_logits))
    runtime = "onnxruntime" if model.suffix == ".onnx" else "openvino"
    texts = {
        "preprocess.json": _json(preprocess.to_dict()),
        "labels.json": _json(list(labels)),
        "thresholds.json": _json(cuts.to_dict()),
        "parity.json": _json(parity.to_dict()),
        "MODEL_CARD.md": model_card(row, labels, parity.to_dict(), notes),
        "predict.py": predict_script(runtime),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            aside = Path(scratch) / "bundle"
            aside.mkdir()
            for source, name in zip((model, model.with_suffix(".bin")), _MODELS[model.suffix], strict=False):
                shutil.copyfile(source, aside / name)
            for name, text in texts.items():
                (aside / name).write_text(text, encoding="utf-8")
            (aside / MANIFEST).write_text(_json(_manifest(aside, runtime)), encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write the bundle {folder}: {error.strerror}; choose another folder") from error
    return load_bundle(folder)


def load_bundle(folder: Path | str) -> Bundle:
    """Open a bundle; raise InputError when a file is missing, changed, too large, or points outside the folder."""
    folder = Path(folder)
    manifest = _parsed(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise InputError(f"{folder / MANIFEST}: format {found} is not {FORMAT}; make the bundle again")
    runtime, files = manifest.get("runtime"), manifest.get("files")
    if runtime not in ("onnxruntime", "openvino") or not isinstance(files, dict):
        raise InputError(f"{folder / MANIFEST}: runtime {runtime!r} or its files are not known; make the bundle again")
    models = _MODELS[".onnx" if runtime == "onnxruntime" else ".xml"]
    if missing := [name for name in (*models, *_REQUIRED) if name not in files]:
        raise InputError(f"{folder / MANIFEST} names no {missing[0]}; make the bundle again")
    for name, entry in files.items():
        _check_file(folder, name, entry)
    if runtime == "onnxruntime":
        read_graph(folder / "model.onnx")
    try:
        return Bundle(
            folder=folder,
            manifest_id=content_id(files),
            runtime=runtime,
            preprocess=Preprocess.from_dict(_parsed(folder / "preprocess.json")),
            labels=tuple(_parsed(folder / "labels.json")),
            thresholds=Thresholds.from_dict(_parsed(folder / "thresholds.json")),
            parity=Parity.from_dict(_parsed(folder / "parity.json")),
        )
    except (ValidationError, TypeError) as error:
        raise InputError(f"{folder}: {str(error).splitlines()[0]}; make the bundle again") from error


def compare(model: Path, images: npt.ArrayLike, reference_logits: npt.ArrayLike, reference: str) -> Parity:
    """Run a model file on validation images (n, c, h, w) and compare its logits with the reference's (n, classes)."""
    expected = np.asarray(reference_logits, dtype=np.float32)
    found = _run(model, images, 1)
    if found.shape != expected.shape:
        raise InputError(
            f"{model} gives outputs {found.shape}, the reference {expected.shape}; they are not one model's"
        )
    difference = np.abs(found - expected)
    return Parity(
        reference=reference,
        num_images=len(found),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        same_top1=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )


def _run(model: Path, images: npt.ArrayLike, threads: int) -> Array:
    run = run_onnx if model.suffix == ".onnx" else run_openvino
    return run(model, images, threads=threads)


def _check_fit(
    model: Path, how: Preprocess, labels: Sequence[str], cuts: Thresholds, logits: npt.NDArray[np.generic]
) -> None:
    """Raise InputError unless preprocessing, labels and thresholds have the model's numbers."""
    if not len(labels) == len(cuts.values) == logits.shape[1]:
        counts = f"{len(labels)} labels, {len(cuts.values)} thresholds, {logits.shape[1]} outputs"
        raise InputError(f"{model.name}: {counts}; give one label and one threshold an output")
    if not len(how.mean) == len(how.std) == how.channels:
        raise InputError(f"preprocess: {len(how.mean)} means and {len(how.std)} deviations for {how.channels} channels")


def _manifest(folder: Path, runtime: str) -> dict[str, Any]:
    files = {
        path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    return {"format": FORMAT, "runtime": runtime, "created": utc_now(), "files": files}


def _check_file(folder: Path, name: str, entry: Any) -> None:
    """Raise InputError unless `name` is a plain file of the folder with the bytes its manifest says."""
    path = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"{folder / MANIFEST} names {name!r}, outside the bundle; refused")
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} is missing or not a plain file; copy the whole bundle again")
    found = sha256_of(path)
    wanted = entry.get("sha256") if isinstance(entry, dict) else None
    if found != wanted:
        raise InputError(
            f"{path} has SHA-256 {found[:12]}, its manifest says {str(wanted)[:12]}; it was changed, refused"
        )


def _parsed(path: Path) -> Any:
    """Parse a JSON file of bounded size and depth."""
    try:
        return json.loads(read_bounded(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({type(error).__name__}); make the bundle again") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
