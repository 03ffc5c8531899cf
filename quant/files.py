"""Read and write the package's files: atomic writes, checked ONNX graphs and text of bounded size.

No model file is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.files import model_bytes, whole_file
from tutelage.records import InputError

# A manifest or label file of a bundle is a few kB; a file of this size was not written by us.
MAX_TEXT_BYTES = 4 * 1024 * 1024

# What marks a graph that is quantized already: QDQ pairs, or operators on integers.
_INTEGER_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, its folder with it; raise InputError where that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from error


def read_bounded(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text file of at most `limit` bytes."""
    if not path.is_file():
        raise InputError(f"{path} is missing; make the bundle or file again")
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than the {limit} a file of this kind may have; it is not ours")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; make it again") from error


def read_graph(path: Path) -> Any:
    """Parse an ONNX file without touching external data, which must lie inside the file's own folder."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of an ONNX model")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path} is not an ONNX model ({path.stat().st_size} bytes); export it again") from error
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX model: its graph has no operator; export it again")
    check_external_data(model, path)
    return model


def check_external_data(model: Any, path: Path) -> None:
    """Refuse tensors whose bytes are not in the folder of their file: outside (`..`, a link), missing or truncated."""
    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        stored = {entry.key: entry.value for entry in tensor.external_data}
        location = stored.get("location")
        if location is None:
            continue
        target = (folder / location).resolve()
        if not target.is_relative_to(folder):
            raise InputError(f"{path}: tensor {tensor.name} reads {location}, outside the model's folder; refused")
        if not target.is_file():
            raise InputError(f"{path}: tensor {tensor.name} reads {location}, which is missing; copy it too")
        try:
            end, size = int(stored.get("offset", 0)) + int(stored.get("length", 0)), target.stat().st_size
        except ValueError as error:
            raise InputError(f"{path}: tensor {tensor.name} says no place in {location}: {error}") from error
        if end > size:
            raise InputError(
                f"{path}: tensor {tensor.name} reads {location} up to byte {end}, and it has {size}; copy it whole"
            )


def onnx_bytes(path: Path) -> int:
    """Count the bytes of an ONNX model on disk: its file and the files beside it that hold its weights."""
    read_graph(path)  # refuses data outside the folder, or missing
    return model_bytes(path)


def is_quantized(model: Any) -> bool:
    """Tell whether an ONNX graph holds operators on integers or QDQ pairs."""
    return any(node.op_type in _INTEGER_OPERATORS or node.op_type.startswith("QLinear") for node in model.graph.node)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every constant of a graph and of the sub-graphs in its nodes' attributes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)
