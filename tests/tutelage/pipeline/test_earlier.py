"""What a run takes over of a workspace that the version before made: trainings whose every input is shown, no other."""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tutelage.cli.planned import plan_lines
from tutelage.files import sha256_of
from tutelage.leaderboard.store import Store
from tutelage.pipeline.context import open_context
from tutelage.pipeline.keys import stage_inputs
from tutelage.pipeline.keys.filed import FiledResult
from tutelage.pipeline.keys.order import Until
from tutelage.pipeline.keys.plan import Plan
from tutelage.pipeline.preflight import open_checked
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.run import _open, rehearse
from tutelage.pipeline.stages import train
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent

MADE = Path(__file__).with_name("workspaces") / "version-before.tar.gz"
TRAININGS = ["train teacher", "train on labels", "distil"]
# Weights are drawn and images normalised as these versions do; others may differ in the last bit.
pytestmark = pytest.mark.skipif(
    (version("torch"), version("timm")) != ("2.15.0", "1.0.31"), reason="the workspace was made by other versions"
)
Planner = Callable[..., Plan]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the workspace, with its leaderboard, brought up to date."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(MADE) as packed:
        packed.extractall(folder, filter="data")
    with sqlite3.connect(folder / "w" / "leaderboard.db") as board:
        board.executescript((folder / "w" / "leaderboard.sql").read_text())
    Store(folder / "w" / "leaderboard.db").close()
    return folder


@pytest.fixture
def made(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(unpacked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    # Running statistics of fresh networks move in another way since: such trainings are done again.
    monkeypatch.setattr(train, "statistics_of", lambda start: 1)
    return tmp_path / "w"


def planned(workspace: Path, *changes: str, until: Until = Until.END) -> Plan:
    plans: list[Plan] = []
    _open(open_checked(load_recipe("small.yaml", changes), Workspace(workspace), silent, 1, "run"), until, plans.append)
    return plans[0]


def reasons(plan: Plan) -> dict[str, str]:
    return {one.stage: one.reason for one in plan.computed}


def test_trainings_are_taken_over_with_their_weights_and_the_rest_says_what_is_not_recorded(made: Path) -> None:
    rehearsed = rehearse(load_recipe("small.yaml"), Workspace(made), silent, 1)
    assert (rehearsed.reused, len(list(made.glob("artifacts/*")))) == ((), 13), "a rehearsal files nothing"
    before = {sha256_of(file) for file in made.glob("artifacts/*/weights.safetensors")}
    plan = planned(made)
    assert [one.stage for one in plan.reused] == TRAININGS
    assert plan.taken == {one.key for one in plan.reused}
    taken = [made / "artifacts" / one.key for one in plan.reused]
    assert {sha256_of(folder / "weights.safetensors") for folder in taken} == before
    (filed, *_) = (FiledResult.read(folder) for folder in taken)
    assert filed.made_by == {"tutelage": "0.1.0", "python": "3.11.7"}, "that trained it, not these"
    assert plan_lines(plan)[:3] == [
        "reused: 3 finished stages (train teacher, train on labels, distil)",
        "of them from the version before: 3 (train teacher, train on labels, distil)",
        "done again: export 3 (the record of the version before lacks the versions of onnx and onnxscript)",
    ]
    assert {one.stage for one in plan.computed if one.reason == "new"} == {"validate"}, "that version had none"
    again = planned(made)
    assert ([one.key for one in again.reused], again.taken) == ([one.key for one in plan.reused], set())


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("data.options.fit=crop", []),
        ("distill.temperature=3", ["train teacher", "train on labels"]),
        pytest.param("data.augment=none", [], marks=pytest.mark.long),
        pytest.param("seed=1", [], marks=pytest.mark.long),
        pytest.param("teachers.0.lr=0.002", ["train on labels"], marks=pytest.mark.long),
        pytest.param("name=renamed", TRAININGS, marks=pytest.mark.long),
    ],
)
def test_a_training_of_other_inputs_is_not_taken_over(made: Path, change: str, stages: list[str]) -> None:
    plan = planned(made, change, until=Until.STUDENTS)
    assert [one.stage for one in plan.reused] == stages
    left = [made / "artifacts" / one.key for one in plan.computed]
    assert not [folder for folder in left if folder.exists()]


def test_other_versions_than_the_first_row_names_are_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_inputs, "_version", lambda name: "3.0" if name == "torch" else version(name))
    assert reasons(planned(made, until=Until.STUDENTS)) == {
        "train teacher": "torch 2.15.0 -> 3.0", "train on labels": "torch 2.15.0 -> 3.0", "distil": "new",
        "validate": "new",
    }  # fmt: skip


def _without_rows(workspace: Path) -> None:
    (workspace / "leaderboard.db").unlink()


def _stopped_and_resumed(workspace: Path) -> None:
    """The teacher's training was stopped once, so that other versions may have begun it."""
    journal = workspace / "journal.jsonl"
    first = json.loads(journal.read_text().splitlines()[0])
    journal.write_text(json.dumps(first) + "\n" + journal.read_text())


def _paused(workspace: Path) -> None:
    """Half an hour lies between the teacher's training and what follows: another process may have gone on."""
    journal = workspace / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines[:2]:
        line["time"] = line["time"].replace("T15:", "T14:")
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    "happened", [_without_rows, *(pytest.param(one, marks=pytest.mark.long) for one in (_stopped_and_resumed, _paused))]
)
def test_versions_that_the_process_of_the_training_did_not_file_are_not_known(
    made: Path, happened: Callable[[Path], None]
) -> None:
    happened(made)
    plan = planned(made, until=Until.STUDENTS)
    assert reasons(plan)["train teacher"] == "the record of the version before lacks the version of timm"
    assert ("train on labels" in reasons(plan)) == (happened is _without_rows)


def test_images_that_are_decoded_in_another_way_are_other_images(made: Path) -> None:
    """A fingerprint holds the pixels of some images only: of the others what the version before kept is compared."""
    (decoded,) = made.glob("cache/folder-*/*/images.npy")
    pixels = np.load(decoded)
    pixels[0, 0, 0] ^= 1
    np.save(decoded, pixels)
    why = "the record of the version before lacks the decoded images, or files are decoded in another way"
    assert reasons(planned(made, until=Until.STUDENTS))["train on labels"] == why


@pytest.mark.long
def test_weights_that_are_not_those_of_the_checkpoint_are_not_taken_over(made: Path) -> None:
    for file in made.glob("artifacts/*/weights.safetensors"):
        file.write_bytes(file.read_bytes() + b" ")
    assert planned(made, until=Until.STUDENTS).reused == ()


def test_a_workspace_of_today_and_a_recipe_that_starts_over_take_nothing_over(made: Path, tmp_path: Path) -> None:
    recipe = load_recipe("small.yaml")
    assert open_context(recipe, Workspace(tmp_path / "new"), silent, 1).earlier is None
    Workspace(made).start_over("small")
    assert open_context(recipe, Workspace(made), silent, 1).earlier is None
