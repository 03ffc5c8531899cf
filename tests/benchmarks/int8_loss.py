"""What int8 costs a recipe's students, after training and by quantization-aware training: `make bench-int8-loss`.

Enters: a recipe, a folder of data. Leaves: a line a student, runtime and scheme: its share of the fp32 bytes, and what
accuracy and AUC lose against the fp32 file of the same student, with 95 % intervals over groups. Where the recipe has
folds, all are played and their test images pooled, as in `folds.py`, whose trainings are kept in the same workspace.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.converters.conversion import size_bytes
from tutelage.cli.output import cores
from tutelage.distill.evaluation.paired import compare_files, file_figures
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import TeacherSet, open_context
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.evaluate import Evaluated, evaluate_variant
from tutelage.pipeline.stages.figures import Threshold
from tutelage.pipeline.stages.qat import compress_all
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import reporting
from tutelage.records import Comparison, InputError

RUNTIMES = ("onnxruntime", "openvino")


@dataclass
class Pooled:
    """One file's answers on all folds' test images, beside those of the fp32 file."""

    int8: list[NDArray[np.float32]] = field(default_factory=list)
    fp32: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    groups: list[NDArray[np.str_]] = field(default_factory=list)
    thresholds: list[tuple[Threshold, Threshold]] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    multi_label: bool = False


Key = tuple[str, str, str, str, int]  # model, teacher, runtime, scheme, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cxr3-folds")
    parser.add_argument("--data", type=Path, required=True, help="the file or folder of the recipe's data set")
    parser.add_argument("--workspace", type=Path, default=Path("folds-workspace"))
    parser.add_argument("--by", choices=("image", "group"), default="group", help="what a fold keeps together")
    parser.add_argument(
        "--qat", type=int, default=2, help="epochs of quantization-aware training; 0: none (default: 2)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    asked = parser.parse_args()
    changes = [*asked.changes, f"data.path={asked.data}", f"quantize.qat_epochs={asked.qat}"]
    data = load_recipe(asked.recipe, changes).data
    folds = data.folds if data.fold is not None else 1
    found: dict[Key, Pooled] = {}
    for fold in range(folds):
        here = [f"data.fold={fold}", f"data.leaky={str(asked.by == 'image').lower()}"] if folds > 1 else []
        recipe = load_recipe(asked.recipe, [*changes, *here])
        play(recipe, Workspace(asked.workspace), found)
        print(f"\nfold {fold + 1} of {folds}", flush=True)
        print_table(found, recipe.measure.margin)


def play(recipe: Recipe, workspace: Workspace, found: dict[Key, Pooled]) -> None:
    """Train, quantize and evaluate a recipe's students, and add their outputs on the test images."""
    with reporting() as report:
        ctx = open_context(recipe, workspace, report, cores())
        if recipe.data.fold is not None and (ctx.num_classes == 2 or ctx.dataset.multi_label):
            raise InputError(
                f"{recipe.name}: thresholds differ from fold to fold; give three classes or more, or no folds"
            )
        students = pipeline.distill(recipe, workspace, report, cores())
        teachers = [train_teacher(ctx, section) for section in recipe.teachers]
        for student in students:
            own = tuple(teacher for teacher in teachers if teacher.model in student.teacher.split("+"))
            variants = compress_all(ctx, student, RUNTIMES, TeacherSet(own))
            evaluated = [evaluate_variant(ctx, variant) for variant in variants]
            floats = {one.variant.runtime: one for one in evaluated if one.variant.scheme == "fp32"}
            for one in evaluated:
                runtime = one.variant.runtime
                key = (student.model, student.teacher, runtime, one.variant.scheme, student.seed)
                groups = ctx.dataset.groups[ctx.dataset.indices("test")]
                kept = found.setdefault(key, Pooled(multi_label=ctx.dataset.multi_label))
                add(kept, one, floats[runtime], groups, size_of(workspace, one.variant))


def size_of(workspace: Workspace, variant: Variant) -> int:
    return size_bytes(workspace.path / variant.file.path)


def add(pooled: Pooled, one: Evaluated, fp32: Evaluated, groups: NDArray[np.str_], size: int) -> None:
    pooled.int8.append(one.probs)
    pooled.fp32.append(fp32.probs)
    pooled.labels.append(one.labels)
    pooled.groups.append(groups)
    pooled.thresholds.append((one.threshold, fp32.threshold))
    pooled.size.append(size / fp32.variant.file.size_bytes)


def print_table(found: dict[Key, Pooled], margin: float) -> None:
    """Print what each int8 file has and loses, in points: what is asked is .5 by quantization alone and .2 by QAT."""
    print(
        f"  {'student':46} {'runtime':12} {'scheme':9} {'of fp32':>7}  {'accuracy points (95 %)':40}  AUC points (95 %)"
    )
    for (model, teacher, runtime, scheme, _), pooled in found.items():
        if scheme == "fp32":
            continue
        labels, groups = np.concatenate(pooled.labels), np.concatenate(pooled.groups)
        int8, fp32 = (
            file_figures(np.concatenate(probs), labels, groups, threshold=threshold, multi_label=pooled.multi_label)
            for probs, threshold in zip((pooled.int8, pooled.fp32), pooled.thresholds[0], strict=True)
        )
        tests = compare_files(int8, fp32, margin=margin)
        name = f"{model} from {teacher}" if teacher else model
        print(
            f"  {name[:46]:46} {runtime:12} {scheme:9} {np.mean(pooled.size):7.3f}  "
            f"{points(tests['accuracy']):40}  {points(tests['auc'])}",
            flush=True,
        )


def points(test: Comparison) -> str:
    """Write a difference in points with its interval and verdict; empty where it is undefined."""
    if test.difference is None:
        return ""
    bounds = "" if test.low is None or test.high is None else f" [{100 * test.low:+.2f}, {100 * test.high:+.2f}]"
    return f"{100 * test.difference:+.2f}{bounds} {test.verdict}"


if __name__ == "__main__":
    main()
