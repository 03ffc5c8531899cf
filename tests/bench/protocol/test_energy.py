"""Energy: a powercap tree of real files is read as the kernel's would be, its counters' wrap-around included."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.bench.protocol.energy import find_meter


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
    assert meter is not None
    before = meter.read()
    assert before == [1_000_000, 262_143_328_000]
    (tree / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    assert meter.millijoules(before, meter.read()) == 2500.0


def test_a_counter_that_starts_again_from_zero_is_followed(tree: Path):
    meter = find_meter(root=tree)
    assert meter is not None
    before = meter.read()
    # 850 microjoules up to the highest value, one step to 0, and 149 more: 1,000 in all.
    (tree / "intel-rapl:1" / "energy_uj").write_text("149\n")
    assert meter.millijoules(before, meter.read()) == 1.0


def test_a_host_without_counters_has_no_meter(tree: Path, tmp_path: Path):
    assert find_meter(root=tmp_path / "nothing") is None
    assert find_meter("onnxruntime-cuda", root=tree) is None  # a GPU's energy is not the processor's
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (tree / zone / "energy_uj").unlink()
        (tree / zone / "energy_uj").mkdir()  # cannot be read as a file: as a counter of root's for a user
    assert find_meter(root=tree) is None


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
    assert (None if meter is None else meter.read()[0]) == microjoules
