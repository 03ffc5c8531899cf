"""`SpreadWorkspace`: a workspace whose stages are done by workers, as many at once as the run's order allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.pipeline.keys.foreseen import waits_for
from tutelage.pipeline.keys.stage_inputs import Foreseen, StageInputs
from tutelage.pipeline.stages.bundle import BundleInputs
from tutelage.pipeline.stages.finalists import FinalistsInputs
from tutelage.pipeline.stages.measure import MeasureInputs
from tutelage.pipeline.stages.search import SearchInputs
from tutelage.pipeline.workspace import Stage, Workspace
from tutelage.records import InputError, NotAvailableError, UnsteadyDeviceError

from .files import unpack
from .task import Outcome
from .tasks import MAX_ATTEMPTS, Tasks

# A look ahead goes through all of a run's stages: the next one waits so many times as long as the last one took.
_LOOK_SHARE = 9

# Timed here or on boards: nothing else may be computed there meanwhile.
_TIMED = (MeasureInputs, FinalistsInputs)
# Done by this process when the run comes to them.
_HERE = (*_TIMED, BundleInputs)


def _done_here(inputs: StageInputs) -> bool:
    return isinstance(inputs, _HERE) or (isinstance(inputs, SearchInputs) and inputs.parallel > 1)


def _hosts(inputs: StageInputs) -> list[str]:
    """Give where the devices of a timing are."""
    if isinstance(inputs, FinalistsInputs):
        return [one.host for one in inputs.devices]
    assert isinstance(inputs, MeasureInputs)
    return [inputs.device.host]


class SpreadWorkspace(Workspace):
    """A workspace that is asked for one stage after the other, as any is, and has workers do those that come next.

    A stage that failed is `lost`, and so is what reads its files; the run goes on without them.
    """

    def __init__(self, workspace: Workspace, tasks: Tasks, filed: Callable[[str], object] = lambda key: None) -> None:
        """filed: called with the key of each stage that workers did, when it is filed."""
        vars(self).update(vars(copy(workspace)))
        self._filed = filed
        self._tasks = tasks
        self._ahead: list[Callable[[], Sequence[Foreseen]]] = []
        self._next_look = 0.0
        self._outdated = True  # a stage was finished since the last look ahead
        self._waiting: list[Foreseen] = []
        self._lost: dict[str, str] = {}
        self._unavailable: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # reasons by title, of the stages that failed themselves

    def look_ahead(self, stages: Callable[[], Sequence[Foreseen]]) -> None:
        """Take what lists the stages that could be done now."""
        self._ahead[:] = [stages]

    def lost(self, key: str) -> str:
        """Say why a stage has no result and the run goes on without it."""
        return self._lost.get(key, "")

    def run(
        self, inputs: StageInputs, work: Callable[[Path], dict[str, Any]], recipe: dict[str, Any] | None = None
    ) -> Stage:
        """Give the stage of typed inputs when a worker has done it; a lost one has the promise of a plan for a result.

        Raises InputError for a search that is lost, without which there is no run.
        """
        key, found = self.find(inputs)
        if found is not None:
            return found
        before = next((self._lost[one] for one in waits_for(inputs) if one in self._lost), "")
        if before:
            self._lost[key] = before
        elif isinstance(inputs, SearchInputs) and inputs.parallel > 1:
            return super().run(inputs, self._by_workers(key, inputs, work, recipe), recipe)
        elif isinstance(inputs, _HERE):
            if isinstance(inputs, _TIMED):
                self._make_room(inputs)
            try:
                return super().run(inputs, work, recipe)
            except (NotAvailableError, UnsteadyDeviceError) as error:
                if not isinstance(inputs, MeasureInputs):
                    raise
                self._lost[key] = self.failed[inputs.title] = f"{inputs.title} failed: {error}"
        else:
            self._until(Foreseen.of(key, inputs, work, recipe))
        if key in self._unavailable:
            raise NotAvailableError(self._unavailable[key])
        if key not in self._lost:
            return super().run(inputs, work, recipe)
        if isinstance(inputs, SearchInputs):
            raise InputError(f"{inputs.title}: {self._lost[key]}: mend it, and the same command goes on where it was")
        return Stage(inputs.title, key, self.path / "artifacts" / key, inputs.promise(key))

    def _make_room(self, inputs: StageInputs) -> None:
        """Wait for the tasks that would disturb a timing; while boards elsewhere are timed, workers go on."""
        if not self._tasks.disturb(_hosts(inputs)):
            self._fill()
            return
        while self._tasks.keys:
            self._take(self._tasks.wait())

    def _by_workers(
        self,
        key: str,
        inputs: SearchInputs,
        work: Callable[[Path], dict[str, Any]],
        recipe: dict[str, Any] | None,
    ) -> Callable[[Path], dict[str, Any]]:
        """Give a search that this process does, whose evaluations are done by workers."""
        assert isinstance(work, partial), f"{work} is not of run_stage"
        stage = Foreseen.of(key, inputs, work, recipe)
        here = replace(work.args[1], scorer=lambda _: self._tasks.scorer(stage))
        return partial(work.func, inputs, here)

    def _until(self, stage: Foreseen) -> None:
        """Have a stage done, and meanwhile others."""
        while stage.key not in self._lost and stage.key not in self._unavailable and self.find(stage.inputs)[1] is None:
            if stage.key not in self._tasks.keys:
                self._submit(stage)
            self._fill()
            self._take(self._tasks.wait())

    def _fill(self) -> None:
        """Give the workers that are free the stages that come next."""
        free = self._tasks.num_free
        begun = time.monotonic()
        if free > 0 and self._outdated and self._ahead and begun >= self._next_look:
            self._waiting, self._outdated = list(self._ahead[0]()), False
            now = time.monotonic()
            self._next_look = now + _LOOK_SHARE * (now - begun)
        for stage in self._waiting:
            if free <= 0:
                return
            if stage.key in self._tasks.keys or stage.key in self._lost or stage.key in self._unavailable:
                continue
            if not _done_here(stage.inputs) and self.find(stage.inputs)[1] is None:
                self._submit(stage)
                free -= 1

    def _submit(self, stage: Foreseen) -> None:
        inputs = stage.inputs
        self._begin(self.path / "artifacts" / stage.key, inputs.stage, inputs.key_values(), inputs.title, stage.recipe)
        self._tasks.submit(stage)

    def _take(self, ended: Sequence[tuple[Foreseen, Outcome]]) -> None:
        """File what workers have done."""
        for stage, outcome in ended:
            self._outdated = True
            if outcome.result is not None:
                with self.locked():
                    folder = self.path / "artifacts" / stage.key
                    unpack(outcome.files, folder)
                    self._end(folder, stage.inputs.stage, stage.inputs.title, outcome.result)
                self._filed(stage.key)
            elif outcome.unavailable:
                self._unavailable[stage.key] = outcome.reason
            else:
                times = "" if outcome.final else f" {MAX_ATTEMPTS} times, the last time"
                reason = f"{stage.inputs.title} failed{times}: {outcome.reason}"
                self._lost[stage.key] = self.failed[stage.inputs.title] = reason
