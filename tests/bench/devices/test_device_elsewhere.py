"""Profiles of measurements from elsewhere, and checks of a device later: drift, new versions, another scale."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.devices import check as check_module
from tutelage.bench.devices.check import check_profile, reanchor
from tutelage.bench.devices.device import (
    load_latency_model,
    read_profile,
    write_profile,
)
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.host import describe_host
from tutelage.bench.protocol.measure import Job, TimedJobs, measure, measure_jobs
from tutelage.bench.protocol.offline import measure_throughput
from tutelage.bench.protocol.worker import launch_local
from tutelage.records import Arch, DeviceProfile, InputError, Measurement
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write measurements of 30 nets at 20 GMAC/s, changed as `option` says."""
    archs = SPACE.decode(SPACE.random(30, np.random.default_rng(0)))
    ms = count(archs).macs / 2e7 + 0.1

    def write(change: Callable[[np.ndarray], np.ndarray] = lambda ms: ms, header: str = "arch,ms") -> Path:
        rows = [
            '"{}",{}'.format(json.dumps(arch.to_dict()).replace('"', '""'), value)
            for arch, value in zip(archs, change(ms.copy()), strict=False)
        ]
        path = tmp_path / "times.csv"
        path.write_text("\n".join([header, *rows]))
        return path

    return write


def _elsewhere(profile: DeviceProfile, folder: Path) -> list[Callable[[], object]]:
    """List every way to measure on a profile."""

    def export(*_: object) -> None:
        raise AssertionError("something was exported for a device out of reach")

    net = folder / "net.onnx"
    net.write_bytes(anchor_onnx(ANCHORS[0]))
    shape = (ANCHORS[0].channels, ANCHORS[0].side, ANCHORS[0].side)
    return [
        lambda: measure({"net": net}, profile, shape),
        lambda: measure({"net": net}, profile, shape, launcher=launch_local),
        lambda: measure_jobs([Job("net", net, (1, *shape))], profile),
        lambda: measure_throughput(net, profile, shape),
        lambda: measure_throughput(net, profile, shape, launcher=launch_local),
        lambda: check_profile(profile, folder, space=SPACE, export=export),
    ]


def test_imported_measurements_make_a_device_out_of_reach_that_nothing_measures_here(
    write_csv: Callable[..., Path], tmp_path: Path
):
    profile = import_profile("phone", write_csv(), runtime="onnxruntime", folder=tmp_path)
    assert not profile.reachable
    assert read_profile(tmp_path / "phone.yaml") == profile
    for attempt in _elsewhere(profile, tmp_path):
        with pytest.raises(InputError, match=r"phone cannot be reached from here \(host: unreachable\)"):
            attempt()


def test_an_old_profile_of_imported_measurements_is_out_of_reach_and_a_measured_one_is_not(tmp_path: Path):
    """As they were written before a profile said so: `host: local`, and nothing that measuring fills in."""
    written = "name: phone\nruntime: litert\nhost: local\nlatency_model: phone.latency.json\nmodel_error: 0.05\n"
    path = tmp_path / "phone.yaml"
    for added, reachable in (
        ("", False),
        ("cpu_model: This one\n", True),
        ("steadiness: 0.0\n", True),
        ("runtime_version: '1.2'\n", True),
    ):
        path.write_text(written + added)
        assert read_profile(path).reachable is reachable
    path.write_text(written.replace("host: local", "host: me@there"))
    assert read_profile(path).host == "me@there"
    path.write_text("name: phone\nruntime: litert\n")  # by hand, without a latency model: measured here
    assert read_profile(path).local


def test_who_imports_says_how_the_device_is_reached(write_csv: Callable[..., Path], tmp_path: Path):
    here = import_profile("here", write_csv(), runtime="onnxruntime", folder=tmp_path, host="local")
    assert here.cpu_model == describe_host()["cpu_model"]
    assert read_profile(tmp_path / "here.yaml").local
    there = import_profile("there", write_csv(), runtime="onnxruntime", folder=tmp_path, host="me@there")
    assert (there.host, read_profile(tmp_path / "there.yaml").reachable) == ("me@there", True)
    box = import_profile("box", write_csv(), runtime="onnxruntime", folder=tmp_path, command="docker run {runner}")
    assert (box.host, box.reachable, box.local) == ("local", True, False)


def test_a_local_profile_of_another_processor_is_refused_before_anything_is_measured(
    write_csv: Callable[..., Path], tmp_path: Path
):
    imported = import_profile("copied", write_csv(), runtime="onnxruntime", folder=tmp_path)
    profile = imported.model_copy(update={"host": "local", "cpu_model": "Another CPU"})
    for attempt in _elsewhere(profile, tmp_path):
        with pytest.raises(InputError, match=r"copied is a 'Another CPU', this machine has a '.*write `host: unreach"):
            attempt()


def measured_now(
    monkeypatch: pytest.MonkeyPatch, model: LatencyModel, factors: list[float], anchor_ms: float, version: str = "1"
) -> None:
    """Let the nets that are measured take these factors times what the model predicts, in turns."""

    def measured(profile: DeviceProfile, archs: list[Arch], **_: object) -> tuple[TimedJobs, np.ndarray]:
        found = Measurement(
            device="x", runtime="onnxruntime", runtime_version=version, threads=1, batch=1, precision="fp32",
            effective_precision="fp32", samples_ms=(1.0,), processor="Card, driver 2",
        )  # fmt: skip
        timed = TimedJobs({"net": found}, 0.0, anchor_ms, 1, "a processor", "Linux 7")
        return timed, model.predict(archs)[0] * np.resize(factors, len(archs))

    monkeypatch.setattr(check_module, "measure_nets", measured)


@pytest.mark.parametrize(("anchor_ms", "drift", "holds"), [(None, None, True), (2.0, 0.05, True), (1.0, 1.1, False)])
def test_a_check_without_anchors_knows_no_drift(
    write_csv: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anchor_ms: float | None,
    drift: float | None,
    holds: bool,
):
    profile = import_profile("box", write_csv(), runtime="onnxruntime", folder=tmp_path, host="local")
    model = load_latency_model(profile, tmp_path)
    model.anchor_ms = anchor_ms
    model.save(tmp_path / profile.latency_model)
    measured_now(monkeypatch, model, [1.0], 2.1)
    found = check_profile(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.drift == (None if drift is None else pytest.approx(drift))
    assert found.holds is holds
    assert found.changes == ()  # an imported profile says nothing of its versions


def anchored(write_csv: Callable[..., Path], folder: Path) -> tuple[DeviceProfile, LatencyModel]:
    """A profile whose model has anchors and whose versions are known."""
    profile = import_profile("box", write_csv(), runtime="onnxruntime", folder=folder, host="local")
    model = load_latency_model(profile, folder)
    model.anchor_ms = 2.0
    versions = {"runtime_version": "1", "system": "Linux 6", "processor": "Card, driver 1"}
    profile = profile.model_copy(update=versions)
    write_profile(profile, folder, model)
    return profile, model


def test_a_check_names_what_changed_and_the_factor_of_all_nets(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [1.2, 1.25, 1.22], 2.0, version="2")
    found = check_profile(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.changes == (
        "onnxruntime was 1, is 2", "system was Linux 6, is Linux 7",
        "processor was Card, driver 1, is Card, driver 2",
    )  # fmt: skip
    assert found.correction.low < 1.22 < found.correction.high
    assert not found.holds
    assert not found.reanchored
    assert load_latency_model(profile, tmp_path).to_dict() == model.to_dict()  # nothing was filed


def test_three_nets_give_a_model_the_scale_and_the_versions_of_now(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Anchors 10 % slower, and all nets 20 % slower than these say: 32 % in all."""
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [1.19, 1.21, 1.2], 2.2, version="2")
    found = reanchor(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.drift == pytest.approx(0.1)
    assert found.correction.num_nets == 3
    again = load_latency_model(found.profile, tmp_path)
    archs = SPACE.decode(SPACE.random(5, np.random.default_rng(3)))
    np.testing.assert_allclose(again.predict(archs)[0], 1.32 * model.predict(archs)[0], rtol=0.015)
    assert again.anchor_ms == 2.2
    assert model.session is not None
    assert again.session is not None
    assert again.session.common > 1.2 * model.session.common  # 20 % is far beyond what was expected
    filed = read_profile(tmp_path / "box.yaml")
    assert filed == found.profile
    assert (filed.runtime_version, filed.system, bool(filed.reanchored)) == ("2", "Linux 7", True)
    measured_now(monkeypatch, again, [1.01, 0.99, 1.0], 2.2, version="2")
    after = check_profile(filed, tmp_path, space=SPACE, export=lambda *_: None)
    assert after.holds
    assert after.changes == ()


def test_nets_that_no_factor_brings_together_leave_the_profile_as_it_is(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [0.7, 1.4, 1.0], 2.0)
    with pytest.raises(InputError, match=r"3 networks take 0.70, 1.40, 1.00 times what box predicts.* `tutelage devic"):
        reanchor(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert load_latency_model(profile, tmp_path).to_dict() == model.to_dict()
    assert read_profile(tmp_path / "box.yaml") == profile


def test_measurements_from_elsewhere_make_a_profile(write_csv: Callable[..., Path], tmp_path: Path):
    profile = import_profile("phone", write_csv(), runtime="onnxruntime", folder=tmp_path)
    assert read_profile(tmp_path / "phone.yaml") == profile
    archs = SPACE.decode(SPACE.random(20, np.random.default_rng(1)))
    mean, _, _ = load_latency_model(profile, tmp_path).predict(archs)
    np.testing.assert_allclose(mean, count(archs).macs / 2e7 + 0.1, rtol=0.03)
    as_json = tmp_path / "times.json"
    as_json.write_text(
        json.dumps([{"arch": arch.to_dict(), "ms": value} for arch, value in zip(archs, mean, strict=True)])
    )
    assert import_profile("tv", as_json, runtime="onnxruntime", folder=tmp_path).spaces == (SPACE.name,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ms: np.where(np.arange(30) == 4, 0, ms), "measurement 5: ms is '0.0'"),
        (lambda ms: np.where(np.arange(30) == 4, np.nan, ms), "measurement 5: ms is 'nan'"),
        (lambda ms: np.where(np.arange(30) == 4, 1000 * ms, ms), "mixed units"),
        (lambda ms: 1000 * ms, "look like microseconds"),
        (lambda ms: ms / 1000, "look like seconds"),
        (lambda ms: ms[:4], "4 measured nets are too few"),
        (lambda ms: 0 * ms + 1, "equal times"),
    ],
)
def test_bad_measurements_are_refused(write_csv: Callable[..., Path], tmp_path: Path, change, message: str):
    with pytest.raises(InputError, match=message):
        import_profile("phone", write_csv(change), runtime="onnxruntime", folder=tmp_path)
    assert not (tmp_path / "phone.yaml").exists()


def test_a_file_without_the_columns_is_refused(write_csv: Callable[..., Path], tmp_path: Path):
    with pytest.raises(InputError, match="must have the columns arch \\(or ks"):
        import_profile("phone", write_csv(header="net,time"), runtime="onnxruntime", folder=tmp_path)
