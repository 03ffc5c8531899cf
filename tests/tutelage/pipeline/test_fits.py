"""Files of students against the memory limits: what is above is said, marked, and not taken for the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.litert import converter_ready
from tutelage.bench.devices.profiles import write_profile
from tutelage.cli.planned import keys_given, memories_line
from tutelage.leaderboard.best import OVER_BUDGET
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages import fits
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.fits import TARGET_FILE, held_to_memories, micro_files, over_in_bundle, over_lines
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import UNREACHABLE, Artifact, DeviceProfile, InputError, NotAvailableError, Row, Student
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


def test_a_run_says_its_memory_limits_and_where_they_come_from(workspace: Workspace) -> None:
    def said(*changes: str, given: dict[str, object] | None = None) -> str:
        return memories_line(load_recipe("demo", changes), workspace.path, keys_given(changes[1:], given))

    assert said() == ""
    both = "memory limits, at fp32: flash 1,000,000 bytes (profile of box), RAM 200,000 bytes (profile of box)"
    assert said(BOXES) == both
    assert said(BOXES, "search.max_flash=2MB").endswith(
        ": flash 2MB (command line), RAM 200,000 bytes (profile of box)"
    )
    assert said("search.max_ram=64KB") == "memory limits, at fp32: RAM 64KB (recipe)"
    assert said("search.max_ram=64KB", given={"search.max_ram": "64KB", "search.max_size": None}).endswith(
        "RAM 64KB (command line)"
    )
    assert said("search.target=chip").startswith("memory limits, at int8: flash 900,000 bytes (profile of chip)")
    named = load_recipe("demo").model_dump(exclude={"search", "supernet"})
    recipe = Recipe.model_validate({**named, "students": [{"name": "resnet10t"}], "devices": [{"name": "box"}]})
    # Nothing is searched: RAM is of no file here, and the files are compared with the flash.
    assert memories_line(recipe, workspace.path, ()) == "memory limits: flash 1,000,000 bytes (profile of box)"
    ctx: Any = SimpleNamespace(recipe=recipe, workspace=workspace)
    assert held_to_memories(ctx, [variant("student", "fp32", "a", 1_020_000)])["a" * 64][OVER_BUDGET]


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


def test_a_bundle_is_compared_with_the_memory_limits_of_its_run(workspace: Workspace) -> None:
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
    assert over_in_bundle(row(recipe), workspace.path, changes=["search.max_size=2MB"]) == []
    assert over_in_bundle(row(recipe), workspace.path, (1_500_000, 5), ["search.max_size=2MB"]) == []
    on_chip = row(load_recipe("demo", ["search.target=chip"]))
    on_chip = on_chip.model_copy(
        update={"details": {**on_chip.details, TARGET_FILE: {"file_bytes": 900_001, "arena_bytes": 5}}}
    )
    assert over_in_bundle(on_chip, workspace.path) == [
        "the network's int8 file for chip, not the file in this bundle: "
        "flash 900,001 bytes is above the budget of 900,000 bytes (profile of chip)"
    ]
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
    assert str(ctx.workspace.path) not in found["c"][TARGET_FILE]["refused"]
    assert "refused" in found["c"][TARGET_FILE]["refused"]
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


def variants_of(students: list[Student]) -> list[Variant]:
    return [Variant(one, "fp32", "onnxruntime", a_file(name, 5)) for one, name in zip(students, "ab", strict=False)]


def test_a_network_at_which_the_converter_ends_is_noted_and_the_others_are_compared(
    trained: tuple[Context, list[Student]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies has no answer: it is not the run's end, and nothing is filed of that network."""
    ctx, students = trained
    notes: list[str] = []
    ctx = replace(ctx, note=notes.append, recipe=ctx.recipe.model_copy(update={"seed": 7}))  # other stages
    tried: list[list[str]] = []

    def convert(jobs: Sequence[Conversion]) -> None:
        tried.append([job.onnx.name for job in jobs])
        for job in jobs:
            if job.onnx.stat().st_size > 10**6:  # the ResNet
                raise NotAvailableError(f"the LiteRT converter ended at {job.onnx}: killed")
        raise InputError(f"{jobs[0].onnx} cannot be converted for LiteRT: {jobs[0].onnx.resolve()} is odd")

    monkeypatch.setattr(fits, "convert_to_litert", convert)
    monkeypatch.setattr(fits, "converter_ready", lambda: True)
    found = held_to_memories(ctx, variants_of(students))
    reason = "micro cannot be converted for LiteRT: micro is odd"
    assert found["a" * 64] == {
        TARGET_FILE: {"target": "chip", "refused": reason},
        OVER_BUDGET: [f"no file for chip can be made of it: {reason}"],
    }
    assert found["b" * 64] == {}
    assert notes == [
        "refused: not compared with the memory limits, as no file for chip was made: "
        "the LiteRT converter ended at refused: killed; the same run tries it again"
    ]
    tried.clear()
    assert held_to_memories(ctx, variants_of(students)) == found
    assert tried == [["0.onnx", "1.onnx"], ["0.onnx"]]  # what was refused is filed, what ended the converter is not
    monkeypatch.setattr(fits, "converter_ready", lambda: False)  # none of them can be made
    assert held_to_memories(ctx, variants_of(students)) == {"a" * 64: {}, "b" * 64: {}}
    assert notes[-1].startswith("micro, refused: not compared")
