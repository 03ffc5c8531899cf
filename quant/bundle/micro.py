"""A bundle for TFLite Micro: the model as a C array, how pixels become its input, and a `main.cc` that runs it.

`write_micro_bundle` makes the folder of a .tflite file and facts about it; nothing here reads the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.files import sha256_of
from tutelage.records import InputError

from . import micro_source
from .manifest import to_json
from .write import Parity, Preprocess, Thresholds, check_empty, whole_folder

# Methods of MicroMutableOpResolver, by the schema's names of operators.
_RESOLVERS = {
    **{"ADD": "AddAdd", "AVERAGE_POOL_2D": "AddAveragePool2D", "CONCATENATION": "AddConcatenation"},
    **{"CONV_2D": "AddConv2D", "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D", "FULLY_CONNECTED": "AddFullyConnected"},
    **{"HARD_SWISH": "AddHardSwish", "LOGISTIC": "AddLogistic", "MAX_POOL_2D": "AddMaxPool2D", "MEAN": "AddMean"},
    **{"MUL": "AddMul", "PAD": "AddPad", "PADV2": "AddPadV2", "RELU": "AddRelu", "RELU6": "AddRelu6"},
    **{"RESHAPE": "AddReshape", "SOFTMAX": "AddSoftmax", "SUB": "AddSub", "TRANSPOSE": "AddTranspose"},
}
_BYTES_A_LINE = 16
_ARENA_STEP = 1024


@dataclass(frozen=True)
class MicroModel:
    """A quantized .tflite file and what its C code must know."""

    path: Path
    operators: tuple[str, ...]
    input_scale: float
    input_zero: int
    output_scale: float
    output_zero: int
    arena_bytes: int  # as TFLite Micro reports it, or as it is counted from the file
    arena_source: str  # "reported by tflite-micro" or "counted from the file"
    head_bytes: int  # of that, activations and scratch


@dataclass(frozen=True)
class Sample:
    """An image whose outputs are known: pixels (h, w, channels) and the model's int8 outputs (classes,)."""

    pixels: NDArray[np.uint8]
    outputs: NDArray[np.int8]


@dataclass(frozen=True)
class MicroBundle:
    """A bundle as it was written."""

    folder: Path
    flash_bytes: int  # of the model
    arena_bytes: int
    parity: dict[str, Any] = field(default_factory=dict)


def resolver_of(operator: str) -> str:
    """Give the resolver's method for an operator. Raises InputError for one that this package never deployed."""
    if operator not in _RESOLVERS:
        raise InputError(f"operator {operator} is none that bundles for TFLite Micro know: {', '.join(_RESOLVERS)}")
    return _RESOLVERS[operator]


def input_table(how: Preprocess, scale: float, zero: int) -> NDArray[np.int8]:
    """Give the model's input for each pixel value: int8 (channels, 256), rounded half to even as numpy does."""
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    rows = [(pixels - np.float32(mean)) / np.float32(std) for mean, std in zip(how.mean, how.std, strict=True)]
    return np.clip(np.round(np.stack(rows) / np.float32(scale) + zero), -128, 127).astype(np.int8)


def write_micro_bundle(
    folder: Path,
    model: MicroModel,
    *,
    title: str,
    preprocess: Preprocess,
    labels: Sequence[str],
    thresholds: Thresholds,
    parity: Parity,
    sample: Sample,
    notes: Sequence[str] = (),
) -> MicroBundle:
    """Write the folder, which must not hold anything yet, whole or not at all."""
    check_empty(folder)
    arena = -(-model.arena_bytes // _ARENA_STEP) * _ARENA_STEP
    facts = _facts(model, preprocess, labels, thresholds, arena)
    notes = [f"- {line}" for line in notes]
    texts = {
        "model.h": Template(micro_source.MODEL_H).substitute(facts),
        "model.cc": _array_source("model.h", "kModel", model.path.read_bytes()),
        "image.h": Template(micro_source.IMAGE_H).substitute(facts),
        "image.cc": Template(micro_source.IMAGE_CC).substitute(facts),
        "sample.h": Template(micro_source.SAMPLE_H).substitute(facts),
        "sample.cc": _sample_source(sample),
        "main.cc": Template(micro_source.MAIN_CC).substitute(facts),
        "preprocess.json": to_json(preprocess.to_dict()),
        "labels.json": to_json(list(labels)),
        "thresholds.json": to_json(thresholds.to_dict()),
        "parity.json": to_json(parity.to_dict()),
        "README.md": Template(micro_source.README).substitute(
            facts | _readme_facts(model, title, preprocess, parity) | {"notes": "\n".join(notes)}
        ),
    }
    with whole_folder(folder, {"model.tflite": model.path}, texts):
        pass
    return MicroBundle(folder, model.path.stat().st_size, model.arena_bytes, parity.to_dict())


def _facts(model: MicroModel, how: Preprocess, labels: Sequence[str], cuts: Thresholds, arena: int) -> dict[str, Any]:
    table = input_table(how, model.input_scale, model.input_zero)
    rows = ",\n".join("    {" + ", ".join(map(str, row)) + "}" for row in table.tolist())
    resolvers = [resolver_of(name) for name in model.operators]
    return {
        "height": how.height,
        "width": how.width,
        "channels": how.channels,
        "classes": len(labels),
        "labels": ", ".join(json.dumps(label) for label in labels),
        "thresholds": ", ".join(f"{value!r}f" for value in cuts.values),
        "multi_label": "true" if cuts.multi_label else "false",
        "table": rows,
        "output_scale": f"{np.float32(model.output_scale)!s}f",
        "output_zero": model.output_zero,
        "arena": arena,
        "bytes": model.path.stat().st_size,
        "num_operators": len(resolvers),
        "resolvers": "\n".join(f"  if (resolver.{name}() != kTfLiteOk) return nullptr;" for name in resolvers),
    }


def _readme_facts(model: MicroModel, title: str, how: Preprocess, parity: Parity) -> dict[str, Any]:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return {
        "title": title,
        "sha256": sha256_of(model.path),
        "operators": ", ".join(model.operators),
        "arena_bytes": f"{model.arena_bytes:,}",
        "arena_source": model.arena_source,
        "head_bytes": f"{model.head_bytes:,}",
        "flash": f"{model.path.stat().st_size:,}",
        "mean": mean,
        "std": std,
        "fit": how.fit,
        "reference": parity.reference,
        "num_images": parity.num_images,
        "largest": f"{parity.largest_difference:.3g}",
        "average": f"{parity.mean_difference:.3g}",
        "same": f"{100 * parity.same_top1:.2f}",
    }


def _lines(values: Sequence[int], form: str) -> str:
    texts = [form.format(value) for value in values]
    starts = range(0, len(texts), _BYTES_A_LINE)
    return ",\n".join("    " + ", ".join(texts[start : start + _BYTES_A_LINE]) for start in starts)


def _array_source(header: str, name: str, content: bytes) -> str:
    body = _lines(content, "0x{:02x}")
    return f'#include "{header}"\n\nalignas(16) const unsigned char {name}[{len(content)}] = {{\n{body}}};\n'


def _sample_source(sample: Sample) -> str:
    pixels, outputs = sample.pixels.reshape(-1).tolist(), sample.outputs.reshape(-1).tolist()
    return (
        '#include "sample.h"\n\n'
        f"const unsigned char kSamplePixels[{len(pixels)}] = {{\n{_lines(pixels, '{}')}}};\n\n"
        f"const signed char kSampleOutputs[{len(outputs)}] = {{\n{_lines(outputs, '{}')}}};\n"
    )
