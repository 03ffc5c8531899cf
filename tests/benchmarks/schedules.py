"""Compare supernet schedules at equal wall time: mean validation AUC over 50 random subnets of PneumoniaMNIST.

    python tests/benchmarks/schedules.py pneumoniamnist.npz --minutes 4

Each schedule first times a few steps, then gets as many whole epochs' worth of steps as fit in the minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from tutelage.search.shrink import SupernetSchedule, train_supernet
from tutelage.search.space import SPACES
from tutelage.search.supernet import build_supernet, score_subnets

BATCH = 64
NUM_SUBNETS = 50
PROBE_STEPS = 12  # covers all six phases of progressive shrinking twice


def load(path: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Give normalised images (n, 1, 28, 28) and labels (n,) of a part of the set."""
    data = np.load(path)
    images = torch.from_numpy(data[f"{part}_images"])[:, None].float() / 255
    return (images - 0.5) / 0.25, torch.from_numpy(data[f"{part}_labels"][:, 0]).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    space = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))
    images, labels = load(asked.path, "train")
    held_out, truth = load(asked.path, "val")
    archs = space.decode(space.random(NUM_SUBNETS, np.random.default_rng(asked.seed)))

    def batches(epoch: int):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(asked.seed * 1000 + epoch))
        for chosen in order.split(BATCH):
            if len(chosen) == BATCH:
                yield images[chosen], labels[chosen], None

    def few(epoch: int):
        yield from (batch for _, batch in zip(range(PROBE_STEPS), batches(epoch), strict=False))

    for method in ("sandwich", "random", "progressive"):
        started = time.perf_counter()
        probe = SupernetSchedule(epochs=1, method=method)
        train_supernet(build_supernet(space, 2, 1), space, few, PROBE_STEPS, probe)
        step_seconds = (time.perf_counter() - started) / PROBE_STEPS
        steps = len(images) // BATCH
        epochs = max(1, round(asked.minutes * 60 / step_seconds / steps))
        net = build_supernet(space, 2, 1, seed=asked.seed)
        started = time.perf_counter()
        train_supernet(net, space, batches, steps, SupernetSchedule(epochs=epochs, method=method), seed=asked.seed)
        seconds = time.perf_counter() - started
        scores = score_subnets(net, archs, list(images[:256].split(64)), held_out, truth)
        aucs = [score.auc for score in scores]
        print(
            f"{method:12} {epochs:3d} epochs {seconds:6.0f} s  mean AUC {np.mean(aucs):.4f} +- {np.std(aucs):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
