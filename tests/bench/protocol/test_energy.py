"""Energy: a powercap tree of real files is read as the kernel's would be, its counters' wrap-around included."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.bench.protocol import measure as measure_module
from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.energy import EnergyMeter, NoMeter, find_meter, net_millijoules
from tutelage.bench.protocol.measure import measure
from tutelage.records import DeviceProfile


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages, a part of the first, the platform's sum, and a control type without counters."""
    zones = {
        "intel-rapl:0": ("package-0", 1_000_000, 262_143_328_850),
        "intel-rapl:0:0": ("core", 600_000, 262_143_328_850),
        "intel-rapl:1": ("package-1", 262_143_328_000, 262_143_328_850),
        "intel-rapl:2": ("psys", 5_000_000, 262_143_328_850),
    }
    for zone, (name, energy, limit) in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{limit}\n")
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl" / "enabled").write_text("1\n")
    return tmp_path


def test_packages_are_summed_and_their_parts_are_not(tree: Path):
    meter = find_meter(root=tree)
    assert isinstance(meter, EnergyMeter)
    before = meter.read()
    assert before == [1_000_000, 262_143_328_000]
    (tree / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    assert meter.millijoules(before, meter.read()) == 2500.0


def test_a_counter_that_starts_again_from_zero_is_followed(tree: Path):
    meter = find_meter(root=tree)
    assert isinstance(meter, EnergyMeter)
    before = meter.read()
    # 850 microjoules up to the highest value, one step to 0, and 149 more: 1,000 in all.
    (tree / "intel-rapl:1" / "energy_uj").write_text("149\n")
    assert meter.millijoules(before, meter.read()) == 1.0


def test_the_meter_says_what_it_reads(tree: Path):
    meter = find_meter(root=tree)
    assert isinstance(meter, EnergyMeter)
    assert meter.method == f"RAPL package-0+package-1 ({tree.name}), idle subtracted"


def reason(runtime: str, root: Path) -> str:
    found = find_meter(runtime, root)
    assert isinstance(found, NoMeter)
    return found.reason


def test_a_host_without_counters_says_which_file_is_missing(tree: Path, tmp_path: Path):
    assert reason("", tmp_path / "nothing") == (
        f"{tmp_path / 'nothing'} is missing: this kernel has no powercap, or the container does not see /sys"
    )
    (tmp_path / "empty").mkdir()
    assert "holds no zone *-rapl:N: `modprobe intel_rapl_msr`" in reason("", tmp_path / "empty")
    counter = tree / "intel-rapl:1" / "energy_uj"
    counter.unlink()
    assert reason("", tree).startswith(f"{counter} is missing: docker hides it")  # half of the packages are no sum
    counter.mkdir()  # no file to read
    assert reason("", tree).startswith(f"{tree / 'intel-rapl:1'} cannot be read")
    (tree / "intel-rapl:0" / "name").write_text("core\n")
    (tree / "intel-rapl:1" / "name").write_text("psys\n")
    assert "no zone of a processor package" in reason("", tree)


def test_a_link_into_what_a_container_hides_is_named(tmp_path: Path):
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "masked")
    assert reason("", tmp_path).startswith(f"{tmp_path / 'intel-rapl:0' / 'name'} is missing: docker hides it")


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


@pytest.mark.parametrize(("idle_w", "busy_w"), [(5.0, 5.0), (1.0, 9.0)])
def test_a_measured_model_takes_what_it_adds_to_the_idle_device(
    idle_w: float, busy_w: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A counter of a device that takes `busy_w` while a worker runs and `idle_w` else: the model takes the rest."""
    net = tmp_path / "net.onnx"
    net.write_bytes(anchor_onnx(ANCHORS[0]))
    shape = (ANCHORS[0].channels, ANCHORS[0].side, ANCHORS[0].side)
    busy = [0.0]
    turn = measure_module._Session._turn

    def timed(session: object, index: int, repeats: int) -> list[float]:
        begun = time.monotonic()
        samples = turn(session, index, repeats)  # type: ignore[arg-type]
        busy[0] += time.monotonic() - begun
        return samples

    def read() -> int:
        return int(1e6 * (idle_w * time.monotonic() + (busy_w - idle_w) * busy[0]))

    monkeypatch.setattr(measure_module._Session, "_turn", timed)
    monkeypatch.setattr(measure_module, "find_meter", lambda runtime: EnergyMeter(((read, 0),), "a counter"))
    found = measure({"net": net}, DeviceProfile(name="here", runtime="onnxruntime"), shape, tolerance=10.0)["net"]
    mean_ms = sum(found.samples_ms) / len(found.samples_ms)
    if idle_w == busy_w:
        assert found.energy_mj is None or found.energy_mj < 0.02 * idle_w * mean_ms
    else:
        assert found.energy_mj is not None
        assert found.energy_method == "a counter"
        assert found.energy_mj > 0.1 * (busy_w - idle_w) * min(found.samples_ms)


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
