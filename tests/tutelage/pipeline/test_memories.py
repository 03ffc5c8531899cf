"""Budgets on memories and energy: a target's are a search's, measured finalists keep them, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tutelage.bench.devices.profiles import write_profile
from tutelage.bench.latency.sessions import correction_of
from tutelage.bench.runtimes.energy import NoMeter
from tutelage.bench.runtimes.entry import Runtime
from tutelage.pipeline import device as device_module
from tutelage.pipeline.device import check_energy, check_target, memory_target
from tutelage.pipeline.objectives import read_objectives
from tutelage.pipeline.operations.single_stage import on_target, target_among
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages.budgets import budget_of
from tutelage.pipeline.stages.winners import ChosenWinners, choose_winners
from tutelage.records import (
    UNREACHABLE,
    Arch,
    Budget,
    DeviceProfile,
    InfeasibleBudgetError,
    InputError,
    NotAvailableError,
)
from tutelage.search.costs.counts import count
from tutelage.search.family import Slicing
from tutelage.search.loop import search
from tutelage.search.objectives import Objective
from tutelage.search.result import SearchResult
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["mbconv_micro_w0.25"].with_resolutions((48,))
MS = "latency_ms@box"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    chip = DeviceProfile(name="chip", runtime="litert", host=UNREACHABLE, ram_bytes=300_000, flash_bytes=900_000)
    write_profile(chip, tmp_path / "devices")
    write_profile(DeviceProfile(name="box", runtime="onnxruntime"), tmp_path / "devices")
    return tmp_path


def budget(recipe: Recipe, workspace: Path) -> dict[str, float]:
    ctx: Any = SimpleNamespace(recipe=recipe, workspace=SimpleNamespace(path=workspace))
    return {name: bound for name, bound in budget_of(ctx, ()).counted.items() if name != "params"}  # demo's own


def test_a_targets_memories_are_the_budgets_at_int8(workspace: Path) -> None:
    target, timed = target_among(["chip"], workspace)
    assert (target, timed) == ("chip", [])
    recipe = on_target(load_recipe("demo"), target, timed, None, None)
    assert (recipe.devices, recipe.search.target) == ((), "chip")
    assert [one.name for one in read_objectives(recipe)] == ["error", "int8_ram_bytes", "int8_file_bytes"]
    assert budget(recipe, workspace) == {"int8_ram_bytes": 300_000, "int8_file_bytes": 900_000}
    smaller = on_target(load_recipe("demo", ["search.max_ram=64KB"]), target, timed, None, None)
    assert budget(smaller, workspace) == {"int8_ram_bytes": 64_000, "int8_file_bytes": 900_000}
    assert on_target(recipe, None, ["box"], "5ms", None) is recipe
    assert target_among(["box", "stm32f746"], None) == ("stm32f746", ["box"])  # of the catalogue


def test_memories_are_those_of_the_precision_that_is_deployed(workspace: Path) -> None:
    bounds = ["search.max_ram=64KB", "search.max_flash=1MB"]
    assert budget(load_recipe("demo", bounds), workspace) == {"ram_bytes": 64_000, "size_bytes": 1_000_000}
    int8 = load_recipe("demo", [*bounds, "search.objectives=[error@int8, int8_bytes]"])
    assert budget(int8, workspace) == {"int8_ram_bytes": 64_000, "int8_file_bytes": 1_000_000}


def test_what_a_target_cannot_be_asked_is_refused(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"--max-latency 5ms: device chip is known by its memories alone"):
        on_target(load_recipe("demo"), "chip", [], "5ms", None)
    with pytest.raises(InputError, match=r"--risk 0\.1: device chip"):
        on_target(load_recipe("demo"), "chip", [], None, 0.1)
    with pytest.raises(InputError, match="chip and stm32f746 are both targets"):
        target_among(["chip", "stm32f746"], workspace)
    with pytest.raises(InputError, match="box is a device that is measured or predicted"):
        memory_target(workspace, "box")
    with pytest.raises(InputError, match="no device named 'chop'; did you mean chip"):
        memory_target(workspace, "chop")
    with pytest.raises(InputError, match="max_flash is another name of max_size"):
        load_recipe("demo", ["search.max_flash=1MB", "search.max_size=1MB"])


def test_energy_is_bounded_where_a_counter_can_be_read(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, new = DeviceSection(name="box"), DeviceSection(name="new")
    check_energy(workspace, [], None)
    with pytest.raises(InputError, match="no device is named"):
        check_energy(workspace, [], "3mJ")
    with pytest.raises(InputError, match="device chip cannot be reached from here"):
        check_energy(workspace, [DeviceSection(name="chip")], "3mJ")
    monkeypatch.setattr(device_module, "find_meter", lambda runtime: NoMeter("FILE is missing"))
    with pytest.raises(InputError, match=r"device new has no energy counter.*; FILE is missing; or leave the budget"):
        check_energy(workspace, [new], "3mJ")
    monkeypatch.setattr(device_module, "find_meter", lambda runtime: object())
    check_energy(workspace, [box, new], "3mJ")


def test_the_counter_of_another_machine_is_asked_for_there(workspace: Path, tmp_path: Path) -> None:
    zone = tmp_path / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "99")):
        (zone / name).write_text(text)
    start = f"env TUTELAGE_SYS={tmp_path} {sys.executable} {{runner}}"
    write_profile(DeviceProfile(name="far", runtime="onnxruntime", command=start), workspace / "devices")
    check_energy(workspace, [DeviceSection(name="far")], "3mJ")
    (zone / "energy_uj").unlink()
    with pytest.raises(InputError, match=rf"device far has no energy counter.*; {zone}/energy_uj is missing"):
        check_energy(workspace, [DeviceSection(name="far")], "3mJ")


def ms(archs: Sequence[Arch]) -> Any:
    return count(list(archs), 4, 1).macs / 1e6


@pytest.fixture(scope="module")
def result() -> SearchResult:
    def error(archs: Sequence[Arch]) -> Any:
        return np.array([0.5 - sum(arch.e) / 400 for arch in archs])

    goals = [Objective("error", fn=error, cheap=False), Objective(MS, fn=ms)]
    return search(SPACE, goals, {MS: 1e3}, strategy="random", evaluations=20, num_classes=4, in_channels=1)


def a_box(precision: str) -> Any:
    """A device within reach that takes what is predicted."""
    return SimpleNamespace(
        name="box", reachable=True, budgets_ms=(), profile=SimpleNamespace(precision=precision),
        model=SimpleNamespace(
            predict=lambda archs: (ms(archs),),
            correction=lambda archs, _: correction_of(ms(archs), 0.03, ms(archs), 0.03),
        ),
    )  # fmt: skip


def choose(result: SearchResult, figure: str, values: Any, bounds: dict[str, float], precision: str = "fp32") -> Any:
    """Choose one winner where each finalist is measured with `values(arch)` of a figure."""
    box = a_box(precision)

    def measure(archs: Sequence[Arch]) -> Any:
        usual = {"p50_ms": 1.0, "anchored_ms": 1.0, "drift": 0.0}
        return {"box": {arch.id: {**usual, figure: values(arch)} for arch in archs}}

    return choose_winners(result, SPACE, [box], Budget(**bounds), Slicing(cost=MS, number=1), measure)


@pytest.mark.parametrize(("figure", "bound"), [("energy_mj", "energy_mj"), ("file_bytes", "size_bytes")])
def test_a_finalist_that_breaks_the_bound_when_measured_is_no_winner(
    result: SearchResult, figure: str, bound: str
) -> None:
    best = min(result.evaluated, key=lambda row: row.measured["error"]).arch
    assert choose(result, figure, lambda arch: 5.0, {bound: 5.0}).winners[0].arch == best
    found = choose(result, figure, lambda arch: 7.0 if arch == best else 5.0, {bound: 5.0})
    assert found.broke == 1
    assert found.winners[0].arch != best
    with pytest.raises(
        InfeasibleBudgetError, match=rf"all 20 finalists break a budget .*{figure} 5 .* the least is 6 "
    ):
        choose(result, figure, lambda arch: 6.0, {bound: 5.0})


def test_bytes_of_a_file_of_another_precision_say_nothing_of_the_bound(result: SearchResult) -> None:
    assert choose(result, "file_bytes", lambda arch: 6.0, {"int8_file_bytes": 5.0}).broke == 0
    with pytest.raises(InfeasibleBudgetError, match="file_bytes"):
        choose(result, "file_bytes", lambda arch: 6.0, {"int8_file_bytes": 5.0}, precision="int8")


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize(("figure", "bound"), [("file_bytes", "int8_file_bytes"), ("arena_bytes", "int8_ram_bytes")])
def test_a_finalist_whose_file_does_not_fit_the_target_is_no_winner(
    result: SearchResult, figure: str, bound: str, timed: bool
) -> None:
    """The file for the target is what is deployed: bytes of what is timed elsewhere, float or int8, say nothing."""
    best = min(result.evaluated, key=lambda row: row.measured["error"]).arch

    def found(large: int) -> ChosenWinners:
        def measure(archs: Sequence[Arch]) -> Any:
            usual = {"p50_ms": 1.0, "anchored_ms": 1.0, "drift": 0.0, "file_bytes": 9}
            sizes = {"file_bytes": 5, "arena_bytes": 5}
            files = {arch.id: {**sizes, figure: large if arch == best else 5} for arch in archs}
            return {"chip": files, **({"box": {arch.id: usual for arch in archs}} if timed else {})}

        devices = [a_box("int8")] if timed else []
        return choose_winners(result, SPACE, devices, Budget(**{bound: 5.0}), Slicing(cost=MS, number=1), measure)

    assert found(5).winners[0].arch == best
    assert (found(5).winners[0].file_bytes, found(5).winners[0].arena_bytes) == ({"chip": 5}, {"chip": 5})
    refused = found(6)
    assert refused.broke == 1
    assert refused.winners[0].arch != best
    said = rf"all 20 finalists break a budget .*\({figure} 4 bytes, the least is 5 bytes\): raise it$"
    with pytest.raises(InfeasibleBudgetError, match=said):
        choose_winners(
            result, SPACE, [], Budget(**{bound: 4.0}), Slicing(cost=MS, number=1),
            lambda archs: {"chip": {arch.id: {"file_bytes": 5, "arena_bytes": 5} for arch in archs}},
        )  # fmt: skip


def test_a_device_that_says_its_memories_bounds_the_search(workspace: Path) -> None:
    known = DeviceProfile(name="box", runtime="onnxruntime", ram_bytes=200_000, flash_bytes=700_000)
    write_profile(known, workspace / "devices")
    boxes = ["devices=[{name: box}, {name: new}]"]
    assert budget(load_recipe("demo", boxes), workspace) == {"ram_bytes": 200_000, "size_bytes": 700_000}
    own = load_recipe("demo", [*boxes, "search.max_flash=2MB"])
    assert budget(own, workspace) == {"ram_bytes": 200_000, "size_bytes": 2_000_000}
    target = load_recipe("demo", [*boxes, "search.target=chip"])  # which is deployed to, in its place
    assert budget(target, workspace) == {"int8_ram_bytes": 300_000, "int8_file_bytes": 900_000}


def test_a_target_whose_files_cannot_be_made_is_refused_before_anything_is_trained(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_target(workspace, "chip").flash_bytes == 900_000
    monkeypatch.setattr(Runtime, "installed", lambda self: False)
    with pytest.raises(NotAvailableError, match=r"search.target chip: its files .*litert is not installed: pip"):
        check_target(workspace, "chip")


def test_a_counter_that_is_gone_is_said(result: SearchResult) -> None:
    with pytest.raises(NotAvailableError, match="device box gave no energy_mj"):
        choose(result, "energy_mj", lambda arch: None, {"energy_mj": 5.0})
