"""Devices behind adb: Google's adb program and server are real, the device is `adbd.py`, its program `benchmark.c`.

No phone was at hand. The server speaks to the device as to a phone; what runs there runs on this machine.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.bench.boards.adb import Adb
from tutelage.bench.boards.phone import FOLDER, Phone
from tutelage.bench.layers.profile import profile_layers
from tutelage.bench.micro.model import write_model
from tutelage.bench.programs.entry import Turn
from tutelage.bench.protocol import measure as measure_module
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import launcher_of, open_launcher
from tutelage.bench.protocol.worker import LostDeviceError, ModelFile
from tutelage.records import DeviceProfile, InputError, NotAvailableError, UnsteadyDeviceError

from ..micro.small_net import CHANNELS, SIDE, small_net
from .adbd import Adbd
from .conftest import SHAPE

Connect = Callable[..., Adbd]


def profile(device: Adbd, program: Path | None = None, **more: object) -> DeviceProfile:
    values = {"name": "pixel", "runtime": "onnxruntime", "host": f"adb:{device.serial}", "program": str(program or "")}
    return DeviceProfile.from_dict({**values, **more})


@pytest.mark.slow
def test_a_session_on_a_device_behind_adb(
    connect: Connect, benchmark_program: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = connect()
    monkeypatch.setattr(measure_module, "MIN_ROUNDS", 2)
    stages: set[str] = set()
    pixel = profile(device, benchmark_program)
    short = {"rounds": 2, "samples": 8, "min_seconds": 0.0}
    found = measure({"net": net}, pixel, SHAPE[1:], progress=lambda stage, *_: stages.add(stage), **short)["net"]
    # Every byte is a nanosecond to the program, and the runs that settle do not count.
    assert found.samples_ms == pytest.approx([net.stat().st_size / 1e6] * 8, rel=1e-6)
    assert found.anchored_ms == pytest.approx(found.samples_ms[0], rel=1e-6)
    assert found.runs_a_sample == 1
    assert found.load_ms == pytest.approx(18.3481)
    assert found.peak_rss_bytes == 50905088
    assert found.processor == "Fake F1 (Us One)"
    assert found.runtime_version.startswith("onnxruntime_perf_test ")
    assert found.power_state == "governor schedutil"
    assert found.state_before is not None
    assert found.state_before == found.state_after
    assert found.state_after.thermal_status == "light"
    assert found.state_after.temperature_c == pytest.approx(62.5, abs=0.01)
    assert (found.state_after.charging, found.state_after.on_battery, found.state_after.throttled) == (
        True,
        False,
        False,
    )
    assert found.state_after.limit_mhz == (1800.0,)
    # The fastest core, the first here; every file went there once, under its content's hash.
    starts = [command for command in device.commands if "taskset" in command and "rm -f" in command]
    assert starts
    assert all(f"taskset {1 << min(os.sched_getaffinity(0)):x} {FOLDER}/" in command for command in starts)
    assert len(set(device.copied)) == len(device.copied) == 7  # the program and six anchors, of which the net is one
    assert {"loading", "measuring"} <= stages
    again = Phone(pixel)
    again.put(net)
    assert len(device.copied) == 7
    assert not list((device.root / "data/local/tmp/tutelage").glob("*.part"))


def test_the_layers_of_a_network_on_a_phone_are_what_its_program_prints(
    connect: Connect, benchmark_program: Path, net: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    device = connect()
    program = tmp_path / "benchmark_model"
    shutil.copy(benchmark_program, program)
    model = write_model(small_net(), tmp_path / "net.tflite")
    pixel = profile(device, program, runtime="litert")
    layers = profile_layers(model, pixel, (CHANNELS, SIDE, SIDE))
    whole = model.stat().st_size / 1e6  # every byte is a nanosecond
    rows = [(layer.name, layer.operator, layer.kernel, layer.note) for layer in layers]
    assert rows == [
        ("transpose_0:0", "TRANSPOSE", "built-in", "not by XNNPACK"),
        ("Convolution (NHWC, F32) IGEMM:0", "Convolution (NHWC, F32) IGEMM", "XNNPACK", ""),
        ("Convolution (NHWC, QC8) DWConv:1", "Convolution (NHWC, QC8) DWConv", "XNNPACK", ""),
    ]
    assert [layer.ms for layer in layers] == pytest.approx([whole / 4, whole / 2, whole / 4], abs=1.5e-3)
    (start,) = [command for command in device.commands if "--enable_op_profiling=true" in command]
    assert "--num_runs=50" in start
    assert f"taskset {1 << min(os.sched_getaffinity(0)):x} " in start
    with pytest.raises(InputError, match=r"onnxruntime_perf_test of device pixel prints no .* does: litert"):
        profile_layers(net, profile(device, benchmark_program), SHAPE[1:])
    with pytest.raises(InputError, match=r"cannot profile net\.tflite on pixel: .* runs inputs of \[1, 3, 16, 16\]"):
        profile_layers(model, pixel, (CHANNELS, 24, 24))


@pytest.mark.long  # `test_program.py` has a quick one
def test_a_device_that_throttles_in_the_middle_is_refused(connect: Connect, benchmark_program: Path, net: Path) -> None:
    device = connect()
    Adb(device.serial).shell(f"mkdir -p {FOLDER}; echo 50 130 > {FOLDER}/pace")
    with pytest.raises(UnsteadyDeviceError, match=r"throttles: .* by 30% .*thermal status light, 63 degrees"):
        measure({"net": net}, profile(device, benchmark_program), SHAPE[1:], rounds=8, samples=8, min_seconds=0.0)


def test_the_cores_that_are_asked_for_are_pinned(connect: Connect, benchmark_program: Path, net: Path) -> None:
    device = connect()
    last = max(os.sched_getaffinity(0))
    phone = Phone(profile(device, benchmark_program, cores=(last,)))
    phone.run(Turn(phone.put(net), SHAPE, 1, 0, 1, f"{FOLDER}/r.csv"), 60)
    assert f"taskset {1 << last:x} " in device.commands[-1]
    with pytest.raises(InputError, match=r"has no core 900: it has 0"):
        Phone(profile(device, benchmark_program, cores=(900,)))


def test_a_device_that_is_not_there_or_not_ours_is_one_line(
    connect: Connect, adb: Callable[..., subprocess.CompletedProcess[bytes]], benchmark_program: Path
) -> None:
    with pytest.raises(NotAvailableError, match=r"adb sees no device 'nosuch' \(it sees: none\): plug it in"):
        Adb("nosuch")
    with pytest.raises(InputError, match=r"--adb auto takes the only device, and adb sees 0 \(none\)"):
        Adb("auto")
    one = connect()
    assert Adb("auto").serial == one.serial
    locked = connect(unauthorized=True)
    with pytest.raises(NotAvailableError, match=rf"device {locked.serial} is unauthorized: unlock it and allow USB"):
        Adb(locked.serial)
    both = ", ".join(sorted((one.serial, locked.serial)))
    with pytest.raises(InputError, match=rf"adb sees 2 \({both}\): name one"):
        Adb("auto")
    one.close()
    end = time.monotonic() + 180
    while f"{one.serial}\tdevice" in adb("devices").stdout.decode() and time.monotonic() < end:
        time.sleep(0.05)  # until adb's server has noticed
    with pytest.raises(NotAvailableError, match=r"is offline: unplug it|adb sees no device"):
        Adb(one.serial)


def test_a_program_that_is_missing_or_of_another_processor_is_one_line(
    connect: Connect, benchmark_program: Path, tmp_path: Path
) -> None:
    device = connect()
    with pytest.raises(InputError, match=r"no onnxruntime_perf_test for device pixel: give its file with --benchmark"):
        Phone(profile(device))
    with pytest.raises(InputError, match=r"no benchmark program at .*gone: give the file of onnxruntime_perf_test"):
        Phone(profile(device, tmp_path / "gone"))
    image = bytearray(benchmark_program.read_bytes())
    image[18] = 40  # the machine of an ELF header: 32-bit ARM
    (tmp_path / "arm").write_bytes(image)
    with pytest.raises(InputError, match=r"arm is a program for armeabi-v7a, the device \(Fake F1 .*\) runs "):
        Phone(profile(device, tmp_path / "arm"))
    assert not device.copied
    own = tmp_path / "x"
    own.write_bytes(benchmark_program.read_bytes())
    with pytest.raises(InputError, match=r"was measured with onnxruntime_perf_test 00000000, this is onnxruntime_perf"):
        Phone(profile(device, own, runtime_version="onnxruntime_perf_test 00000000"))


def test_a_program_is_found_in_the_users_folder_and_on_the_device(
    connect: Connect, benchmark_program: Path, net: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = connect()
    Adb(device.serial).push(benchmark_program, "/data/local/tmp/onnxruntime_perf_test")
    Adb(device.serial).shell("chmod 755 /data/local/tmp/onnxruntime_perf_test")
    there = Phone(profile(device))
    assert there.placed.path == "/data/local/tmp/onnxruntime_perf_test"
    assert there.run(Turn(there.put(net), SHAPE, 1, 1, 2, f"{FOLDER}/r.csv"), 60).samples_ms
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "programs" / there.facts.abis[0]
    folder.mkdir(parents=True)
    (folder / "onnxruntime_perf_test").write_bytes(benchmark_program.read_bytes())
    here = Phone(profile(device))
    assert here.placed.path.startswith(f"{FOLDER}/")
    assert here.placed.version == there.placed.version  # by content, wherever it lies


def test_a_full_device_says_what_to_remove(connect: Connect, benchmark_program: Path) -> None:
    device = connect()
    device.free_bytes = 100
    with pytest.raises(
        InputError, match=r"no space on device .* for onnxruntime_perf_test \(\d+ bytes\): .*rm -r /data/l"
    ):
        Phone(profile(device, benchmark_program))


def test_a_device_that_is_unplugged_in_a_session_is_lost_and_not_filed(
    connect: Connect, benchmark_program: Path, net: Path
) -> None:
    device = connect()

    def unplug(stage: str, done: int, total: int) -> None:
        if stage == "loading" and done == 1:
            device.close()

    with pytest.raises(
        NotAvailableError, match=r"cannot measure .* was lost: .*same command again, what was"
    ) as caught:
        measure({"net": net}, profile(device, benchmark_program), SHAPE[1:], rounds=2, samples=2, progress=unplug)
    assert "\n" not in str(caught.value)


def test_what_a_program_says_of_its_failure_is_the_message(
    connect: Connect, benchmark_program: Path, net: Path, tmp_path: Path
) -> None:
    device = connect()
    phone = Phone(profile(device, benchmark_program))
    runner = phone.start([ModelFile(str(net), SHAPE)])
    with pytest.raises(RuntimeError, match=r"exit code 1 on .*failed to open /data/gone\.onnx") as caught:
        phone.run(Turn("/data/gone.onnx", SHAPE, 1, 0, 1, f"{FOLDER}/r.csv"), 60)
    assert not isinstance(caught.value, LostDeviceError)
    with pytest.raises(RuntimeError, match=r"net\.onnx runs inputs of \[1, 32, 20, 20\] there, not \[1, 32, 24, 24\]"):
        phone.start([ModelFile(str(net), (1, 32, 24, 24))]).ask({"do": "load", "model": 0})
    assert runner.ask({"do": "load", "model": 0})["effective"] == "fp32"
    with pytest.raises(LostDeviceError, match="no reply within 0 s"):
        phone.adb.shell("sleep 5", seconds=0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"runtime": "torch"},
            r"torch has no benchmark program, .*: take onnxruntime, executorch, litert, ncnn, or write",
        ),
        ({"runtime": "ncnn"}, r"benchncnn computes in fp16, not fp32: give --precision fp16"),
        ({"batch": 4}, r"called for one image at a time: give --batch 1, not 4"),
    ],
)
def test_what_no_benchmark_program_does_is_refused_before_adb_is_asked(change: dict[str, object], message: str) -> None:
    values = {"name": "pixel", "runtime": "onnxruntime", "host": "adb:x", **change}
    with pytest.raises(InputError, match=message), open_launcher(DeviceProfile.from_dict(values)):
        pass


def test_two_sessions_on_one_phone_follow_each_other(connect: Connect, benchmark_program: Path, net: Path) -> None:
    """Profiles of two workspaces: no start of one lies between two of the other."""
    device = connect()
    failed: list[BaseException] = []
    both = threading.Barrier(2)

    def session(name: str) -> None:
        try:
            both.wait()
            with launcher_of(profile(device, benchmark_program, name=name)) as phone:
                assert isinstance(phone, Phone)
                there = phone.put(net)
                for _ in range(4):
                    phone.run(Turn(there, SHAPE, 1, 0, 1, f"{FOLDER}/{name}.csv"), 60)
        except Exception as error:  # noqa: BLE001 - a thread would swallow it
            failed.append(error)

    names = ("one", "two")
    threads = [threading.Thread(target=session, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    starts = [[place for place, said in enumerate(device.commands) if f"{name}.csv" in said] for name in names]
    first, second = sorted(starts)
    assert len(first) == len(second) == 4
    assert first[-1] < second[0]
