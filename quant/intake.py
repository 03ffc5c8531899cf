"""Bring an ONNX file that someone else exported into the form that the quantizers take: `prepare_model`.

One float32 input (batch, channels, height, width), one output (batch, classes), operators of opset 13 or later with a
name each, and no weights among the inputs. What cannot be brought there is refused in one line that names the tensor or
the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage.records import InputError

from .entries import in_float32
from .files import is_quantized, read_graph
from .int8.placement import LAYERS

# Weights per channel need DequantizeLinear's axis, which came with 13; the export here writes 17.
MIN_OPSET, OPSET = 13, 17
_FLOAT, _UINT8, _FLOAT16, _DOUBLE = 1, 2, 10, 11
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_TYPES = {_UINT8: "uint8", 3: "int8", _FLOAT16: "float16", _DOUBLE: "float64", 16: "bfloat16"}


def prepare_model(path: Path, out: Path, *, start: str = "", end: str = "") -> None:
    """Write the usable form of the model at `path` to `out`.

    start, end: tensors between which the network is taken, where the file has several inputs or outputs or begins with
    steps of pre-processing. Raises InputError for what cannot be quantized as an image classifier.
    """
    import onnx

    read_graph(path)  # external data lies inside the folder and is there
    model = onnx.load_model(path)
    _check(path, model)
    _free_weights(model)
    if start or end:
        model = _between(path, model, start, end)
    _check_ends(path, model)
    model = in_float32(path, model)
    _check_types(path, model)
    _check_repeatable(path, model)
    _check_finite(path, model)
    if is_quantized(model):
        raise InputError(f"{path} is quantized already; give its fp32 model")
    model = _converted(path, model)
    _name_nodes(model)
    onnx.save_model(model, out)


def fix_shape(path: Path, shape: Sequence[int]) -> None:
    """Write the input's sides into an ONNX file that leaves them free, in place; the batch stays as it is."""
    import onnx

    model = onnx.load_model(path)
    for dimension, size in list(zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True))[1:]:
        if not dimension.dim_value:
            dimension.dim_value = size
    onnx.save_model(onnx.shape_inference.infer_shapes(model), path)


def _check(path: Path, model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is no valid ONNX model: {_one_line(error)}") from error


def _free_weights(model: Any) -> None:
    """Take initialisers out of the inputs, where IR 3 lists them; they are constants then."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _between(path: Path, model: Any, start: str, end: str) -> Any:
    """Cut the network between two tensors out of a graph."""
    import onnx

    graph = model.graph
    known = {name for node in graph.node for name in (*node.input, *node.output) if name}
    for option, name in (("--input", start), ("--output", end)):
        if name and name not in known:
            some = [value.name for value in (graph.input if option == "--input" else graph.output)]
            raise InputError(f"{option} {name}: {path} has no tensor of that name; its own are {', '.join(some)}")
    # The end first: inputs that only another output needs go with it.
    outputs = [end] if end else [value.name for value in graph.output]
    needed = _reached(graph, outputs, {start} if start else set())
    inputs = [start] if start else []
    inputs += [value.name for value in graph.input if value.name in needed and value.name != start]
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
        return onnx.utils.Extractor(inferred).extract_model(inputs, outputs)
    except (KeyError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: nothing leads from {start or 'the input'} to {end or 'the output'}") from error


def _reached(graph: Any, outputs: Sequence[str], stops: set[str]) -> set[str]:
    """List the tensors that some outputs need, not looking behind `stops`."""
    makers = {name: node for node in graph.node for name in node.output}
    open_, seen = list(outputs), set[str]()
    while open_:
        name = open_.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in makers and name not in stops:
            open_ += makers[name].input
    return seen


def _check_ends(path: Path, model: Any) -> None:
    graph = model.graph
    if len(graph.input) != 1:
        names = ", ".join(f"{value.name} {_shape_text(value)}" for value in graph.input) or "none"
        raise InputError(
            f"{path} takes {len(graph.input)} inputs ({names}), and only networks of one image are quantized: name the "
            "tensor where it starts with --input and, for one of several outputs, --output"
        )
    if len(graph.output) != 1:
        names = ", ".join(f"{value.name} {_shape_text(value)}" for value in graph.output)
        raise InputError(f"{path} has {len(graph.output)} outputs ({names}): name that of the classes with --output")
    sides = _sides(graph.input[0])
    if sides is not None and len(sides) == 4 and _is_channels_last(sides):
        first = _first_transpose(graph)
        remedy = f"start behind it with --input {first}" if first else "export it with channels first"
        raise InputError(
            f"{path} takes {graph.input[0].name} {_shape_text(graph.input[0])}, channels last (NHWC); images are "
            f"(batch, channels, height, width): {remedy}"
        )


def _is_channels_last(sides: Sequence[int | None]) -> bool:
    channels = (1, 3, 4)
    return sides[3] in channels and sides[1] not in channels


def _first_transpose(graph: Any) -> str:
    for node in graph.node:
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
        if node.op_type == "Transpose" and graph.input[0].name in node.input and order == [0, 3, 1, 2]:
            return str(node.output[0])
    return ""


def _check_types(path: Path, model: Any) -> None:
    """Refuse an image that is no float32, and weights in another precision."""
    graph, entry = model.graph, model.graph.input[0]
    kind = entry.type.tensor_type.elem_type
    readers = [node for node in graph.node if entry.name in node.input]
    first = _named(readers[0]) if readers else "nothing"
    if kind not in (_FLOAT, 0):
        behind = next((node.output[0] for node in readers if node.op_type in ("Cast", "DequantizeLinear")), "")
        remedy = f", or start behind the conversion with --input {behind}" if behind else ""
        raise InputError(
            f"{path} takes {entry.name} as {_TYPES.get(kind, f'ONNX type {kind}')}, read by {first}: export it for "
            f"float32 images{remedy}"
        )
    for name, tensor in _constants(graph):
        if tensor.data_type in (_FLOAT16, 16, _DOUBLE):
            node = next((node for node in graph.node if name in node.input), None)
            raise InputError(
                f"{path} computes in {_TYPES[tensor.data_type]} (tensor {name} of "
                f"{_named(node) if node is not None else 'no node'}): export it in float32"
            )


def _check_repeatable(path: Path, model: Any) -> None:
    """Refuse what gives another output each time: random numbers, dropout and batch norm in training mode."""
    from onnx import numpy_helper

    values = {tensor.name: tensor for tensor in model.graph.initializer}
    values |= {node.output[0]: a.t for node in model.graph.node for a in node.attribute if node.op_type == "Constant"}
    for node in model.graph.node:
        switch = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        is_training = switch in values and bool(numpy_helper.to_array(values[switch]).any())
        is_training |= any(a.name == "training_mode" and a.i for a in node.attribute)
        if is_training or node.op_type in _RANDOM:
            raise InputError(
                f"{path}: {_named(node)} {'is in training mode' if is_training else 'draws random numbers'}, so that "
                "an image has other outputs each time: export the network for inference (model.eval())"
            )


def _check_finite(path: Path, model: Any) -> None:
    """Refuse weights of layers that are NaN or infinite: no calibration can give them a range."""
    import numpy as np
    from onnx import numpy_helper

    layers = {name: node for node in model.graph.node if node.op_type in LAYERS for name in node.input}
    for name, tensor in _constants(model.graph):
        if name in layers and tensor.data_type == _FLOAT and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise InputError(
                f"{path}: tensor {name} of {_named(layers[name])} holds NaN or infinity: its training diverged; export "
                "a network whose weights are finite"
            )


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the initialisers, and the weights of layers that stand in Constant nodes."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    weights = {name for node in graph.node if node.op_type in LAYERS for name in node.input}
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in weights:
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.HasField("t"))


def _converted(path: Path, model: Any) -> Any:
    """Raise an old opset, by ONNX's converter."""
    import onnx

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= MIN_OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(raised)
    except Exception as error:  # the converter's own types: IndexError, RuntimeError, ConvertError
        raise InputError(
            f"{path} has opset {opset}, int8 needs {MIN_OPSET} or later, and it cannot be converted "
            f"({_one_line(error)}): export it with opset {OPSET}"
        ) from error
    return raised


def _name_nodes(model: Any) -> None:
    """Give each node a name of its own, in place: quantizers find nodes by name, and several exporters write none."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = _free(f"{node.op_type}_{index}", taken.__contains__)
        taken.add(node.name)


def _free(name: str, is_taken: Callable[[str], bool]) -> str:
    number = 0
    while is_taken(name):
        number, name = number + 1, f"{name.rpartition('.')[0] or name}.{number + 1}"
    return name


def _named(node: Any) -> str:
    return f"{node.op_type} {node.name or 'making ' + node.output[0]}"


def _sides(value: Any) -> list[int | None] | None:
    kind = value.type.tensor_type
    return [dimension.dim_value or None for dimension in kind.shape.dim] if kind.HasField("shape") else None


def _shape_text(value: Any) -> str:
    sides = _sides(value)
    return "of unknown shape" if sides is None else f"({', '.join('n' if s is None else str(s) for s in sides)})"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
