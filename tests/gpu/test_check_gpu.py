"""The script of `make check-gpu` at toy sizes on the CPU."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tutelage.accelerator import CPU

SCRIPT = Path(__file__).with_name("check_gpu.py")
CHECKOUT = SCRIPT.parents[2] / "tutelage"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script, with its changes of the module search undone afterwards."""
    spec = importlib.util.spec_from_file_location("check_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_gpu", script)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(script)
    return script


def toy_run(parts: str, folder: Path) -> list[dict[str, str]]:
    """Run the script at toy sizes on the CPU, and give the lines of its table."""
    command = [sys.executable, str(SCRIPT), "--accelerator", "cpu", "--quick", "--out", str(folder), "--parts", parts]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("| part | what | result |")
    rows: list[dict[str, str]] = json.loads((folder / "results.json").read_text())
    assert {row["part"] for row in rows} == {"host", *parts.split(",")}
    assert not [row for row in rows if row["what"] == "failed"], rows
    return rows


@pytest.mark.long
def test_networks_are_trained_and_scored_at_toy_sizes_on_the_cpu(tmp_path: Path) -> None:
    rows = toy_run("tests,supernet,scoring,family", tmp_path)
    assert "largest student, distilled" in [row["what"] for row in rows]
    (teacher,) = [row["result"] for row in rows if row["what"] == "teacher"]
    assert "on 16 images" in teacher
    assert (tmp_path / "supernet.safetensors").is_file()


@pytest.mark.long
def test_a_torch_device_is_added_and_checked_on_the_cpu(tmp_path: Path) -> None:
    rows = toy_run("device", tmp_path)
    # `device add` and `device check` themselves, of the runtime that has no GPU: a profile, its model and its networks.
    (added,) = [row["result"] for row in rows if row["what"] == "torch, batch 1"]
    assert "6 nets, error of each left out" in added
    assert "error on unseen nets" in added
    assert {path.name for path in (tmp_path / "devices" / "devices").iterdir()} == {
        "torch-1.yaml", "torch-1.latency.json", "torch-1.measurements.csv"
    }  # fmt: skip


@pytest.mark.skipif(not CHECKOUT.is_dir(), reason="the script reads the package from a checkout")
def test_a_part_that_fails_is_a_line_and_the_exit_code(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--accelerator", "cpu", "--out", str(tmp_path)])

    def broken(check: object) -> None:
        raise RuntimeError("no kernel for this card")

    for parts, code in (((("broken", 0, (), broken), ("sound", 0, (), lambda check: None)), 1), ((), 0)):
        monkeypatch.setattr(script, "PARTS", parts)
        with pytest.raises(SystemExit) as ended:
            script.main()
        rows = json.loads((tmp_path / "results.json").read_text())
        assert ended.value.code == code
        assert [row["result"] for row in rows[1:]] == ["RuntimeError: no kernel for this card"] * code


@pytest.mark.skipif(not CHECKOUT.is_dir(), reason="the script reads the package from a checkout")
def test_the_same_call_goes_on_with_what_is_not_finished(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--accelerator", "cpu", "--out", str(tmp_path)])
    called: list[str] = []

    def part(name: str, result: str) -> tuple[object, ...]:
        def run(check: object) -> None:
            called.append(name)
            check.say(name, "speed", result)  # type: ignore[attr-defined]

        return name, 0, (), run

    parts = [part("whole", "3 steps/s"), part("open", "stopped after 9 s"), part("family", "1 epoch")]
    monkeypatch.setattr(script, "PARTS", parts)
    code = ["1"]
    monkeypatch.setattr(script, "_code_id", lambda: code[0])
    for expected in (["whole", "open", "family"], ["open", "family"]):
        called.clear()
        with pytest.raises(SystemExit):
            script.main()
        assert called == expected
        rows = json.loads((tmp_path / "results.json").read_text())
        assert [row["part"] for row in rows] == ["host", "whole", "open", "family"]
    code[0] = "2"  # figures of other code are not kept
    called.clear()
    with pytest.raises(SystemExit):
        script.main()
    assert called == ["whole", "open", "family"]


def test_a_device_takes_no_longer_than_its_time(script: ModuleType, tmp_path: Path) -> None:
    check = script.Check(argparse.Namespace(out=tmp_path, quick=True), CPU)
    figures, end, failed = script._device(check, "torch", 4, 0.05)
    assert (figures, failed) == ({}, False)
    assert end.startswith("stopped after 0 s: ")
    assert end.endswith("the same command goes on")


# The path that a bare checkout has: no installed package of ours, in whose place the editable one is taken out here.
BARE = """
import sys
from pathlib import Path
sys.meta_path = [one for one in sys.meta_path if "editable" not in str(one).lower()]
sys.path = [one for one in sys.path if one and Path(one) != Path({root!r})]
sys.path.insert(0, str(Path({script!r}).parent))
import check_gpu
check_gpu.find_package(Path({house!r}))
import tutelage, tutelage.search.spaces.space
print(tutelage.search.__file__)
"""


@pytest.mark.skipif(not CHECKOUT.is_dir(), reason="the script reads the package from a checkout")
def test_the_package_and_its_rooms_are_found_in_a_bare_checkout(tmp_path: Path) -> None:
    program = BARE.format(root=str(SCRIPT.parents[2]), script=str(SCRIPT), house=str(tmp_path))
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


@pytest.mark.slow
def test_asking_for_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--accelerator", "cuda:99", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("check_gpu: accelerator cuda:99")
