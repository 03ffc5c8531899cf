"""Energy: a powercap tree of real files is read as the kernel's would be, its counters' wrap-around included."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.energy import net_millijoules
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.worker import Worker
from tutelage.bench.runtimes.energy import EnergyMeter, NoMeter, find_meter, metered
from tutelage.records import DeviceProfile, Measurement


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A folder in place of /sys."""
    (tmp_path / "class" / "powercap").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def tree(sysfs: Path) -> Path:
    """Two packages, a part of the first, the platform's sum, and a control type without counters."""
    zones = {
        "intel-rapl:0": ("package-0", 1_000_000, 262_143_328_850),
        "intel-rapl:0:0": ("core", 600_000, 262_143_328_850),
        "intel-rapl:1": ("package-1", 262_143_328_000, 262_143_328_850),
        "intel-rapl:2": ("psys", 5_000_000, 262_143_328_850),
    }
    folder = sysfs / "class" / "powercap"
    for zone, (name, energy, limit) in zones.items():
        (folder / zone).mkdir()
        (folder / zone / "name").write_text(f"{name}\n")
        (folder / zone / "energy_uj").write_text(f"{energy}\n")
        (folder / zone / "max_energy_range_uj").write_text(f"{limit}\n")
    (folder / "intel-rapl").mkdir()
    (folder / "intel-rapl" / "enabled").write_text("1\n")
    return folder


def test_packages_are_summed_and_their_parts_are_not(tree: Path):
    meter = find_meter(root=tree.parents[1])
    assert isinstance(meter, EnergyMeter)
    before = meter.read()
    assert before == [1_000_000, 262_143_328_000]
    (tree / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    assert meter.millijoules(before, meter.read()) == 2500.0


def test_a_counter_that_starts_again_from_zero_is_followed(tree: Path):
    meter = find_meter(root=tree.parents[1])
    assert isinstance(meter, EnergyMeter)
    before = meter.read()
    # 850 microjoules up to the highest value, one step to 0, and 149 more: 1,000 in all.
    (tree / "intel-rapl:1" / "energy_uj").write_text("149\n")
    assert meter.millijoules(before, meter.read()) == 1.0


def test_the_meter_says_what_it_reads(tree: Path):
    meter = find_meter(root=tree.parents[1])
    assert isinstance(meter, EnergyMeter)
    assert meter.method == f"RAPL package-0+package-1 ({tree.name}), idle subtracted"


def reason(runtime: str, root: Path) -> str:
    """Say why a powercap tree is no meter."""
    found = find_meter(runtime, root.parents[1])
    assert isinstance(found, NoMeter)
    return found.reason


def test_a_host_without_counters_says_which_file_is_missing(tree: Path, tmp_path: Path):
    other = tmp_path / "other" / "class" / "powercap"
    assert reason("", other) == f"{other} is missing: this kernel has no powercap, or the container does not see /sys"
    other.mkdir(parents=True)
    assert "holds no zone *-rapl:N: `modprobe intel_rapl_msr`" in reason("", other)
    counter = tree / "intel-rapl:1" / "energy_uj"
    counter.unlink()
    assert reason("", tree).startswith(f"{counter} is missing: docker hides it")  # half of the packages are no sum
    counter.mkdir()  # no file to read
    assert reason("", tree).startswith(f"{tree / 'intel-rapl:1'} cannot be read")
    (tree / "intel-rapl:0" / "name").write_text("core\n")
    (tree / "intel-rapl:1" / "name").write_text("psys\n")
    assert "no zone of a processor package" in reason("", tree)


def test_a_link_into_what_a_container_hides_is_named(sysfs: Path):
    folder = sysfs / "class" / "powercap"
    (folder / "intel-rapl:0").symlink_to(sysfs / "masked")
    assert reason("", folder).startswith(f"{folder / 'intel-rapl:0' / 'name'} is missing: docker hides it")


def test_a_counter_of_roots_names_the_right(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """As for a user who may not read it; root may read everything, so the refusal is the kernel's in name alone."""
    counter = tree / "intel-rapl:0" / "energy_uj"
    whole = Path.read_text

    def read_text(path: Path, *args: object, **options: object) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert reason("", tree) == f"{counter} may not be read by this user: `sudo chmod a+r {counter}`, or run as root"


def test_what_the_idle_device_takes_is_subtracted():
    assert net_millijoules(5000.0, 2.0, 1500.0) == 2000.0  # 2 s at 1.5 W are 3 J
    assert net_millijoules(3000.0, 2.0, 1500.0) is None


class Counter:
    """Stand for a zone's counter, whatever the pace of the host: each reading adds a step of a fixed energy.

    The step is `busy_mj` while a model runs for its energy, else `idle_mj`. `asked` keeps the requests of the two kinds
    and their replies. The file is a pipe, a new one for each reader: none reads a number written for another.
    """

    def __init__(self, zone: Path, idle_mj: int, busy_mj: int) -> None:
        self.asked: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {"idle": [], "energy": []}
        self._zone, self._idle_mj, self._busy_mj = zone, idle_mj, busy_mj
        self._limit = int((zone / "max_energy_range_uj").read_text())
        self._busy, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._count)
        self._lay_pipe()

    @contextlib.contextmanager
    def counting(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count what the workers of this process ask for."""
        ask = Worker.ask

        def watched(worker: Worker, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
            if request["do"] == "energy":
                self._busy.set()
            try:
                reply = ask(worker, request, timeout)
            finally:
                self._busy.clear()
            self.asked.get(request["do"], []).append((request, reply))
            return reply

        monkeypatch.setattr(Worker, "ask", watched)
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _lay_pipe(self) -> None:
        os.mkfifo(self._zone / "next")
        (self._zone / "next").replace(self._zone / "energy_uj")

    def _count(self) -> None:
        microjoules = 0
        while not self._ended.wait(0.001):
            try:
                pipe = os.open(self._zone / "energy_uj", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads
                continue
            self._lay_pipe()
            microjoules += 1000 * (self._busy_mj if self._busy.is_set() else self._idle_mj)
            os.write(pipe, f"{microjoules % (self._limit + 1)}\n".encode())
            os.close(pipe)


# Here, and behind a command as docker would start one: that side alone knows the tree.
ELSEWHERE = "env TUTELAGE_SYS={sysfs} {python} {{runner}}"
SHORT: dict[str, Any] = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 10.0}


def measured(sysfs: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """Measure a net here (no command) or elsewhere, on a machine with this tree in place of /sys."""
    net = sysfs / "net.onnx"
    net.write_bytes(anchor_onnx(ANCHORS[0]))
    if not command:
        monkeypatch.setenv("TUTELAGE_SYS", str(sysfs))
    command = command.format(sysfs=sysfs, python=sys.executable)
    shape = (ANCHORS[0].channels, ANCHORS[0].side, ANCHORS[0].side)
    profile = DeviceProfile(name="box", runtime="onnxruntime", command=command)
    return measure({"net": net}, profile, shape, **SHORT)["net"]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "busy_mj"), [("", 0), ("", 200_000_000), (ELSEWHERE, 200_000_000)])
def test_a_measured_model_takes_what_it_adds_to_the_idle_device(
    command: str, busy_mj: int, tree: Path, sysfs: Path, monkeypatch: pytest.MonkeyPatch
):
    """A stretch of idling and one of a busy model take these millijoules, however long they last on this host."""
    shutil.rmtree(tree / "intel-rapl:1")  # a machine of one package
    counter = Counter(tree / "intel-rapl:0", 100_000, busy_mj)
    with counter.counting(monkeypatch):
        found = measured(sysfs, command, monkeypatch)
    ((request, idle),), ((work, busy),) = counter.asked["idle"], counter.asked["energy"]
    assert (idle["mj"], busy["mj"]) == (100_000, busy_mj)
    assert idle["seconds"] >= request["seconds"]
    assert 1000 * busy["seconds"] >= sum(busy["ms"])
    assert found.energy_missing == ""
    if not busy_mj:
        assert (found.energy_mj, found.energy_method) == (None, "")
    else:
        added = busy_mj - 100_000 / idle["seconds"] * busy["seconds"]
        assert found.energy_mj == pytest.approx(added / (work["settle"] + work["repeats"]))
        assert found.energy_method == "RAPL package-0 (powercap), idle subtracted"


@pytest.mark.slow
def test_a_machine_elsewhere_says_what_it_lacks(tree: Path, sysfs: Path, monkeypatch: pytest.MonkeyPatch):
    """The counter of this machine, which it has here, says nothing of that one."""
    monkeypatch.setenv("TUTELAGE_SYS", str(sysfs))
    other = sysfs / "other"
    found = measured(sysfs, ELSEWHERE.replace("{sysfs}", str(other)), monkeypatch)
    assert (found.energy_mj, found.energy_method) == (None, "")
    assert found.energy_missing.startswith(f"{other}/class/powercap is missing: this kernel has no powercap")


def rail(folder: Path, number: int, name: str, millivolts: int, milliamperes: int) -> None:
    """Write what the kernel's driver ina3221 gives of a channel (Documentation/hwmon/ina3221.rst)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"in{number}_label").write_text(f"{name}\n")
    (folder / f"in{number}_input").write_text(f"{millivolts}\n")
    (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-cuda"])
def test_the_power_that_a_board_takes_is_summed_up_over_time(sysfs: Path, runtime: str):
    sensor = sysfs / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    rail(sensor, 2, "VDD_CPU_GPU_CV", 5000, 400)
    rail(sensor, 1, "VDD_IN", 5000, 1200)
    meter = find_meter(runtime, sysfs)
    assert isinstance(meter, EnergyMeter)
    assert meter.method == "INA3221 VDD_IN, sampled, idle subtracted"
    assert meter.caveat == "never run on a Jetson yet"
    mj, seconds, result = metered(meter, lambda: "done")
    assert result == "done"
    assert mj == pytest.approx(6000 * seconds)  # 5 V and 1.2 A

    def half_and_half() -> None:
        time.sleep(0.3)
        (sensor / "curr1_input").write_text("200\n")
        time.sleep(0.3)

    mj, seconds, _ = metered(meter, half_and_half)
    assert 1000 * seconds < mj < 6000 * seconds


def test_an_older_kernels_milliwatts_are_read(sysfs: Path):
    folder = sysfs / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    folder.mkdir(parents=True)
    (folder / "rail_name_0").write_text("POM_5V_IN\n")
    (folder / "in_power0_input").write_text("2500\n")
    meter = find_meter(root=sysfs)
    assert isinstance(meter, EnergyMeter)
    assert meter.power_mw is not None
    assert meter.power_mw() == 2500


def test_a_sensor_that_does_not_see_the_whole_board_is_refused(sysfs: Path, tree: Path):
    sensor = sysfs / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    rail(sensor, 1, "VDD_GPU_SOC", 19000, 200)
    meter = find_meter(root=sysfs)
    assert isinstance(meter, EnergyMeter)
    assert meter.method.startswith("RAPL")  # which this machine has beside it
    shutil.rmtree(tree)
    meter = find_meter(root=sysfs)
    assert isinstance(meter, NoMeter)
    assert meter.reason.startswith(f"{sensor} has the rails VDD_GPU_SOC, none of which feeds the whole board (*_IN)")
    rail(sensor, 2, "VDD_IN", 5000, 1200)
    (sensor / "curr2_input").unlink()
    meter = find_meter(root=sysfs)
    assert isinstance(meter, NoMeter)
    assert meter.reason.startswith(f"{sensor / 'curr2_input'} is missing")


class NvmlError(Exception):
    """What NVML raises."""


@pytest.mark.parametrize(
    ("names", "environment", "microjoules"),
    [
        (["A", "A"], {}, 0),
        (["A", "B"], {}, None),  # CUDA may call B its device 0
        (["A", "B"], {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}, 7_000),
        (["A", "B"], {"CUDA_VISIBLE_DEVICES": "GPU-1"}, 7_000),
    ],
)
def test_a_gpus_counter_is_read_where_it_is_sure_to_be_that_cards(
    names: list[str], environment: dict[str, str], microjoules: int | None, monkeypatch: pytest.MonkeyPatch
):
    """A stand-in of NVML whose card n has used 7 n millijoules."""
    library = SimpleNamespace(
        NVMLError=NvmlError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=int, nvmlDeviceGetHandleByUUID=lambda name: int(name.removeprefix("GPU-")),
        nvmlDeviceGetName=lambda card: names[card], nvmlDeviceGetTotalEnergyConsumption=lambda card: 7 * card,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", library)
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meter = find_meter("onnxruntime-cuda")
    assert (meter.read()[0] if isinstance(meter, EnergyMeter) else None) == microjoules
    assert (isinstance(meter, NoMeter) and "CUDA_DEVICE_ORDER=PCI_BUS_ID" in meter.reason) == (microjoules is None)
