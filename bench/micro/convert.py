"""Make the .tflite file that a microcontroller runs: `convert_for_micro`, from ONNX, float or int8."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.litert import convert_to_litert, quantize_litert
from tutelage.records import InputError

from .model import read_model, schema, write_model
from .rewrite import rewrite


def convert_for_micro(conversions: Sequence[Conversion], images: NDArray[np.float32] | None = None) -> None:
    """Convert ONNX files to .tflite files of one image with channels last, as small as they can be without a change.

    images: normalised calibration images (n, channels, height, width) of int8 files; None: the files are float.
    Raises InputError for what cannot be converted or quantized.
    """
    for one in conversions:
        if one.shape[0] != 1:
            raise InputError(f"{one.onnx}: a microcontroller takes one image at a time, not {one.shape[0]}")
    with tempfile.TemporaryDirectory(prefix="tutelage-micro-") as folder:
        plain = [Path(folder) / f"{number}.tflite" for number in range(len(conversions))]
        convert_to_litert([Conversion(one.onnx, made, one.shape) for one, made in zip(conversions, plain, strict=True)])
        for one, made in zip(conversions, plain, strict=True):
            for_micro(made, one.target, images)


def for_micro(source: Path, target: Path, images: NDArray[np.float32] | None = None) -> Path:
    """Write a float .tflite file (as the converter makes it) for microcontrollers, int8 where `images` are given."""
    model = read_model(source)
    rewrite(model)
    if images is not None:
        rewritten = write_model(model, source.with_name(f"{source.stem}-channels-last.tflite"))
        channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        quantized = source.with_name(f"{source.stem}-int8.tflite")
        model = read_model(quantize_litert(rewritten, quantized, channels_last))
    strip(model)
    return write_model(model, target)


def strip(model: Any) -> None:
    """Remove what no interpreter reads: names, signatures, metadata; and keep equal weights once."""
    graph = model.subgraphs[0]
    ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
    for number, tensor in enumerate(graph.tensors):
        if number not in ends:
            tensor.name = None
    model.description, model.metadata, model.signatureDefs, graph.name = None, None, None, None
    seen: dict[bytes, int] = {}
    buffers = [schema().BufferT()]  # by the schema the first one is empty, and tensors without values name it
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        content = b"" if data is None else bytes(data)
        if not content:
            tensor.buffer = 0
            continue
        if content not in seen:
            seen[content] = len(buffers)
            buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = seen[content]
    model.buffers = buffers
