"""Students' very files against the memories that bind: what is above is said, marked, and not taken for the best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.bench.converters.litert import converter_ready
from tutelage.bench.devices.profiles import write_profile
from tutelage.cli.planned import keys_given, memories_line
from tutelage.leaderboard.best import OVER_BUDGET
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.fits import TARGET_FILE, held_to_memories, micro_files, over_in_bundle, over_lines
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import UNREACHABLE, Artifact, DeviceProfile, InputError, Row, Student
from tutelage.search.spaces.space import SPACES

BOXES = "devices=[{name: box}, {name: new}]"


def chip(flash: int, ram: int) -> DeviceProfile:
    return DeviceProfile(name="chip", runtime="litert", host=UNREACHABLE, ram_bytes=ram, flash_bytes=flash)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    space = Workspace(tmp_path / "w")
    box = DeviceProfile(name="box", runtime="onnxruntime", ram_bytes=200_000, flash_bytes=1_000_000)
    for profile in (chip(900_000, 300_000), box):
        write_profile(profile, space.path / "devices")
    return space


def test_a_run_says_which_memories_bind_its_search_and_who_says_so(workspace: Workspace) -> None:
    def said(*changes: str, given: dict[str, object] | None = None) -> str:
        return memories_line(load_recipe("demo", changes), workspace.path, keys_given(changes[1:], given))

    assert said() == ""
    both = "memories that bind, at fp32: flash 1,000,000 bytes (profile of box), RAM 200,000 bytes (profile of box)"
    assert said(BOXES) == both
    assert said(BOXES, "search.max_flash=2MB").endswith(
        ": flash 2MB (command line), RAM 200,000 bytes (profile of box)"
    )
    assert said("search.max_ram=64KB") == "memories that bind, at fp32: RAM 64KB (recipe)"
    assert said("search.max_ram=64KB", given={"search.max_ram": "64KB", "search.max_size": None}).endswith(
        "RAM 64KB (command line)"
    )
    assert said("search.target=chip").startswith("memories that bind, at int8: flash 900,000 bytes (profile of chip)")
    named = load_recipe("demo").model_dump(exclude={"search", "supernet"})
    recipe = Recipe.model_validate({**named, "students": [{"name": "resnet10t"}], "devices": [{"name": "box"}]})
    assert memories_line(recipe, workspace.path, ()) == ""  # nothing is searched


def a_file(name: str, size: int) -> Artifact:
    return Artifact(kind="model", path=f"artifacts/{name}/model.onnx", sha256=name * 64, size_bytes=size)


def variant(role: str, scheme: str, name: str, size: int) -> Variant:
    student: Any = Student(model="net", role=role, library_name="resnet10t", teacher="")
    return Variant(student, scheme, "onnxruntime", a_file(name, size))


def test_files_above_a_bound_are_marked_and_a_line_is_said_of_those_that_are_deployed(workspace: Workspace) -> None:
    recipe = load_recipe("demo", [BOXES])
    ctx: Any = SimpleNamespace(recipe=recipe, workspace=workspace)
    files = [
        variant("student", "fp32", "a", 1_020_000), variant("student", "int8-ptq", "b", 1_000_000),
        variant("student", "int8-ptq", "c", 1_000_001), variant("teacher", "fp32", "d", 9_000_000),
    ]  # fmt: skip
    found = held_to_memories(ctx, files)
    said = "flash 1,020,000 bytes is above the budget of 1,000,000 bytes (profile of box)"
    over = {name[0]: details[OVER_BUDGET] for name, details in found.items() if OVER_BUDGET in details}
    assert over == {"a": [said], "c": [said.replace("1,020,000", "1,000,001")]}
    rows = [
        Row(
            model="net", role=one.student.role, dataset="d", scheme=one.scheme, runtime=one.runtime,
            details=found.get(one.file.sha256, {}),
        )
        for one in files
    ]  # fmt: skip
    assert over_lines(rows, recipe) == [f"net fp32, onnxruntime (without a teacher) does not fit: {said}"]
    int8 = load_recipe("demo", [BOXES, "search.objectives=[error@int8, int8_bytes]"])
    assert [line.split(",")[0] for line in over_lines(rows, int8)] == ["net int8-ptq"]
    assert held_to_memories(SimpleNamespace(recipe=load_recipe("demo"), workspace=workspace), files) == {}  # type: ignore[arg-type]


def test_a_bundle_is_compared_with_the_memories_of_its_run(workspace: Workspace) -> None:
    student = Student(model="net", role="student", library_name="resnet10t")
    recipe = load_recipe("demo", ["search.max_size=1MB", "search.max_ram=64KB"])
    how = {"network": student.to_dict(), "file": a_file("a", 5).to_dict()}

    def row(of: Recipe) -> Row:
        details = {"how": {**how, "recipe": of.model_dump(mode="json")}}
        return Row(model="net", role="student", dataset="d", size_bytes=1_000_001, details=details)

    flash = "flash 1,000,001 bytes is above the budget of 1MB (search.max_size)"
    assert over_in_bundle(row(recipe), workspace.path) == [flash]
    assert over_in_bundle(row(recipe), workspace.path, (5, 64_001)) == [
        "RAM 64,001 bytes is above the budget of 64KB (search.max_ram)"
    ]
    assert over_in_bundle(row(recipe), workspace.path, (1_000_000, 64_000)) == []
    gone = recipe.model_copy(update={"search": recipe.search.model_copy(update={"target": "gone"})})
    assert "no device named 'gone'" in over_in_bundle(row(gone), workspace.path)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, list[Student]]:
    """A run for a target with two networks: one of a space, and one that LiteRT's quantizer refuses."""
    space = Workspace(tmp_path_factory.mktemp("trained"))
    write_profile(chip(10_000, 10_000), space.path / "devices")
    data = {"dataset": "phantom", "size": 48, "limit": 60}
    recipe = Recipe.model_validate(
        {"name": "board", "data": data, "search": {"target": "chip"}, "quantize": {"calibration_images": 4}}
    )
    ctx = open_context(recipe, space, silent, 1)
    micro = SPACES["mbconv_micro_w0.25"].with_resolutions((48,)).smallest()
    students = []
    for name, about in (("micro", {"arch": micro}), ("refused", {"library_name": "resnet10t"})):
        student = Student.from_dict({**Student(model=name, role="student").to_dict(), **_plain(about)})
        folder = space.path / "artifacts" / name
        folder.mkdir(parents=True)
        students.append(replace_weights(student, networks.file_weights(ctx, networks.build(ctx, student), folder)))
    return ctx, students


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in about.items()}


def replace_weights(student: Student, weights: Artifact) -> Student:
    return student.model_copy(update={"weights": weights})


@pytest.mark.slow
@pytest.mark.skipif(not converter_ready(), reason="LiteRT's converter was not set up")
def test_the_file_for_the_target_of_each_trained_student_is_made_once_and_compared(
    trained: tuple[Context, list[Student]], tmp_path: Path
) -> None:
    ctx, students = trained
    variants = [
        Variant(student, scheme, "onnxruntime", a_file(name, 5))
        for student, pair in zip(students, ("ab", "cd"), strict=True)
        for scheme, name in zip(("fp32", "int8-ptq"), pair, strict=True)
    ]
    found = {name[0]: details for name, details in held_to_memories(ctx, variants).items()}
    assert found["a"] == found["b"]  # both rows are of that network
    (made, refused) = micro_files(ctx, students, 4, ctx.recipe.seed, tmp_path)
    assert isinstance(made, Path)
    assert isinstance(refused, InputError)
    about = found["a"][TARGET_FILE]
    assert about["file_bytes"] == made.stat().st_size
    assert found["a"][OVER_BUDGET] == [
        f"flash {about['file_bytes']:,} bytes is above the budget of 10,000 bytes (profile of chip)",
        f"RAM {about['arena_bytes']:,} bytes is above the budget of 10,000 bytes (profile of chip)",
    ]
    assert found["c"][OVER_BUDGET] == [f"no file for chip can be made of it: {found['c'][TARGET_FILE]['refused']}"]
    write_profile(chip(10**7, 10**7), ctx.workspace.path / "devices")  # the file is as it was: nothing is made again
    again = held_to_memories(ctx, variants)
    assert OVER_BUDGET not in again["a" * 64]
    events = [one["event"] for one in ctx.workspace.journal() if one["stage"] == "files for chip"]
    assert events == ["start", "done"]
