"""Files that are whole or absent, whatever ends the process: written aside, synced to disk, then renamed.

`whole_file` is the one way to write a file that a later run reads; `sync_tree` makes a folder that others filled last.
`files_of_a_model` lists the files that one model consists of, `model_bytes` and `model_digest` measure and hash them.
This module imports nothing of the package, so that every package may use it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Files that lie beside a model and belong to it: weights of OpenVINO and of ncnn.
BESIDE = {".xml": ".bin", ".param": ".bin"}
_READ_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to instead; leaving the block syncs it and gives it its name, an error removes it.

    It has the same name in a folder of its own beside `path`: libraries read the format from the name, and what a kill
    leaves there is not listed among the files of a kind. What is no file, such as /dev/stdout, is written to and stays
    what it is. Raises OSError.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with TemporaryDirectory() as elsewhere:
            aside = Path(elsewhere, path.name)
            with os_errors(path):
                yield aside
            with aside.open("rb") as made, path.open("wb") as given:
                shutil.copyfileobj(made, given)
        return
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        aside = Path(folder, path.name)
        with os_errors(path):
            yield aside
        sync(aside)
        aside.replace(path)
    sync(path.parent)  # the name, too, survives a power failure


def write_text(path: Path, text: str, *, newline: str | None = None) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8", newline=newline)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1))


_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# What PyTorch says where fewer bytes reached the disk than it wrote.
_TORN = ("unexpected pos", "PytorchStreamWriter", "inline_container")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise as OSError of `path` what safetensors and PyTorch raise for a disk that is full or cannot be written."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        text = str(error)
        found = _OS_ERROR.search(text)
        number = int(found.group(1)) if found else errno.ENOSPC if any(word in text for word in _TORN) else 0
        if not number:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def home_folder() -> Path | None:
    """Give the user's home; None for one without any, as in a container that runs under a number without a name."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below `folder`, each folder after what it holds, and `folder` itself last.

    Links are not followed: their targets belong to others.
    """
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(root))


def files_of_a_model(path: Path) -> list[Path]:
    """List the files that make up a model, itself first; OpenVINO, ncnn and ONNX may keep weights beside it.

    External data that is missing or lies outside the model's folder is left out: who opens the file refuses it.
    """
    beside = path.with_suffix(BESIDE.get(path.suffix, path.suffix))
    if beside != path:
        return [path, beside] if beside.is_file() else [path]
    if path.suffix != ".onnx":
        return [path]
    folder = path.parent.resolve()
    named = sorted({(folder / name).resolve() for name in _external_data(path)})
    return [path, *(file for file in named if file.is_relative_to(folder) and file.is_file())]


def model_bytes(path: Path) -> int:
    """Count the bytes of a model on disk, those of all its files."""
    return sum(file.stat().st_size for file in files_of_a_model(path))


def model_digest(path: Path) -> str:
    """Hash the content of all files of a model, 64 hex digits; of one file it is the SHA-256 of that file."""
    digests = [sha256_of(file) for file in files_of_a_model(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _external_data(path: Path) -> set[str]:
    """Name the files that an ONNX graph's weights lie in; a file that is no ONNX graph has none."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import _get_all_tensors

    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError:
        return set()
    return {
        entry.value for tensor in _get_all_tensors(model) for entry in tensor.external_data if entry.key == "location"
    }
