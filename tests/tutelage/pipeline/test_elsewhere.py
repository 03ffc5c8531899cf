"""A device out of reach is predicted, never measured; what is measured is compared on the prediction's scale."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from tutelage.bench.devices.check import DeviceCheck
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.latency.sessions import Correction
from tutelage.cli.inventory import print_drift
from tutelage.cli.output import print_figures, print_search
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device, name_device, open_device
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.objectives import objectives_of, read_objectives, weighed_devices
from tutelage.pipeline.operations.devices import DeviceRequest, add_device, check_device
from tutelage.pipeline.operations.quantize import _clock
from tutelage.pipeline.operations.single_stage import bench_file
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.run import Searched
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages import finalists as finalists_stage
from tutelage.pipeline.stages import measure as measure_stage
from tutelage.pipeline.stages import search as search_stage
from tutelage.pipeline.stages.finalists import measure_finalists
from tutelage.pipeline.stages.measure import measure_all
from tutelage.pipeline.stages.publish import _latency_details
from tutelage.pipeline.stages.supernet import Supernet
from tutelage.pipeline.stages.training import SupernetInput
from tutelage.pipeline.stages.winners import choose_winners, slicing_of
from tutelage.pipeline.workspace import Workspace
from tutelage.records import Arch, Budget, DeviceProfile, InfeasibleBudgetError, InputError, Measurement
from tutelage.search import loop as evolve
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
CLASSES, CHANNELS = 4, 1
ARCHS = [SPACE.smallest(), SPACE.largest(), *SPACE.decode(SPACE.random(30, np.random.default_rng(0)))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with `phone`, out of reach, and `box`, this machine; both take MACs over 10^7 ms."""
    made = Workspace(tmp_path_factory.mktemp("w"))
    ms = count(ARCHS, CLASSES, CHANNELS).macs / 1e7
    table = made.path / "times.json"
    table.write_text(
        json.dumps([{"arch": arch.to_dict(), "ms": float(value)} for arch, value in zip(ARCHS, ms, strict=True)])
    )
    common: dict[str, Any] = {"runtime": "onnxruntime", "folder": made.path / "devices"}
    common |= {"num_classes": CLASSES, "in_channels": CHANNELS}
    import_profile("phone", table, **common)
    import_profile("box", table, host="local", **common)
    return made


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def ctx(workspace: Workspace, messages: list[str]) -> Context:
    recipe = Recipe.model_validate({"name": "r", "devices": [{"name": "phone"}, {"name": "box"}]})
    dataset: Any = SimpleNamespace(class_names=("a", "b", "c", "d"), multi_label=False, channels=CHANNELS)
    return Context(recipe, workspace, dataset, lambda text, *_: messages.append(text), 1)


@pytest.fixture
def devices(ctx: Context) -> tuple[Device, ...]:
    return tuple(
        open_device(ctx.workspace, section, SPACE, CLASSES, CHANNELS, ctx.report) for section in ctx.recipe.devices
    )


def _measured(raw: float, anchored: float, drift: float | None = 0.0) -> Measurement:
    return Measurement(
        device="box", runtime="onnxruntime", runtime_version="1", threads=1, batch=1, precision="fp32",
        effective_precision="fp32", samples_ms=(raw,), anchored_ms=anchored, drift=drift,
    )  # fmt: skip


class _Clock:
    """Stands for the measuring of files: gives each the same times, and keeps what it was asked."""

    def __init__(self, found: Measurement) -> None:
        self.found = found
        self.asked: list[tuple[str, float | None]] = []

    def __call__(
        self, models: Mapping[str, Path], profile: DeviceProfile, shape: Sequence[int], **options: Any
    ) -> dict[str, Measurement]:
        self.asked.append((profile.name, options["anchor_ms"]))
        return dict.fromkeys(models, self.found)


def _searched(ctx: Context, devices: Sequence[Device]) -> evolve.SearchResult:
    def error(archs: Sequence[Arch]) -> Any:
        return 1 / count(archs, CLASSES, CHANNELS).macs

    names = {device.name for device in devices}
    sections = tuple(section for section in ctx.recipe.devices if section.name in names)
    ctx = replace(ctx, recipe=ctx.recipe.model_copy(update={"devices": sections}))
    return evolve.search(
        SPACE, objectives_of(read_objectives(ctx.recipe), devices, error), {}, strategy="random", evaluations=6, seed=0,
        num_classes=CLASSES, in_channels=CHANNELS, num_finalists=3,
    )  # fmt: skip


def _found(
    ctx: Context,
    devices: Sequence[Device],
    budget: Mapping[str, float],
    clock: _Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> search_stage.Found:
    """Verify the finalists of a quick search as a run does, the exports and the clock apart."""
    monkeypatch.setattr(finalists_stage, "measure", clock)
    monkeypatch.setattr(finalists_stage, "network_file", lambda net, runtime, folder, stem, *_: folder / stem)
    monkeypatch.setattr(finalists_stage, "extract", lambda net, arch: net)
    monkeypatch.setattr(SupernetInput, "load", lambda self, here: nn.Identity())
    file = FileInput(sha256="", path="")
    supernet = Supernet(SPACE, SupernetInput(space=SPACE.name, origin="", resolutions=(32,), weights=file))
    result = _searched(ctx, devices)
    ctx = replace(ctx, workspace=Workspace(tmp_path))  # where no finalist was measured before
    slicing = slicing_of(ctx, devices, tuple(result.objectives))

    def measured(archs: Sequence[Arch]) -> Any:
        return measure_finalists(ctx, supernet, devices, archs)

    choice = choose_winners(result, SPACE, devices, Budget(latency_ms=dict(budget)), slicing, measured)
    return search_stage.Found(choice, result, tmp_path, tuple(devices), slicing, tmp_path)


def _printed(ctx: Context, found: search_stage.Found, width: int = 400) -> str:
    console = Console(file=io.StringIO(), width=width)
    supernet: Any = SimpleNamespace(space=SPACE)
    print_search(Searched(ctx, found.devices, (), supernet, found), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_finalists_of_a_device_out_of_reach_are_predicted_and_those_of_one_here_measured(
    ctx: Context, devices: tuple[Device, ...], messages: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = _Clock(_measured(raw=7.5, anchored=6.5, drift=None))
    found = _found(ctx, devices, {"phone": 1e9, "box": 1e9}, clock, monkeypatch, tmp_path)
    assert clock.asked == [("box", None)]
    winner = found.winners[0]
    assert (winner.measured_ms, winner.p50_ms) == ({"box": 6.5}, {"box": 7.5})
    expected = count([winner.arch], CLASSES, CHANNELS).macs[0] / 1e7
    assert winner.predicted_ms == {name: pytest.approx(expected, rel=0.05) for name in ("phone", "box")}
    verified = json.loads(json.dumps(found.to_dict()))
    assert (verified["measured_on"], verified["predicted_on"]) == (["box"], ["phone"])
    assert verified["winners"][0]["measured_ms"] == {"box": 6.5}
    assert "finalists on phone: predicted, not measured" in messages
    words = _printed(ctx, found)
    assert "phone cannot be reached from here: its latencies are predicted, not measured" in words
    assert "box: drift unknown" in words
    row = next(line for line in words.splitlines() if winner.name in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")][-6:]
    assert cells[1:3] == ["not measured", "not measured"]
    assert cells[4:] == ["6.500", "7.500"]


def test_the_winners_of_one_device_fit_a_terminal_of_80_columns(
    ctx: Context, devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = _Clock(_measured(raw=7.5, anchored=6.5, drift=None))
    found = _found(ctx, devices[1:], {"box": 1e9}, clock, monkeypatch, tmp_path)
    words = _printed(ctx, found, width=80)
    assert "times on box" in words
    (row,) = (line for line in words.splitlines() if line.startswith("│") and found.winners[0].name in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[-2:] == ["6.500", "7.500"]
    assert all(cells)
    assert "…" not in words
    assert cells[3].endswith("M")  # with its unit: no cell is wrapped


def test_nothing_is_said_of_measuring_where_nothing_was_measured(
    ctx: Context, devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = _Clock(_measured(raw=7.5, anchored=6.5))
    found = _found(ctx, devices[:1], {"phone": 1e9}, clock, monkeypatch, tmp_path)
    assert not clock.asked
    assert "measured again" not in _printed(ctx, found)


@pytest.mark.parametrize(("raw", "anchored", "broke"), [(7.0, 5.0, 0), (5.0, 7.0, 6)])
def test_a_budget_is_broken_by_the_time_that_the_prediction_speaks_of(
    ctx: Context,
    devices: tuple[Device, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raw: float,
    anchored: float,
    broke: int,
) -> None:
    """The host runs 40 % slower (or faster) than when it was profiled: its raw medians are not the budget's."""
    (box,) = (device for device in devices if device.name == "box")
    box.model.anchor_ms = 0.8
    clock = _Clock(_measured(raw, anchored, raw / anchored - 1))
    if broke:
        with pytest.raises(InfeasibleBudgetError, match="all 6 finalists break the latency budget"):
            _found(ctx, (box,), {"box": 6.0}, clock, monkeypatch, tmp_path)
    else:
        found = _found(ctx, (box,), {"box": 6.0}, clock, monkeypatch, tmp_path)
        assert found.broke == 0
        assert "box ran 40.0% slower than when its profile was made" in _printed(ctx, found)
    assert set(clock.asked) == {("box", 0.8)}


def test_rows_of_a_device_out_of_reach_have_no_measurement(
    ctx: Context, devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(measure_stage, "measure", refuse)
    student = SimpleNamespace(arch=ARCHS[0])
    file = SimpleNamespace(sha256="0" * 64, path="net.onnx")
    variant: Any = SimpleNamespace(student=student, scheme="fp32", runtime="onnxruntime", file=file)
    assert measure_all(ctx, devices[0], [variant]) == {}
    with pytest.raises(AssertionError, match="measured"):
        measure_all(ctx, devices[1], [variant])


def test_a_rows_details_keep_predicted_and_measured_apart(devices: tuple[Device, ...]) -> None:
    def evaluated(scheme: str) -> Any:
        return SimpleNamespace(variant=SimpleNamespace(scheme=scheme, student=SimpleNamespace(subnet=ARCHS[5])))

    phone, box = devices
    predicted = [round(value, 4) for value in phone.predicted_ms(ARCHS[5]) or ()]
    assert _latency_details(phone, evaluated("fp32"), None) == {
        "predicted_ms": predicted,
        "latency": "predicted, not measured: the device cannot be reached from here",
    }
    found = _latency_details(box, evaluated("fp32"), _measured(raw=7.5, anchored=6.5, drift=None))
    # One that can be measured is predicted for another session, in a wider interval about the same time.
    low, mean, high = found.pop("predicted_ms")
    assert low < predicted[0] <= predicted[1] == mean <= predicted[2] < high
    assert found == {"anchored_ms": 6.5, "drift": "unknown"}
    # The profile is of fp32 files: it predicts no int8 file.
    assert _latency_details(box, evaluated("int8-ptq"), _measured(7.5, 6.5, 0.1)) == {"anchored_ms": 6.5, "drift": 0.1}


def test_every_verb_that_measures_refuses_a_device_out_of_reach(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"never read")
    out_of_reach = "phone cannot be reached from here"
    with pytest.raises(InputError, match=out_of_reach):
        bench_file(ctx.workspace, ctx.report, model=tmp_path / "net.onnx", device="phone", resolution=32)
    with pytest.raises(InputError, match=out_of_reach):
        check_device(ctx.workspace, ctx.report, "phone")
    with pytest.raises(InputError, match=out_of_reach):
        _clock(ctx, "phone", "onnxruntime", (1, 32, 32))


def test_a_device_that_is_not_this_machine_is_refused_by_a_run_and_its_images_by_bench(
    workspace: Workspace, tmp_path: Path
) -> None:
    place = Workspace(tmp_path / "w")
    profiles = place.path / "devices"
    profiles.mkdir()
    text = (workspace.path / "devices" / "box.yaml").read_text()
    cpu = next(line for line in text.splitlines() if line.startswith("cpu_model:"))
    (profiles / "box.yaml").write_text(text.replace(cpu, "cpu_model: Another CPU"))
    (profiles / "box.latency.json").write_bytes((workspace.path / "devices" / "box.latency.json").read_bytes())
    section = DeviceSection(name="box")
    with pytest.raises(InputError, match="box is a 'Another CPU', this machine has a"):
        open_device(place, section, SPACE, CLASSES, CHANNELS, lambda *_: None)
    with pytest.raises(InputError, match="box is a 'Another CPU', this machine has a"):
        name_device(place, section)
    (profiles / "far.yaml").write_text("name: far\nruntime: onnxruntime\nhost: me@there\n")
    (tmp_path / "net.onnx").write_bytes(b"never read")
    with pytest.raises(InputError, match="--images are timed on this machine, and device far is me@there"):
        bench_file(place, print, model=tmp_path / "net.onnx", device="far", resolution=32, images=tmp_path)


def test_a_device_out_of_reach_whose_rows_are_named_is_predicted(ctx: Context) -> None:
    phone = name_device(ctx.workspace, ctx.recipe.devices[0])
    assert phone.predicted_ms(ARCHS[0]) is not None
    assert name_device(ctx.workspace, ctx.recipe.devices[1]).predicted_ms(ARCHS[0]) is None


def test_int8_twins_are_where_their_device_is(
    ctx: Context, devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The int8 profile of a device out of reach is imported too, that of one behind ssh is measured there."""
    asked: list[DeviceRequest] = []

    def measured(workspace: Workspace, report: object, request: DeviceRequest) -> DeviceProfile:
        asked.append(request)
        raise InputError("asked")

    monkeypatch.setattr("tutelage.pipeline.device.measure_device", measured)
    weighed = ctx.recipe.search.model_copy(update={"objectives": ("error", "latency_ms@phone:int8")})
    ctx = replace(ctx, recipe=ctx.recipe.model_copy(update={"search": weighed}))
    phone = devices[0]
    with pytest.raises(InputError, match=r"phone-int8 cannot be measured: import it .*--from-measurements FILE"):
        weighed_devices(ctx, SPACE, (phone,))
    behind = Device(phone.profile.model_copy(update={"host": "me@there"}), phone.folder, phone.latency)
    with pytest.raises(InputError, match="asked"):
        weighed_devices(ctx, SPACE, (behind,))
    assert [(request.name, request.ssh) for request in asked] == [("phone-int8", "me@there")]


def test_where_times_were_taken_is_said_once(workspace: Workspace) -> None:
    request = DeviceRequest("tv", "onnxruntime", SPACE, CLASSES, CHANNELS, here=True)
    with pytest.raises(InputError, match="--here says where the times of --from-measurements were taken"):
        add_device(workspace, lambda *_: None, request)
    with pytest.raises(InputError, match="--ssh and --here are given: the device is reached in one way"):
        add_device(
            workspace, lambda *_: None, DeviceRequest("tv", "onnxruntime", SPACE, 4, 1, ssh="me@tv", here=True), Path()
        )


def test_a_number_of_networks_stands_for_the_table_of_blocks(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[tuple[int, bool]] = []

    def made(*names: str, num_nets: int, export_block: object, **options: object) -> None:
        passed.append((num_nets, export_block is not None))

    monkeypatch.setattr("tutelage.pipeline.operations.devices.make_profile", made)
    for nets in (None, 6):
        add_device(workspace, lambda *_: None, DeviceRequest("tv", "onnxruntime", SPACE, 4, 1, nets=nets))
    assert passed == [(8, True), (6, False)]


def test_an_unknown_drift_is_said() -> None:
    console = Console(file=io.StringIO(), width=300)
    profile = DeviceProfile(name="box", runtime="onnxruntime")
    print_drift(DeviceCheck(profile, None, 0.03, 1.0, True, Correction(1.0, 0.9, 1.1, 6, 0.02)), console)
    print_figures({"drift": None, "energy_mj": None}, console)
    assert isinstance(console.file, io.StringIO)
    words = console.file.getvalue()
    assert words.startswith("Drift unknown: no anchor nets were measured with the profile. box holds")
    assert [line.split(maxsplit=1)[1] for line in words.splitlines()[1:]] == ["unknown", "not measured"]


def test_the_best_winner_is_chosen_within_the_recipes_margin(
    ctx: Context, devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _found(ctx, devices[:1], {}, _Clock(_measured(1.0, 1.0)), monkeypatch, tmp_path)
    exact, small = SPACE.largest(), SPACE.smallest()
    winners = tuple(
        replace(found.winners[0], name=name, arch=arch, error=error, expected=error, measured_ms={})
        for name, arch, error in (("exact", exact, 0.1), ("small", small, 0.115))
    )
    for margin, best in ((0.01, "exact"), (0.02, "small")):
        measure = ctx.recipe.measure.model_copy(update={"margin": margin})
        here = replace(ctx, recipe=ctx.recipe.model_copy(update={"measure": measure}))
        assert f"Best winner by validation, before its training: {best}" in _printed(
            here, replace(found, choice=replace(found.choice, winners=winners))
        )
