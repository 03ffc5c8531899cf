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
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tutelage.pipeline.context import Context, TeacherSet
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.order import Until, evaluate_network, finish, train_networks
from tutelage.pipeline.stages import compress as compressing
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.evaluate import evaluate_stage
from tutelage.pipeline.stages.finalists import FinalistsInputs, measure_finalists
from tutelage.pipeline.stages.search import search_stage, search_winners
from tutelage.pipeline.stages.supernet import Supernet
from tutelage.pipeline.stages.winners import Winner
from tutelage.pipeline.workspace import Stage, Workspace
from tutelage.progress import silent
from tutelage.records import InfeasibleBudgetError, Student

from .earlier import Earlier
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
    """The stages of a run in their order, each once; `open` says that the search decides on more of them.

    Those that were taken over are among the `reused`.
    """

    stages: tuple[Planned, ...]
    open: bool = False
    taken: frozenset[str] = frozenset()  # keys of stages that were taken over from the version before
    undecided: tuple[str, ...] = ()  # what depends on figures on validation that are not there yet
    unmeasured: tuple[str, ...] = ()  # devices that have no profile yet, which the search and the measurements need

    @property
    def reused(self) -> tuple[Planned, ...]:
        return tuple(one for one in self.stages if one.done)

    @property
    def computed(self) -> tuple[Planned, ...]:
        return tuple(one for one in self.stages if not one.done)


def plan(
    ctx: Context,
    devices: Sequence[Device],
    weighed: Sequence[Device] | None = (),
    winners: Sequence[Winner] | None = None,
    *,
    until: Until = Until.END,
    also: Callable[[Context, Sequence[Student]], object] = lambda ctx, students: None,
) -> Plan:
    """Plan a run on devices that are known; `weighed` are those of its search, None where one is to be measured first.

    winners: of the search, where they are known; None: those that the workspace holds, if its search is finished.
    also: the stages of the students that a verb does besides.
    """
    return planned_stages(ctx, partial(walk, devices=devices, weighed=weighed, winners=winners, until=until, also=also))


def walk(
    ctx: Context,
    *,
    devices: Sequence[Device],
    weighed: Sequence[Device] | None,
    winners: Sequence[Winner] | None = None,
    until: Until,
    also: Callable[[Context, Sequence[Student]], object] = lambda ctx, students: None,
) -> bool:
    """Go through the stages of a run that computes nothing; say whether they are all: the winners are known."""
    is_known = True
    variants: list[Variant] = []

    def search(supernet: Supernet) -> Sequence[Winner]:
        nonlocal is_known
        found = _winners(ctx, supernet, weighed, winners)
        is_known = found is not None
        return found or ()

    def follow(seeds: Sequence[Student], choices: Sequence[TeacherSet]) -> None:
        variants.extend(evaluate_network(ctx, seeds, devices, choices, _evaluated))

    def begin(teachers: Sequence[Student]) -> None:
        for teacher in teachers:
            follow([teacher], [TeacherSet()])

    if until < Until.END:
        also(ctx, train_networks(ctx, until, search).students)
        return is_known
    train_networks(replace(ctx, trained=follow), until, search, begin)
    finish(ctx, devices if is_known and not _planning(ctx).undecided else (), variants)
    return is_known


def planned_stages(ctx: Context, go: Callable[[Context], bool]) -> Plan:
    """Plan the stages of `go`, which is given a context that computes nothing, and says whether these are all."""
    planning = Planning(ctx.workspace, ctx.earlier)
    is_known = planning.through(ctx, go)
    taken = frozenset(ctx.earlier.taken) if ctx.earlier is not None else frozenset[str]()
    undecided = tuple(dict.fromkeys(planning.undecided))
    return Plan(tuple(planning.planned.values()), not is_known, taken, undecided)


def _nothing(*said: object) -> None:
    """Say nothing: a run says it again when it comes to its stages."""


def _evaluated(ctx: Context, variant: Variant) -> Variant:
    evaluate_stage(ctx, variant)
    return variant


class Planning(Workspace):
    """A workspace that gives finished stages, and promises instead of the others."""

    def __init__(self, workspace: Workspace, earlier: Earlier | None = None) -> None:
        vars(self).update(vars(copy(workspace)))
        self._earlier = earlier
        self.planned: dict[str, Planned] = {}
        self.undecided: list[str] = []

    def through(self, ctx: Context, go: Callable[[Context], bool]) -> bool:
        """Let `go` go through its stages in this workspace; gives what it says."""
        with _muted(compressing.log):
            return go(
                replace(
                    ctx, workspace=self, report=silent, trained=_nothing, note=_nothing, undecided=self.undecided.append
                )
            )

    def run(
        self, inputs: StageInputs, work: Callable[[Path], dict[str, Any]], recipe: dict[str, Any] | None = None
    ) -> Stage:
        key, found = self.find(inputs)
        if key not in self.planned:
            reason = "" if found is not None else self._reason(inputs, key, recipe or {})
            self.planned[key] = Planned(inputs.title, inputs.stage, key, reason, inputs.key_values())
        return found or Stage(inputs.title, key, self.path / "artifacts" / key, inputs.promise(key))

    def computes(self, stage: str) -> bool:
        """Say whether a stage of this name that was planned so far is to be computed."""
        return any(one.stage == stage and not one.done for one in self.planned.values())

    @cached_property
    def _finished(self) -> list[FiledInputs]:
        """List what the finished stages of the workspace were computed from, where that can be read."""
        folders = (done.parent for done in sorted(self.path.glob(f"artifacts/*/{FiledResult.FILE}")))
        return [filed for filed in map(FiledInputs.find, folders) if filed is not None]

    def _reason(self, inputs: StageInputs, key: str, recipe: Mapping[str, Any]) -> str:
        """Compare with the most similar finished stage of that name: what differs, in the words of the recipe."""
        if (self.path / "artifacts" / key / FiledInputs.FILE).is_file():
            return "it was stopped before its end"
        if self._earlier is not None and key in self._earlier.reasons:
            return self._earlier.reasons[key]
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


def _planning(ctx: Context) -> Planning:
    assert isinstance(ctx.workspace, Planning), "a plan computes nothing"
    return ctx.workspace


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
    if name == "accelerator.num_norms":
        return "sync_batch_norm or the number of processes"
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        known = places.get(".".join(parts[:length]))
        if known is not None:
            return ".".join([known, *parts[length:]]) if "." in known or known in ("distill", "quantize") else known
    return {"augment": "data.augment", "accelerator": "accelerator"}.get(parts[0], name)


def _winners(
    ctx: Context, supernet: Supernet, weighed: Sequence[Device] | None, winners: Sequence[Winner] | None
) -> Sequence[Winner] | None:
    """Give the winners of a search; None where they are not known before it has been run and its finalists measured."""
    planning = _planning(ctx)
    if weighed is None:
        planning.planned["search"] = Planned(f"search {supernet.space.name}", "search", "", NEW)
        return None
    found = None
    try:
        stage = search_stage(ctx, supernet, weighed)
        if winners is None and (stage.folder / FiledResult.FILE).is_file():
            found = search_winners(ctx, supernet, weighed).winners
    except InfeasibleBudgetError:  # the run says so when it is there
        return None
    if winners is not None:
        measure_finalists(ctx, supernet, weighed, [winner.arch for winner in winners])
    elif _verifies(ctx, weighed) and planning.computes(FinalistsInputs.STAGE):
        return None  # these are predicted: one that breaks its budget when it is measured gives way to another
    return winners or found


def _verifies(ctx: Context, weighed: Sequence[Device]) -> bool:
    """Say whether finalists are measured: on a device in reach, or by their files for a target."""
    return ctx.recipe.search.target is not None or any(device.reachable for device in weighed)


@contextmanager
def _muted(log: logging.Logger) -> Iterator[None]:
    """Leave out what a run says again when it comes to its stages."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
