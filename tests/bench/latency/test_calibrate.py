"""Fitting a device: sessions average what fresh loads change, files are made once, an unsteady device is refused."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.latency import calibrate as module
from tutelage.bench.latency.calibrate import calibrate, combine_sessions
from tutelage.bench.protocol.measure import Job, TimedJobs
from tutelage.records import Arch, DeviceProfile, Measurement, UnsteadyDeviceError
from tutelage.search.costs.counts import BlockSpec, count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))


def test_what_a_session_has_in_common_is_not_the_nets():
    ms = np.log([1.0, 2.0, 3.0, 4.0, 5.0])
    sessions = [{f"net {i}": value + shift for i, value in enumerate(ms)} for shift in (0.1, -0.1)]
    labels, errors = combine_sessions(sessions)
    np.testing.assert_allclose(list(labels.values()), np.exp(ms), rtol=1e-9)
    assert max(errors.values()) < 1e-9


def test_a_net_that_joins_later_is_put_on_the_scale_of_all_sessions():
    ms = np.log([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    first = {f"net {i}": ms[i] + 0.2 for i in range(5)}
    second = {f"net {i}": ms[i] - 0.2 for i in range(6)}
    labels, _ = combine_sessions([first, second])
    np.testing.assert_allclose(labels["net 5"], 9.0, rtol=1e-9)


def test_stated_label_noise_is_the_spread_of_the_labels():
    rng = np.random.default_rng(0)
    stated, seen = [], []
    for _ in range(40):
        sessions = [{f"net {i}": 0.02 * rng.standard_normal() for i in range(30)} for _ in range(3)]
        labels, errors = combine_sessions(sessions)
        stated.append(np.sqrt(np.mean(np.square(list(errors.values())))))
        seen.append(np.std(np.log(list(labels.values()))))
    assert np.mean(stated) == pytest.approx(np.mean(seen), rel=0.1)
    assert np.mean(stated) == pytest.approx(0.02 / math.sqrt(3), rel=0.1)


class _Laboratory:
    """Times in place of a runtime's: proportional to MACs, each load off by `spread`; keeps what was asked."""

    def __init__(self, spread: float) -> None:
        self.spread, self.rng = spread, np.random.default_rng(3)
        self.sessions: list[list[str]] = []
        self.ms: dict[Path, float] = {}

    def export(self, arch: Arch, path: Path) -> None:
        self.ms[path] = float(count([arch]).macs[0]) / 1e7 + 0.2

    def export_block(self, spec: BlockSpec, path: Path) -> None:
        self.ms[path] = spec.macs / 1e7 + 0.01

    def session(self, jobs: list[Job], *_: object, **__: object) -> TimedJobs:
        self.sessions.append([job.name for job in jobs])
        found = {}
        for job in jobs:
            off = self.spread * self.rng.standard_normal() if job.must_be_steady else 0.0
            found[job.name] = Measurement(
                device="x", runtime="onnxruntime", runtime_version="1", threads=1, batch=1, precision="fp32",
                effective_precision="fp32", samples_ms=(1.0,), anchored_ms=self.ms[job.path] * math.exp(off),
                created="2026-01-01T00:00:00Z",
            )  # fmt: skip
        return TimedJobs(found, 0.0, 1.0, 1, "a processor")


def fit(laboratory: _Laboratory, monkeypatch: pytest.MonkeyPatch, **options: object) -> module.Calibration:
    monkeypatch.setattr(module, "_session", laboratory.session)
    held = SPACE.decode(SPACE.random(5, np.random.default_rng(9)))
    return calibrate(
        DeviceProfile(name="x", runtime="onnxruntime"), SPACE, num_classes=10, in_channels=3,
        export=laboratory.export, export_block=laboratory.export_block, held_out=held, **options,
    )  # fmt: skip


def test_stops_when_the_error_is_small_and_measures_the_table_once(monkeypatch: pytest.MonkeyPatch):
    laboratory = _Laboratory(0.001)
    found = fit(laboratory, monkeypatch, num_nets=8, max_nets=20)
    assert found.sessions == module.MIN_SESSIONS
    assert len(found.nets) == 8
    assert [sum(name.startswith("block") for name in session) for session in laboratory.sessions] == [43, 0]
    assert [sum(name.startswith("held") for name in session) for session in laboratory.sessions] == [5, 5]
    assert found.model.error < 0.01
    assert found.label_noise < 0.002


def test_goes_on_with_the_nets_it_knows_least_where_the_error_is_not_small(monkeypatch: pytest.MonkeyPatch):
    laboratory = _Laboratory(0.05)
    found = fit(laboratory, monkeypatch, num_nets=6, max_nets=12)
    assert found.sessions > module.MIN_SESSIONS
    assert len(found.nets) == 12
    assert len(set(found.nets)) == 12
    assert laboratory.sessions[0][:3] != laboratory.sessions[1][:3]  # loaded in another order


def test_labels_are_on_the_scale_of_the_anchors_that_the_model_keeps(monkeypatch: pytest.MonkeyPatch):
    """The host is 30 % slower from the second session on, nets and anchors alike: the anchors tell."""
    laboratory = _Laboratory(0.001)

    def session(
        jobs: list[Job],
        profile: DeviceProfile,
        seconds: float,
        seed: int,
        progress: object,
        anchor_ms: float | None,
        launcher: object,
    ) -> TimedJobs:
        here = 1.3 if laboratory.sessions else 1.0
        pace = here * (anchor_ms / here if anchor_ms else 1.0)
        timed = _Laboratory.session(laboratory, jobs)
        shifted = {
            name: value.model_copy(update={"anchored_ms": value.anchored_ms * pace})
            for name, value in timed.measurements.items()
        }
        return TimedJobs(shifted, 0.0, here, 1, "a processor")

    monkeypatch.setattr(laboratory, "session", session)
    found = fit(laboratory, monkeypatch, num_nets=8, max_nets=8)
    assert found.model.anchor_ms == 1.0
    true_ms = count(found.nets).macs / 1e7 + 0.2
    np.testing.assert_allclose(found.net_ms, true_ms, rtol=0.01)


def test_the_time_of_held_out_nets_is_not_the_models(monkeypatch: pytest.MonkeyPatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: clock["now"])
    laboratory = _Laboratory(0.05)
    original = laboratory.session

    def session(jobs: list[Job], profile: DeviceProfile, seconds: float, *_: object) -> TimedJobs:
        clock["now"] += 1.0 * len(jobs)
        return original(jobs)

    monkeypatch.setattr(laboratory, "session", session)
    found = fit(laboratory, monkeypatch, num_nets=6, max_nets=6, minutes=2.0, small_error=0.0)
    held, anchors = 5, 6
    jobs = [len(names) for names in laboratory.sessions]
    assert jobs == [6 + held + 43, *[6 + held] * (found.sessions - 1)]
    own = sum(each * (1 - held / (each + anchors)) for each in jobs)
    assert found.own_seconds == pytest.approx(own)
    assert found.seconds == pytest.approx(sum(jobs))
    another = jobs[-1] * (1 - held / (jobs[-1] + anchors))
    assert own <= 120 < own + another  # the time was kept, and used
    assert 0.3 * found.label_noise < found.held_out_noise < 3 * found.label_noise


def test_all_sessions_go_over_one_way_to_the_device(monkeypatch: pytest.MonkeyPatch):
    opened, given = [], []

    @contextlib.contextmanager
    def launcher_of(profile: DeviceProfile) -> Iterator[str]:
        opened.append(profile.name)
        yield "the way"

    laboratory = _Laboratory(0.05)
    original = laboratory.session

    def session(jobs: list[Job], *others: object) -> TimedJobs:
        given.append(others[-1])
        return original(jobs)

    monkeypatch.setattr(module, "launcher_of", launcher_of)
    monkeypatch.setattr(laboratory, "session", session)
    found = fit(laboratory, monkeypatch, num_nets=6, max_nets=6)
    assert opened == ["x"]
    assert given == ["the way"] * found.sessions
    assert found.sessions >= module.MIN_SESSIONS


def test_a_device_whose_times_stay_apart_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnsteadyDeviceError, match=rf"after {module.MAX_SESSIONS} sessions .*allowed 5%"):
        fit(_Laboratory(0.4), monkeypatch, num_nets=6, max_nets=6, tolerance=0.05)
