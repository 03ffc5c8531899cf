"""Mixed precision: keep the fewest layers in float that hold a network within an allowed loss.

Enters a float .onnx file, calibration and validation data and `max_drop` points; leaves an int8 file and its report.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy.typing as npt

from tutelage.records import InputError

from .calibration import Array, checked_calibration
from .files import read_graph, write_whole
from .ptq import OPERATORS, QuantReport, default_activation_type, prepared, quantize_graph, report
from .ranges import Method, collect
from .run import run_onnx
from .sensitivity import LAYERS, Sensitivity, sensitivity

log = logging.getLogger(__name__)

# Images that rank the layers; the decision itself is made on all validation images.
_RANKING_IMAGES = 64


def quantize_mixed(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    validation: npt.ArrayLike,
    score: Callable[[Array], float],
    *,
    max_drop: float = 0.5,
    method: Method = "minmax",
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[QuantReport, Sensitivity | None]:
    """Quantize all but the most sensitive layers, as few as keep `score` within `max_drop` points of fp32's.

    score: logits (n, classes) on `validation` (n, c, h, w) -> accuracy or AUC in 0..1; one point is .01. Layers are
    freed in the order of their sensitivity, their number found by bisection. When the first try holds
    no sensitivity is measured and None is given. Raises InputError when even all layers in float do not hold.
    """
    fp32_path, out_path = Path(fp32_path), Path(out_path)
    images, held_out = checked_calibration(calibration), checked_calibration(validation)
    if not max_drop >= 0:
        raise InputError(f"max_drop must be a number of points, not negative, got {max_drop}")
    target = score(run_onnx(fp32_path, held_out, threads=threads)) - max_drop / 100
    kind = default_activation_type()
    order: Sensitivity | None = None
    with prepared(fp32_path) as graph, tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        ranges = {name: held.range(method) for name, held in collect(graph, images, threads=threads).items()}

        def attempt(kept: list[str]) -> tuple[bytes, bool]:
            content = quantize_graph(graph, ranges, exclude=with_feeders(graph, kept), activation_type=kind)
            trial = Path(folder) / "trial.onnx"
            trial.write_bytes(content)
            return content, score(run_onnx(trial, held_out, threads=threads)) >= target - 1e-9

        kept: list[str] = []
        content, holds = attempt(kept)
        if not holds:
            order = sensitivity(
                fp32_path, images, held_out[:_RANKING_IMAGES], method=method, threads=threads, progress=progress
            )
            names = [layer.name for layer in order.worst()]
            low, high = 0, len(names)  # low layers do not hold; high is assumed to, and tried if it is reached
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if attempt(names[:middle])[1] else (middle, high)
            kept = names[:high]
            content, holds = attempt(kept)
        kept = with_feeders(graph, kept)
        if not holds:
            raise InputError(f"{fp32_path}: no choice of layers in int8 keeps within {max_drop} points; allow more")
    write_whole(out_path, content)
    log.info("%s keeps %d layers in float for %.2f points", out_path, len(kept), max_drop)
    done = report(
        fp32_path, out_path, images, method=method, per_channel=True, activation_type=kind,
        scheme="int8-mixed" if kept else "int8-ptq", exclude=kept,
    )  # fmt: skip
    return done, order


def with_feeders(graph: Path, layers: list[str]) -> list[str]:
    """Add the operators without weights that make a layer's input: left in int8, they would round it all the same."""
    nodes = list(read_graph(graph).graph.node)
    makers = {name: node for node in nodes for name in node.output}
    by_name = {node.name: node for node in nodes}
    freed = dict.fromkeys(layers)
    for name in layers:
        maker = makers.get(by_name[name].input[0])
        while maker is not None and maker.op_type in OPERATORS and maker.op_type not in LAYERS:
            freed[maker.name] = None
            maker = makers.get(maker.input[0]) if len(maker.input) == 1 else None
    return list(freed)
