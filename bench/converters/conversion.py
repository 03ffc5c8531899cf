"""What has to be converted, the record that the converters of LiteRT and ncnn take; and the files of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Files that lie beside a model and belong to it.
BESIDE = {".xml": ".bin", ".param": ".bin"}
# Called after each file: how many are done, of how many.
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """One file to convert: the ONNX file, where the result goes, and the input `(batch, channels, height, width)`."""

    onnx: Path
    target: Path
    shape: tuple[int, ...]


def parts(path: Path) -> list[Path]:
    """List the files that make up a model: OpenVINO's weights and ncnn's lie beside the graph."""
    beside = BESIDE.get(path.suffix)
    extra = [path.with_suffix(beside)] if beside and path.with_suffix(beside).is_file() else []
    return [path, *extra]


def size_bytes(path: Path) -> int:
    """Give the bytes of a model on disk, its weights file included."""
    return sum(part.stat().st_size for part in parts(path))
