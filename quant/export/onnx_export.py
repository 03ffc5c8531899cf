"""Export a network to ONNX, the form that every runtime of this project starts from.

The file is written whole or not at all, and compared with the network. BN is folded and the operators are the
runtimes' own (normalise.py).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tutelage.files import sha256_of
from tutelage.quant.files import write_whole
from tutelage.quant.run import run_onnx
from tutelage.records import InputError, Record

from .normalise import normalise

log = logging.getLogger(__name__)

INPUT_NAME = "input"
OUTPUT_NAME = "logits"
# HardSwish needs 14, LayerNormalization 17; 17 is read by every runtime of the last three years.
OPSET = 17
# A larger difference from the torch network, as a fraction of its largest output, means that the export went wrong.
MAX_RELATIVE_DIFFERENCE = 1e-3


class ExportReport(Record):
    """One exported file. `max_difference` is the largest absolute difference of outputs on two random images."""

    path: Path
    sha256: str
    size_bytes: int
    input_shape: tuple[int, int, int, int]
    dynamic_batch: bool
    opset: int
    max_difference: float | None  # None when it was not checked


def export_onnx(
    model: nn.Module,
    path: Path | str,
    input_shape: Sequence[int],
    *,
    dynamic_batch: bool = True,
    check: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write `model` as ONNX with input `input` (batch, c, h, w) and output `logits`, computed as in eval mode.

    `model` is left as it is (a copy is exported). `check=False` saves the time of opening the file once, for the many
    blocks of a latency table. `metadata` is written into the file, for who feeds it
    (`read_metadata`). Raises InputError for an impossible shape or an operator that ONNX does not have.
    """
    path = Path(path)
    shape = _checked_shape(input_shape)
    network = normalise(model)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    content = export_bytes(network, example, dynamic_batch)
    if metadata:
        content = _with_metadata(content, metadata)
    write_whole(path, content)
    report = ExportReport(
        path=path,
        sha256=sha256_of(path),
        size_bytes=len(content),
        input_shape=shape,
        dynamic_batch=dynamic_batch,
        opset=OPSET,
        max_difference=_difference(model, path, shape, dynamic_batch) if check else None,
    )
    log.info("exported %s: %d bytes, largest difference %s", path, report.size_bytes, report.max_difference)
    return report


def read_metadata(path: Path) -> dict[str, str]:
    """Read what an ONNX file says of itself in its metadata."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    import onnx

    graph = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(graph, dict(metadata))
    return bytes(graph.SerializeToString(deterministic=True))


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, int, int, int]:
    shape = tuple(int(size) for size in input_shape)
    if len(shape) != 4 or min(shape) < 1:
        raise InputError(
            f"input_shape must be (batch, channels, height, width), all positive, got {tuple(input_shape)}"
        )
    return shape[0], shape[1], shape[2], shape[3]


def export_bytes(network: nn.Module, example: torch.Tensor, dynamic_batch: bool) -> bytes:
    """Trace and serialise. The tracing exporter takes .3 s for a small subnet, the `torch.export` one 6-9 s."""
    axes = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}} if dynamic_batch else None
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            tempfile.TemporaryDirectory(prefix="tutelage-export-") as folder,
        ):
            traced = Path(folder) / "traced.onnx"
            warnings.simplefilter("ignore")  # the exporter's notices about itself; tracing is verified by _difference
            torch.onnx.export(
                network,
                (example,),
                traced,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_axes=axes,
                opset_version=OPSET,
                do_constant_folding=True,
                dynamo=False,
            )
            return traced.read_bytes()
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise InputError(f"{type(network).__name__} cannot be exported: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        shape = tuple(example.shape)
        reason = str(error).splitlines()[0]
        raise InputError(f"{type(network).__name__} does not run on an input of shape {shape}: {reason}") from error


def _difference(model: nn.Module, path: Path, shape: tuple[int, int, int, int], dynamic_batch: bool) -> float:
    """Compare the file with the network as it was given, on a batch of another size where the batch is free."""
    batch = shape[0] + 1 if dynamic_batch else shape[0]
    images = torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(1))
    parameter = next(model.parameters(), None)
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()
            expected = model(images if parameter is None else images.to(parameter)).float().cpu().numpy()
    finally:
        model.train(was_training)
    found = run_onnx(path, images.numpy())
    difference = float(np.abs(found - expected).max())
    if difference > MAX_RELATIVE_DIFFERENCE * max(1.0, float(np.abs(expected).max())):
        raise InputError(
            f"{path}: outputs differ from the network's by {difference:.2g}; it does something that tracing cannot "
            "follow (control flow on values); export it another way"
        )
    return difference
