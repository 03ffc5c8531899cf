"""Energy: a powercap tree of real files is read as the kernel's would be, its counters' wrap-around included."""

from pathlib import Path

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
