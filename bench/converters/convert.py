"""Convert ONNX files to what a runtime loads, by the converter that the runtime's entry names (`convert`).

Converting takes longer than exporting, so results are kept by the content of the ONNX file, the input's shape and the
converter's version.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tutelage.bench.runtimes.entry import Runtime
from tutelage.files import model_digest, sync
from tutelage.records import InputError

from .conversion import Conversion, Done, parts

Converter = Callable[[Sequence[Conversion], Done | None], None]


def converter_of(runtime: Runtime) -> Converter:
    """Import the converter that a runtime's entry names. Raises InputError for a runtime that has none."""
    if not runtime.converter:
        raise InputError(f"{runtime.name} loads {' or '.join(runtime.suffixes)} files: nothing converts ONNX to those")
    module, _, name = runtime.converter.partition(":")
    found: Converter = getattr(importlib.import_module(module), name)
    return found


def converter_version(runtime: Runtime) -> dict[str, str]:
    """Give the version of a runtime's converter, by the `version` function of its module, if it has either."""
    if not runtime.converter:
        return {}
    module = importlib.import_module(runtime.converter.partition(":")[0])
    version: Callable[[], str] | None = getattr(module, "version", None)
    return {} if version is None else {f"converter of {runtime.name}": version()}


def convert(
    runtime: Runtime, conversions: Sequence[Conversion], kept: Path | None = None, done: Done | None = None
) -> None:
    """Convert ONNX files to the files a runtime prefers; results that lie in the folder `kept` are not made again.

    Raises InputError for a file that cannot be converted and for a runtime that takes no converted ONNX.
    """
    suffix = runtime.suffixes[0]
    converter = converter_of(runtime)
    version = converter_version(runtime)
    stores = [_place(each, suffix, kept, version) for each in conversions]
    missing = [(each, store) for each, store in zip(conversions, stores, strict=True) if not store.is_file()]
    if missing:
        with TemporaryDirectory(dir=missing[0][1].parent, prefix=".converting.") as aside:
            fresh = [Path(aside, f"{number}{suffix}") for number in range(len(missing))]
            todo = [Conversion(each.onnx, new, each.shape) for (each, _), new in zip(missing, fresh, strict=True)]
            converter(todo, done)
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


def _place(conversion: Conversion, suffix: str, kept: Path | None, version: dict[str, str]) -> Path:
    if kept is None:
        return conversion.target
    kept.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256(f"{model_digest(conversion.onnx)}{(conversion.shape, suffix, version)!r}".encode())
    return kept / f"{content.hexdigest()[:24]}{suffix}"
