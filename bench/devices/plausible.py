"""Refuse measurements that no such device could have shown, naming the figure that looks wrong.

`check_conditions` compares columns of a file with the options, `check_throughput` the times with what the runtime's
hardware can compute, `check_one_kind` the times with each other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.latency.features import count_features
from tutelage.bench.runtimes.entry import Runtime
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import count

from .measurements import condition_of

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

# MACs a second that small networks reach on anything from a microcontroller to a data-centre GPU; outside, the file's
# times are in another unit (seconds or microseconds read as milliseconds are off by 1000).
_SLOWEST, _FASTEST = 5e7, 1e13
# The peak of one thread of a CPU: two fused multiply-adds of 512 bits a cycle at 5 GHz; AMX tiles at lower precision.
_CPU_PEAK = {"fp32": 1.6e11, "bf16": 4e12, "fp16": 4e12, "int8": 8e12}
# Small networks reach a third of that at best, and a slow single-board computer computes more than the least.
_CPU_USUAL = (2e8, {"fp32": 6e10, "bf16": 1e12, "fp16": 1e12, "int8": 2e12})
# Two kinds of times in one file: how far apart their levels are at least, as a factor, and in deviations within a kind.
# Nearer levels are noted: clocks and kernels may differ so much on one device.
_KINDS_APART, _KINDS_NOTED, _KINDS_SCORE = 2.0, 1.5, 6.0
_LEAST_OF_A_KIND = 0.1  # as a fraction of the file: fewer are outliers, which the fit bears
# One time among others: the factor and the deviations by which it must be off.
_ODD_FACTOR, _ODD_SCORE = 5.0, 10.0
# Rank correlation of times with MACs below which larger networks are quicker, and of times with anything counted below
# which they have nothing to do with the networks.
_REVERSED, _UNRELATED = -0.5, 0.3
_PRECISIONS = {
    **dict.fromkeys(("fp32", "float32", "float", "f32"), "fp32"),
    **dict.fromkeys(("fp16", "float16", "half", "f16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("int8", "uint8", "i8", "8-bit", "8bit"), "int8"),
}
_MIN_NETS = 8  # fewer show no two kinds
_SWEEPS = 30


def check_conditions(conditions: Sequence[Mapping[str, str]], asked: Mapping[str, object]) -> None:
    """Refuse a file whose own columns say that it holds several devices, or another setting than the one asked for."""
    for column in sorted({name for row in conditions for name in row}):
        name = condition_of(column)
        values = list(dict.fromkeys(row.get(column, "") for row in conditions))
        if len(values) > 1:
            some = ", ".join(value or "(empty)" for value in values[:6])
            raise InputError(
                f"the file mixes {len(values)} values of {column}: {some}: a profile is of one; keep one with --where "
                f"{column}={values[0]}"
            )
        if name in ("threads", "batch", "channels", "classes") and not _same_number(values[0], asked[name]):
            raise InputError(
                f"the file says {name} {values[0]}, the profile would say {asked[name]}: give --{name} {values[0]}"
            )
        said = _PRECISIONS.get(values[0].lower()) if name == "precision" else None
        if said not in (None, asked["precision"]):
            raise InputError(
                f"the file says {column} {values[0]}, the profile would say {asked['precision']}: give --precision "
                f"{said}"
            )


def _same_number(text: str, number: object) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return True  # "auto" or the like says nothing that could be compared


def check_units(
    archs: Sequence[Arch], latency_ms: Sequence[float], batch: int, num_classes: int, in_channels: int
) -> None:
    """Refuse times that no hardware could have: they are in another unit."""
    rate = _median_rate(archs, latency_ms, batch, num_classes, in_channels)
    if _SLOWEST <= rate <= _FASTEST:
        return
    unit = "seconds" if rate > _FASTEST else "microseconds"
    raise InputError(
        f"median latency {float(np.median(latency_ms)):g} ms would be {rate:.1e} MACs a second: "
        f"the times look like {unit}; give milliseconds"
    )


def check_throughput(
    archs: Sequence[Arch],
    latency_ms: Sequence[float],
    runtime: Runtime,
    asked: Mapping[str, object],
    num_classes: int,
    in_channels: int,
) -> None:
    """Refuse times in another unit, and those above the peak of the threads of a CPU runtime; warn near it."""
    batch, threads, precision = int(str(asked["batch"])), int(str(asked["threads"])), str(asked["precision"])
    check_units(archs, latency_ms, batch, num_classes, in_channels)
    if runtime.on_gpu:
        return
    rate = _median_rate(archs, latency_ms, batch, num_classes, in_channels) / threads
    peak, (slow, usual) = _CPU_PEAK.get(precision, _CPU_PEAK["int8"]), _CPU_USUAL
    middle = float(np.median(latency_ms))
    shown = f"median latency {middle:g} ms would be {rate:.1e} MACs a second for each of {threads} threads"
    if rate > peak:
        raise InputError(
            f"{shown}, above the {peak:.1e} that a core can compute in {precision}: correct --threads, --batch "
            "or --runtime (a GPU's is onnxruntime-cuda or torch-cuda), or give milliseconds"
        )
    if not slow <= rate <= usual.get(precision, usual["int8"]):
        log.warning("%s of %s in %s, which is unusual: check unit, threads and batch", shown, runtime.name, precision)


def _median_rate(
    archs: Sequence[Arch], latency_ms: Sequence[float], batch: int, num_classes: int, in_channels: int
) -> float:
    macs = count(archs, num_classes, in_channels).macs
    return float(np.median(np.asarray(macs, dtype=np.float64) * batch / (np.asarray(latency_ms) / 1000)))


def check_one_kind(archs: Sequence[Arch], latency_ms: Sequence[float], num_classes: int, in_channels: int) -> None:
    """Refuse times of two kinds (devices, units, clocks), and a time far from those of networks like it.

    Times are compared with a robust line through their logarithms over size, blocks and resolution.
    """
    if len(set(archs)) < _MIN_NETS:
        return
    times = np.log(np.asarray(latency_ms, dtype=np.float64))
    sizes = _log_sizes(archs, num_classes, in_channels)
    _check_order(sizes, times)
    off = times - _robust_line(sizes, times)
    _check_two_kinds(sizes, times, off, latency_ms)
    deviation = 1.4826 * float(np.median(np.abs(off - np.median(off))))
    worst = int(np.abs(off - np.median(off)).argmax())
    distance = abs(float(off[worst] - np.median(off)))
    if distance > math.log(_ODD_FACTOR) and distance > _ODD_SCORE * deviation:
        raise InputError(
            f"measurement {worst + 1} is {latency_ms[worst]:g} ms where networks like it take about "
            f"{math.exp(times[worst] - off[worst] + np.median(off)):.3g} ms: correct it, or leave the line out"
        )


def _check_order(sizes: Floats, times: Floats) -> None:
    """Refuse times that fall as networks grow (images a second, negated times), warn of those without a relation."""
    from scipy.stats import rankdata

    columns = [rankdata(column) for column in sizes.T if column.std() > 1e-9]
    if not columns:
        return
    ranks = [float(np.corrcoef(column, rankdata(times))[0, 1]) for column in columns]
    if sizes[:, 0].std() > 1e-9 and ranks[0] < _REVERSED:
        raise InputError(
            f"larger networks take less time (rank correlation with MACs {ranks[0]:.2f}): are these images a second? "
            "give milliseconds"
        )
    if max(map(abs, ranks)) < _UNRELATED:
        log.warning(
            "times have little to do with the networks' MACs, blocks or resolution (rank correlation at most %.2f): "
            "are they in the order of the networks, and of whole networks?", max(ranks, key=abs),
        )  # fmt: skip


def _check_two_kinds(sizes: Floats, times: Floats, off: Floats, latency_ms: Sequence[float]) -> None:
    """Refuse times that lie on two parallel lines, far apart for their scatter.

    Where the lines run is not known before the kinds are: the split is refined from several first guesses.
    """
    guesses = [off, *(times - slope * sizes[:, 0] for slope in (0.0, 0.5, 1.0))]
    apart, within, second = min((_refined(sizes, times, _best_split(guess)) for guess in guesses), key=lambda x: x[1])
    least = max(2, math.ceil(_LEAST_OF_A_KIND * len(times)))
    if min(second.sum(), (~second).sum()) < least or apart < max(math.log(_KINDS_NOTED), _KINDS_SCORE * within):
        return
    few = second if 2 * second.sum() <= len(second) else ~second
    factor = math.exp(apart if few is second else -apart)
    lines = [int(index) + 1 for index in np.flatnonzero(few)]
    some = ", ".join(map(str, lines[:8])) + (", ..." if len(lines) > 8 else "")
    shown = (
        f"{len(lines)} of {len(off)} measurements ({some}) "
        f"take {factor:.2g} times as long as networks like them in the others, e.g. measurement {lines[0]} with "
        f"{latency_ms[lines[0] - 1]:g} ms"
    )
    if apart >= math.log(_KINDS_APART):
        raise InputError(f"{shown}: the file mixes devices, settings or units; keep one kind")
    log.warning("%s: are they of one device in one setting?", shown)


def _best_split(values: Floats) -> NDArray[np.bool_]:
    """Mark the upper of the two groups of least scatter, of at least two values each."""
    ranked = np.sort(values)
    splits = range(2, len(ranked) - 1)
    at = min(splits, key=lambda i: float(ranked[:i].var() * i + ranked[i:].var() * (len(ranked) - i)))
    return np.asarray(values >= ranked[at])


def _refined(sizes: Floats, times: Floats, second: NDArray[np.bool_]) -> tuple[float, float, NDArray[np.bool_]]:
    """Fit parallel lines and assign each time to the nearer one, by turns; gives their distance and scatter."""
    for _ in range(_SWEEPS):
        design = np.hstack([np.ones((len(sizes), 1)), sizes, second[:, None]])
        ridge = np.diag([0.0, *[1e-3] * sizes.shape[1], 0.0])
        weights = np.linalg.lstsq(design.T @ design + ridge, design.T @ times, rcond=None)[0]
        apart, below = float(weights[-1]), times - design[:, :-1] @ weights[:-1]
        freedom = max(1, len(times) - design.shape[1])
        # Of few times a small scatter is chance: it counts for more.
        within = (1 + 2 / freedom) * math.sqrt(float(((below - apart * second) ** 2).sum()) / freedom)
        upper = below > apart / 2 if apart > 0 else below < apart / 2
        if (upper == second).all() or min(upper.sum(), (~upper).sum()) < 2:
            break
        second = upper
    return (apart, within, second) if apart > 0 else (-apart, within, ~second)


def _log_sizes(archs: Sequence[Arch], num_classes: int, in_channels: int) -> Floats:
    """Give centred logs of MACs, blocks and resolution `(archs, 1 to 3)`; what is constant after MACs is left out."""
    features, groups = count_features(archs, num_classes, in_channels)
    macs = features[:, groups.index("dense")] + features[:, groups.index("depthwise")]
    columns = np.log(np.stack([macs, features[:, groups.index("blocks")], [arch.r for arch in archs]], axis=1))
    used = columns.std(axis=0) > 1e-9
    used[0] = True
    return np.asarray(columns[:, used] - columns[:, used].mean(axis=0), dtype=np.float64)


def _robust_line(sizes: Floats, times: Floats) -> Floats:
    """Fit least absolute deviations by reweighting; gives the fitted values."""
    design = np.hstack([np.ones((len(sizes), 1)), sizes])
    ridge = np.diag([0.0, *[1e-3] * sizes.shape[1]])
    weights = np.ones(len(times))
    fitted = np.full(len(times), float(np.median(times)))
    for _ in range(_SWEEPS):
        weighted = design.T * weights
        fitted = design @ np.linalg.solve(weighted @ design + ridge, weighted @ times)
        weights = 1 / np.maximum(np.abs(times - fitted), 1e-3)
    return fitted
