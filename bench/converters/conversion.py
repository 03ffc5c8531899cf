"""What has to be converted, the record that the converters of LiteRT and ncnn take; and the files of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.files import BESIDE, files_of_a_model, model_bytes
from tutelage.records import InputError

# Called after each file: how many are done, of how many.
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """One file to convert: the ONNX file, where the result goes, and the input `(batch, channels, height, width)`."""

    onnx: Path
    target: Path
    shape: tuple[int, ...]


def parts(path: Path) -> list[Path]:
    """List the files of a model that can be copied under another stem: the graph, and OpenVINO's or ncnn's weights.

    Raises InputError for an ONNX file with external data, which is found by the name that the graph holds.
    """
    files = files_of_a_model(path)
    if path.suffix not in BESIDE and len(files) > 1:
        raise InputError(
            f"{path} keeps weights in {files[1].name}, which is not copied to another machine: save it as one file "
            "(onnx.save_model(onnx.load(path), one_file))"
        )
    return files


def size_bytes(path: Path) -> int:
    """Give the bytes of a model on disk, its weights file included."""
    return model_bytes(path)
