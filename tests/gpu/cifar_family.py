"""A family on images of CIFAR-10 for `check_gpu.py`: supernet, teacher, students with controls; it is resumable.

Epochs are chosen on validation images. The test images are read once for each finished network; what was found is kept.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from check_gpu import Check, images_of

from tutelage.accelerator import drawing
from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.loader import Loader, tensors
from tutelage.distill.evaluation.evaluate import evaluate, predict_logits, probabilities
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.schedule import KDConfig, TrainSchedule
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import train
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, extract
from tutelage.search.supernet.training import SupernetSchedule, train_supernet


class OutOfTimeError(Exception):
    """The time is up; what was finished is in checkpoints."""


def train_family(check: Check) -> None:
    """Train until the time is up; the next call with the same --out goes on after the last whole epoch."""
    quick, data, origin = check.options.quick, *_data(check)
    check.say("family", "images", f"{len(data.images)} of 32 px, {origin}")
    batch = 16 if quick else 256
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    try:
        net = check.accelerator.place(build_supernet(space, 10, 3, seed=0))
        batches = _loader(check, data, batch)
        began = time.perf_counter()
        log = train_supernet(
            net, space, lambda epoch: ((one.images, one.labels, None) for one in batches.epoch(epoch)), len(batches),
            SupernetSchedule(epochs=1 if quick else 20), checkpoint=check.options.out / "supernet.safetensors",
            data_id=batches.identity, progress=_watch(check), accelerator=check.accelerator,
        ).epochs  # fmt: skip
        check.say("family", "supernet", f"{len(log)} epochs, loss {log[-1]['loss']:.3f}, {_since(began)}")
        epochs = 1 if quick else 15
        with drawing(0):
            teacher = build_teacher("resnet10t" if quick else "resnet18", 10, 3, 32)
        _trained(check, data, batch, "teacher", teacher, epochs)
        for name, arch in (("smallest", space.smallest()), ("largest", space.largest())):
            for alone in (True, False):
                student = extract(net, arch)
                label = f"{name} student, {'control' if alone else 'distilled'}"
                _trained(check, data, batch, label, student, epochs, None if alone else teacher)
    except OutOfTimeError:
        check.say("family", "stopped", "the time is up; the same command goes on")


def _trained(
    check: Check, data: Dataset, batch: int, label: str, net: Any, epochs: int, teacher: Any | None = None
) -> None:
    folder = check.options.out / label.replace(", ", "-").replace(" ", "-")
    targets = []
    if teacher is not None:
        cache = check.options.out / "soft-targets"
        targets = [
            SoftTargets(teacher, cache, data_id="cifar", bf16=check.accelerator.bf16, device=check.accelerator.device)
        ]
    result = train(
        net, _loader(check, data, batch), tensors(data, "val")[:2],
        TrainSchedule(epochs=epochs, batch_size=batch, warmup_epochs=min(1, epochs - 1), bf16=None),
        teachers=targets, kd=KDConfig() if targets else None, checkpoint=folder, progress=_watch(check),
        accelerator=check.accelerator,
    )  # fmt: skip
    seconds = np.median([record["seconds"] for record in result.history])
    check.say(
        "family", label,
        f"{seconds:.3g} s an epoch; validation accuracy {result.val_accuracy:.3f}, {_tested(folder, net, data)}",
    )  # fmt: skip


def _tested(folder: Path, net: Any, data: Dataset) -> str:
    """Evaluate a finished network on the test images, or read what that came to."""
    kept = folder / "test.json"
    if not kept.is_file():
        images, labels = tensors(data, "test")[:2]
        found = evaluate(probabilities(predict_logits(net, images)), labels, bootstrap=200)
        kept.write_text(json.dumps([found.num_images, found.accuracy, found.accuracy_lo, found.accuracy_hi]))
    number, accuracy, low, high = json.loads(kept.read_text())
    return f"test accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] on {number} images"


def _data(check: Check) -> tuple[Dataset, str]:
    images, labels, origin = images_of(check.options.data, check.options.quick)
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(order, [len(images) * 7 // 10, len(images) * 8 // 10])
    splits = {name: np.sort(part) for name, part in zip(("train", "val", "test"), parts, strict=True)}
    groups = np.arange(len(images)).astype(np.str_)
    names = tuple(str(number) for number in range(10))
    return Dataset("cifar10", images, labels, names, groups, splits, manifest=origin), origin


def _loader(check: Check, data: Dataset, batch: int) -> Loader:
    return Loader(
        data, "train", batch, augment="flip", augment_variants=4, shuffle=True, drop_last=True,
        device=check.accelerator.device,
    )  # fmt: skip


def _watch(check: Check) -> Any:
    def progress(text: str, done: int, total: int) -> None:
        if check.left < 5:
            raise OutOfTimeError

    return progress


def _since(began: float) -> str:
    return f"{time.perf_counter() - began:.0f} s here"
