"""adb's own server on a port of its own, devices for it, and a program that prints what benchmark programs print."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tutelage.bench.boards.adb import find_adb
from tutelage.bench.protocol.anchors import AnchorNet, anchor_onnx
from tutelage.records import InputError

from ..protocol.far import PATIENCE_S
from .adbd import Adbd

SHAPE = (1, 32, 20, 20)
# As dumpsys prints them, the temperatures above "from HAL" being old ones.
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  present: true
  level: 55
  scale: 100
  temperature: 274"""
THERMAL = """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=99.0, mType=0, mName=CPU0, mStatus=3}
Current temperatures from HAL:
	Temperature{mValue=62.500004, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=-5700.0, mType=-1, mName=virtual, mStatus=0}
	Temperature{mValue=80.0, mType=1, mName=GPU, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=5, mName=tpu_cooling}"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    path.write_bytes(anchor_onnx(AnchorNet("dense", 32, 20, 1, 4)))
    return path


def compiled(source: Path, target: Path, *options: str) -> Path:
    """Compile a C file; skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    subprocess.run([compiler, "-O1", str(source), "-o", str(target), *options], check=True)
    return target


@pytest.fixture(scope="module")
def benchmark_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    return compiled(Path(__file__).with_name("benchmark.c"), folder / "onnxruntime_perf_test")


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[bytes]]]:
    """Start adb's server for this module's tests; gives what calls adb."""
    try:
        program = find_adb()
    except InputError as error:
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def call(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([program, *words], capture_output=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)

    with pytest.MonkeyPatch.context() as patch:
        # Its own port and keys, and no search for devices of this machine or its network.
        own = {"ANDROID_ADB_SERVER_PORT": str(port), "ADB_USB": "0", "ADB_MDNS_AUTO_CONNECT": "0"}
        for name, value in {**own, "ANDROID_USER_HOME": str(home), "TUTELAGE_HOME": str(home / "tutelage")}.items():
            patch.setenv(name, value)
        patch.delenv("ANDROID_SERIAL", raising=False)
        started = call("start-server")
        if started.returncode:
            pytest.skip(f"adb's server does not run here: {started.stderr.decode()[-200:]}")
        try:
            yield call
        finally:
            call("kill-server")


@pytest.fixture
def connect(adb: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path) -> Iterator[Callable[..., Adbd]]:
    """Give what connects devices, each with four cores of two kinds."""
    devices: list[Adbd] = []

    def one(**options: bool) -> Adbd:
        device = Adbd(tmp_path / f"device{len(devices)}", **options)
        devices.append(device)
        allowed = sorted(os.sched_getaffinity(0))
        for place, core in enumerate(allowed):
            clocks = device.root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            clocks.mkdir(parents=True)
            for name, text in {
                "scaling_governor": "schedutil", "scaling_cur_freq": "1200000", "scaling_max_freq": "1800000",
                "cpuinfo_max_freq": str(1800000 + 500000 * (place == 0)),
            }.items():  # fmt: skip
                (clocks / name).write_text(f"{text}\n")
        properties = {
            "ro.product.cpu.abilist": "x86_64,x86" if os.uname().machine == "x86_64" else "arm64-v8a",
            "ro.soc.manufacturer": "Fake", "ro.soc.model": "F1", "ro.product.manufacturer": "Us",
            "ro.product.model": "One",
        }  # fmt: skip
        cases = "\n".join(f"{name}) echo {value} ;;" for name, value in properties.items())
        device.script("getprop", f"case $1 in\n{cases}\nesac")
        device.script(
            "dumpsys",
            f"case $1 in\nbattery) cat <<'END'\n{BATTERY}\nEND\n;;\nthermalservice) cat <<'END'\n{THERMAL}\nEND\nesac",
        )
        adb("connect", device.serial)
        wanted = f"{device.serial}\t{'unauthorized' if device.unauthorized else 'device'}"
        end = time.monotonic() + PATIENCE_S
        while wanted not in adb("devices").stdout.decode():  # adb itself waits for ten seconds
            assert time.monotonic() < end, f"adb does not see {wanted}"
            time.sleep(0.05)
        return device

    yield one
    for device in devices:
        device.close()
        adb("disconnect", device.serial)
