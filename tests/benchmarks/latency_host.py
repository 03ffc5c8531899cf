"""Print how well a latency model made on this host predicts nets it never saw.

    python tests/benchmarks/latency_host.py [--runtime onnxruntime] [--resolution 64] [--nets 10] [--held-out 24]

A block table and `--nets` whole nets, chosen by design, are measured as `tutelage device add` measures them; random
held-out nets are measured in the same interleaved sessions and shown to nobody. MAPE and Kendall tau are of the
held-out nets; label noise is the standard error of a label over its sessions. The floor is what a model that knows
every net's true time would come to, on held-out labels as noisy as these: their noise's mean size, and the tau of such
noise. Seconds are everything for the table and the nets (export, loading, measuring, fit), which `--minutes` bounds,
and then with the held-out nets' share of the sessions as well, which a user who adds a device does not pay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from tutelage.bench.latency.calibrate import Calibration, calibrate
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Arch, DeviceProfile
from tutelage.search.costs.counts import BlockSpec
from tutelage.search.spaces.space import find_space
from tutelage.search.supernet import build_arch, build_block

CLASSES, CHANNELS = 1000, 3


def export(arch: Arch, path: Path) -> None:
    """Write a net with random weights as ONNX."""
    export_onnx(build_arch(arch, CLASSES, CHANNELS), path, (1, CHANNELS, arch.r, arch.r), check=False)


def export_block(spec: BlockSpec, path: Path) -> None:
    """Write one block as ONNX."""
    export_onnx(build_block(spec), path, (1, spec.in_channels, spec.in_hw, spec.in_hw), check=False)


def run(runtime: str, side: int, nets: int, held_out: int, minutes: float, seed: int) -> tuple[Calibration, list[Arch]]:
    """Calibrate with held-out nets beside the training nets."""
    import torch

    torch.set_num_threads(1)
    space = find_space("ofa_mbv3_w1.0").with_resolutions((side,))
    others = space.decode(space.random(held_out, np.random.default_rng(1000 + seed)))

    found = calibrate(
        DeviceProfile(name="here", runtime=runtime), space, num_classes=CLASSES, in_channels=CHANNELS, export=export,
        export_block=export_block, minutes=minutes, num_nets=nets, max_nets=nets, held_out=others, seed=seed,
    )  # fmt: skip
    return found, others


def floor(true_ms: NDArray[np.float64], noise: float, draws: int = 200) -> tuple[float, float]:
    """Give the mean absolute relative error and the Kendall tau of a perfect model against labels of that noise."""
    rng = np.random.default_rng(0)
    labels = true_ms * np.exp(noise * rng.standard_normal((draws, len(true_ms))))
    taus = [kendalltau(row, true_ms).statistic for row in labels]
    return float(np.mean(np.abs(labels / true_ms - 1))), float(np.mean(taus))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--resolution", dest="side", type=int, default=64)
    parser.add_argument("--nets", type=int, default=10)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write table, nets, labels as JSON")
    options = parser.parse_args(arguments)
    found, others = run(options.runtime, options.side, options.nets, options.held_out, options.minutes, options.seed)
    mean, low, high = found.model.predict(others)
    true = found.held_out_ms
    floor_error, floor_tau = floor(true, found.held_out_noise)
    print(
        "| runtime | side | nets | held out | MAPE % | Kendall | Spearman | 90 % covers | label noise % "
        "| floor: MAPE % / Kendall | seconds / with held out |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {options.runtime} | {options.side} | {len(found.nets)} | {len(others)} "
        f"| {100 * np.mean(np.abs(mean / true - 1)):.2f} | {kendalltau(mean, true).statistic:.3f} "
        f"| {spearmanr(mean, true).statistic:.3f} | {np.mean((low <= true) & (true <= high)):.0%} "
        f"| {100 * found.label_noise:.2f} | {100 * floor_error:.2f} / {floor_tau:.3f} "
        f"| {found.own_seconds:.0f} / {found.seconds:.0f} |"
    )
    print(f"{found.sessions} sessions; leave-one-out error {100 * found.model.error:.2f} %; unsteadiness at p95 "
          f"{100 * found.unsteadiness:.1f} %; latencies {true.min():.2f} to {true.max():.2f} ms")  # fmt: skip
    if options.save:
        options.save.write_text(
            json.dumps(
                {
                    "runtime": options.runtime, "side": options.side, "blocks": found.model.blocks,
                    "nets": [arch.to_dict() for arch in found.nets], "net_ms": found.net_ms.tolist(),
                    "held": [arch.to_dict() for arch in others], "held_ms": true.tolist(),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
