"""The runtimes a device may use: one small adapter each, all with the same interface.

The adapters themselves live in `adapters.py`, which must be able to run without this package; here they get what a
program asks of them: is it installed, which version, which precisions, load a file and run it in this process.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

from . import adapters

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Session:
    """A loaded model: `run` takes images `(batch, channels, height, width)` and gives logits `(batch, classes)`."""

    run: Callable[[Images], Images]
    effective_precision: str


class Runtime(Protocol):
    """What every runtime offers. `suffixes` are the model files it loads, the preferred one first."""

    @property
    def name(self) -> str: ...
    @property
    def extra(self) -> str: ...
    @property
    def precisions(self) -> tuple[str, ...]: ...
    @property
    def suffixes(self) -> tuple[str, ...]: ...
    def installed(self) -> bool: ...
    def version(self) -> str: ...
    def load(self, path: Path, threads: int = 1, precision: str = "fp32") -> Session: ...


@dataclass(frozen=True)
class RunnerRuntime:
    """A runtime whose adapter is in `adapters.py`: `module` is what it imports, `distribution` what pip installs."""

    name: str
    module: str
    distribution: str
    precisions: tuple[str, ...]
    suffixes: tuple[str, ...]
    extra: str = ""  # the extra of this package that brings it; empty: always installed
    anchors: str = "anchor"  # the runtime of the anchor nets measured beside it
    told_apart: bool = False  # another distribution brings a module of that name too
    load_seconds: float = 120.0  # within which a model must be loaded
    exported: str = ".onnx"  # what a network is exported to; where it is no suffix above, it is converted (convert.py)

    def installed(self) -> bool:
        """Say whether its module can be found; it is not imported for that."""
        if self.told_apart and not self.version():
            return False
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent package of a dotted module is missing
            return False

    def version(self) -> str:
        """Give the installed version, empty where it is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def load(
        self, path: Path, threads: int = 1, precision: str = "fp32", shape: tuple[int, ...] | None = None
    ) -> Session:
        """Load a model file in this process; a `shape` (batch, channels, height, width) fixes dynamic dimensions.

        Raises InputError for an unknown precision or suffix and for a broken file.
        """
        self.check(precision, path)
        try:
            run, effective = adapters.open_model(self.name, str(path), shape, threads, precision)
        except Exception as error:  # runtimes raise types of their own
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{self.name} cannot load {path}: {reason}") from error
        return Session(run, effective)

    def check(self, precision: str, path: Path | None = None, *, here: bool = True) -> None:
        """Refuse what it cannot do, before any process is started; `here`: it will run on this host."""
        if here and not self.installed():
            raise InputError(f"runtime {self.name} is not installed: {self.remedy()}")
        if precision not in self.precisions:
            raise InputError(f"precision {precision!r} is not of {self.name}: it runs {', '.join(self.precisions)}")
        if path is not None and path.suffix not in self.suffixes:
            raise InputError(
                f"{self.name} loads {' or '.join(self.suffixes)} files, not {path}: export the model for it"
            )
        if path is not None and not path.is_file():
            raise InputError(f"no model file {path}: export the model first")

    def remedy(self) -> str:
        return f"pip install 'tutelage[{self.extra}]'" if self.extra else f"pip install {self.distribution}"


RUNTIMES: dict[str, RunnerRuntime] = {
    runtime.name: runtime
    for runtime in (
        RunnerRuntime("onnxruntime", "onnxruntime", "onnxruntime", ("fp32", "int8"), (".onnx",), anchors="onnxruntime"),
        RunnerRuntime(
            "openvino", "openvino", "openvino", ("fp32", "bf16", "fp16", "int8"), (".onnx", ".xml"), anchors="openvino"
        ),
        RunnerRuntime(
            "onnxruntime-cuda",
            "onnxruntime",
            "onnxruntime-gpu",
            ("fp32", "int8"),
            (".onnx",),
            anchors="onnxruntime-cuda",
            told_apart=True,
        ),
        RunnerRuntime("torch", "torch", "torch", ("fp32", "bf16"), (".pt2",), exported=".pt2"),
        RunnerRuntime(
            "torch-compiled", "torch", "torch", ("fp32", "bf16"), (".pt2",), exported=".pt2", load_seconds=900.0
        ),
        RunnerRuntime("litert", "ai_edge_litert", "ai-edge-litert", ("fp32", "int8"), (".tflite",), "litert"),
        RunnerRuntime(
            "executorch", "executorch.runtime", "executorch", ("fp32", "int8"), (".pte",), "executorch", exported=".pte"
        ),
        RunnerRuntime("ncnn", "ncnn", "ncnn", ("fp32", "fp16", "bf16"), (".param",), "ncnn"),
    )
}


def find_runtime(name: str) -> RunnerRuntime:
    """Look a runtime up by name. Raises InputError that lists the known ones."""
    if name in RUNTIMES:
        return RUNTIMES[name]
    near = difflib.get_close_matches(name, RUNTIMES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"unknown runtime {name!r}{hint or ':'} known are {', '.join(RUNTIMES)}")
