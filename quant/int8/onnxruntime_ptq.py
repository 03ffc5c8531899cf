"""Quantize an ONNX network to int8 for ONNX Runtime: static, QDQ, weights per channel.

Activation ranges are calibrated, or learnt by QAT (`qat.py`) where training has seen the tensor.

Left out because they gave no gain: cross-layer equalisation (Nagel et al., ICCV 2019, eq. 6-11), which repeats what
per-channel weights already do and needs ReLU in the place of ReLU6, and bias correction (NNCF does its own).
"""

from __future__ import annotations

import contextlib
import logging
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy.typing as npt

from tutelage.files import model_digest
from tutelage.quant.files import is_quantized, onnx_bytes, read_graph, write_whole
from tutelage.quant.run import onnx_session, require
from tutelage.records import InputError

from .calibration import Array, calibration_hash, checked_calibration
from .gates import fold_gates, free_outputs, gate_ranges, shorten_names, split_hard_swish
from .placement import OPERATORS, count_operators, float_stem, integer_macs
from .ranges import collect, write_ranges
from .saturation import weight_bits
from .schemes.entry import QuantReport
from .schemes.registry import find_ranges

log = logging.getLogger(__name__)


def quantize_onnx(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    *,
    method: str = "minmax",
    per_channel: bool = True,
    exclude: Sequence[str] = (),
    activation_type: str = "",
    threads: int = 1,
    learnt: Mapping[str, tuple[float, float]] | None = None,
) -> QuantReport:
    """Write the int8 form of `fp32_path` to `out_path`; the same inputs give the same bytes.

    calibration: normalised float32 images (n, c, h, w). exclude: names of operators that stay in float. learnt: ranges
    of tensors by name from QAT (`qat_export.py`): they go into the file as they are; the others are calibrated.
    activation_type: uint8 or int8; the default is what is fast here (on x86 signed activations are 1.7-4 times slower).
    Raises InputError for a model that is quantized already, no images, or an operator onnxruntime does not know.
    """
    require("onnxruntime")
    fp32_path, out_path = Path(fp32_path), Path(out_path)
    images = checked_calibration(calibration)
    clip = find_ranges(method)
    check_float(fp32_path)
    activation_type = activation_type or default_activation_type()
    with prepared(fp32_path) as graph:
        histograms = collect(graph, images, threads=threads)
        ranges = {name: clip(values) for name, values in histograms.items()}
        content = quantize_graph(
            graph, ranges, per_channel=per_channel, exclude=exclude, activation_type=activation_type, learnt=learnt
        )
    write_whole(out_path, content)
    done = report(
        fp32_path, out_path, images, method=method, per_channel=per_channel, activation_type=activation_type,
        exclude=exclude,
    )  # fmt: skip
    if learnt:
        done = done.model_copy(update={"scheme": "int8-qat", "num_learnt": len(learnt.keys() & histograms.keys())})
    log.info("quantized %s: %d bytes, %.2f of fp32", out_path, done.size_bytes, done.size_ratio)
    return done


def default_activation_type() -> str:
    """Name the activation type whose kernels are fast on this host's CPU."""
    return "uint8" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "int8"


def check_float(path: Path) -> None:
    """Raise InputError unless `path` is an ONNX model in float whose operators onnxruntime knows."""
    if is_quantized(read_graph(path)):
        raise InputError(f"{path} is quantized already; give its fp32 model")
    onnx_session(path)


@contextlib.contextmanager
def prepared(fp32_path: Path) -> Iterator[Path]:
    """Yield a copy of the graph with BN folded, constants computed and all shapes known; it is gone afterwards."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        split, graph = Path(folder) / "split.onnx", Path(folder) / "prepared.onnx"
        model = onnx.load(str(fp32_path))
        split_hard_swish(model)
        onnx.save(model, str(split))
        quant_pre_process(split, graph, skip_symbolic_shape=True)
        yield graph


def quantize_graph(
    graph: Path,
    ranges: Mapping[str, tuple[float, float]],
    *,
    per_channel: bool = True,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    activation_type: str = "uint8",
    learnt: Mapping[str, tuple[float, float]] | None = None,
) -> bytes:
    """Insert QDQ pairs into a prepared graph by given activation ranges; give the file's content.

    exclude: names of operators left in float; only: where given, the names of all operators that are quantized.
    learnt: ranges that are not to be touched. Weights have the bits that this processor multiplies exactly.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    if activation_type not in kinds:
        raise InputError(f"unknown activation type {activation_type!r}; known: {', '.join(kinds)}")
    prepared_model = read_graph(graph)
    known = {node.name for node in prepared_model.graph.node}
    stem = () if only else float_stem(prepared_model)
    if unknown := sorted({*exclude, *only} - known):
        raise InputError(f"{graph.name} has no operator named {unknown[0]}; see the names in the sensitivity report")
    with tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        cache, out = Path(folder) / "ranges.json", Path(folder) / "int8.onnx"
        final = gate_ranges(graph, ranges) if activation_type == "uint8" else dict(ranges)
        write_ranges(cache, final | {name: held for name, held in (learnt or {}).items() if name in ranges})
        quantize_static(
            str(graph),
            str(out),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=per_channel,
            activation_type=kinds[activation_type],
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits() == 7,
            nodes_to_exclude=[*exclude, *stem],
            nodes_to_quantize=list(only),
            calibration_cache_path=cache,
        )
        model = onnx.load(str(out))
        fold_gates(model)
        free_outputs(model)
        shorten_names(model)
        return bytes(model.SerializeToString())


def report(
    fp32_path: Path,
    out_path: Path,
    calibration: Array,
    *,
    method: str,
    per_channel: bool,
    activation_type: str,
    scheme: str = "int8-ptq",
    exclude: Sequence[str] = (),
) -> QuantReport:
    """Describe a quantized ONNX file from what lies on the disk."""
    import onnxruntime

    integer, floating = count_operators(read_graph(out_path))
    stem = float_stem(read_graph(fp32_path))
    return QuantReport(
        path=out_path,
        scheme=scheme,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        method=method,
        per_channel=per_channel,
        weight_type="int8",
        weight_bits=weight_bits(),
        activation_type=activation_type,
        num_calibration=len(calibration),
        calibration_sha256=calibration_hash(calibration),
        sha256=model_digest(out_path),
        size_bytes=out_path.stat().st_size,
        fp32_bytes=onnx_bytes(fp32_path),
        num_quantized=integer,
        float_operators=floating,
        excluded=tuple(exclude),
        stem=stem,
        integer_macs=integer_macs(out_path, (1, *calibration.shape[1:])),
    )
