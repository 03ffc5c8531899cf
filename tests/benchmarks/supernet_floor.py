"""How far a supernet's training step and its scoring are from what the machine could do, beside the `ofa` package.

    python tests/benchmarks/supernet_floor.py [--parts step,scoring,profile] [--repeat 3] [--threads 1] [--data DIR]
        [--resolutions 32,64] [--subnets 40] [--scoring-resolution 32] [--scoring-repeat 1]

The peak is measured in the same run, between the others: a float32 product of 2048x2048 matrices, and a copy of 256 MB.
The compute floor of a step is 6 operations a MAC, image and subnet (one multiplication and one addition, forward, by
the input and by the weight) at that peak; of scoring it is 2 for every image of calibration and validation. The layer
floor takes the larger of compute and memory for each layer: a convolution moves its input and output once in each of
those passes, and training's batch norm with its activation moves the map 8 times (statistics, normalise, the two
reductions of its gradient, the gradient). Times are of the processor, so that other processes disturb less; all sides
take turns. Scoring is of chest X-rays (DIR/cxr3), on a supernet of drawn weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tutelage.allocator import keep_freed_memory
from tutelage.records import Arch
from tutelage.search.costs.counts import block_specs
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import build_supernet, forward_subnet, recalibrate_bn, score_subnets, set_active
from tutelage.search.supernet.scoring import score_logits

BATCH, CLASSES = 64, 3
NUM_CALIBRATION, NUM_VALIDATION = 256, 224
Forward = Callable[[nn.Module, Arch, Tensor], Tensor]


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, in seconds over all threads."""
    started = time.process_time()
    call()
    return time.process_time() - started


def peak() -> tuple[float, float]:
    """Measure the operations a second of a matrix product, and the bytes a second of a copy (read and written)."""
    a, big = torch.ones(2048, 2048), torch.ones(64 * 2**20)
    other = big.clone()
    product = min(seconds(lambda: a @ a) for _ in range(3))
    copy = min(seconds(lambda: other.copy_(big)) for _ in range(3))
    return 2 * 2048**3 / product, 8 * big.numel() / copy


def floors(archs: Sequence[Arch], images: int, channels: int, training: bool, best: tuple[float, float]) -> list[float]:
    """Give the compute floor and the layer floor in seconds."""
    flops, bandwidth = best
    passes = 3 if training else 1
    compute = layered = 0.0
    for arch in archs:
        for layer in (layer for spec in block_specs(arch, CLASSES, channels) for layer in spec.layers):
            busy = 2 * passes * layer.macs * images / flops
            moved = layer.in_channels * layer.in_hw**2 + layer.out_channels * layer.out_hw**2
            normed = 8 * layer.activations if training and layer.norm else 0
            compute += busy
            layered += max(busy, 4 * passes * moved * images / bandwidth) + 4 * normed * images / bandwidth
    return [compute, layered]


def step(net: nn.Module, archs: Sequence[Arch], images: Tensor, labels: Tensor, forward: Forward) -> None:
    """Run every subnet forward and backward."""
    net.zero_grad()
    for arch in archs:
        F.cross_entropy(forward(net, arch, images), labels).backward()


def package(net: nn.Module, arch: Arch, images: Tensor) -> Tensor:
    """Run a subnet as the `ofa` package does."""
    set_active(net, arch)
    logits: Tensor = net(images)
    return logits


def sandwich(space: Space, seed: int) -> list[Arch]:
    return [space.largest(), *space.decode(space.random(1, np.random.default_rng(seed))), space.smallest()]


def in_turns(
    sides: dict[str, tuple[Callable[[], object], AbstractContextManager[None]]], repeat: int, *, warm_up: bool = True
) -> tuple[dict[str, list[float]], tuple[float, float]]:
    """Time every side in each round, after one that warms up; give the times and the best peak of all rounds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    best = peak()
    for round_ in range(0 if warm_up else 1, repeat + 1):
        for name, (call, memory) in sides.items():
            with memory:
                spent = seconds(call)
            if round_:
                times[name].append(spent)
        best = max(best[0], (now := peak())[0]), max(best[1], now[1])
    return times, best


def show(title: str, times: dict[str, list[float]], best: tuple[float, float], bounds: Sequence[float]) -> None:
    """Print a line a side: median, range, and ratios to both floors and to the last side, round by round."""
    print(f"\n{title}; peak {best[0] / 1e9:.1f} GFLOPS, {best[1] / 1e9:.1f} GB/s")
    print(f"  compute floor {bounds[0]:.3f} s, layer floor {bounds[1]:.3f} s")
    ours = list(times.values())[-1]
    for name, spent in times.items():
        middle = statistics.median(spent)
        ratios = sorted(theirs / own for theirs, own in zip(spent, ours, strict=True))
        print(
            f"  {name:10} {middle:8.3f} s ({min(spent):.3f} to {max(spent):.3f}): {middle / bounds[0]:5.2f} and "
            f"{middle / bounds[1]:5.2f} times the floors; {statistics.median(ratios):5.2f} times tutelage "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def bench_step(name: str, side: int, repeat: int) -> None:
    """Compare a sandwich step (largest, one random, smallest) with the package's."""
    space = SPACES[name].with_resolutions((side,))
    net = build_supernet(space, CLASSES).train()
    images, labels, archs = torch.randn(BATCH, 3, side, side), torch.arange(BATCH) % CLASSES, sandwich(space, 0)
    times, best = in_turns(
        {
            "ofa": (partial(step, net, archs, images, labels, package), nullcontext()),
            "tutelage": (partial(step, net, archs, images, labels, forward_subnet), _Kept()),
        },
        repeat,
    )
    show(f"step of {name}, {side} px, batch {BATCH}", times, best, floors(archs, BATCH, 3, True, best))


class _Kept(AbstractContextManager[None]):
    """`keep_freed_memory`, which is entered once, as a context that is entered in every round."""

    def __enter__(self) -> None:
        self._entered = keep_freed_memory()
        self._entered.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(None, None, None)


def profile_step(name: str, side: int) -> None:
    """Print where the time of our step goes, by kind of operation."""
    space = SPACES[name].with_resolutions((side,))
    net = build_supernet(space, CLASSES).train()
    images, labels = torch.randn(BATCH, 3, side, side), torch.arange(BATCH) % CLASSES
    with keep_freed_memory():
        run = partial(step, net, sandwich(space, 0), images, labels, forward_subnet)
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiled:
            run()
    parts: dict[str, float] = {}
    for event in profiled.key_averages(group_by_input_shape=True):
        kind = _kind(event.key, event.input_shapes)
        parts[kind] = parts.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    total = sum(parts.values())
    print(f"\nstep of {name}, {side} px, by kind of operation (wall time under the profiler: {total:.2f} s)")
    for kind, spent in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {kind:32} {spent:7.3f} s {spent / total:6.1%}")


def _kind(operation: str, shapes: Sequence[Sequence[int]]) -> str:
    if "convolution" in operation and len(shapes) > 2 and len(shapes[1]) == 4:
        weight = shapes[2] if "backward" in operation else shapes[1]
        way = "backward" if "backward" in operation else "forward"
        wide = len(weight) == 4 and weight[1] == 1 and weight[0] > 1 and weight[-1] > 1
        return f"{'depthwise' if wide else 'dense'} convolution, {way}"
    words = {"batch_norm": "batch norm", "relu": "activation", "clamp": "activation", "threshold": "activation"}
    words |= {"hard": "activation", "copy_": "copies", "fill_": "copies", "pad": "copies", "cat": "copies"}
    return next((kind for word, kind in words.items() if word in operation), "other")


def chest_x_rays(folder: Path, side: int) -> tuple[Tensor, Tensor]:
    """Read normalised images (n, 1, side, side) and labels (n,), the classes in turn."""
    by_class = [sorted(one.rglob("*.*")) for one in sorted(folder.iterdir()) if one.is_dir()]
    chosen = [(path, label) for turn in zip(*by_class, strict=False) for label, path in enumerate(turn)]
    chosen = chosen[: NUM_CALIBRATION + NUM_VALIDATION]
    pixels = [np.asarray(Image.open(path).convert("L").resize((side, side))) for path, _ in chosen]
    images = (torch.from_numpy(np.stack(pixels))[:, None].float() / 255 - 0.5) / 0.25
    return images, torch.tensor([label for _, label in chosen])


def score_one_by_one(
    net: nn.Module, archs: Sequence[Arch], calibration: Sequence[Tensor], images: Tensor, labels: Tensor
) -> list[float]:
    """Score each subnet alone, nothing shared or folded: the error of each."""
    errors = []
    for arch in archs:
        recalibrate_bn(net, calibration, forward=partial(forward_subnet, net, arch, track=True))
        net.eval()
        with torch.inference_mode():
            logits = torch.cat([forward_subnet(net, arch, batch) for batch in torch.split(images, 256)])
        errors.append(score_logits(logits, labels).error)
    return errors


def bench_scoring(name: str, side: int, num: int, repeat: int, data: Path) -> None:
    """Score random subnets together and one by one."""
    space = SPACES[name].with_resolutions((side,))
    net = build_supernet(space, CLASSES, 1)
    images, labels = chest_x_rays(data / "cxr3", side)
    calibration = list(images[:NUM_CALIBRATION].split(BATCH))
    images, labels = images[NUM_CALIBRATION:], labels[NUM_CALIBRATION:]
    archs = space.decode(space.random(num, np.random.default_rng(0)))
    errors: dict[str, list[float]] = {}

    def alone(scored: Sequence[Arch] = archs) -> None:
        errors["alone"] = score_one_by_one(net, scored, calibration, images, labels)

    def together(scored: Sequence[Arch] = archs) -> None:
        errors["together"] = [one.error for one in score_subnets(net, scored, calibration, images, labels)]

    alone(archs[:1])
    together(archs[:1])
    sides = {"alone": (alone, nullcontext()), "tutelage": (together, nullcontext())}
    times, best = in_turns(sides, repeat, warm_up=False)
    bounds = floors(archs, NUM_CALIBRATION + len(images), 1, False, best)
    show(f"scoring of {num} subnets of {name}, {side} px, {len(images)} images", times, best, bounds)
    differ = [abs(a - b) * len(images) for a, b in zip(errors["alone"], errors["together"], strict=True)]
    print(f"  images classified otherwise than alone: at most {max(differ):.0f} of {len(images)} a subnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="step,scoring,profile")
    parser.add_argument("--space", default="ofa_mbv3_w1.0_stem1")
    parser.add_argument("--resolutions", default="32,64")
    parser.add_argument("--subnets", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scoring-resolution", type=int, default=32)
    parser.add_argument("--scoring-repeat", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sides = [int(side) for side in options.resolutions.split(",")]
    parts = options.parts.split(",")
    for side in sides:
        if "step" in parts:
            bench_step(options.space, side, options.repeat)
        if "profile" in parts:
            profile_step(options.space, side)
    if "scoring" in parts:
        bench_scoring(options.space, options.scoring_resolution, options.subnets, options.scoring_repeat, options.data)


if __name__ == "__main__":
    main()
