"""Typed inputs of stages: a frozen model a stage, which holds all that its computation reads.

The key of a stage is the hash of its model (`StageInputs.key_values`), of the versions of the libraries that compute
it and of a `VERSION` that is raised by hand where the stage's own code gives other results. The computation is given
the model, not the recipe (`run_stage` in `context.py`), so that it cannot read what the key does not hold. Fields that
say only where something lies, or what it is called, are declared with `exclude=True` and are in no key. One that is
added is marked with what it was before (`former.py`), so that finished stages keep their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from tutelage.accelerator import CPU, Accelerator
from tutelage.records import Arch, Artifact, Normalisation, Pruned, Student

from .former import Former, as_before


class Part(BaseModel):
    """A part of a stage's inputs: frozen; a field that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileInput(Part):
    """A file, known by its content; where it lies (absolute, or relative to the workspace) changes nothing."""

    sha256: str
    path: str = Field(exclude=True)

    @classmethod
    def of(cls, file: Artifact) -> FileInput:
        """Take what a record says of a file that another stage wrote."""
        return cls(sha256=file.sha256, path=file.path)


class ImagesInput(Part):
    """The images of a run and their splits, without augmentation."""

    digest: str  # of labels, splits, groups and pixels
    size: int
    channels: int
    fit: str | None  # how picture files become square; None: the set has no such option
    # The digest holds the pixels of some images only; what changes but few of them is named.
    scaling: Annotated[dict[str, Any], Former({})]  # the options of the set that scale pixels of more than 8 bits
    # Version of the code that decodes picture files; None: the set holds none. There was one, 2, when it came.
    decoder: Annotated[int | None, Former(None, 2)]


class AugmentInput(Part):
    """How training images are augmented."""

    name: str
    origin: str  # distribution and version of a plug-in's; empty: built in
    variants: int


class AcceleratorInput(Part):
    """What computes, as far as it changes bits: not which card of a kind it is, as no key holds the processor."""

    kind: Annotated[str, Former("cpu")]  # cpu, cuda, mps
    bf16: Annotated[bool, Former(False)]
    tf32: Annotated[bool, Former(False)]
    compile: Annotated[str, Former("")]
    # Processes whose batch norm sees its own rows alone; 1: the whole batch, whatever their number.
    num_norms: Annotated[int, Former(1)]

    @classmethod
    def of(cls, accelerator: Accelerator, *, compiles: bool = False, num_norms: int = 1) -> AcceleratorInput:
        """Take from an accelerator what the results that are computed on it depend on.

        compiles: whether the stage compiles its networks where the accelerator does.
        num_norms: the number of processes, where the batch norm of each sees its own rows alone.
        """
        compile = accelerator.compile if compiles else ""
        bf16, tf32 = accelerator.bf16, accelerator.tf32
        return cls(kind=accelerator.kind, bf16=bf16, tf32=tf32, compile=compile, num_norms=num_norms)

    @property
    def others(self) -> tuple[AcceleratorInput, ...]:
        """Give the accelerators of other kinds, or other generations of this kind, that could compute the same."""
        kinds = (("cpu", False, False), ("cuda", True, True), ("cuda", False, False), ("mps", False, False))
        every = (self.model_copy(update={"kind": k, "bf16": b, "tf32": t}) for k, b, t in kinds)
        return tuple(one for one in every if one != self)


ON_CPU = AcceleratorInput.of(CPU)
# What computes a stage.
ComputedOn = Annotated[AcceleratorInput, Former(ON_CPU)]


# Of a network; None: the run's images as they are.
OwnNormalisation = Annotated[Normalisation | None, Former(None)]


class NetworkInput(Part):
    """A network: what it is built from and, where it was trained, its weights."""

    arch: Arch | None
    library_name: str
    options: dict[str, Any]
    origin: str  # distribution and version of the plug-in that builds it; empty: built in
    shapes: dict[str, tuple[int, ...]] | None  # of the tensors that pruning left smaller
    weights: FileInput | None
    normalisation: OwnNormalisation
    # Of the code that gives a network the stem of its option; 2: at stride 1 it removes a ResNet's max-pool, too.
    stem: Annotated[int, Former(1)]
    model: str = Field(exclude=True)  # what rows and messages call it

    @classmethod
    def of(cls, student: Student, origin: str = "") -> NetworkInput:
        """Take what a record says of the network and leave out what it was trained for."""
        weights = student.weights
        return cls(
            arch=student.arch,
            library_name=student.library_name,
            options=student.options,
            origin=origin,
            shapes=None if student.pruned is None else student.pruned.shapes,
            weights=None if weights is None else FileInput.of(weights),
            normalisation=student.normalisation,
            stem=2 if student.options.get("stem_stride") == 1 else 1,
            model=student.model,
        )

    @property
    def student(self) -> Student:
        """Give the record that networks are built and loaded from."""
        pruned = None
        if self.shapes is not None:
            pruned = Pruned(parent="", importance="", ratio=0.0, shapes=self.shapes)
        weights = None
        if self.weights is not None:
            weights = Artifact(kind="weights", path=self.weights.path, sha256=self.weights.sha256, size_bytes=0)
        return Student(
            model=self.model,
            role="student",
            arch=self.arch,
            library_name=self.library_name,
            options=self.options,
            normalisation=self.normalisation,
            pruned=pruned,
            weights=weights,
        )

    @property
    def libraries(self) -> tuple[str, ...]:
        """Name the libraries that build it and compute its outputs."""
        return ("torch", "ofa") if self.arch is not None else ("torch", "timm")


class StageInputs(Part):
    """Inputs of one stage. A subclass says its name on disk and its version, and declares what it reads."""

    STAGE: ClassVar[str]
    # Raised by one where the stage's own code gives another result for the same inputs.
    VERSION: ClassVar[int] = 1

    title: str = Field(exclude=True)  # of messages and the journal: the stage and what it is of
    versions: dict[str, str]  # of the libraries that compute it

    def key_values(self) -> dict[str, Any]:
        """Give what the key is the hash of, as JSON-able values."""
        return {"version": self.VERSION, **as_before(self, self.model_dump(mode="json"))}

    @property
    def stage(self) -> str:
        """Give the name of the stage on disk."""
        return self.STAGE

    @property
    def places(self) -> dict[str, str]:
        """Give the place in a recipe of each field that has another name there, by the field's dotted name."""
        return {}

    def promise(self, key: str) -> dict[str, Any]:
        """Give the result that a plan goes on with where the stage is not done yet: files known by the stage's key."""
        return {}


@dataclass(frozen=True)
class Foreseen:
    """A stage: the key it will have, its inputs, and what is filed beside them. `compute` is a function of a module."""

    key: str
    inputs: StageInputs
    compute: Callable[[Any, Any, Path], dict[str, Any]]  # inputs, resources, folder
    recipe: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        key: str,
        inputs: StageInputs,
        work: Callable[[Path], dict[str, Any]],
        recipe: dict[str, Any] | None,
    ) -> Foreseen:
        """Take the computation out of what `run_stage` gives a workspace to do."""
        assert isinstance(work, partial), f"{work} is not of run_stage"
        return cls(key, inputs, work.func, recipe)


def promised(key: str, name: str, kind: str = "file") -> dict[str, Any]:
    """Give the record of a file that a stage is going to write."""
    return Artifact(kind=kind, path=f"artifacts/{key}/{name}", sha256=f"of {key}", size_bytes=0).to_dict()


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Give the installed versions of distributions; one that is not installed has the empty string."""
    return {name: _version(name) for name in sorted(set(names))}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
