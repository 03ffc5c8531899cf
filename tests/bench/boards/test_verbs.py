"""`device add --adb` and the verbs that use such a device, as they are given on the command line."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tutelage.bench.devices.profiles import write_profile
from tutelage.bench.latency import LatencyModel
from tutelage.bench.protocol.anchors import STREAMING, anchor_files
from tutelage.bench.protocol.measure import measure
from tutelage.cli.app import app
from tutelage.pipeline.stages import finalists
from tutelage.records import DeviceProfile
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

from ...tutelage.command import tutelage
from .adbd import Adbd


@pytest.mark.long
def test_a_phone_is_added_shown_checked_and_benched_on(
    connect: Callable[..., Adbd], benchmark_program: Path, net: Path, tmp_path: Path
) -> None:
    device, space = connect(), ["--workspace", str(tmp_path / "w")]

    def said(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, *space, "--json"])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    added = said(
        "device", "add", "pixel", "--adb", "auto", "--benchmark-program", str(benchmark_program), "--resolution", "32",
        "--nets", "6", "--minutes", "0.1",
    )  # fmt: skip
    assert added["host"] == f"adb:{device.serial}"
    assert added["cpu_model"] == "Fake F1 (Us One)"
    assert added["program"] == str(benchmark_program)
    assert added["steadiness"] < 0.01  # its clock is the bytes of a file
    assert said("device", "show", "pixel")["host"] == added["host"]
    assert [one["name"] for one in said("device", "list")] == ["pixel"]
    copied = len(device.copied)
    checked = said("device", "check", "pixel")
    assert abs(checked["drift"]) < 1e-6
    assert len(device.copied) == copied + 6  # other subnets; the program and the anchors are there
    benched = said("bench", str(net), "--device", "pixel")
    assert benched["p50_ms"] == pytest.approx(net.stat().st_size / 1e6)
    assert benched["thermal_status_after"] == "light"


# As small as a search goes: no teacher, one epoch of the supernet.
RECIPE = {
    "name": "tiny",
    "data": {"dataset": "phantom", "size": 32, "limit": 120, "augment_variants": 1},
    "supernet": {"space": "mbconv_small_w1.0", "epochs": 1, "batch_size": 32},
    "search": {"strategy": "random", "evaluations": 6, "winners": 1},
}


def pixel(device: Adbd, program: Path, folder: Path) -> None:
    """Write a profile of the device whose latency model knows what its clock is: a nanosecond a byte of a file."""
    folder.mkdir(parents=True)
    space = SPACES["mbconv_small_w1.0"].with_resolutions((32,))
    archs = space.decode(space.random(30, np.random.default_rng(0)))
    counts = count(archs, 4, 1)
    model = LatencyModel().fit(archs, 4e-6 * counts.params + 0.02, num_classes=4, in_channels=1)
    anchors = anchor_files("onnxruntime", folder.parent)[-len(STREAMING) :]
    model.anchor_ms = float(np.exp(np.mean([np.log(Path(one.path).stat().st_size / 1e6) for one in anchors])))
    profile = DeviceProfile(
        name="pixel", runtime="onnxruntime", host=f"adb:{device.serial}", program=str(program), spaces=(space.name,),
        resolutions=space.resolutions, latency_model="pixel.latency.json",
    )  # fmt: skip
    write_profile(profile, folder, model)


@pytest.mark.long
def test_a_search_measures_its_finalists_on_the_phone(
    connect: Callable[..., Adbd], benchmark_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, space = connect(), ["--workspace", str(tmp_path / "w")]
    monkeypatch.setattr(finalists, "measure", partial(measure, rounds=8))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(RECIPE))
    pixel(device, benchmark_program, tmp_path / "w" / "devices")
    done = tutelage(
        "search", "--device", "pixel", "--recipe", str(recipe), "--max-latency", "80%", "--json", *space
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    winners = json.loads(done.stdout)["verified"]["winners"]
    assert winners
    sizes = {path.stat().st_size for path in (device.root / "data/local/tmp/tutelage").glob("*.onnx")}
    for winner in winners:
        assert round(1e6 * winner["p50_ms"]["pixel"]) in sizes
        assert winner["measured_ms"]["pixel"] == pytest.approx(winner["p50_ms"]["pixel"], rel=1e-6)
        assert winner["drift"]["pixel"] == pytest.approx(0, abs=1e-6)
