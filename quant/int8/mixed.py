"""Mixed precision: keep in float the layers that hold a network within an allowed loss, at the least latency."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy.typing as npt

from tutelage.quant.files import write_whole
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

from .calibration import Array, checked_calibration
from .onnxruntime_ptq import check_float, default_activation_type, prepared, quantize_graph, report
from .placement import with_feeders
from .ranges import collect
from .schemes.entry import QuantReport
from .schemes.registry import find_ranges
from .sensitivity import Sensitivity, sensitivity

log = logging.getLogger(__name__)

Score = Callable[[Array], float]
# Files by name -> milliseconds by the same names, all measured in one session so that they may be compared.
Latency = Callable[[Mapping[str, Path]], Mapping[str, float]]


@dataclass(frozen=True)
class _Trials:
    """Tries choices of float layers: files in `folder`, scored on `held_out` images."""

    graph: Path
    ranges: Mapping[str, tuple[float, float]]
    held_out: Array
    score: Score
    target: float
    threads: int
    folder: Path

    def file(self, kept: Sequence[str], name: str) -> Path:
        """Write the network with `kept` layers in float."""
        path = self.folder / f"{name}.onnx"
        exclude = with_feeders(self.graph, kept)
        path.write_bytes(
            quantize_graph(self.graph, self.ranges, exclude=exclude, activation_type=default_activation_type())
        )
        return path

    def holds(self, path: Path) -> bool:
        return self.score(run_onnx(path, self.held_out, threads=self.threads)) >= self.target - 1e-9

    def fewest(self, order: Sequence[str], name: str) -> list[str] | None:
        """Give the shortest beginning of `order` that holds when it is in float, by bisection; None if none does."""
        low, high = 0, len(order)  # low layers do not hold; high is assumed to, and tried if it is reached
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.holds(self.file(order[:middle], name)) else (middle, high)
        kept = list(order[:high])
        return kept if self.holds(self.file(kept, name)) else None


def quantize_mixed(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    validation: npt.ArrayLike,
    score: Score,
    *,
    max_drop: float = 0.5,
    method: str = "minmax",
    threads: int = 1,
    latency: Latency | None = None,
    ranking: npt.ArrayLike | None = None,
) -> tuple[QuantReport, Sensitivity | None]:
    """Quantize all but the layers that keep `score` within `max_drop` points of fp32's while they are in float.

    ranking: the images that rank the layers, some tens of all classes (default: all of `validation`).
    score: logits (n, classes) on `validation` (n, c, h, w) -> accuracy or AUC in 0..1; one point is .01. Layers are
    freed in the order of their noise, their number found by bisection. With `latency`, other orders are tried too (the
    most noise a weight; from the front; from the back: float layers that lie together cost no conversions), and the
    fastest of the files that hold is kept. When plain int8 holds, no sensitivity is measured and None is given. Raises
    InputError when no choice holds.
    """
    fp32_path, out_path = Path(fp32_path), Path(out_path)
    images, held_out = checked_calibration(calibration), checked_calibration(validation)
    if not max_drop >= 0:
        raise InputError(f"max_drop must be a number of points, not negative, got {max_drop}")
    clip = find_ranges(method)
    check_float(fp32_path)
    target = score(run_onnx(fp32_path, held_out, threads=threads)) - max_drop / 100
    noise: Sensitivity | None = None
    kept: list[str] = []
    with prepared(fp32_path) as graph, tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        ranges = {name: clip(held) for name, held in collect(graph, images, threads=threads).items()}
        trials = _Trials(graph, ranges, held_out, score, target, threads, Path(folder))
        best = trials.file([], "all")
        if not trials.holds(best):
            rank = held_out if ranking is None else ranking
            noise = sensitivity(fp32_path, images, rank, method=method, threads=threads)
            choices = {
                name: found
                for name, order in _orders(noise, latency is not None).items()
                if (found := trials.fewest(order, name)) is not None
            }
            if not choices:
                raise InputError(f"{fp32_path}: no choice of layers in int8 keeps within {max_drop} points; allow more")
            chosen = _fastest({name: trials.folder / f"{name}.onnx" for name in choices}, latency)
            kept = with_feeders(graph, choices[chosen])
            best = trials.file(choices[chosen], "best")
        content = best.read_bytes()
    write_whole(out_path, content)
    log.info("%s keeps %d operators in float for %.2f points", out_path, len(kept), max_drop)
    done = report(
        fp32_path, out_path, images, method=method, per_channel=True, activation_type=default_activation_type(),
        scheme="int8-mixed" if kept else "int8-ptq", exclude=kept,
    )  # fmt: skip
    return done, noise


def _orders(noise: Sensitivity, several: bool) -> dict[str, list[str]]:
    """Give the orders in which layers may be freed, by name."""
    orders = {"noise": [layer.name for layer in noise.worst()]}
    if several:
        per_weight = sorted(noise.layers, key=lambda layer: -layer.noise / layer.num_weights)
        in_order = [layer.name for layer in noise.layers]
        orders |= {"per-weight": [layer.name for layer in per_weight], "front": in_order, "back": in_order[::-1]}
    return orders


def _fastest(files: Mapping[str, Path], latency: Latency | None) -> str:
    """Name the file with the least latency; the first where nothing is measured."""
    if latency is None or len(files) == 1:
        return next(iter(files))
    measured = latency(files)
    log.info("measured %s ms", {name: round(value, 3) for name, value in measured.items()})
    return min(files, key=lambda name: measured[name])
