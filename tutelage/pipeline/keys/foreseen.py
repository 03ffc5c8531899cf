"""Which stages of a run could be done now: those that are not finished and read nothing that is still to be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.pipeline.context import Context
from tutelage.pipeline.workspace import Stage, Workspace

from .earlier import Earlier
from .plan import NEW, Planning, flat
from .stage_inputs import Foreseen, StageInputs


def foreseen(ctx: Context, go: Callable[[Context], bool]) -> list[Foreseen]:
    """List the stages that could be done now, in the order in which `go` goes through them."""
    looking = _Looking(ctx.workspace, ctx.earlier)
    looking.through(ctx, go)
    return list(looking.ready.values())


def waits_for(inputs: StageInputs) -> set[str]:
    """Give the keys of the stages whose files these inputs hold as promises."""
    values = flat(inputs.key_values()).values()
    return {value[3:] for value in values if isinstance(value, str) and value.startswith("of ")}


class _Looking(Planning):
    """A plan that keeps the stages whose inputs are all there."""

    def __init__(self, workspace: Workspace, earlier: Earlier | None = None) -> None:
        super().__init__(workspace, earlier)
        self.ready: dict[str, Foreseen] = {}

    def run(
        self, inputs: StageInputs, work: Callable[[Path], dict[str, Any]], recipe: dict[str, Any] | None = None
    ) -> Stage:
        stage = super().run(inputs, work, recipe)
        unfinished = waits_for(inputs) & set(self.planned)
        if not self.planned[stage.key].done and not unfinished:
            self.ready.setdefault(stage.key, Foreseen.of(stage.key, inputs, work, recipe))
        return stage

    def _reason(self, *_: object) -> str:
        return NEW
