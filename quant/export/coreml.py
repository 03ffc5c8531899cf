"""Export a network as a Core ML program, for the CPU, GPU and Neural Engine of Apple's devices: `export_coreml`.

Conversion runs on Linux, too; prediction needs a Mac, so that a program's outputs are compared with nothing here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.files import sync, sync_tree, whole_file
from tutelage.records import InputError, NotAvailableError

from .normalise import normalise

PACKAGE, ZIPPED = ".mlpackage", ".mlzip"
# What a zipped program says of itself beside its package; `bench/runtimes/core_ml.py` reads it by the same names.
ABOUT, FOLDER = "about.json", "net.mlpackage"
PRECISIONS = ("fp16", "fp32")
INSTALLED_BY = "pip install 'tutelage[coreml]'"


def export_coreml(model: nn.Module, path: Path, input_shape: Sequence[int], precision: str = "fp16") -> Path:
    """Write `model`, in eval mode and for inputs of exactly `input_shape` (batch, c, h, w), as a Core ML program.

    Its input is `images` in float32, normalised, its output `logits`. It needs iOS 16 or macOS 13. A path that ends in
    .mlpackage becomes the folder that Xcode opens, .mlzip the same folder in one file, as devices elsewhere get it.
    precision: what it computes in and keeps its weights in; the GPU and the Neural Engine compute in fp16.
    Raises NotAvailableError without coremltools, and InputError for another ending, a folder that is there, and a
    network that cannot be converted.
    """
    check_target(path)
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is none of Core ML's: give {' or '.join(PRECISIONS)}")
    program = _converted(model, tuple(input_shape), precision)
    if path.suffix == PACKAGE:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as near:
            folder = Path(near) / FOLDER
            program.save(str(folder))
            sync_tree(folder)
            folder.rename(path)
        sync(path.parent)
        return path
    about = {"shape": [int(size) for size in input_shape], "precision": precision}
    with tempfile.TemporaryDirectory(prefix="tutelage-export-") as scratch:
        program.save(str(Path(scratch) / FOLDER))
        (Path(scratch) / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        with whole_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(Path(scratch).rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(scratch).as_posix())
    return path


def check_target(path: Path) -> None:
    """Raise InputError for a place that no program is written to, and NotAvailableError without coremltools."""
    if path.suffix not in (PACKAGE, ZIPPED):
        raise InputError(f"{path}: a Core ML program is a {PACKAGE} folder or a {ZIPPED} file: name one")
    if path.suffix == PACKAGE and path.exists():
        raise InputError(f"{path} exists: remove it, or name another folder")
    if importlib.util.find_spec("coremltools") is None:
        raise NotAvailableError(f"Core ML export needs coremltools: {INSTALLED_BY}")


def _converted(model: nn.Module, shape: tuple[int, ...], precision: str) -> Any:
    """Convert by `torch.export`: with numpy 2.4 coremltools 9 cannot read traced networks."""
    tools = _coremltools()
    kinds = {"fp16": tools.precision.FLOAT16, "fp32": tools.precision.FLOAT32}
    with _quiet():
        program = torch.export.export(normalise(model), (torch.zeros(shape),)).run_decompositions({})
        try:
            made = tools.convert(
                program,
                outputs=[tools.TensorType(name="logits", dtype=np.float32)],
                convert_to="mlprogram",
                compute_precision=kinds[precision],
                minimum_deployment_target=tools.target.iOS16,
                skip_model_load=True,
            )
        except (ValueError, NotImplementedError, RuntimeError, TypeError, KeyError) as error:  # the converter's own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"coremltools cannot convert the network: {reason}") from error
        spec = made.get_spec()
        tools.utils.rename_feature(spec, spec.description.input[0].name, "images")
        return tools.models.MLModel(spec, weights_dir=made.weights_dir, skip_model_load=True)


def _coremltools() -> Any:
    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it warns of versions and of what a Mac would have
    try:
        with _quiet():
            import coremltools
    except ImportError as error:
        raise NotAvailableError(f"coremltools does not load ({error}): {INSTALLED_BY}") from error
    return coremltools


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's progress bars and warnings off the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
