"""How far two measurements of one model are apart: anchored and raw, over twenty models; and ten repeats of one.

    python tests/benchmarks/repeatability.py [--models 20] [--resolution 64] [--runtime onnxruntime] [--repeats 10]
                                              [--tolerance .05]

Each measurement is a session of its own (new processes, new order); anchored times are on the first session's scale.
A session that is refused as not steady is made again, as a user would, and counted. Asked: at most 2 % in the median,
5 % at p95.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tutelage.bench.protocol.measure import TOLERANCE, Job, measure_jobs
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import DeviceProfile, Measurement, UnsteadyDeviceError
from tutelage.search.spaces.space import find_space
from tutelage.search.supernet import build_arch

SESSIONS = 10  # refused one after another before the machine is called too busy to tell anything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--resolution", dest="side", type=int, default=64)
    parser.add_argument("--runtime", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of the halves of a session")
    parser.add_argument("--at-once", type=int, default=10, help="models of one session")
    options = parser.parse_args()
    space = find_space("ofa_mbv3_w1.0").with_resolutions((options.side,))
    archs = space.decode(space.random(options.models, np.random.default_rng(0)))
    device = DeviceProfile(name="here", runtime=options.runtime)
    shape = (3, options.side, options.side)
    with tempfile.TemporaryDirectory() as folder:
        files = {f"net {index}": Path(folder) / f"{index}.onnx" for index in range(len(archs))}
        for arch, path in zip(archs, files.values(), strict=True):
            export_onnx(build_arch(arch, 4), path, (1, *shape), check=False)
        names = list(files)
        groups = [names[start : start + options.at_once] for start in range(0, len(names), options.at_once)]
        first: dict[str, Measurement] = {}
        second: dict[str, Measurement] = {}
        scale: float | None = None
        refused = 0

        def session(group: Sequence[str], seed: int) -> dict[str, Measurement]:
            nonlocal scale, refused
            jobs = [Job(name, files[name], (1, *shape)) for name in group]
            for again in range(SESSIONS):
                try:
                    timed = measure_jobs(
                        jobs, device, seed=seed + 10_000 * again, tolerance=options.tolerance, anchor_ms=scale
                    )
                except UnsteadyDeviceError as error:
                    refused += 1
                    print(f"refused: {error}", flush=True)
                    continue
                scale = scale or timed.anchor_ms
                return timed.measurements
            raise SystemExit(f"{SESSIONS} sessions were refused one after another: quiet the machine")

        begun = time.monotonic()
        for turn, found in enumerate((first, second)):
            for number, group in enumerate(groups):
                found |= session(group, 100 * turn + number)
        spent = f"{time.monotonic() - begun:.0f} s, {refused} sessions refused"
        print(f"{options.runtime}, {options.side} px, {len(names)} models twice, {spent}")
        print("| | median | p95 |\n|---|---|---|")
        for kind in ("anchored", "raw"):
            apart = [abs(_ms(second[name], kind) / _ms(first[name], kind) - 1) for name in names]
            print(f"| {kind} | {np.median(apart):.2%} | {np.percentile(apart, 95):.2%} |")
        repeats = [session(names[:1], 1000 + n)[names[0]] for n in range(options.repeats)]
    for kind in ("anchored", "raw"):
        ms = np.array([_ms(each, kind) for each in repeats])
        each = " ".join(f"{value:.3f}" for value in ms)
        print(f"{options.repeats} repeats of {names[0]}, {kind} ms: {each}; max/min - 1: {ms.max() / ms.min() - 1:.1%}")


def _ms(found: Measurement, kind: str) -> float:
    if kind == "raw":
        return found.p50_ms
    assert found.anchored_ms is not None
    return found.anchored_ms


if __name__ == "__main__":
    main()
