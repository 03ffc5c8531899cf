"""`Context`, the input of every stage of a run: recipe, workspace, images and the loader that makes batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.distill.data.augmentations import AUGMENTATIONS
from tutelage.distill.data.loader import Loader, tensors
from tutelage.distill.data.registry import Dataset, load_dataset
from tutelage.distill.training.train import TrainSchedule
from tutelage.progress import Report
from tutelage.quant.int8.calibration import draw_by_class
from tutelage.records import InputError, Student

from .recipe import Recipe
from .sections import TrainSection
from .workspace import Workspace


@dataclass(frozen=True)
class Context:
    """One run: `dataset` is loaded once and held in memory, `threads` is what torch may use."""

    recipe: Recipe
    workspace: Workspace
    dataset: Dataset
    report: Report
    threads: int
    # Called for each network when its seeds are trained, so that a run files its rows while it is in progress.
    trained: Callable[[Sequence[Student]], None] = lambda seeds: None

    @property
    def num_classes(self) -> int:
        return len(self.dataset.class_names)

    @property
    def channels(self) -> int:
        return self.recipe.data.channels

    @property
    def size(self) -> int:
        return self.recipe.data.size

    def resolution(self, student: Student) -> int:
        """Give the input size in pixels of a network: its resolution gene, or the data's size."""
        return student.arch.r if student.arch is not None else self.size

    @property
    def data_key(self) -> dict[str, Any]:
        """What identifies the images, their split and their augmentation in a stage's inputs."""
        section = self.recipe.data
        plugin = AUGMENTATIONS.origin(section.augment)
        return {
            "manifest": self.dataset.manifest,
            "size": section.size,
            "channels": section.channels,
            "augment": f"{section.augment} of {plugin}" if plugin else section.augment,
            "variants": section.augment_variants,
        }

    def seed(self, *names: object) -> int:
        """Derive a seed for one purpose, so that adding a stage does not shift another's draws."""
        text = repr((self.recipe.seed, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def loader(self, batch_size: int, *, seed: int, resolution: int | None = None) -> Loader:
        """Make the training loader: shuffled, augmented, the same batches for the same seed."""
        return Loader(
            self.dataset,
            "train",
            batch_size,
            resolution,
            augment=self.recipe.data.augment,
            augment_variants=self.recipe.data.augment_variants,
            shuffle=True,
            drop_last=True,
            seed=seed,
        )

    def draw(self, name: str, number: int, purpose: str) -> NDArray[np.int64]:
        """Draw `number` positions in a split by class, ascending, the same ones for the same purpose and seed.

        Splits may be sorted by class: a choice that is made on the first images of one is made on one class.
        """
        labels = self.dataset.labels[self.dataset.indices(name)]
        return draw_by_class(None, labels, number, np.random.default_rng(self.seed(purpose)))

    def split(
        self, name: str, resolution: int | None = None, positions: NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give the images and labels of a split (or those at `positions` in it), normalised and not augmented."""
        images, labels, _ = tensors(self.dataset, name, resolution, positions)
        return images, labels


def open_context(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Context:
    """Load the recipe's images and set the threads that torch may use in this process."""
    torch.set_num_threads(threads)
    data = recipe.data
    dataset = load_dataset(
        data.dataset,
        path=data.path,
        size=data.size,
        channels=data.channels,
        seed=recipe.seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        cache=workspace.path / "cache",
        limit=data.limit,
        skip_bad=data.skip_bad,
        leaky=data.leaky,
        fold=data.fold,
        folds=data.folds,
        workers=data.workers,
        options=dict(data.options),
    )
    return Context(recipe, workspace.for_recipe(recipe.name), dataset, report, threads)


def schedule_of(section: TrainSection) -> TrainSchedule:
    """Convert a recipe's training section to a `TrainSchedule`: model code never reads the recipe.

    Class weights are not in it: they are counted on the data, see `stages/train.py`.
    """
    names = [name for name in TrainSection.model_fields if name != "class_weights"]
    return TrainSchedule(**{name: getattr(section, name) for name in names})


def check_weights(recipe: Recipe) -> None:
    """Refuse, before anything is trained, a recipe whose files of weights are not there."""
    sections = (*recipe.teachers, *recipe.students, *(() if recipe.students else (recipe.supernet,)))
    for section in sections:
        if section.weights is not None:
            check_file(section.weights)


def check_file(path: Path) -> None:
    """Raise InputError where a file of weights that a recipe names is absent or a folder."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"the file of weights {str(path)!r} {what}: correct `weights` in the recipe or the option")


def file_hash(path: Path | None) -> str:
    """Hash a file that is an input of a stage; no file is the empty string."""
    if path is None:
        return ""
    check_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
