"""The script of `make check-gpu` at toy sizes on the CPU."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("check_gpu.py")
CHECKOUT = SCRIPT.parents[2] / "tutelage"


@pytest.mark.long
def test_every_part_runs_at_toy_sizes_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--accelerator", "cpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["part"] for row in rows} == {"host", "tests", "supernet", "scoring", "latency", "family"}
    assert not [row for row in rows if row["what"] == "failed"], rows
    whats = [row["what"] for row in rows]
    assert "largest student, distilled" in whats
    assert done.stdout.startswith("| part | what | result |")
    assert (tmp_path / "supernet.safetensors").is_file()


@pytest.mark.skipif(not CHECKOUT.is_dir(), reason="the script reads the package from a checkout")
def test_a_part_that_fails_is_a_line_and_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("check_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_gpu", script)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--accelerator", "cpu", "--out", str(tmp_path)])
    spec.loader.exec_module(script)

    def broken(check: object) -> None:
        raise RuntimeError("no kernel for this card")

    for parts, code in (((("broken", 0, (), broken), ("sound", 0, (), lambda check: None)), 1), ((), 0)):
        monkeypatch.setattr(script, "PARTS", parts)
        with pytest.raises(SystemExit) as ended:
            script.main()
        rows = json.loads((tmp_path / "results.json").read_text())
        assert ended.value.code == code
        assert [row["result"] for row in rows[1:]] == ["RuntimeError: no kernel for this card"] * code


@pytest.mark.slow
def test_asking_for_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--accelerator", "cuda:99", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("check_gpu: accelerator cuda:99")
