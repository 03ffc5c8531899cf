"""The manifest of a bundle: every file's hash, so that one changed byte is refused before anything is run.

It writes `manifest.json` for a folder, and checks that the files it names are unchanged plain files of that folder.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.files import sha256_of
from tutelage.quant.files import read_bounded
from tutelage.records import InputError, content_id, utc_now

FORMAT = 2
MANIFEST = "manifest.json"
# What may run a model file of each kind, and the file that belongs beside it.
RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
COMPANION = {".xml": ".bin"}
_REQUIRED = ("preprocess.json", "labels.json", "thresholds.json", "parity.json", "MODEL_CARD.md", "predict.py")


class Manifest(NamedTuple):
    """What a checked manifest says: the model's file name, the runtime it is for, and the id of all hashes."""

    model: str
    runtime: str
    id: str


def write_manifest(folder: Path, model: str, runtime: str) -> None:
    """Hash every file of `folder` into its manifest; the runtime's version is the one that is installed here."""
    files = {
        path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    content = {
        **{"format": FORMAT, "runtime": runtime, "runtime_version": _version(runtime), "model": model},
        **{"created": utc_now(), "files": files},
    }
    (folder / MANIFEST).write_text(to_json(content), encoding="utf-8")


def checked_manifest(folder: Path) -> Manifest:
    """Raise InputError unless every file is there, as it was written, inside the folder, and none was added."""
    place = folder / MANIFEST
    found = parsed(place)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{place}: format {kind} is not {FORMAT}; make the bundle again")
    runtime, model, files = found.get("runtime"), str(found.get("model")), found.get("files")
    suffix = Path(model).suffix
    if runtime not in RUNTIMES.get(suffix, ()) or not isinstance(files, dict):
        raise InputError(f"{place}: runtime {runtime!r}, model {model!r} or its files are not known; make it again")
    wanted = [model, *([Path(model).with_suffix(COMPANION[suffix]).name] if suffix in COMPANION else []), *_REQUIRED]
    if missing := [name for name in wanted if name not in files]:
        raise InputError(f"{place} names no {missing[0]}; make the bundle again")
    for name, entry in files.items():
        _check_file(folder, name, entry)
    if added := sorted({path.name for path in folder.iterdir()} - {MANIFEST, *files}):
        raise InputError(f"{folder / added[0]} is not in the manifest: it was added afterwards; remove it")
    return Manifest(model, str(runtime), content_id(files))


def parsed(path: Path) -> Any:
    """Parse a JSON file of bounded size and depth."""
    try:
        return json.loads(read_bounded(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({type(error).__name__}); make the bundle again") from error


def to_json(value: Any) -> str:
    """Write JSON as a person reads it: indented, keys in order."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _version(runtime: str) -> str:
    """Give the version of a runtime that pip knows; a GPU build of it is a distribution of another name."""
    try:
        return version(runtime)
    except PackageNotFoundError:
        return str(import_module(runtime).__version__).partition("-")[0]


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
