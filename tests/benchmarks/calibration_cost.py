"""What a calibration costs and how good it is, as before and now, in turns on this host.

    python tests/benchmarks/calibration_cost.py [--runtime onnxruntime] [--space S] [--resolution 64] [--rounds 3]

`before`: every block of the table is measured, and everything is exported anew. `first`: the chosen blocks, exported
into an empty cache. `now`: the chosen blocks for a further device, whose exports the cache holds. Each takes two
sessions of the same rounds; random nets that no fit sees are measured in the same sessions. Seconds are those of the
calibration alone, without these nets. Asked: half of the time for the same error.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tutelage.bench.converters.exports import ExportCache
from tutelage.bench.latency.calibrate import MIN_SESSIONS, calibrate
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Arch, DeviceProfile
from tutelage.search.costs.counts import BlockSpec
from tutelage.search.spaces.space import Space, find_space
from tutelage.search.supernet import build_arch, build_block

CLASSES, CHANNELS = 4, 1
KINDS = ("before", "first", "now")


def once(kind: str, runtime: str, space: Space, held: Sequence[Arch], cache: Path, seed: int) -> tuple[float, float]:
    """Calibrate once; gives its own seconds, and the mean relative error on the nets that it did not see."""
    exports = ExportCache(cache)

    def export(arch: Arch, path: Path) -> None:
        shape = (1, CHANNELS, arch.r, arch.r)
        exports.fetch(arch.id, path, lambda a: export_onnx(build_arch(arch, CLASSES, CHANNELS), a, shape, check=False))

    def export_block(spec: BlockSpec, path: Path) -> None:
        shape = (1, spec.in_channels, spec.in_hw, spec.in_hw)
        exports.fetch(spec.key, path, lambda aside: export_onnx(build_block(spec), aside, shape, check=False))

    found = calibrate(
        DeviceProfile(name="here", runtime=runtime), space, num_classes=CLASSES, in_channels=CHANNELS, export=export,
        export_block=export_block, minutes=10, num_nets=8, max_nets=8, small_error=math.inf, held_out=held,
        all_blocks=kind == "before", seed=seed,
    )  # fmt: skip
    assert found.sessions == MIN_SESSIONS
    return found.own_seconds, float(np.mean(np.abs(found.model.predict(held)[0] / found.held_out_ms - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--space", default="mbconv_small_w1.0")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    space = find_space(options.space).with_resolutions((options.resolution,))
    held = space.decode(space.random(options.held_out, np.random.default_rng(1000)))
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            # The cache of `first` serves `now`, which therefore comes after it; `before` is first or last in turns.
            for kind in KINDS if turn % 2 == 0 else (*KINDS[1:], KINDS[0]):
                cache = Path(folder) / ("alone" if kind == "before" else "shared")
                found[kind].append(once(kind, options.runtime, space, held, cache, turn))
                print(f"{kind}: {found[kind][-1][0]:.0f} s, {found[kind][-1][1]:.2%}", flush=True)
    print(f"{options.runtime}, {space.name} at {options.resolution} px, {options.rounds} rounds, median and range")
    print("| | seconds | of before | error on nets left out % |\n|---|---|---|---|")
    for kind, runs in found.items():
        seconds, errors = (np.array(column) for column in zip(*runs, strict=True))
        ratios = seconds / np.array([one[0] for one in found["before"]])
        print(f"| {kind} | {spread(seconds, 0)} | {spread(ratios, 2)} | {spread(100 * errors, 2)} |")


def spread(values: np.ndarray, digits: int) -> str:
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


if __name__ == "__main__":
    main()
