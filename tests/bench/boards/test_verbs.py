"""`device add --adb` and the verbs that use such a device, as they are given on the command line."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.bench.protocol.measure import measure
from tutelage.cli.app import app
from tutelage.pipeline.stages import finalists

from ...tutelage.command import tutelage
from .adbd import Adbd
from .tiny import RECIPE, a_byte_a_nanosecond


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


@pytest.mark.long
def test_a_search_measures_its_finalists_on_the_phone(
    connect: Callable[..., Adbd], benchmark_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, space = connect(), ["--workspace", str(tmp_path / "w")]
    monkeypatch.setattr(finalists, "measure", partial(measure, rounds=8))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(RECIPE))
    reached = {"host": f"adb:{device.serial}", "program": str(benchmark_program)}
    a_byte_a_nanosecond(tmp_path / "w" / "devices", **reached)
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
