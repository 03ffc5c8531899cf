"""Mean accuracy over the folds of a recipe, by image as published and by group beside it: `make bench-folds`.

Enters: a recipe that names its students, a folder of data. Leaves: a table of every network's folds and their mean.
Finished folds are kept in the workspace: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tutelage import pipeline
from tutelage.distill.evaluate import evaluate, predict_logits, probabilities
from tutelage.progress import reporting
from tutelage.recipe import load_recipe
from tutelage.stages import networks
from tutelage.stages.context import open_context
from tutelage.stages.teach import teach_teacher
from tutelage.terminal import cores
from tutelage.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="cxr3-folds")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the recipe's data set")
    parser.add_argument("--workspace", type=Path, default=Path("folds-workspace"))
    parser.add_argument("--by", choices=("image", "group", "both"), default="both")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    asked = parser.parse_args()
    for by in ("image", "group") if asked.by == "both" else (asked.by,):
        print_folds(by, fold_accuracies(asked.recipe, asked.data, asked.workspace, asked.changes, leaky=by == "image"))


def fold_accuracies(
    recipe: str, data: Path, place: Path, changes: list[str], *, leaky: bool
) -> dict[tuple[str, str, int], list[float]]:
    """Give the test accuracy of every network in every fold, by (model, teacher, parameters)."""
    found: dict[tuple[str, str, int], list[float]] = {}
    workspace = Workspace(place)
    for fold in range(load_recipe(recipe, changes).data.folds):
        here = [*changes, f"data.path={data}", f"data.fold={fold}", f"data.leaky={str(leaky).lower()}"]
        chosen = load_recipe(recipe, here)
        with reporting() as report:
            students = pipeline.distill(chosen, workspace, report, cores())
            ctx = open_context(chosen, workspace, report, cores())
            teachers = [teach_teacher(ctx, section) for section in chosen.teachers]
        for student in [*teachers, *students]:
            images, labels = ctx.split("test", ctx.side(student))
            probs = probabilities(predict_logits(networks.load(ctx, student), images))
            figures = evaluate(probs, labels, bootstrap=0)
            name = f"{student.model} ({student.role})"
            found.setdefault((name, student.teacher, student.params or 0), []).append(figures.accuracy)
            print(f"fold {fold}: {name} from {student.teacher or 'labels'}: {figures.accuracy:.4f}", flush=True)
    return found


def print_folds(by: str, found: dict[tuple[str, str, int], list[float]]) -> None:
    print(f"folds by {by}{' (leaky: groups straddle the folds)' if by == 'image' else ''}")
    for (name, teacher, params), values in found.items():
        folds = " ".join(f"{value:.3f}" for value in values)
        deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
        spread = f"mean {np.mean(values):.4f} sd {deviation:.4f}"
        print(f"  {name:32} {teacher or '-':16} {params:>9,} parameters  {folds}  {spread}")


if __name__ == "__main__":
    main()
