"""Accuracy over the folds of a recipe, by image as published and by group beside it: `make bench-folds`.

Enters: a recipe, a folder of data. Leaves: a table of every network's folds, printed anew after each fold and kept in
the workspace as `folds.json`. Finished trainings are kept there too: a run that was stopped goes on. Test images of all
folds are pooled for the interval (groups resampled whole) and for the comparison with the control that had no teacher.
`--on val` opens the validation images instead: choices are made on them. `--time` measures every network in ONNX
Runtime, in turns with DarkCovidNet at its 256 px.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.bench.protocol.measure import Job, measure_jobs
from tutelage.cli.output import cores
from tutelage.distill.evaluation.evaluate import evaluate, predict_logits, probabilities
from tutelage.distill.evaluation.gain import compare_trainings
from tutelage.distill.evaluation.paired import compare_files, correct, file_figures, mean_figures
from tutelage.files import write_json
from tutelage.pipeline import networks
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import reporting
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Comparison, DeviceProfile, Student

# Ozturk et al., Computers in Biology and Medicine 121 (2020): the mean of five folds by image.
PUBLISHED = "DarkCovidNet, as published: mean 0.8702, 1,167,586 parameters at 256 px, folds by image"
TEST, GROUP = "test", "group"


@dataclass
class Kept:
    """One network over the folds: what it answered, and what was true."""

    probs: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    groups: list[NDArray[np.str_]] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    auc: list[float | None] = field(default_factory=list)
    student: Student | None = None

    def pooled(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
        return np.concatenate(self.probs), np.concatenate(self.labels), np.concatenate(self.groups)


Name = tuple[str, str, str, int]  # role, model, teacher, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cxr3-folds")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the recipe's data set")
    parser.add_argument("--workspace", type=Path, default=Path("folds-workspace"))
    parser.add_argument("--by", choices=("image", GROUP, "both"), default="both")
    parser.add_argument("--folds", type=int, help="stop after so many folds (default: all)")
    parser.add_argument("--on", choices=(TEST, "val"), default=TEST, help="the images that are scored")
    parser.add_argument("--time", action="store_true", help="measure p50 too (a minute, on a quiet machine)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    asked = parser.parse_args()
    for by in ("image", GROUP) if asked.by == "both" else (asked.by,):
        found, ctx = run_folds(asked, by)
    if asked.time and ctx is not None:
        print_times(ctx, [kept.student for kept in found.values() if kept.student is not None])


def run_folds(asked: argparse.Namespace, by: str) -> tuple[dict[Name, Kept], Context | None]:
    """Train and score every network of the recipe, fold by fold; the table is printed after each."""
    found: dict[Name, Kept] = {}
    ctx = None
    num_folds = load_recipe(asked.recipe, asked.changes).data.folds
    workspace = Workspace(asked.workspace)
    for fold in range(min(num_folds, asked.folds or num_folds)):
        started = time.monotonic()
        leaky = str(by == "image").lower()
        here = [*asked.changes, f"data.path={asked.data}", f"data.fold={fold}", f"data.leaky={leaky}"]
        recipe = load_recipe(asked.recipe, here)
        with reporting() as report:
            students = pipeline.distill(recipe, workspace, report, cores())
            ctx = open_context(recipe, workspace, report, cores())
            teachers = [train_teacher(ctx, section) for section in recipe.teachers]
        for student in [*teachers, *students]:
            name = (student.role, student.model, student.teacher, student.seed)
            score(ctx, student, asked.on, found.setdefault(name, Kept()))
        minutes = (time.monotonic() - started) / 60
        print(f"\nby {by}, fold {fold + 1} of {num_folds} in {minutes:.1f} min, on {asked.on} images", flush=True)
        print_table(found, recipe.measure.margin)
        keep(asked.workspace / "folds.json", f"{asked.recipe} by {by} on {asked.on}", here, found)
    return found, ctx


def score(ctx: Context, student: Student, split: str, kept: Kept) -> None:
    """Add one fold's answers of a network."""
    images, labels = ctx.split(split, ctx.resolution(student))
    probs = np.asarray(probabilities(predict_logits(networks.load(ctx, student), images)), dtype=np.float64)
    figures = evaluate(probs, labels, bootstrap=0)
    kept.probs.append(probs)
    kept.labels.append(labels.numpy())
    kept.groups.append(ctx.dataset.groups[ctx.dataset.indices(split)])
    kept.accuracy.append(figures.accuracy)
    kept.auc.append(figures.auc)
    kept.student = student


def print_table(found: dict[Name, Kept], margin: float) -> None:
    """Print a line a network: mean over folds, its deviation, and what the teacher was worth on all folds' images.

    Seeds are compared together, each with its own control; the verdict stands on the line of the first.
    """
    verdicts = compare_controls(found, margin)
    for name, kept in found.items():
        role, model, teacher, seed = name
        probs, labels, groups = kept.pooled()
        whole = evaluate(probs, labels, groups)
        deviation = np.std(kept.accuracy, ddof=1) if len(kept.accuracy) > 1 else float("nan")
        folds = " ".join(f"{value:.3f}" for value in kept.accuracy)
        params = (kept.student.params if kept.student else 0) or 0
        areas = [value for value in kept.auc if value is not None]
        print(
            f"  {role:8} {model:20} {f'from {teacher}' if teacher else 'labels only':28} seed {seed}  "
            f"{params:>10,} parameters  accuracy mean {np.mean(kept.accuracy):.4f} sd {deviation:.4f} "
            f"[{whole.accuracy_lo:.3f}, {whole.accuracy_hi:.3f}]  AUC {np.mean(areas):.4f}  folds {folds}"
            + (f"  {verdicts[name]}" if name in verdicts else ""),
            flush=True,
        )
    print(f"  {PUBLISHED}", flush=True)


def compare_controls(found: dict[Name, Kept], margin: float) -> dict[Name, str]:
    """Say what each teacher was worth to each student, on all folds' images and seeds, p values Holm-adjusted.

    With fewer seeds than a claim about a teacher needs, the table says how the files of these trainings differ.
    """
    pairs: dict[tuple[str, str, str], list[Name]] = {}
    for name in found:
        if name[2]:
            pairs.setdefault(name[:3], []).append(name)
    claims: dict[Name, list[Comparison]] = {}
    for names in pairs.values():
        first = [file_figures(*found[name].pooled()) for name in names]
        second = [file_figures(*found[(*name[:2], "", name[3])].pooled()) for name in names]
        helped = compare_trainings(first, second, margin=margin).values()
        differ = compare_files(mean_figures(first), mean_figures(second), margin=margin, num_seeds=len(names)).values()
        claims[names[0]] = [*helped, *differ]
    adjusted = iter(correct([one for some in claims.values() for one in some]))
    return {
        name: "; ".join(f"{one.claim}: {one.text}" for one in [next(adjusted) for _ in some])
        for name, some in claims.items()
    }


def keep(file: Path, title: str, changes: Sequence[str], found: dict[Name, Kept]) -> None:
    """Write the figures so far beside those of other runs in this workspace."""
    tables = json.loads(file.read_text()) if file.is_file() else {}
    tables[title] = {
        "changes": list(changes),
        "networks": [
            {
                "role": name[0], "model": name[1], "teacher": name[2], "seed": name[3], "accuracy": kept.accuracy,
                "auc": kept.auc, "params": kept.student.params if kept.student else None,
            }
            for name, kept in found.items()
        ],
    }  # fmt: skip
    write_json(file, tables)


def print_times(ctx: Context, students: Sequence[Student]) -> None:
    """Measure every network (its last fold's weights) and DarkCovidNet at 256 px in turns: ONNX Runtime, one thread."""
    folder = ctx.workspace.path / "folds-timed"
    folder.mkdir(exist_ok=True)
    jobs = [Job("DarkCovidNet", folder / "darkcovidnet.onnx", (1, 3, 256, 256))]
    export_onnx(darkcovidnet(3).eval(), jobs[0].path, jobs[0].shape, check=False)
    for student in students:
        if student.teacher:  # the control without a teacher is the same network
            continue
        shape = (1, ctx.channels, ctx.resolution(student), ctx.resolution(student))
        jobs.append(Job(student.model, folder / f"{student.model}.onnx", shape))
        export_onnx(networks.load(ctx, student), jobs[-1].path, shape, check=False)
    timed = measure_jobs(jobs, DeviceProfile(name="here", runtime="onnxruntime", threads=1), tolerance=0.1)
    reference = timed.measurements["DarkCovidNet"].p50_ms
    print(f"\nONNX Runtime, one thread, batch 1; halves of the rounds {timed.unsteadiness:.1%} apart")
    for job in jobs:
        found = timed.measurements[job.name]
        print(f"  {job.name:24} {job.shape[2]:>4} px  p50 {found.p50_ms:7.3f} ms  {found.p50_ms / reference:.3f} of it")


def darkcovidnet(num_classes: int) -> nn.Module:
    """Build DarkCovidNet for 256 px RGB (Ozturk et al. 2020): 17 convolutions, a 1x1 one pads by 1 as theirs does.

    Its parameters are the published 1,167,586, which is asserted.
    """

    def block(inputs: int, outputs: int, size: int = 3) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, size, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.1, inplace=True),
        ]

    def triple(inputs: int, outputs: int) -> list[nn.Module]:
        return [*block(inputs, outputs), *block(outputs, inputs, 1), *block(inputs, outputs)]

    pool = nn.MaxPool2d(2)
    net = nn.Sequential(
        *block(3, 8), pool, *block(8, 16), pool, *triple(16, 32), pool, *triple(32, 64), pool, *triple(64, 128), pool,
        *triple(128, 256), *block(256, 128, 1), *block(128, 256), nn.Conv2d(256, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 13 * 13, num_classes),
    )  # fmt: skip
    count = sum(parameter.numel() for parameter in net.parameters())
    assert num_classes != 3 or count == 1_167_586, count
    assert net(torch.zeros(2, 3, 256, 256)).shape == (2, num_classes)
    return net


if __name__ == "__main__":
    main()
