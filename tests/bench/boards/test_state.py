"""What a device says of itself: the small files of /sys, Android's services, its cores and the programs it runs."""

from pathlib import Path

import pytest

from tutelage.bench.boards.android import check_abi, core_list, fastest_cores, read_facts, read_state
from tutelage.bench.boards.program import power_state_of
from tutelage.bench.protocol.worker import Worker
from tutelage.bench.runtimes.state import read_state as read_sys
from tutelage.records import DeviceState, InputError

from .conftest import BATTERY, THERMAL

# A phone of two kinds of cores that is hot, on battery, and holds its fast cores down.
SYS = {
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "devices/system/cpu/cpu7/cpufreq/scaling_governor": "performance",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1803000",
    "devices/system/cpu/cpu7/cpufreq/scaling_cur_freq": "1400000",
    "devices/system/cpu/cpu7/cpufreq/scaling_max_freq": "1400000",
    "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1803000",
    "devices/system/cpu/cpu7/cpufreq/cpuinfo_max_freq": "2850000",
    "class/thermal/thermal_zone0/temp": "47300",
    "class/thermal/thermal_zone1/temp": "-274000",
    "class/thermal/thermal_zone2/temp": "broken",
    "class/thermal/cooling_device0/type": "fan",
    "class/thermal/cooling_device0/cur_state": "3",
    "class/thermal/cooling_device1/type": "thermal-cpufreq-1",
    "class/thermal/cooling_device1/cur_state": "0",
    "class/power_supply/usb/type": "USB",
    "class/power_supply/usb/online": "0",
    "class/power_supply/battery/type": "Battery",
    "class/power_supply/battery/status": "Discharging",
    "class/power_supply/battery/capacity": "81",
}


def written(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return str(root)


def test_the_state_of_a_linux_host(tmp_path: Path) -> None:
    state = DeviceState.from_dict(read_sys(written(tmp_path, SYS)))
    assert state.governor == "performance+schedutil"
    assert state.frequency_mhz == (1400.0, 1803.0)
    assert state.limit_mhz == (1400.0,)
    assert state.max_frequency_mhz == (1803.0, 2850.0)
    assert state.temperature_c == 47.3
    assert state.throttled is False  # the fan is no matter of clocks
    assert (state.charging, state.on_battery, state.battery_percent) == (False, True, 81.0)
    assert power_state_of(state) == "governor performance+schedutil, on battery"
    written(tmp_path, {"class/thermal/cooling_device1/cur_state": "4", "class/power_supply/usb/online": "1"})
    state = DeviceState.from_dict(read_sys(str(tmp_path)))
    assert (state.throttled, state.on_battery) == (True, False)
    assert read_sys(str(tmp_path / "none")) == {}  # a container, or another system: it says nothing


def test_the_state_of_an_android_device() -> None:
    files = "".join(f"{name}:{text}\n" for name, text in SYS.items())
    state = read_state(f"{files}== battery\n{BATTERY}\n== thermal\n{THERMAL}\n")
    assert state.governor == "performance+schedutil"
    assert state.temperature_c == 62.500004  # of the processor and now: not the GPU's, nor an old one
    assert (state.thermal_status, state.throttled) == ("light", False)
    assert (state.charging, state.on_battery, state.battery_percent) == (True, False, 55.0)
    assert state.heat == "thermal status light, 63 degrees Celsius"
    assert read_state("== battery\n== thermal\nThermal Status: 3\n").throttled is True
    assert read_state("== battery\n== thermal\n") == DeviceState()  # a Linux board behind adb without these services


def test_a_runner_here_says_its_state() -> None:
    with Worker("anchor", [], threads=1, precision="fp32") as worker:
        worker.greet()
        DeviceState.from_dict(worker.ask({"do": "state"}))


def test_the_fastest_cores_of_a_device_and_the_programs_it_runs() -> None:
    clocks = "".join(
        f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq:{khz}\n"
        for core, khz in enumerate((1803000, 1803000, 1803000, 1803000, 2348000, 2348000, 2850000, 2850000))
    )
    printed = (
        "== machine\naarch64\n== ro.product.cpu.abilist\narm64-v8a,armeabi-v7a\n== ro.soc.manufacturer\nGoogle\n"
        "== ro.soc.model\nTensor G2\n== ro.product.manufacturer\nGoogle\n== ro.product.model\nPixel 7\n== cpuinfo\n"
        f"== allowed\nCpus_allowed_list:\t0-6\n== taskset\n/system/bin/taskset\n== clocks\n{clocks}"
    )
    facts = read_facts(printed)
    assert facts.processor == "Google Tensor G2 (Google Pixel 7)"
    assert facts.can_pin
    assert [fastest_cores(facts, num) for num in (1, 3)] == [(6,), (4, 5, 6)]  # 7 is not this process's to use
    with pytest.raises(InputError, match="8 threads and 7 cores: give --threads 1 to 7"):
        fastest_cores(facts, 8)
    elf = bytearray(b"\x7fELF" + bytes(60))
    for machine in (183, 40):
        elf[18] = machine
        check_abi(bytes(elf), "program", facts)
    check_abi(b"#!/bin/sh", "program", facts)
    elf[18] = 62
    with pytest.raises(
        InputError, match=r"program for x86_64, the device .* runs arm64-v8a, armeabi-v7a: take the one"
    ):
        check_abi(bytes(elf), "program", facts)
    board = read_facts("== machine\narmv7l\n== cpuinfo\nHardware\t: BCM2835\n== allowed\nCpus_allowed_list:\t0-3\n")
    assert (board.processor, board.abis, board.can_pin) == ("BCM2835", ("armeabi-v7a",), False)
    assert fastest_cores(board, 2) == (2, 3)  # of equal ones the last


def test_core_lists() -> None:
    assert core_list("4-7,1,5") == [4, 5, 6, 7, 1]
    for wrong in ("7-4", "a", "-1", "0-99999999"):
        with pytest.raises(ValueError, match=r"range|invalid literal"):
            core_list(wrong)
