"""A search whose machine dies goes on elsewhere from the evaluations that it left in the share."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tutelage.cluster.small_run import result_in, searching, small_recipe
from tutelage.accelerator import find_accelerator
from tutelage.cluster.checkpoints import forget
from tutelage.cluster.files import CACHE_VARIABLE, Sender, open_share
from tutelage.cluster.task import Outcome, Task, perform
from tutelage.cluster.workspace import SpreadWorkspace
from tutelage.files import sha256_of
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages import search as stage_of_search
from tutelage.pipeline.workspace import CHECKPOINT, Workspace
from tutelage.progress import silent
from tutelage.records import Arch
from tutelage.search.objectives import Objective

PATIENCE_S = 60.0


class Machines:
    """Does stages in this process as workers do, each attempt on another machine: one with a cache of its own."""

    num_free = 0

    def __init__(self, recipe: Recipe, home: Path, share: SharedFiles, patch: pytest.MonkeyPatch) -> None:
        self.recipe, self.home, self.share, self.patch = recipe, home, share, patch
        self.sender, self.given, self.said = Sender(None, home, share), list[Foreseen](), list[str]()

    @property
    def keys(self) -> set[str]:
        return {one.key for one in self.given}

    def folder(self, attempt: int) -> Path:
        return self.home.parent / f"machine {attempt}"

    def disturb(self, hosts: list[str]) -> bool:
        return bool(hosts)

    def submit(self, stage: Foreseen) -> None:
        self.given.append(stage)

    def wait(self) -> list[tuple[Foreseen, Outcome]]:
        stage = self.given.pop()
        for attempt in (1, 2):
            self.patch.setenv(CACHE_VARIABLE, str(self.folder(attempt)))
            task = Task(
                self.recipe, self.home, 1, find_accelerator("cpu"), stage.key, stage.inputs, stage.compute,
                "home", self.sender.pack(stage.inputs), self.share.url, checkpoint_s=0,
            )  # fmt: skip
            outcome = perform(task, lambda message: self.said.append(message.text))
            if outcome.result is not None:
                break
        return [(stage, outcome)]


def test_a_search_goes_on_elsewhere_from_its_evaluations_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first machine dies in the last of three batches; the second one evaluates that batch alone."""
    (tmp_path / "pictures").mkdir()
    recipe = searching(small_recipe(tmp_path / "pictures"), evaluations=24, strategy="default")
    pipeline.search(recipe, Workspace(tmp_path / "alone"), silent, 1)

    home, share = Workspace(tmp_path / "home"), open_share(str(tmp_path / "share"))
    machines: Any = Machines(recipe, home.path, share, monkeypatch)
    usual, batches, deaths = stage_of_search.search_objectives, list[int](), list[int]()

    def dies_once(inputs: Any, here: Any) -> tuple[Objective, ...]:
        (scored,) = (one for one in usual(inputs, here) if not one.cheap)

        def score(archs: Sequence[Arch]) -> Any:
            if len(batches) == 2 and not deaths:
                (left,) = machines.folder(1).glob(f"workspaces/*/artifacts/*/{CHECKPOINT}")
                sha256, end = sha256_of(left), time.monotonic() + PATIENCE_S
                while not list((tmp_path / "share").rglob(sha256)):
                    assert time.monotonic() < end, "the evaluations were not stored"
                    time.sleep(0.02)
                deaths.append(len(archs))
                raise OSError("the power went")
            batches.append(len(archs))
            assert scored.fn is not None
            return scored.fn(archs)

        return tuple(one if one.cheap else replace(scored, fn=score) for one in usual(inputs, here))

    monkeypatch.setattr(stage_of_search, "search_objectives", dies_once)
    pipeline.search(recipe, SpreadWorkspace(home, machines, lambda key: forget(share, "home", key)), silent, 1)
    assert deaths == [2]
    assert batches == [2, 20, 2]
    assert "goes on from checkpoint, which another machine left in the share" in machines.said
    found, undisturbed = (json.loads(result_in(tmp_path / name)[1].read_text()) for name in ("home", "alone"))
    for one in (found, undisturbed):
        one.pop("search_seconds")
        one.pop("scoring_seconds")
    assert found == undisturbed
    # Neither here nor on the machine that ended it is what it went on from kept.
    for place in (home.path, tmp_path / "alone", machines.folder(2)):
        assert not list(place.rglob(CHECKPOINT))
    assert not list((tmp_path / "share").glob("checkpoints/*"))
