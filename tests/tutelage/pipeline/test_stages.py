"""Stages compute from their inputs only, know files by content, and file no failure that may pass."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, cat, from_numpy, zeros

from tests.tutelage.pipeline.recipes_planned import Planner, recipes, written
from tutelage.cli.planned import plan_lines
from tutelage.files import model_digest, sha256_of
from tutelage.pipeline.context import Context, Resources, derived_seed, run_stage
from tutelage.pipeline.keys.model_files import is_model
from tutelage.pipeline.keys.plan import Planned, plan
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.keys.stage_inputs import StageInputs
from tutelage.pipeline.objectives import objectives_of, read_objectives, recalibration_images
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages import compress as compressing
from tutelage.pipeline.stages.evaluate import EvaluateInputs, chunk
from tutelage.pipeline.stages.publish import _data_facts, _reader, made_by
from tutelage.pipeline.stages.supernet import space_of
from tutelage.pipeline.workspace import Stage, Workspace
from tutelage.progress import silent
from tutelage.records import UNREACHABLE, Artifact, InputError, NotAvailableError, Student
from tutelage.search import loop as evolve
from tutelage.search.costs.counts import count


class Counted(StageInputs):
    STAGE = "count"

    number: int


def _counted(inputs: Counted, here: Resources, folder: Path) -> dict[str, Any]:
    return {"number": inputs.number, "reads a recipe": hasattr(here, "recipe") or hasattr(here.workspace, "recipe")}


def _context(folder: Path, **recipe: Any) -> Context:
    dataset: Any = SimpleNamespace(class_names=("a", "b"), channels=1, size=32)
    return Context(Recipe.model_validate({"name": "r", **recipe}), Workspace(folder), dataset, silent, 1)


def test_a_computation_is_given_its_inputs_and_no_recipe(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    inputs = Counted(title="count to 3", versions={}, number=3)
    stage = run_stage(ctx, inputs, _counted)
    assert stage.result == {"number": 3, "reads a recipe": False}
    filed = json.loads((stage.folder / "inputs.json").read_text())["inputs"]
    assert filed == {"version": 1, "versions": {}, "number": 3}

    def reads_more(inputs: Counted, here: Resources, folder: Path) -> dict[str, Any]:
        return {"name": ctx.recipe.name}

    with pytest.raises(AssertionError, match=r"closes over \('ctx',\)"):
        run_stage(ctx, inputs, reads_more)


def test_a_version_of_a_stage_that_is_raised_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Counted(title="count", versions={}, number=3)
    first = run_stage(_context(tmp_path), inputs, _counted)
    assert run_stage(_context(tmp_path), inputs.model_copy(update={"title": "another"}), _counted).key == first.key
    monkeypatch.setattr(Counted, "VERSION", 2)
    assert run_stage(_context(tmp_path), inputs, _counted).key != first.key


@pytest.mark.parametrize("suffix", [".param", ".xml"])
def test_a_model_is_known_by_its_weights_too(tmp_path: Path, suffix: str) -> None:
    """The graphs of a student alone and distilled are equal: only the weights beside them differ."""
    model = tmp_path / f"net{suffix}"
    model.write_text("the same graph")
    model.with_suffix(".bin").write_bytes(b"one")
    first, graph = model_digest(model), sha256_of(model)
    model.with_suffix(".bin").write_bytes(b"two")
    assert model_digest(model) != first
    assert not is_model(model, first)
    assert is_model(model, graph)  # what a row of before says
    moved = model.rename(tmp_path / f"moved{suffix}")
    model.with_suffix(".bin").rename(moved.with_suffix(".bin"))
    assert is_model(moved, model_digest(moved))
    moved.with_suffix(".bin").write_bytes(b"one")
    assert model_digest(moved) == first


def test_onnx_weights_in_another_file_count(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        weight = numpy_helper.from_array(np.full((4, 400), value, np.float32), "w")
        sides = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", [1, 4]), ("y", [1, 400]))
        ]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", sides[:1], sides[1:], [weight])
        folder = tmp_path / str(value)
        folder.mkdir()
        onnx.save_model(
            helper.make_model(graph),
            folder / "net.onnx",
            save_as_external_data=True,
            location="net.weights",
            size_threshold=0,
        )
    one, two = (tmp_path / name / "net.onnx" for name in ("1.0", "2.0"))
    assert sha256_of(one) == sha256_of(two)
    assert model_digest(one) != model_digest(two)


def test_what_may_pass_is_tried_again_and_what_is_so_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is not installed files nothing; an operator that it lacks is a result, tried once."""
    tried: list[str] = []
    failure: InputError = NotAvailableError("runtime ncnn is not installed: pip install 'tutelage[ncnn]'")

    def converted(*_: object) -> Path:
        tried.append(str(failure))
        raise failure

    monkeypatch.setattr(compressing, "runtime_file", converted)
    monkeypatch.setattr(compressing, "beside", lambda *_: Path())
    monkeypatch.setattr(compressing.networks, "load", lambda *_: None)
    messages: list[str] = []
    ctx = _context(tmp_path)
    ctx = Context(ctx.recipe, ctx.workspace, ctx.dataset, lambda text, *_: messages.append(text), 1)
    student = Student(
        model="s",
        role="student",
        library_name="resnet10t",
        weights=Artifact(kind="w", path="w", sha256="0", size_bytes=1),
    )
    onnx_file = Artifact(kind="model", path="artifacts/0/model.onnx", sha256="1", size_bytes=1)
    exported = Stage("export", "0" * 16, tmp_path, {"file": onnx_file.to_dict()})

    def attempt() -> None:
        assert compressing._float_file(ctx, student, exported, "ncnn") is None

    attempt()
    attempt()
    assert len(tried) == 2
    assert not list(tmp_path.glob("artifacts/*/done.json"))
    failure = InputError("it has no layer for torch.tile")
    attempt()
    attempt()
    assert len(tried) == 3
    assert messages[-1] == messages[-2] == "no row of s for ncnn: it has no layer for torch.tile"


def test_rows_say_the_versions_that_computed_them(tmp_path: Path) -> None:
    """Weights of an older version of tutelage keep it in the row of a file that a newer one evaluated."""
    ctx = _context(tmp_path)
    keys = []
    for number, (torch, tutelage) in enumerate((("2.1", "0.1"), ("2.1", "0.2"))):
        stage = run_stage(ctx, Counted(title="c", versions={"torch": torch}, number=number), _counted)
        done = json.loads((stage.folder / "done.json").read_text())
        assert done["made_by"]["tutelage"]
        done["made_by"] = {"tutelage": tutelage, "python": "3.11"}
        (stage.folder / "done.json").write_text(json.dumps(done))
        keys.append(stage.key)
    weights = Artifact(kind="weights", path=f"artifacts/{keys[0]}/weights.safetensors", sha256="0", size_bytes=1)
    one: Any = SimpleNamespace(
        variant=SimpleNamespace(student=Student(model="s", role="student", weights=weights), stages=()), stage=keys[1]
    )
    assert made_by(ctx.workspace, one) == {"python": "3.11", "versions": {"torch": "2.1", "tutelage": "0.1, 0.2"}}


def finish(workspace: Workspace, values: dict[str, Any], planner: Planner, title: str) -> None:
    """File a stage of a plan as if it had been done."""
    (planned,) = (one for one in planner.plan(values).stages if one.title == title)
    recipe = Recipe.model_validate(values).model_dump(mode="json")
    result = {"weights": Artifact(kind="w", path="w", sha256="7" * 64, size_bytes=1).to_dict()}
    workspace.stage(planned.stage, dict(planned.values), lambda _: result, title=title, recipe=recipe)


def test_a_run_says_what_it_reuses_and_why_it_does_the_rest_again(tmp_path: Path) -> None:
    workspace = written(tmp_path)
    planner = Planner(workspace)
    values = Recipe.model_validate(recipes(tmp_path)["named"]).model_dump(mode="json")
    teachers = ("train teacher resnet10t", "train teacher mobilenetv3_small_050")
    for title in teachers:
        finish(workspace, values, planner, title)
    both = planner.plan(values)
    assert {one.title for one in both.reused} == set(teachers)
    assert plan_lines(both)[0] == "reused: 2 finished stages (train teacher 2)"
    crop = {**values, "data": {**values["data"], "options": {"fit": "crop"}}}
    assert f"done again: {teachers[0]} (data.options.fit changed)" in plan_lines(planner.plan(crop))
    first = {**values["teachers"][0], "lr": 0.5}
    slower = planner.plan({**values, "teachers": [first, values["teachers"][1]]})
    assert f"done again: {teachers[0]} (teachers.resnet10t.lr changed)" in plan_lines(slower)
    assert [one.title for one in slower.reused] == [teachers[1]]
    finish(workspace, values, planner, "export resnet10t")
    slower = planner.plan({**values, "teachers": [first, values["teachers"][1]]})
    assert f"done again: export resnet10t (after {teachers[0]})" in plan_lines(slower)
    assert "sha256" not in "".join(plan_lines(slower))


def test_what_follows_a_stage_is_named_by_it_not_by_places_of_files(tmp_path: Path) -> None:
    """Before an int8 file is made its scheme is not known, and a new hash moves the other files of a session."""
    workspace = written(tmp_path)
    planner = Planner(workspace)
    values = Recipe.model_validate(recipes(tmp_path)["named"]).model_dump(mode="json")
    stages = planner.plan(values).stages
    evaluated = next(one for one in stages if one.title.startswith("evaluate resnet10t int8 "))
    measured = next(one for one in stages if one.stage == "measure")
    before = {**evaluated.values, "side": 7}
    title = evaluated.title.replace("int8", "int8-mixed")
    workspace.stage("evaluate", before, lambda _: {}, title=title, recipe={})
    ((size, files),) = measured.values["files"].items()
    gone, *others = files
    before = {**measured.values, "files": {size: [*others, {**gone, "sha256": "0" * 64}]}}
    workspace.stage("measure", before, lambda _: {}, title=measured.title, recipe={})
    again = {one.title: one.reason for one in planner.plan(values).computed}
    assert again[evaluated.title] == "side changed"
    assert again[measured.title].startswith("after ")


def test_a_moved_folder_of_images_changes_nothing_and_another_decoder_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = Planner(written(tmp_path))
    values = Recipe.model_validate(recipes(tmp_path)["named"]).model_dump(mode="json")
    before = [one.key for one in planner.plan(values).stages]
    with monkeypatch.context() as patched:
        patched.setattr("tutelage.pipeline.context.DECODE_VERSION", 99)
        assert not set(before) & {one.key for one in planner.plan(values).stages}
    moved = (tmp_path / "images").rename(tmp_path / "moved")
    values["data"] = {**values["data"], "path": str(moved)}
    assert [one.key for one in planner.plan(values).stages] == before


def test_the_file_of_an_evaluation_is_known_by_its_content(tmp_path: Path) -> None:
    planner = Planner(written(tmp_path))
    ctx = planner.context(recipes(tmp_path)["named"])
    keys = {
        EvaluateInputs(
            title="e", versions={}, images=ctx.images_input, file={"sha256": sha, "path": path}, runtime="ncnn",
            origin="", side=32, normalisation=None,
        ).key_values()["file"]["sha256"]
        for sha, path in (("a", "one"), ("a", "two"), ("b", "one"))
    }  # fmt: skip
    assert keys == {"a", "b"}


def test_a_plan_of_a_search_that_is_not_finished_is_open(tmp_path: Path) -> None:
    planner = Planner(written(tmp_path))
    ctx = planner.context(recipes(tmp_path)["searched"])
    found = plan(ctx, [])
    assert found.open
    assert plan_lines(found)[-1] == "the students of the winners follow when the search is finished"
    assert not any(one.title.startswith("train ofa-") for one in found.stages)


def test_winners_are_open_until_they_are_measured(tmp_path: Path) -> None:
    """Those of a finished search are predicted: one that breaks its budget when it is measured gives way to another."""
    workspace = written(tmp_path)
    planner = Planner(workspace)
    goals = {"objectives": ["error", "latency_ms@box"], "winners": 1}
    ctx = planner.context({**recipes(tmp_path)["searched"], "search": goals, "pruned": []})
    box = planner.device("box", ctx)
    result = evolve.search(
        space_of(ctx), objectives_of(read_objectives(ctx.recipe), [box], lambda archs: 1 / count(archs, 2, 1).macs), {},
        strategy="random", evaluations=6, seed=0, num_classes=2, in_channels=1,
    )  # fmt: skip

    def search(folder: Path) -> dict[str, Any]:
        result.to_json(folder / "search.json")
        return {"file": "search.json"}

    def planned(stage: str) -> Planned:
        return next(one for one in plan(ctx, [box], [box]).stages if one.stage == stage and not one.done)

    workspace.stage("search", dict(planned("search").values), search)
    found = plan(ctx, [box], [box])
    assert found.open
    assert not any(" ofa-" in one.title for one in found.stages)
    away = replace(box, profile=box.profile.model_copy(update={"host": UNREACHABLE}))
    assert not plan(ctx, [away], [away]).open  # what is predicted for a device out of reach stays so
    times = {one.arch.id: {"p50_ms": 1.0, "anchored_ms": 1.0, "drift": 0.0} for one in result.evaluated}
    workspace.stage(
        "measure finalists", dict(planned("measure finalists").values), lambda _: {"measured": {"box": times}}
    )
    found = plan(ctx, [box], [box])
    assert not found.open
    assert any(one.title.startswith("train ofa-") for one in found.stages)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 224), (3, 1024)])
def test_images_of_a_test_split_are_held_in_memory_a_few_at_a_time(channels: int, side: int) -> None:
    num = chunk(channels, side)
    assert num % 64 == 0  # whole batches of the runtimes: the predictions are those of any other number
    assert 64 <= num <= 2048
    assert num == 64 or num * channels * side**2 * 4 <= 2**29


def test_recalibration_reads_only_the_images_that_it_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset: Any = SimpleNamespace(indices=lambda name: np.arange(1000))
    here = Context(Recipe.model_validate({"name": "r"}), Workspace(tmp_path), dataset, silent, 1)
    asked = []

    def split(_: Context, name: str, side: int, positions: Any = None) -> tuple[Tensor, Tensor]:
        asked.append((name, side))
        return from_numpy(positions), zeros(len(positions))

    monkeypatch.setattr(Context, "split", split)
    batches = recalibration_images(here, 24, 8, 3, seed=1)
    assert ([len(one) for one in batches], asked) == ([8, 8, 8], [("train", 24)])
    drawn = np.random.default_rng(derived_seed(1, "recalibration")).permutation(1000)[:24]
    assert cat(batches).tolist() == sorted(drawn.tolist())  # of all images, as before


def test_rows_call_a_folder_by_its_name_and_are_identified_by_its_reader(tmp_path: Path) -> None:
    planner = Planner(written(tmp_path))
    values = Recipe.model_validate(recipes(tmp_path)["named"]).model_dump(mode="json")
    moved = (tmp_path / "images").rename(tmp_path / "xrays")
    values["data"] = {**values["data"], "path": str(moved)}
    before = [one.key for one in planner.plan(values).stages]
    ctx = planner.context(values)
    assert _data_facts(ctx)["dataset"] == "xrays"
    assert _reader(ctx) == {"data_reader": "folder"}
    student = Student(model="net", role="student")
    settings = settings_of(ctx.recipe, student, "fp32")
    values["data"] = {**values["data"], "options": {**values["data"]["options"], "title": "Chest, 2024"}}
    ctx = planner.context(values)
    assert _data_facts(ctx)["dataset"] == "Chest, 2024"
    assert settings_of(ctx.recipe, student, "fp32") == settings
    assert [one.key for one in planner.plan(values).stages] == before
