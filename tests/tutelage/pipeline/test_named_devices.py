"""Devices that a command names: found by profile, never hindered by another profile, refused where they are no use."""

from pathlib import Path

import pytest

from tutelage.bench.devices.profiles import write_profile
from tutelage.pipeline.device import open_device
from tutelage.pipeline.operations.single_stage import named_devices
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.workspace import Workspace
from tutelage.records import DeviceProfile, InputError
from tutelage.search.spaces.space import SPACES


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the device `box`, which a run of named students wrote, and one whose runtime is gone."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    write_profile(DeviceProfile(name="box", runtime="onnxruntime"), tmp_path / "devices")
    (tmp_path / "devices" / "old.yaml").write_text("name: old\nruntime: gone\n")
    return Workspace(tmp_path)


def test_a_profile_that_cannot_be_used_hinders_its_own_name_alone(workspace: Workspace) -> None:
    recipe = Recipe.model_validate({"name": "r", "title": "t", "data": {"dataset": "phantom"}})
    assert [section.name for section in named_devices(recipe, ["box"], None, workspace.path)] == ["box"]
    with pytest.raises(InputError, match="unknown runtime 'gone'"):
        named_devices(recipe, ["old"], None, workspace.path)
    with pytest.raises(InputError, match=r"no device 'bax': known are .*box, old \(did you mean 'box'\?\)"):
        named_devices(recipe, ["bax"], None, workspace.path)


def test_a_search_refuses_a_device_without_a_latency_model(workspace: Workspace) -> None:
    section = DeviceSection(name="box", runtime="onnxruntime")
    with pytest.raises(InputError, match=r"box was measured without a latency model.*tutelage device remove box"):
        open_device(workspace, section, SPACES["ofa_mbv3_w1.0"], 2, 3, lambda what, done, total: None)
