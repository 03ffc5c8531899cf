"""`Context`, an opened run: recipe, workspace and images; `run_stage`, which gives a computation its inputs only."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.accelerator import CPU, Accelerator, find_accelerator, use
from tutelage.distill.data.augmentations import AUGMENTATIONS
from tutelage.distill.data.cache import DECODE_VERSION
from tutelage.distill.data.dataset import Listing, Request
from tutelage.distill.data.loader import InOrder, Loader, tensors
from tutelage.distill.data.registry import DATASETS, Dataset, complete, open_images, request_for
from tutelage.distill.evaluation.shift_sets import ShiftSets, errors_of
from tutelage.distill.training.normalisation import Renormalisation
from tutelage.distill.training.train import TrainSchedule
from tutelage.progress import Report
from tutelage.quant.int8.calibration import draw_by_class
from tutelage.records import Normalisation, Student, content_id
from tutelage.search.replies import Scorer

from .keys.earlier import Earlier, find_earlier
from .keys.stage_inputs import AcceleratorInput, AugmentInput, ImagesInput, StageInputs
from .processes import num_processes
from .recipe import Recipe
from .sections import TrainSection
from .workspace import Stage, Workspace

log = logging.getLogger(__name__)

# Threads that prepare batches where a recipe does not say: each holds one more batch in memory.
MAX_WORKERS = 4


class Opened:
    """What an opened run and the computation of a stage have in common: the images, held in memory, and the workspace.

    threads: how many torch and the runtimes may use; workers: how many prepare batches beside the training. Both change
    how long a stage takes and are in no key.
    finished: checkpoints of trainings of the version before, by fingerprint; where they are given, nothing is trained.
    accelerator: where networks are trained, scored and explained; files for devices run on their runtimes.
    """

    workspace: Workspace
    dataset: Dataset
    report: Report
    threads: int
    workers: int
    finished: Mapping[str, Path] | None = None
    shift_sets: Mapping[str, Dataset]
    accelerator: Accelerator

    @property
    def computed_on(self) -> str:
        """Say what computes a training, as rows do; empty for one that is taken over."""
        return str(self.accelerator) if self.finished is None else ""

    @property
    def num_classes(self) -> int:
        return len(self.dataset.class_names)

    @property
    def channels(self) -> int:
        return self.dataset.channels

    @property
    def size(self) -> int:
        return self.dataset.size

    def resolution(self, student: Student) -> int:
        """Give the input size in pixels of a network: its resolution gene, or the data's size."""
        return student.arch.r if student.arch is not None else self.size

    def loader(self, augment: AugmentInput, batch_size: int, *, seed: int, resolution: int | None = None) -> Loader:
        """Make the training loader: shuffled, augmented, the same batches for the same seed."""
        return Loader(
            self.dataset,
            "train",
            batch_size,
            resolution,
            augment=augment.name,
            augment_variants=augment.variants or None,
            workers=self.workers,
            shuffle=True,
            drop_last=True,
            seed=seed,
            device=self.accelerator.device,
        )

    def in_order(self, name: str, resolution: int | None = None) -> InOrder:
        """Make a loader that reads a split in its order, normalised and not augmented, a batch in memory at a time."""
        workers = min(self.workers, 1)
        return InOrder(self.dataset, name, 256, resolution, device=self.accelerator.device, workers=workers)

    def draw(self, name: str, number: int, seed: int) -> NDArray[np.int64]:
        """Draw `number` positions in a split by class, ascending, the same ones for the same seed.

        Splits may be sorted by class: a choice that is made on the first images of one is made on one class.
        """
        labels = self.dataset.labels[self.dataset.indices(name)]
        return draw_by_class(None, labels, number, np.random.default_rng(seed))

    def split(
        self,
        name: str,
        resolution: int | None = None,
        positions: NDArray[np.int64] | None = None,
        normalisation: Normalisation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Give the images and labels of a split (or those at `positions` in it), normalised and not augmented.

        normalisation: that of the network which is to see them; None: the run's.
        """
        own = None if normalisation is None else Renormalisation(*normalisation.values)
        scratch = self.workspace.path / "cache" / "scratch"
        images, labels, _ = tensors(self.dataset, name, resolution, positions, change=own, scratch=scratch)
        return images, labels


@dataclass(frozen=True)
class Resources(Opened):
    """What the computation of a stage has besides its inputs: the images that they name, and no recipe."""

    workspace: Workspace
    dataset: Dataset
    report: Report
    threads: int
    workers: int = 0
    finished: Mapping[str, Path] | None = None
    accelerator: Accelerator = CPU
    # Gives what evaluates subnets elsewhere, for the inputs of a search; None: this process.
    scorer: Callable[[Any], Scorer] | None = None
    shift_sets: Mapping[str, Dataset] = field(default_factory=dict)  # further test sets, opened when they are asked for


@dataclass(frozen=True)
class TeacherSet:
    """The teachers of one training, their weights in its soft term (none given: all 1), and notes for its row."""

    teachers: tuple[Student, ...] = ()
    weights: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Give the teachers as rows name them; empty for the control."""
        return "+".join(teacher.model for teacher in self.teachers)


@dataclass(frozen=True)
class Refused:
    """A file of a network that a runtime refused to make, or to run on a device (empty: on any), and its reason.

    sha256: of the file, where there is one.
    """

    student: Student
    scheme: str
    runtime: str
    reason: str
    device: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        where = f"on {self.device}" if self.device else f"for {self.runtime}"
        return f"{self.student.model} {self.scheme} {where}: {self.reason}"


@dataclass(frozen=True)
class Context(Opened):
    """One run: its recipe, and what was opened for it."""

    recipe: Recipe
    workspace: Workspace
    dataset: Dataset
    report: Report
    threads: int
    workers: int = 0
    # Called for each network when its seeds are trained, so that a run files its rows while it is in progress.
    # With the teachers of each seed's training.
    trained: Callable[[Sequence[Student], Sequence[TeacherSet]], None] = lambda seeds, choices: None
    note: Callable[[str], None] = log.warning  # what the user should know while the run goes on
    refused: Callable[[Refused], None] = lambda one: None  # called where a runtime refuses a network
    undecided: Callable[[str], None] = lambda what: None  # in a plan: what depends on figures that are not there yet
    earlier: Earlier | None = None  # trainings of the version before; None: the workspace holds none
    accelerator: Accelerator = CPU
    shift_sets: Mapping[str, Dataset] = field(default_factory=dict)  # of `measure`, opened when they are asked for

    @cached_property
    def recipe_values(self) -> dict[str, Any]:
        """Give the recipe as JSON-able values, to be filed beside the inputs of stages."""
        return self.recipe.model_dump(mode="json")

    @property
    def resources(self) -> Resources:
        return Resources(
            self.workspace, self.dataset, self.report, self.threads, self.workers, accelerator=self.accelerator,
            shift_sets=self.shift_sets,
        )  # fmt: skip

    @cached_property
    def images_input(self) -> ImagesInput:
        """Give what identifies the images and their splits in the inputs of a stage."""
        return self._images_input(self.dataset)

    def set_input(self, name: str) -> ImagesInput:
        """Give what identifies the images of a further test set."""
        return self._images_input(self.shift_sets[name])

    def _images_input(self, dataset: Dataset) -> ImagesInput:
        section = self.recipe.data
        fits = "fit" in DATASETS.find(section.dataset).all_options
        groups = hashlib.sha256("\0".join(dataset.groups.tolist()).encode()).hexdigest()
        return ImagesInput(
            digest=content_id([dataset.identity, groups]),
            size=self.size,
            channels=self.channels,
            fit=str(section.options.get("fit", "squash")) if fits else None,
            scaling={name: section.options[name] for name in ("range", "window") if name in section.options},
            decoder=DECODE_VERSION if fits else None,
        )

    def accelerator_input(self, *, trains: bool = False, compiles: bool = False) -> AcceleratorInput:
        """Give what identifies the accelerator in the inputs of a stage, which may train and compile its networks."""
        num_norms = num_processes() if trains and not self.recipe.sync_batch_norm else 1
        return AcceleratorInput.of(self.accelerator, compiles=compiles, num_norms=num_norms)

    @property
    def augment_input(self) -> AugmentInput:
        """Give what identifies the augmentation of training images in the inputs of a stage."""
        section = self.recipe.data
        origin = AUGMENTATIONS.origin_name(section.augment)
        return AugmentInput(name=section.augment, origin=origin, variants=section.augment_variants)

    def seed(self, *names: object) -> int:
        """Derive a seed of this run for one purpose, see `derived_seed`."""
        return derived_seed(self.recipe.seed, *names)


Inputs = TypeVar("Inputs", bound=StageInputs)
Compute = Callable[[Inputs, Resources, Path], dict[str, Any]]


def run_stage(ctx: Context, inputs: Inputs, compute: Compute[Inputs]) -> Stage:
    """Give the stage of `inputs`, doing `compute(inputs, resources, folder)` only if it was never finished.

    `compute` is a function of a module: one that closes over the recipe could read what the key does not hold.
    """
    assert inspect.isfunction(compute), f"{compute} is no function of a module"
    assert compute.__closure__ is None, f"{compute} closes over {compute.__code__.co_freevars}"
    if ctx.recipe.accelerator == "auto":
        inputs = _done_elsewhere(ctx.workspace, inputs)
    if ctx.earlier is not None and ctx.accelerator.on_cpu:  # nothing says that one of that version was a GPU's

        def read(finished: Mapping[str, Path], folder: Path) -> dict[str, Any]:
            found: dict[str, Any] = compute(inputs, replace(ctx.resources, finished=finished), folder)
            return found

        if ctx.earlier.take(inputs, read, ctx.dataset.images, ctx.recipe_values):
            ctx.report(f"{inputs.title}: taken over from the version before", 1, 1)
    work = partial(compute, inputs, ctx.resources)
    return ctx.workspace.run(inputs, work, ctx.recipe_values)


def _done_elsewhere(workspace: Workspace, inputs: Inputs) -> Inputs:
    """Give the inputs with the accelerator that the stage is done on; under `auto` any that did it is good.

    A workspace that was trained on a GPU is then gone on with on a machine that has none.
    """
    mine: AcceleratorInput | None = getattr(inputs, "accelerator", None)
    if mine is None or workspace.find(inputs)[1] is not None:
        return inputs
    elsewhere = (inputs.model_copy(update={"accelerator": one}) for one in mine.others)
    return next((one for one in elsewhere if workspace.find(one)[1] is not None), inputs)


def derived_seed(seed: int, *names: object) -> int:
    """Derive a seed for one purpose, so that adding a stage does not shift another's draws."""
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:4], "big")


def open_context(
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    found: Listing | Dataset | None = None,
    accelerator: Accelerator | None = None,
) -> Context:
    """Load the recipe's images and set the threads and the accelerator that torch may use in this process.

    found: what `open_images` gave for the recipe before. accelerator: for what computes nothing by torch, CPU; None:
    the recipe's. One that is not here is an InputError.
    """
    chosen = accelerator or find_accelerator(recipe.accelerator, compiles=recipe.compile)
    use(chosen)
    if not chosen.on_cpu:
        report(f"computing on {chosen}", 1, 1)
    torch.set_num_threads(threads)
    request = images_request(recipe, workspace, threads)
    dataset = complete(open_images(request) if found is None else found, request)
    # A batch is prepared in a fraction of the time that a network takes for it: the cores belong to the network.
    workers = min(threads - 1, MAX_WORKERS) if recipe.data.workers is None else recipe.data.workers
    seen = workspace.for_recipe(recipe.name)
    return Context(
        recipe, seen, dataset, report, threads, workers, earlier=find_earlier(seen), accelerator=chosen,
        shift_sets=ShiftSets(shift_requests(recipe, workspace, threads), dataset),
    )  # fmt: skip


def images_request(recipe: Recipe, workspace: Workspace, threads: int = 1) -> Request:
    """Say which images a recipe reads, decoded into the workspace's cache."""
    data = recipe.data
    return request_for(
        data.dataset,
        path=data.path,
        size=data.size,
        channels=data.channels,
        seed=recipe.seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        cache=workspace.path / "cache",
        limit=data.limit,
        whole_test=data.whole_test,
        skip_bad=data.skip_bad,
        leaky=data.leaky,
        fold=data.fold,
        folds=data.folds,
        workers=max(1, threads if data.workers is None else data.workers),
        options=dict(data.options),
    )


def shift_requests(recipe: Recipe, workspace: Workspace, threads: int = 1) -> dict[str, Request]:
    """Say which further test sets a recipe reads, as its images are read, into a cache of their own."""
    data, found = recipe.data, {}
    for name, path in recipe.measure.shift_sets.items():
        with errors_of(name):
            found[name] = request_for(
                data.dataset,
                path=path,
                size=data.size,
                channels=data.channels,
                cache=workspace.path / "cache" / "shift-sets",
                skip_bad=data.skip_bad,
                workers=max(1, threads if data.workers is None else data.workers),
                options=DATASETS.find(data.dataset).shared_options(data.options),
            )
    return found


def schedule_of(section: TrainSection) -> TrainSchedule:
    """Convert a recipe's training section to a `TrainSchedule`: model code never reads the recipe.

    Class weights are not in it: they are counted on the data, see `stages/train.py`.
    """
    names = [name for name in TrainSection.model_fields if name != "class_weights"]
    return TrainSchedule(**{name: getattr(section, name) for name in names})
