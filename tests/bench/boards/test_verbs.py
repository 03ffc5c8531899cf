"""`device add --adb` and the verbs that use such a device, as they are given on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli.app import app

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
