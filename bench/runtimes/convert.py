"""From what networks are exported to, to what a runtime reads: ONNX as it is, .tflite and .param by their converters.

Converting takes longer than exporting, so results are kept by the content of the ONNX file and the input's shape.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tutelage.files import sync
from tutelage.records import InputError

from .conversion import Conversion, Done, parts
from .litert import convert_to_litert
from .ncnn_convert import convert_to_ncnn
from .registry import RunnerRuntime

CONVERTERS: dict[str, Callable[[Sequence[Conversion], Done | None], None]] = {
    ".tflite": convert_to_litert,
    ".param": convert_to_ncnn,
}


def convert(
    runtime: RunnerRuntime, conversions: Sequence[Conversion], kept: Path | None = None, done: Done | None = None
) -> None:
    """Convert ONNX files to the files a runtime prefers; results that lie in the folder `kept` are not made again.

    Raises InputError for a file that cannot be converted and for a runtime that takes no converted ONNX.
    """
    suffix = runtime.suffixes[0]
    if suffix not in CONVERTERS:
        raise InputError(f"{runtime.name} loads {' or '.join(runtime.suffixes)} files: nothing converts ONNX to those")
    stores = [_place(each, suffix, kept) for each in conversions]
    missing = [(each, store) for each, store in zip(conversions, stores, strict=True) if not store.is_file()]
    if missing:
        with TemporaryDirectory(dir=missing[0][1].parent, prefix=".converting.") as aside:
            fresh = [Path(aside, f"{number}{suffix}") for number in range(len(missing))]
            todo = [Conversion(each.onnx, new, each.shape) for (each, _), new in zip(missing, fresh, strict=True)]
            CONVERTERS[suffix](todo, done)
            for (_, store), new in zip(missing, fresh, strict=True):
                _keep(new, store)
    for each, store in zip(conversions, stores, strict=True):
        if store != each.target:
            for part in parts(store):
                shutil.copyfile(part, each.target.with_suffix(part.suffix))


def _keep(new: Path, store: Path) -> None:
    """Sync a model's files and give them their names, the one that is looked for last."""
    files = parts(new)
    for part in reversed(files):
        sync(part)
        part.replace(store.with_suffix(part.suffix))
    sync(store.parent)


def _place(conversion: Conversion, suffix: str, kept: Path | None) -> Path:
    if kept is None:
        return conversion.target
    kept.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256(conversion.onnx.read_bytes() + repr((conversion.shape, suffix)).encode())
    return kept / f"{content.hexdigest()[:24]}{suffix}"
