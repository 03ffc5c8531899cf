"""Transfer from other devices: what it gains, when it is refused, which networks it measures, and its round trip."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.devices.entries import find_entry, transfer_sources
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.devices.profiles import load_latency_model
from tutelage.bench.devices.table import read_table, write_table
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.transfer import MIN_TRANSFER_NETS, choose_nets, covering, transfer
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((128, 160, 192, 224))


@pytest.fixture(scope="module")
def archs() -> list[Arch]:
    return SPACE.decode(SPACE.random(180, np.random.default_rng(0)))


def _times(archs: list[Arch], a: float, b: float, noise: float, seed: int) -> np.ndarray:
    """A device that takes `a` ms for 10 M MACs and `b` ms for each block, each time off by `noise`."""
    ms = a * count(archs).macs / 1e7 + b * np.array([sum(arch.d) for arch in archs])
    return ms * np.exp(noise * np.random.default_rng(seed).standard_normal(len(archs)))


@pytest.fixture(scope="module")
def sources(archs: list[Arch]) -> dict[str, LatencyModel]:
    """Two devices, one bound by arithmetic and one by calls, each known by 30 networks."""
    return {
        name: LatencyModel.fit(archs[:30], _times(archs[:30], a, b, 0.01, seed))
        for seed, (name, a, b) in enumerate((("big", 0.02, 0.02), ("small", 0.2, 0.01)))
    }


def test_a_device_between_two_known_ones_is_known_from_ten_nets(
    archs: list[Arch], sources: dict[str, LatencyModel]
) -> None:
    """Times off by 8 %: eight weights of counts follow the noise, two of devices do not."""
    train, test = archs[100:110], archs[110:]
    true, helped, errors = _times(test, 0.1, 0.015, 0.0, 0), [], []
    for seed in range(2):
        ms = _times(train, 0.1, 0.015, 0.08, seed)
        found = transfer(train, ms, sources)
        assert found.sources == ("big", "small")
        helped.append(found.helped)
        models = (LatencyModel.fit(train, ms, sources=sources), LatencyModel.fit(train, ms))
        errors.append([float(np.mean(np.abs(model.predict(test)[0] / true - 1))) for model in models])
        assert found.summary().startswith("transferred from big, small: error ") == found.helped
    assert any(helped)
    assert np.mean(errors, axis=0)[0] < 0.9 * np.mean(errors, axis=0)[1]


def test_a_device_unlike_the_known_ones_is_fitted_afresh_and_it_is_said(
    archs: list[Arch], sources: dict[str, LatencyModel]
) -> None:
    """Its times follow the parameters, of which neither source knows anything."""
    train = archs[100:120]
    ms = count(train).params / 1e5 * np.exp(0.01 * np.random.default_rng(0).standard_normal(20))
    found = transfer(train, ms, sources)
    assert not found.helped
    assert found.error > found.error_afresh == found.model.error
    # By more than the standard error of the differences, net by net.
    worse = LatencyModel.fit(train, ms, sources=sources).held_out_errors - found.model.held_out_errors
    assert worse.mean() == pytest.approx(found.error - found.error_afresh)
    assert worse.mean() > worse.std(ddof=1) / len(worse) ** 0.5
    assert "not transferred, fitted afresh on its own 20 networks: from big, small the error is" in found.summary()


def test_sources_that_do_not_cover_the_networks_are_left_out(
    archs: list[Arch], sources: dict[str, LatencyModel]
) -> None:
    other = SPACES["mbconv_small_w1.0"].with_resolutions((64,))
    nets = other.decode(other.random(12, np.random.default_rng(0)))
    stranger = LatencyModel.fit(nets, count(nets).macs / 1e7 + 0.1)
    assert list(covering({**sources, "stranger": stranger}, archs)) == ["big", "small"]
    with pytest.raises(InputError, match=r"no device to transfer from predicts mbconv_small_w1.0 at 64 px \(big: ofa"):
        covering(sources, nets)
    with pytest.raises(InputError, match="9 networks are too few to choose between"):
        transfer(archs[:9], _times(archs[:9], 0.1, 0.01, 0.01, 0), sources)


def test_few_networks_weigh_few_sources(archs: list[Arch], sources: dict[str, LatencyModel]) -> None:
    """Three networks a source: of five, ten networks keep the three that rank them best."""
    odd = {f"odd {i}": LatencyModel.fit(archs[:12], np.random.default_rng(i).uniform(1, 2, 12)) for i in range(3)}
    found = transfer(archs[100:110], _times(archs[100:110], 0.1, 0.015, 0.01, 5), {**odd, **sources})
    assert len(found.sources) == 3
    assert {"big", "small"} <= set(found.sources)


def test_a_transferred_model_is_saved_whole(
    archs: list[Arch], sources: dict[str, LatencyModel], tmp_path: Path
) -> None:
    model = transfer(archs[100:110], _times(archs[100:110], 0.1, 0.015, 0.01, 5), sources).model
    model.save(tmp_path / "m.json")
    again = LatencyModel.load(tmp_path / "m.json")
    for mine, theirs in zip(model.predict(archs), again.predict(archs), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not again.covers(archs[0].replace(r=64))  # no source was measured there
    with pytest.raises(InputError, match="format 2 is not 4"):
        LatencyModel.from_dict({**model.to_dict(), "format": 2})


def test_the_prior_is_a_source_but_for_a_factor(archs: list[Arch], sources: dict[str, LatencyModel]) -> None:
    """Three times one source, each time off by 10 %: with slopes of their own the ten would follow that noise."""
    train, test = archs[100:110], archs[110:]
    true = 3 * sources["small"].predict(test)[0]
    errors = []
    for seed in range(3):
        ms = 3 * sources["small"].predict(train)[0] * np.exp(0.1 * np.random.default_rng(seed).standard_normal(10))
        ratio = LatencyModel.fit(train, ms, sources=sources).predict(test)[0] / true
        errors.append(float(np.std(np.log(ratio))))
    assert max(errors) < 0.05  # the level is off by up to 10 % / sqrt(10), the order of networks hardly


def test_many_networks_let_the_counts_speak(archs: list[Arch], sources: dict[str, LatencyModel]) -> None:
    """A device whose times follow the parameters, which no source knows: 60 networks correct what ten believe."""
    true = (count(archs).params / 1e5) ** 0.5
    errors = []
    for num in (10, 60):
        model = LatencyModel.fit(archs[:num], true[:num], sources=sources)
        errors.append(float(np.mean(np.abs(model.predict(archs[100:])[0] / true[100:] - 1))))
    assert errors[1] < 0.5 * errors[0]


def test_nets_are_chosen_once_each_and_stand_for_all(archs: list[Arch]) -> None:
    chosen = choose_nets([*archs, *archs], 10, 1000, 3)
    nets = [[*archs, *archs][index] for index in chosen]
    assert len(set(nets)) == 10
    # Any network lies nearer to one of them than to one of ten that are drawn.
    counts, order = count(archs), np.random.default_rng(0)
    logs = np.log(np.stack([counts.macs, counts.params, counts.activations], 1))
    logs /= logs.std(axis=0)

    def away(places: Sequence[int]) -> float:
        return float(np.linalg.norm(logs[:, None] - logs[None, list(places)], axis=2).min(axis=1).mean())

    drawn = [away(order.choice(len(archs), 10, replace=False)) for _ in range(200)]
    assert away([archs.index(net) for net in nets]) < np.quantile(drawn, 0.25)


def test_a_file_is_transferred_by_the_command_line(
    archs: list[Arch],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., int],
) -> None:
    """From the catalogue's entries of one card, ten nets of the file; the others say how good it is."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    entry = find_entry("titan-rtx-b64")
    ms = 1.7 * load_latency_model(entry.profile, entry.folder).predict(archs[:24])[0]
    write_table(tmp_path / "times.csv", archs[:24], ms * np.exp(0.01 * np.random.default_rng(0).standard_normal(24)))
    common = ["--from-measurements", str(tmp_path / "times.csv"), "--runtime", "torch-cuda", "--classes", "1000"]
    common += ["--channels", "3", "-w", str(tmp_path / "ws"), "--batch", "64"]
    sources = ["--source", "titan-rtx-b64", "--source", "rtx-2080-ti-b64"]
    assert command("device", "add", "far", "--transfer", "--nets", "10", *sources, *common) == 0
    assert "transferred from titan-rtx-b64, rtx-2080-ti-b64: error" in caplog.text
    assert "on 14 other measurements of the file the error is" in caplog.text
    assert len(read_table(tmp_path / "ws" / "devices", "far").archs) == 10
    for arguments, message in (
        (["--transfer", "--nets", "8"], f"--transfer takes {MIN_TRANSFER_NETS} networks or more"),
        (["--source", "titan-rtx"], "--source says what --transfer transfers from"),
    ):
        assert command("device", "add", "other", *arguments, *common) == 2
        assert message in capsys.readouterr().err
    assert command("device", "add", "other", "--transfer", "--space", "ofa_resnet50", "-w", str(tmp_path / "ws")) == 2
    assert "no device to transfer from predicts ofa_resnet50 at 64 px" in capsys.readouterr().err


def test_sources_are_profiles_or_entries(archs: list[Arch], tmp_path: Path) -> None:
    write_table(tmp_path / "times.csv", archs[:12], _times(archs[:12], 0.1, 0.01, 0.01, 0))
    import_profile(
        "mine", tmp_path / "times.csv", runtime="onnxruntime", folder=tmp_path / "ws" / "devices", threads=64
    )
    assert list(transfer_sources(("mine", "titan-rtx"), tmp_path / "ws")) == ["mine", "titan-rtx"]
    assert "titan-rtx" in transfer_sources((), None)
    assert "stm32f746" not in transfer_sources((), None)
