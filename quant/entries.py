"""Inputs of ONNX files: which one takes the image (`image_input`), files with it first, and networks in float32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.files import whole_file
from tutelage.records import InputError, content_id

from .files import read_graph

log = logging.getLogger(__name__)

_FLOAT = 1
_OTHER_FLOATS = {10: "float16", 11: "float64", 16: "bfloat16"}


def inputs_of(graph: Any) -> list[Any]:
    """List the inputs of a graph without the weights, which IR 3 lists among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def image_input(path: Path, inputs: Sequence[Any], name: str = "") -> Any:
    """Give the input that takes the image: the named one, the only one, or the only one of four dimensions."""
    listed = ", ".join(value.name for value in inputs)
    if name:
        found = next((value for value in inputs if value.name == name), None)
        if found is None:
            raise InputError(f"--input {name}: {path} has no input of that name; its own are {listed}")
        return found
    pictures = [value for value in inputs if len(value.type.tensor_type.shape.dim) == 4]
    if len(inputs) == 1:
        return inputs[0]
    if len(pictures) != 1:
        raise InputError(
            f"{path} takes {len(inputs)} inputs ({listed}), {len(pictures) or 'none'} of four dimensions: name the one "
            "that takes the image with --input"
        )
    return pictures[0]


def image_first(path: Path, name: str, kept: Path) -> tuple[Path, tuple[str, ...]]:
    """Give a file whose first input takes the image, and the other inputs with their sizes.

    It is the file itself, or a copy in the folder `kept` with its inputs in another order.
    """
    if path.suffix != ".onnx":
        return path, ()
    inputs = inputs_of(read_graph(path).graph)
    if len(inputs) < 2:
        return path, ()
    image = image_input(path, inputs, name)
    others = tuple(f"{value.name} {_sizes(value)}" for value in inputs if value is not image)
    if inputs[0] is image:
        return path, others
    import onnx

    model = onnx.load_model(path)
    entries = sorted(model.graph.input, key=lambda value: value.name != image.name)
    del model.graph.input[:]
    model.graph.input.extend(entries)
    kept.mkdir(parents=True, exist_ok=True)
    out = kept / f"{path.stem}-{content_id([str(path.resolve()), image.name])[:8]}.onnx"
    with whole_file(out) as aside:
        onnx.save_model(model, aside)
    return out, others


def in_float32(path: Path, model: Any) -> Any:
    """Give a network that computes in another floating-point type as one that computes in float32.

    Weights, inputs, outputs and conversions change their type. A network that has none of these types is given back;
    one that ONNX does not accept afterwards too: its types are refused by name later.
    """
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, found = changed.graph, set[int]()

    def as_float32(tensor: Any) -> None:
        found.add(tensor.data_type)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), name))

    for tensor in graph.initializer:
        if tensor.data_type in _OTHER_FLOATS:
            as_float32(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type in _OTHER_FLOATS:
                as_float32(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _OTHER_FLOATS:
                attribute.i = _FLOAT
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type in _OTHER_FLOATS:
            found.add(kind.elem_type)
            kind.elem_type = _FLOAT
    if not found:
        return model
    del graph.value_info[:]  # types that were inferred before
    try:
        onnx.checker.check_model(changed)
        onnx.shape_inference.infer_shapes(changed, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return model
    names = " and ".join(sorted(_OTHER_FLOATS[kind] for kind in found))
    log.warning("%s computes in %s: it is taken in float32, with the same weights", path, names)
    return changed


def _sizes(value: Any) -> str:
    sizes = [str(one.dim_value or "n") for one in value.type.tensor_type.shape.dim]
    return f"({', '.join(sizes)})"
