"""Read, change and write .tflite files as objects: `read_model`, `write_model`, and what operators and tensors are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.files import whole_file
from tutelage.records import InputError, NotAvailableError

# Bytes an element, by the schema's TensorType: float32, int32, uint8, int64, bool, int8.
ELEMENT_BYTES = {0: 4, 2: 4, 3: 1, 4: 8, 6: 1, 9: 1}
FLOAT32, INT32, INT8 = 0, 2, 9
_IDENTIFIER = b"TFL3"


def schema() -> Any:
    """Import the schema's classes, which come with LiteRT."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise NotAvailableError("reading .tflite files needs LiteRT: pip install 'tutelage[litert]'") from error
    return schema_py_generated


def read_model(path: Path) -> Any:
    """Read a .tflite file with all weights inside its buffers. Raises InputError for another or a damaged file.

    The quantizer writes large files with the weights behind the flatbuffer, at offsets. TFLite Micro does not follow
    those: it would take the weights for activations.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if content[4:8] != _IDENTIFIER:
        raise InputError(f"{path} is no .tflite file: export the model for LiteRT")
    try:
        model = schema().ModelT.InitFromPackedBuf(bytearray(content), 0)
        for buffer in model.buffers:
            if buffer.offset > 1:
                buffer.data = np.frombuffer(content, np.uint8, count=buffer.size, offset=buffer.offset)
                buffer.offset = buffer.size = 0
    # The generated reader raises whatever damaged offsets lead to.
    except NotAvailableError:
        raise
    except Exception as error:  # noqa: BLE001
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if len(model.subgraphs or []) != 1:
        raise InputError(f"{path} has {len(model.subgraphs or [])} graphs: give a network of one")
    return model


def write_model(model: Any, path: Path) -> Path:
    """Write a model whole or not at all, the weights inside the flatbuffer."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    with whole_file(path) as aside:
        aside.write_bytes(bytes(builder.Output()))
    return path


@lru_cache(maxsize=1)
def _names() -> dict[int, str]:
    return {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}


def operator_name(model: Any, operator: Any) -> str:
    """Give the schema's name of an operator, e.g. CONV_2D; a custom one has its own in front of it."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = _names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return name if name != "CUSTOM" else f"CUSTOM {bytes(code.customCode or b'').decode(errors='replace')}"


def values_of(model: Any, tensor: Any) -> NDArray[Any] | None:
    """Give the values of a constant float32, int32, int64 or int8 tensor in its shape; None of a computed one."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    kind = {0: np.float32, 2: np.int32, 4: np.int64, 9: np.int8}[tensor.type]
    return np.frombuffer(bytes(data), kind).reshape(shape_of(tensor))


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Give a tensor's sizes; () of a scalar."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def num_bytes(tensor: Any) -> int:
    """Give the bytes of a tensor's values. Raises InputError for a type of another size than `ELEMENT_BYTES` has."""
    if tensor.type not in ELEMENT_BYTES:
        raise InputError(f"tensor {bytes(tensor.name or b'').decode(errors='replace')} has the type {tensor.type}")
    return int(np.prod(shape_of(tensor), dtype=np.int64)) * ELEMENT_BYTES[tensor.type]


def add_constant(model: Any, values: NDArray[Any], name: str, kind: int) -> int:
    """Add a constant tensor and give its number."""
    kinds = schema()
    buffer, tensor = kinds.BufferT(), kinds.TensorT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.shape = np.array(values.shape, np.int32)
    tensor.type, tensor.buffer, tensor.name = kind, len(model.buffers) - 1, name.encode()
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1
