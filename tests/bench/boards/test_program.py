"""Programs that speak the device protocol: the examples of the guide as they stand there, and what is refused."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tutelage.bench.boards.program import ProgramBoard, ProgramRunner
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import missing_meter
from tutelage.bench.protocol.worker import ModelFile, WorkerError
from tutelage.records import DeviceProfile, InputError, UnsteadyDeviceError

from ..protocol.far import PATIENCE_S
from .conftest import SHAPE, compiled

SPEAKER = Path(__file__).with_name("speaker.py")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "device-protocol.md"
SHORT = {"rounds": 8, "samples": 16, "min_seconds": 0.0}


def board(fault: str = "", **more: object) -> DeviceProfile:
    command = shlex.join([sys.executable, "-I", "-S", str(SPEAKER), fault.strip("{}")])
    return DeviceProfile.from_dict({"name": "board", "runtime": "onnxruntime", "command": command, **more})


def runner(profile: DeviceProfile, *models: ModelFile) -> ProgramRunner:
    return ProgramBoard(shlex.split(profile.command), profile).start(models)


def example(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(found) == 1
    return found[0]


def test_a_session_with_a_program(net: Path) -> None:
    found = measure({"net": net}, board(cores=(0,)), SHAPE[1:], anchor_ms=1.0, **SHORT)["net"]
    assert found.samples_ms == pytest.approx([net.stat().st_size / 1e6] * len(found.samples_ms))
    assert len(found.samples_ms) >= 16
    assert found.load_ms == 5.0
    assert found.peak_rss_bytes == 4096
    assert (found.processor, found.runtime_version, found.power_state) == ("Z80", "1", "governor powersave, on battery")
    assert found.state_after is not None
    assert found.state_after.temperature_c == 88.0
    assert found.drift is not None  # by anchors that the program ran
    assert type(found).from_dict(found.to_dict()) == found


def test_a_program_that_gives_means_is_said_to(net: Path) -> None:
    found = measure({"net": net}, board("mean"), SHAPE[1:], **SHORT)["net"]
    assert len(found.samples_ms) == 8  # one a round
    assert found.runs_a_sample == 2
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (pytest.approx(net.stat().st_size / 1e6), None, None)
    assert {report.runs for report in found.reported} == {2}
    assert found.reported[0].max_ms == pytest.approx(2 * found.reported[0].mean_ms)


@pytest.mark.parametrize("mean", [False, True])
def test_a_program_with_a_counter_is_measured_above_its_idle_device(net: Path, mean: bool) -> None:
    said = {"energy": True, "energy_method": "INA219", **({"mean": True} if mean else {})}
    found = measure({"net": net}, board(json.dumps(said)), SHAPE[1:], **SHORT)["net"]
    assert found.energy_mj == pytest.approx(1.0)  # two watts of the idle device apart
    assert (found.energy_method, found.energy_missing) == ("INA219, idle subtracted", "")


def test_a_program_without_a_counter_says_so(net: Path) -> None:
    found = measure({"net": net}, board(), SHAPE[1:], **SHORT)["net"]
    assert (found.energy_mj, found.energy_method) == (None, "")
    assert "reads no energy counter" in found.energy_missing
    device = board('{"energy": false, "energy_missing": "no INA219 at 0x40"}')
    assert missing_meter(device) == "no INA219 at 0x40"
    assert missing_meter(board('{"energy": true}')) == ""
    with pytest.raises(InputError, match="cannot start the program on board: the program speaks protocol 2"):
        missing_meter(board('{"protocol": 2}'))


def test_a_slow_down_within_a_session_is_refused(net: Path) -> None:
    """All models slow down alike, which their difference to the anchors does not show; the anchors themselves do."""
    with pytest.raises(UnsteadyDeviceError, match=r"the device throttles: .* by 30% within .*; 88 degrees Celsius\)"):
        measure({"net": net}, board("slow"), SHAPE[1:], **SHORT)


@pytest.mark.parametrize(
    ("fault", "more", "message"),
    [
        ('{"protocol": 2}', {}, "speaks protocol 2, not 1"),
        ('{"runtime": "ncnn"}', {}, "runs 'ncnn', device board is of runtime onnxruntime"),
        ('{"formats": [".tflite"]}', {}, r"loads \['\.tflite'\], and onnxruntime models are \.onnx files"),
        ("", {"precision": "int8"}, "does not compute in int8, only fp32"),
        ('{"energy": 1}', {}, "says energy '1' in its reply to hello: give true or false"),
        ('{"energy": true, "silent": 1}', {}, 'said "energy":true and gives energy_uj None: microjoules'),
        ('{"cores": []}', {"cores": (3,)}, r"does not pin to cores \[3\]: leave --cores out"),
        ("state", {}, "the program's state has temperature: Extra inputs"),
        ("full", {}, "kept 1 of 148109 bytes of net.onnx: is its disk full"),
        ("broken", {}, "the net is broken$"),
        ("short", {}, "gave no list of 5 positive nanoseconds"),
        ("dies", {}, "ended: exit code 7"),
    ],
)
def test_what_a_program_says_wrongly_is_one_line(fault: str, more: dict[str, object], message: str, net: Path) -> None:
    one = runner(board(fault, **more), ModelFile(str(net), SHAPE))

    def use() -> None:
        one.greet()
        one.ask({"do": "load", "model": 0})
        one.ask({"do": "time", "model": 0, "settle": 1, "repeats": 5})
        one.ask({"do": "energy", "model": 0, "settle": 1, "repeats": 5})

    try:
        with pytest.raises(WorkerError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
    finally:
        one.stop()


def test_what_is_no_program_of_the_protocol_is_one_line(net: Path) -> None:
    for command, message in (
        ("cat", "runs None, device box is of runtime onnxruntime"),
        ("true", "ended: exit code 0"),
        ("nosuch", "cannot start nosuch"),
    ):
        device = DeviceProfile(name="box", runtime="onnxruntime", command=command)
        with pytest.raises(InputError, match=message):
            measure({"net": net}, device, SHAPE[1:], **SHORT)


def test_the_example_in_c_runs_networks(net: Path, tmp_path: Path) -> None:
    """The networks are OpenVINO's to run, here by its C library; the session is that of every device."""
    openvino = pytest.importorskip("openvino")
    home = Path(openvino.__file__).parent
    library = next((home / "libs").glob("libopenvino_c.so*"), None)
    if library is None or not (home / "include").is_dir():
        pytest.skip("this openvino has no C library")
    lines = example("c").splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
    (tmp_path / "device.c").write_text(example("c"))
    program = compiled(
        tmp_path / "device.c", tmp_path / "device", "-Wall", "-Werror", f"-I{home}/include", f"-L{library.parent}",
        f"-l:{library.name}", f"-Wl,-rpath,{library.parent}",
    )  # fmt: skip
    kept = tmp_path / "models"
    kept.mkdir()
    command = shlex.join(["sh", "-c", f"cd {kept} && exec {program}"])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    one = runner(
        DeviceProfile(name="box", runtime="openvino", command=command),
        *(ModelFile(str(path), shape) for path, shape in ((net, SHAPE), (broken, SHAPE), (net, (1, 3, 20, 20)))),
    )
    try:
        one.greet()
        assert one.ask({"do": "load", "model": 0})["effective"] == "fp32"
        with pytest.raises(WorkerError, match="OpenVINO cannot load"):
            one.ask({"do": "load", "model": 1})
        with pytest.raises(WorkerError, match="OpenVINO cannot load"):  # an input of other channels than the net's
            one.ask({"do": "load", "model": 2})
        times = one.ask({"do": "time", "model": 0, "settle": 2, "repeats": 9})["ms"]
        assert len(times) == 9
        assert min(times) > 0
        with pytest.raises(WorkerError, match="unknown request"):
            one._exchange({"do": "dance"}, 60.0)
        one.ask({"do": "state"})
        one.dismiss()
        assert one._line.process.wait(PATIENCE_S) == 0
    finally:
        one.stop()
    assert sorted(path.read_bytes() for path in kept.iterdir()) == sorted([net.read_bytes(), broken.read_bytes()])


def test_the_example_in_a_shell_runs_a_command_on_files(net: Path, tmp_path: Path) -> None:
    (tmp_path / "device.sh").write_text(example("sh"))
    (tmp_path / "read").write_text(
        f"#!/bin/sh\necho read >> {tmp_path}/reads\ncksum \"$1\" | grep ' {net.stat().st_size} '\n"
    )
    (tmp_path / "read").chmod(0o755)
    command = shlex.join(["sh", str(tmp_path / "device.sh"), "onnxruntime", ".onnx", str(tmp_path / "read")])
    one = runner(DeviceProfile(name="box", runtime="onnxruntime", command=command), ModelFile(str(net), SHAPE))
    try:
        one.greet()
        assert one.processor == os.uname().machine
        one.ask({"do": "load", "model": 0})
        times = one.ask({"do": "time", "model": 0, "settle": 2, "repeats": 3})["ms"]
        assert len(times) == 3
        assert min(times) > 0
        assert len((tmp_path / "reads").read_text().splitlines()) == 1 + 2 + 3
        assert one.ask({"do": "state"})["governor"] == ""
    finally:
        one.stop()
