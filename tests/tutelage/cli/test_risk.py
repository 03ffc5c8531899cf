"""A latency budget is held against the end of the model's interval that the user's risk names."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.latency.model import LatencyModel
from tutelage.pipeline.device import Device, open_device
from tutelage.pipeline.objectives import upper_latency
from tutelage.pipeline.operations.devices import DeviceRequest
from tutelage.pipeline.operations.single_stage import named_devices
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.records import DeviceProfile, InputError
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))


def test_less_risk_weighs_a_longer_latency_and_the_default_is_the_90_percent_interval():
    rng = np.random.default_rng(0)
    archs = SPACE.decode(SPACE.random(30, rng))
    ms = count(archs).macs / 1e7 * rng.uniform(0.9, 1.1, 30)
    model = LatencyModel.fit(archs[:20], ms[:20])
    profile = DeviceProfile(name="box", runtime="onnxruntime")
    ends = [upper_latency(model, risk)(archs) for risk in (0.01, 0.05, 0.2, 0.45)]
    for longer, shorter in itertools.pairwise(ends):
        assert (longer > shorter).all()
    assert (ends[-1] > model.predict(archs)[0]).all()
    np.testing.assert_array_equal(
        upper_latency(model, Device(profile, Path(), model).risk)(archs), model.predict(archs)[2]
    )


def test_what_the_model_does_not_cover_has_no_prediction():
    archs = SPACE.decode(SPACE.random(20, np.random.default_rng(0)))
    model = LatencyModel.fit(archs, count(archs).macs / 1e7)
    device = Device(DeviceProfile(name="box", runtime="onnxruntime"), Path(), model)
    low, mean, high = device.predicted_ms(archs[0])
    assert low < mean < high
    assert device.predicted_ms(SPACES["ofa_mbv3_w1.2"].with_resolutions((32,)).smallest()) is None
    assert device.predicted_ms(SPACES["ofa_mbv3_w1.0"].with_resolutions((48,)).smallest()) is None
    assert Device(device.profile, Path(), None).predicted_ms(archs[0]) is None


def test_the_risk_of_a_verb_goes_to_its_devices_and_nonsense_is_refused(tmp_path: Path):
    recipe = Recipe.model_validate({"name": "x", "devices": [{"name": "box", "risk": 0.2}, {"name": "bag"}]})
    assert [section.risk for section in named_devices(recipe, (), None, tmp_path)] == [0.2, 0.05]
    assert [section.risk for section in named_devices(recipe, ("bag",), "3ms", tmp_path, 0.01)] == [0.01]
    for risk in (0.0, 0.5, 5.0):
        with pytest.raises(InputError, match=rf"risk is {risk}: .*above 0 and below 0\.5"):
            named_devices(recipe, (), None, tmp_path, risk)
    with pytest.raises(ValueError, match=r"less than 0\.5"):
        DeviceSection(name="box", risk=0.7)


def test_the_minutes_of_a_device_bound_its_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[DeviceRequest] = []

    def refuse(workspace: Workspace, report: Report, request: DeviceRequest) -> DeviceProfile:
        asked.append(request)
        raise InputError("asked")

    monkeypatch.setattr("tutelage.pipeline.device.measure_device", refuse)
    section = DeviceSection(name="box", minutes=0.5)
    with pytest.raises(InputError, match="asked"):
        open_device(Workspace(tmp_path), section, SPACE, 2, 1, lambda *_: None)
    assert asked[0].minutes == 0.5
    with pytest.raises(ValueError, match="greater than 0"):
        DeviceSection(name="box", minutes=0)
