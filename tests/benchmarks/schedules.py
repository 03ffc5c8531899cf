"""What supernet training is worth on PneumoniaMNIST: three schedules at equal time, and how well subnets are ranked.

    python tests/benchmarks/schedules.py --data DIR [--minutes 4] [--students 12] [--keep FOLDER]

DIR holds `pneumoniamnist.npz` (MedMNIST v2); only its training and validation splits are read. Each schedule gets as
many steps as a probe says fit into the minutes of one thread's processor time (wall time, on a machine to itself), and
then the same 50 subnets are drawn, their batch norm calibrated, and scored. Then some subnets of the first schedule are
extracted and distilled from a teacher as the pipeline's distillation stage does it, and the two orders are compared.
With `--keep` all that is trained is left in a folder and taken from there: a bench that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from torch import nn

from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.loader import Loader, tensors
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import KDConfig, TrainSchedule, train
from tutelage.records import Arch
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import build_supernet, extract, score_subnets
from tutelage.search.supernet.scoring import SubnetScore, score_logits
from tutelage.search.supernet.training import Method, SupernetSchedule, train_supernet

SIDE = 28
BATCH = 64
NUM_SUBNETS = 50
CALIBRATION_BATCHES = 4
# The probe's steps stand in the proportion of progressive shrinking's phases; the first few warm up.
PROBE_STEPS, PROBE_WARMUP = 12, 2
WARMUP_SHARE = 0.05  # of the steps
TEACHER, TEACHER_EPOCHS = "resnet10t", 4
FIGURES = ("error", "auc", "loss")


def batches_of(loader: Loader, steps: int) -> Callable[[int], Iterator[Any]]:
    """Give `steps` batches, epoch after epoch of the data."""

    def batches(_: int) -> Iterator[Any]:
        endless = itertools.chain.from_iterable(loader.epoch(k) for k in itertools.count())
        for batch in itertools.islice(endless, steps):
            yield batch.images, batch.labels, None

    return batches


def train_for(seconds: float, method: Method, net: nn.Module, space: Space, loader: Loader, seed: int) -> str:
    """Train for about as many seconds of processor time; says how many steps and seconds it took."""

    def fit(trained: nn.Module, steps: int, batches: Any, warmup: float) -> None:
        schedule = SupernetSchedule(epochs=1, method=method, lr=2e-3, warmup_epochs=warmup)
        train_supernet(trained, space, batches, steps, schedule, seed=seed)

    some = list(batches_of(loader, PROBE_STEPS)(0))
    fit(build_supernet(space, 2, 1), PROBE_WARMUP, lambda _: some[:PROBE_WARMUP], 0)
    started = time.process_time()
    fit(build_supernet(space, 2, 1), PROBE_STEPS, lambda _: some, 0)
    steps = max(PROBE_STEPS, round(seconds / ((time.process_time() - started) / PROBE_STEPS)))
    started, wall = time.process_time(), time.perf_counter()
    fit(net, steps, batches_of(loader, steps), WARMUP_SHARE)
    spent, waited = time.process_time() - started, time.perf_counter() - wall
    return f"{steps} steps of {spent / steps:.2f} s: {spent:.0f} s ({waited:.0f} s wall)"


def teach(
    net: nn.Module, archs: Sequence[Arch], dataset: Dataset, seed: int, epochs: int, keep: Path | None
) -> list[SubnetScore]:
    """Cut each arch out and train it from its inherited weights under a teacher; gives its validation scores."""
    val, labels, _ = tensors(dataset, "val")
    loader = Loader(dataset, "train", BATCH, augment="light", augment_variants=4, shuffle=True, drop_last=True)
    teacher = build_teacher(TEACHER, 2, 1, resolution=SIDE, seed=seed)
    schedule = TrainSchedule(epochs=TEACHER_EPOCHS, batch_size=BATCH)
    kept_or(keep, f"{TEACHER}-{seed}", teacher, lambda: train(teacher, loader, (val, labels), schedule, seed=seed))
    print(f"teacher {TEACHER}: {_cells([score_logits(predict_logits(teacher, val), labels)])}", flush=True)
    targets, schedule = SoftTargets(teacher), TrainSchedule(epochs=epochs, batch_size=BATCH)
    scores = []
    for arch in archs:
        student = extract(net, arch)

        def fit(model: nn.Module = student) -> None:
            kd = KDConfig(temperature=3.0)
            train(model, loader, (val, labels), schedule, teachers=[targets], kd=kd, seed=seed)

        kept_or(keep, f"{arch.id[:12]}-{seed}", student, fit)
        scores.append(score_logits(predict_logits(student, val), labels))
        print(f"  distilled {arch.id[:8]}: {_cells(scores[-1:])}", flush=True)
    return scores


def kept_or(keep: Path | None, name: str, net: nn.Module, fit: Callable[[], Any]) -> Any:
    """Take the weights of `net` from the folder, or fit it and leave them there; gives what `fit` gives, if it ran."""
    file = keep / f"{name}.safetensors" if keep else None
    if file is not None and file.exists():
        net.load_state_dict(load_file(file))
        return None
    fitted = fit()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, file)
    return fitted


def print_ranks(archs: Sequence[Arch], inherited: Sequence[SubnetScore], distilled: Sequence[SubnetScore]) -> None:
    """Print Kendall's tau-b of inherited and distilled figures, and of MACs as the plainest guess."""
    macs = count(archs, 2, 1).macs.astype(np.float64)
    print(f"\nKendall tau (two-sided p) over {len(archs)} subnets, against the figure after distillation:")
    print(f"{'':12}{'inherited, same figure':>26}{'inherited loss':>20}{'MACs':>20}")
    for name in FIGURES:
        after = [getattr(score, name) for score in distilled]
        before = [getattr(score, name) for score in inherited]
        losses = [score.loss * (-1 if name == "auc" else 1) for score in inherited]
        sized = macs if name == "auc" else -macs  # the larger one is guessed to be the better
        cells = [kendalltau(guess, after) for guess in (before, losses, sized)]
        print(f"{name:12}{_tau(cells[0]):>26}{_tau(cells[1]):>20}{_tau(cells[2]):>20}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score, teach, print."""
    options = _options(arguments)
    torch.set_num_threads(1)
    space = SPACES[options.space].with_resolutions((SIDE,))
    dataset = load_dataset("medmnist", path=options.data / "pneumoniamnist.npz", size=SIDE, seed=options.seed)
    loader = Loader(
        dataset, "train", BATCH, augment="light", augment_variants=4, shuffle=True, drop_last=True, seed=options.seed
    )
    val, labels, _ = tensors(dataset, "val")
    calibration = list(tensors(dataset, "train")[0][: CALIBRATION_BATCHES * BATCH].split(BATCH))
    archs = space.decode(space.random(NUM_SUBNETS, np.random.default_rng(options.seed)))
    print(f"{space.name} at {SIDE} px, batch {BATCH}, {options.minutes:g} minutes of one thread a schedule")
    print(f"mean +- deviation over {NUM_SUBNETS} subnets, validation ({len(val)} images), seed {options.seed}")
    kept: tuple[nn.Module, list[SubnetScore]] | None = None
    for method in options.methods.split(","):
        net = build_supernet(space, 2, 1, seed=options.seed)
        fit = partial(train_for, options.minutes * 60, method, net, space, loader, options.seed)
        trained = kept_or(options.keep, f"{method}-{options.seed}", net, fit) or "kept weights"
        scores = score_subnets(net, archs, calibration, val, labels)
        print(f"{method:12}{_cells(scores)}   {trained}", flush=True)
        kept = kept or (net, scores)
    if kept is not None and options.students:
        net, scores = kept
        chosen = archs[: options.students]
        distilled = teach(net, chosen, dataset, options.seed, options.student_epochs, options.keep)
        print_ranks(chosen, scores[: options.students], distilled)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds pneumoniamnist.npz")
    parser.add_argument("--space", default="ofa_mbv3_w1.0", help="a space of SPACES; _stem1 costs three times as much")
    parser.add_argument("--methods", default=",".join(get_args(Method)), help="the first one's subnets are distilled")
    parser.add_argument("--minutes", type=float, default=4, help="of training a schedule")
    parser.add_argument("--students", type=int, default=12, help="subnets that are distilled (0: none)")
    parser.add_argument("--student-epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for trained networks")
    return parser.parse_args(arguments)


def _cells(scores: Sequence[SubnetScore]) -> str:
    cells = []
    for name, title in (("auc", "AUC"), ("error", "accuracy"), ("loss", "loss")):
        values = np.array([getattr(score, name) for score in scores])
        values = 1 - values if name == "error" else values
        cells.append(f"{title} {values.mean():.4f}" + (f" +- {values.std():.4f}" if len(values) > 1 else ""))
    return ", ".join(cells)


def _tau(found: Any) -> str:
    return f"{found.statistic:.2f} ({found.pvalue:.3f})"


if __name__ == "__main__":
    main()
