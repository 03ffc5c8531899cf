"""What a run is going to do: which stages its workspace holds already, and why the others are done again (`plan`).

A plan goes through the same functions as the run, with a workspace that gives finished stages and computes nothing: the
result of a stage that is not finished is a promise, files known by the key of the stage that is to write them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device
from tutelage.pipeline.stages import compress as compressing
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.evaluate import evaluate_stage
from tutelage.pipeline.stages.explain import explain_all
from tutelage.pipeline.stages.finalists import measure_finalists
from tutelage.pipeline.stages.measure import measure_all
from tutelage.pipeline.stages.pruned import train_pruned
from tutelage.pipeline.stages.qat import compress_all
from tutelage.pipeline.stages.search import Winner, search_inputs, search_winners
from tutelage.pipeline.stages.students import train_baselines, train_named_students, train_winners
from tutelage.pipeline.stages.supernet import Supernet, train_the_supernet
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.workspace import Stage, Workspace
from tutelage.progress import silent
from tutelage.records import InfeasibleBudgetError, Student

from .filed import FiledInputs, FiledResult
from .stage_inputs import StageInputs

NEW = "new"
_SCHEME = re.compile(r" int8-(ptq|mixed) ")  # in the title of an evaluation


@dataclass(frozen=True)
class Planned:
    """One stage of a plan. `reason` says why it is computed, `new` where nothing like it was; empty: it is reused."""

    title: str
    stage: str
    key: str
    reason: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)  # what the key is the hash of

    @property
    def done(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Plan:
    """The stages of a run in their order, each once; `open` says that the search decides on more of them."""

    stages: tuple[Planned, ...]
    open: bool = False

    @property
    def reused(self) -> tuple[Planned, ...]:
        return tuple(one for one in self.stages if one.done)

    @property
    def computed(self) -> tuple[Planned, ...]:
        return tuple(one for one in self.stages if not one.done)


def plan(
    ctx: Context, devices: Sequence[Device], weighed: Sequence[Device] = (), winners: Sequence[Winner] | None = None
) -> Plan:
    """Plan a run whose devices are open; `weighed` are those of its search.

    winners: of the search, where they are known; None: those that the workspace holds, if its search is finished.
    """
    planning = _Planning(ctx.workspace)
    variants: list[Variant] = []
    runtimes = sorted({device.profile.runtime for device in devices})

    def follow(seeds: Sequence[Student]) -> None:
        for student in seeds:
            made = compress_all(ctx, student, runtimes, teachers)
            for variant in made:
                evaluate_stage(ctx, variant)
            variants.extend(made)

    ctx = replace(ctx, workspace=planning, report=silent, trained=follow)
    with _muted(compressing.log):
        teachers = [train_teacher(ctx, section) for section in ctx.recipe.teachers]
        for teacher in teachers:
            follow([teacher])
        supernet, known = None, True
        if ctx.recipe.students:
            students = train_named_students(ctx, teachers)
        else:
            supernet = train_the_supernet(ctx, teachers)
            found = _winners(ctx, supernet, weighed, winners)
            known = found is not None
            students = train_winners(ctx, supernet, found or (), teachers)
        baselines = train_baselines(ctx, supernet, teachers)
        train_pruned(ctx, [*students, *baselines], teachers)
        shown = [variant for variant in variants if variant.student.seed == ctx.recipe.seed]
        for device in devices if known else ():
            measure_all(ctx, device, shown)
        explain_all(ctx, shown)
    return Plan(tuple(planning.planned.values()), not known)


class _Planning(Workspace):
    """A workspace that gives finished stages, and promises instead of the others."""

    def __init__(self, workspace: Workspace) -> None:
        vars(self).update(vars(copy(workspace)))
        self.planned: dict[str, Planned] = {}

    def run(
        self, inputs: StageInputs, work: Callable[[Path], dict[str, Any]], recipe: dict[str, Any] | None = None
    ) -> Stage:
        key, found = self.find(inputs)
        if key not in self.planned:
            reason = "" if found is not None else self._reason(inputs, key, recipe or {})
            self.planned[key] = Planned(inputs.title, inputs.stage, key, reason, inputs.key_values())
        return found or Stage(inputs.title, key, self.path / "artifacts" / key, inputs.promise(key))

    @cached_property
    def _finished(self) -> list[FiledInputs]:
        """List what the finished stages of the workspace were computed from, where that can be read."""
        folders = (done.parent for done in sorted(self.path.glob(f"artifacts/*/{FiledResult.FILE}")))
        return [filed for filed in map(FiledInputs.find, folders) if filed is not None]

    def _reason(self, inputs: StageInputs, key: str, recipe: Mapping[str, Any]) -> str:
        """Compare with the most similar finished stage of that name: what differs, in the words of the recipe."""
        if (self.path / "artifacts" / key / FiledInputs.FILE).is_file():
            return "it was stopped before its end"
        if not self._finished:
            return NEW
        mine = flat(inputs.key_values())
        nearest: tuple[int, dict[str, Any], dict[str, Any]] | None = None
        for one in self._finished:
            if one.stage != inputs.stage or not _same_title(one.title or inputs.title, inputs.title):
                continue
            other = flat(one.inputs)
            differ = sum(mine.get(name) != other.get(name) for name in {*mine, *other})
            if nearest is None or differ < nearest[0]:
                nearest = differ, other, one.recipe or {}
        if nearest is None:
            return NEW
        if nearest[0] == 0:
            return "started over"  # the same inputs, in an attempt before this one
        return self._differences(inputs, mine, nearest[1], flat(recipe), flat(nearest[2]))

    def _differences(
        self,
        inputs: StageInputs,
        mine: Mapping[str, Any],
        other: Mapping[str, Any],
        recipe: Mapping[str, Any],
        before: Mapping[str, Any],
    ) -> str:
        after, said = list[str](), list[str]()
        for name in sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name)):
            value = mine.get(name)
            if name.endswith(".sha256") and value in other.values():
                continue  # a file at another place of its list: others of the list changed
            if isinstance(value, str) and value.startswith("of ") and value[3:] in self.planned:
                after.append(f"after {self.planned[value[3:]].title}")
            elif name.startswith("versions."):
                said.append(f"{name[9:]} {other.get(name) or 'absent'} -> {value or 'absent'}")
            elif name == "version":
                said.append("this version of tutelage computes it in another way")
            elif name.split(".")[0] == "images":
                data = [key for key in sorted({*recipe, *before}) if key.startswith("data.")]
                said += [f"{key} changed" for key in data if recipe.get(key) != before.get(key)] or ["images changed"]
            else:
                said.append(f"{_place(inputs.places, name)} changed")
        return ", ".join(dict.fromkeys(said or after)) or "its files changed"


def _same_title(title: str, planned: str) -> bool:
    """Compare titles; a stage whose int8 file is not made yet says `int8`, since the scheme is known when it is."""
    return title == planned or _SCHEME.sub(" int8 ", title) == planned


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Give nested JSON-able values by their dotted names; the entries of a list are named by their places."""
    if isinstance(value, Mapping):
        inner = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(str(place), one) for place, one in enumerate(value)]
    else:
        return {name: value}
    return {key: one for part, below in inner for key, one in flat(below, f"{name}.{part}".lstrip(".")).items()}


def _place(places: Mapping[str, str], name: str) -> str:
    """Name a field as the recipe does, by the longest part of its name that has a place there."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        known = places.get(".".join(parts[:length]))
        if known is not None:
            return ".".join([known, *parts[length:]]) if "." in known or known in ("distill", "quantize") else known
    return "data.augment" if parts[0] == "augment" else name


def _winners(
    ctx: Context, supernet: Supernet, weighed: Sequence[Device], winners: Sequence[Winner] | None
) -> Sequence[Winner] | None:
    """Give the winners of a search; None where they are not known before it has been run."""
    inputs = search_inputs(ctx, supernet, weighed)
    ctx.workspace.run(inputs, _never, ctx.recipe_values)
    if winners is not None:
        measure_finalists(ctx, supernet, weighed, [winner.arch for winner in winners])
        return winners
    if ctx.workspace.find(inputs)[1] is None:
        return None
    try:
        return search_winners(ctx, supernet, weighed).winners
    except InfeasibleBudgetError:  # the run says so when it is there
        return None


def _never(folder: Path) -> dict[str, Any]:
    raise AssertionError("a plan computes nothing")


@contextmanager
def _muted(log: logging.Logger) -> Iterator[None]:
    """Leave out what a run says again when it comes to its stages."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
