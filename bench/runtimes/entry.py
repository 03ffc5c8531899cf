"""`Runtime`: the registry entry of a runtime; its file also runs on other hosts, without this package.

An adapter is a class with `prepare()`, which imports the runtime and gives its version, and `load(path, shape, threads,
precision)`, which gives `(run, effective precision)`: run takes images and gives the model's outputs, as arrays. One
that runs models on a GPU has `gpu()` too: its name and what limits its clock, "" where that is not known. Where `run`
has `times(images, repeats)`, which gives milliseconds, the device's own clock times it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

Run = Callable[[Any], Any]

NEVER_ON_GPU = "never run on a GPU yet"


class Feed:
    """Gives a model what it takes: images in the type that it declares, and zeros for every other input.

    Integers are made of images by 64 levels a standard deviation: what is timed has plausible values.
    """

    def __init__(self, image: str, dtype: Any, others: Sequence[Tuple[str, Any, Sequence[int]]] = ()) -> None:  # noqa: UP006
        import numpy as np

        self._image, self._dtype, self._last = image, np.dtype(dtype), None
        self._values = {name: np.zeros(tuple(shape), kind) for name, kind, shape in others}

    def __call__(self, images: Any) -> Any:
        """Give the values by input; images that come again are converted once, so that no conversion is timed."""
        if images is not self._last:
            self._last, kind = images, self._dtype
            if kind.kind == "u":
                images = (images * 64 + 128).clip(0, 255)
            elif kind.kind == "i":
                images = (images * 64).clip(-127, 127)
            self._values[self._image] = images.astype(kind, copy=False)
        return self._values


def sizes_of(shape: Sequence[Any], batch: int) -> Tuple[int, ...]:  # noqa: UP006
    """Give the sizes of an input besides the images: what it leaves open is the batch, if it comes first, else 1."""
    return tuple(
        size if isinstance(size, int) and size > 0 else batch if place == 0 else 1 for place, size in enumerate(shape)
    )


def ask_driver(fact: str, card: str) -> Tuple[str, str]:  # noqa: UP006
    """Ask an NVIDIA card (a number or UUID) for a fact and for its power limit; "" where its driver is silent."""
    import subprocess  # most runtimes have no card to ask for

    query = ["nvidia-smi", f"--query-gpu={fact},power.limit", "--format=csv,noheader", f"--id={card}"]
    try:
        said = subprocess.check_output(query, stderr=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "", ""
    value, _, limit = said.decode(errors="replace").strip().partition(", ")
    return value, f"GPU limit {limit}" if limit else ""


@dataclass(frozen=True)
class Session:
    """A loaded model: `run` takes images `(batch, channels, height, width)` and gives logits `(batch, classes)`."""

    run: Run
    effective_precision: str


@dataclass(frozen=True)
class Runtime:
    """A runtime and its formats. `module` is what it imports, `distribution` what pip installs."""

    name: str
    module: str
    distribution: str
    precisions: Tuple[str, ...]  # noqa: UP006 - read by dataclass on Python 3.8
    suffixes: Tuple[str, ...]  # noqa: UP006 - model files it loads, the preferred one first
    adapter: Callable[[], Any]
    file: str  # the adapter's own file, `__file__`: it is what goes to another host
    extra: str = ""  # the extra of this package that brings it; empty: always installed, or not brought by one
    anchors: str = "anchor"  # the runtime of the anchor nets measured beside it; "anchor" needs only numpy
    ambiguous_module: bool = False  # another distribution brings a module of that name too
    load_seconds: float = 120.0  # within which a model must be loaded
    exported: str = ".onnx"  # what a network is exported to; where it is no suffix above, `converter` makes one
    converter: str = ""  # `module:function` of (conversions, done), see `converters/convert.py`
    files_rows: bool = True  # a run files rows of it
    block_table: bool = True  # blocks are quick enough to load that a profile measures a table of them
    on_gpu: bool = False  # it computes on a GPU: `threads` says nothing about its speed
    driver: str = ""  # the library of the device's driver, without which it is not here: as `ctypes` loads it
    int8_blocks: bool = False  # blocks and subnets can be quantized while a profile or a search measures them
    program: str = ""  # `module:constant` of its benchmark program, which devices without Python run
    profiler: str = ""  # `module:function` that times its layers on this host, see `bench/layers`
    read_shape: Optional[Callable[[str], Sequence[Optional[int]]]] = None  # noqa: UP045 - of its own format's input
    needs: str = "a GPU and its driver"  # what `driver` belongs to
    installed_by: str = ""  # what installs it, where that is more than one package or extra
    caveat: str = ""  # what its users must know beforehand ("never run on a GPU yet"): whatever lists runtimes says it

    @property
    def listed(self) -> str:
        """Give the name as lists of runtimes show it: with its caveat."""
        return f"{self.name} ({self.caveat})" if self.caveat else self.name

    @property
    def one_image(self) -> bool:
        """Say whether its files keep the batch they were exported with; those of a run take one image."""
        return ".onnx" not in self.suffixes

    def installed(self) -> bool:
        """Say whether its module can be found; it is not imported for that."""
        if self.ambiguous_module and not self.version():
            return False
        if self.driver and not self._has_driver():
            return False
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent package of a dotted module is missing
            return False

    def _has_driver(self) -> bool:
        import ctypes

        try:
            ctypes.CDLL(self.driver)
        except OSError:
            return False
        return True

    def version(self) -> str:
        """Give the installed version, empty where it is not installed."""
        import importlib.metadata  # a sixth of a runner's start, which never asks

        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def load(
        self,
        path: Path,
        threads: int = 1,
        precision: str = "fp32",
        shape: Optional[Tuple[int, ...]] = None,  # noqa: UP006, UP045
    ) -> Session:
        """Load a model file in this process; a `shape` (batch, channels, height, width) fixes dynamic dimensions.

        Raises InputError for an unknown precision or suffix and for a broken file.
        """
        from tutelage.records import InputError, NotAvailableError

        self.check(precision, path)
        try:
            adapter = self.adapter()
            adapter.prepare()
            run, effective = adapter.load(str(path), shape, threads, precision)
        except (ImportError, OSError, MemoryError) as error:  # of this host at this moment, not of the file
            raise NotAvailableError(f"{self.name} cannot load {path} now: {type(error).__name__}: {error}") from error
        except Exception as error:  # runtimes raise types of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.name} cannot load {path}: {reason}") from error
        return Session(run, effective)

    def check(self, precision: str, path: Optional[Path] = None, *, here: bool = True) -> None:  # noqa: UP045
        """Refuse what it cannot do, before any process is started; `here`: it will run on this host."""
        from tutelage.records import InputError, NotAvailableError

        if here and not self.installed():
            raise NotAvailableError(f"runtime {self.name} is not installed: {self.remedy()}")
        if precision not in self.precisions:
            raise InputError(f"precision {precision!r} is not of {self.name}: it runs {', '.join(self.precisions)}")
        if path is not None and path.suffix not in self.suffixes:
            raise InputError(
                f"{self.name} loads {' or '.join(self.suffixes)} files, not {path}: export the model for it"
            )
        if path is not None and not path.is_file():
            raise InputError(f"no model file {path}: export the model first")

    def remedy(self) -> str:
        """Give the command that installs it, after the device that it needs where that is not here."""
        if self.driver and not self._has_driver():
            return f"it needs {self.needs} ({self.driver}), then {self.installation}"
        return self.installation

    @property
    def installation(self) -> str:
        """Give the command that installs its packages."""
        if self.installed_by:
            return self.installed_by
        return f"pip install 'tutelage[{self.extra}]'" if self.extra else f"pip install {self.distribution}"
