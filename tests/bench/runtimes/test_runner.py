"""The runner process: it speaks JSON, sleeps while idle, ends with its input, and says what failed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.protocol.anchors import ANCHORS, anchor_files, anchor_onnx
from tutelage.bench.protocol.host import thread_environment
from tutelage.bench.protocol.worker import RUNNER, ModelFile, Worker, WorkerError
from tutelage.bench.runtimes import runner
from tutelage.bench.runtimes.anchor import ANCHOR
from tutelage.bench.runtimes.registry import find_runtime

from ..protocol.far import PATIENCE_S


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    anchor = ANCHORS[2]
    path = tmp_path / "net.onnx"
    path.write_bytes(anchor_onnx(anchor))
    return ModelFile(str(path), (1, anchor.channels, anchor.side, anchor.side))


def test_runner_needs_neither_torch_nor_this_package():
    code = f"import runpy, sys; runpy.run_path({str(RUNNER)!r}); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-I", "-c", code], text=True).split()
    assert "json" in loaded
    assert not {"torch", "tutelage", "onnx"} & set(loaded)


def test_times_are_raw_milliseconds_of_the_asked_number(model: ModelFile):
    with Worker("onnxruntime", [model], threads=1, precision="fp32") as worker:
        worker.greet()
        assert worker.version.count(".") == 2
        loaded = worker.ask({"do": "load", "model": 0})
        assert loaded["effective"] == "fp32"
        start = time.perf_counter()
        times = worker.ask({"do": "time", "model": 0, "repeats": 7})["ms"]
        assert len(times) == 7
        assert 0 < sum(times) < (time.perf_counter() - start) * 1000
        memory = worker.ask({"do": "memory"})
        assert memory["peak"] >= memory["rss"] > worker.rss > 1 << 20


def test_the_clock_of_a_device_times_what_runs_there() -> None:
    class Timed:
        def times(self, images: object, repeats: int) -> list[float]:
            return [0.25] * repeats

    assert runner._times(Timed(), None, 3) == [0.25] * 3  # type: ignore[arg-type]


def test_an_idle_runner_takes_no_processor_time(model: ModelFile):
    with Worker("onnxruntime", [model], threads=2, precision="fp32") as worker:
        worker.greet()
        worker.ask({"do": "load", "model": 0})
        worker.ask({"do": "time", "model": 0, "repeats": 20})
        worker.wake()  # not even when it is not stopped
        end, ticks = time.monotonic() + PATIENCE_S, 2
        while ticks > 1 and time.monotonic() < end:  # a busy host may take a while to end what came before
            before = _cpu_ticks(worker._process.pid)
            time.sleep(0.5)
            ticks = _cpu_ticks(worker._process.pid) - before
        assert ticks <= 1


def test_a_runner_ends_when_its_input_ends():
    process = subprocess.Popen([sys.executable, str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    job = {"runtime": "anchor", "adapter": "anchor.py", "threads": 1, "precision": "fp32", "models": []}
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    assert b"version" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    process.stdout.close()


def test_the_environment_of_the_job_is_set_before_numpy_is_imported():
    """OpenBLAS starts its threads when numpy is imported: seven would be as many as this host has cores."""
    process = subprocess.Popen(
        [sys.executable, str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "7"},
    )  # fmt: skip
    job = {
        "runtime": "anchor",
        "adapter": "anchor.py",
        "threads": 1,
        "precision": "fp32",
        "models": [],
        "environment": thread_environment(1),
    }
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    assert b"version" in process.stdout.readline()
    assert "\nThreads:\t1\n" in Path(f"/proc/{process.pid}/status").read_text()
    process.stdin.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    process.stdout.close()


def test_the_least_busy_cores_are_chosen_and_the_last_of_equals(monkeypatch: pytest.MonkeyPatch):
    before = {core: [100, 0, 0, 1000, 0, 0, 0, 0] for core in range(4)}
    idle = {0: 20, 1: 19, 2: 2, 3: 19}  # of 20 ticks
    after = {core: [100 + 20 - idle[core], 0, 0, 1000 + idle[core], 0, 0, 0, 0] for core in idle}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for num, chosen in ((1, [0]), (2, [0, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])):
        snapshots = iter((before, after))
        monkeypatch.setattr(runner, "_core_ticks", lambda snapshots=snapshots: next(snapshots))
        assert runner.quiet_cores(num, seconds=0) == chosen
    monkeypatch.setattr(runner, "_core_ticks", lambda: {0: before[0]})  # numbered otherwise: the last ones
    assert runner.quiet_cores(2, seconds=0) == [2, 3]


def test_a_stopped_runner_dies_with_its_parent(model: ModelFile):
    # The parent starts a worker, stops it and dies without a word; the kernel must end the worker.
    code = (
        "import os, sys; from tutelage.bench.protocol.worker import *\n"
        "w = Worker('anchor', [], threads=1, precision='fp32')\n"
        "w.greet(); w.rest(); print(w._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    pid = int(done.stdout)
    end = time.monotonic() + PATIENCE_S
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(pid)


def test_failures_reach_the_parent_in_one_line(tmp_path: Path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with Worker("onnxruntime", [ModelFile(str(broken), (1, 1, 8, 8))], threads=1, precision="fp32") as worker:
        worker.greet()
        with pytest.raises(WorkerError, match=r"broken\.onnx") as caught:
            worker.ask({"do": "load", "model": 0})
        assert "\n" not in str(caught.value)


def test_a_hanging_runner_is_ended_by_its_watchdog(model: ModelFile):
    with Worker("onnxruntime", [model], threads=1, precision="fp32") as worker:
        worker.greet()
        worker.ask({"do": "load", "model": 0})
        worker.wake()
        worker._line.send({"do": "time", "model": 0, "repeats": 10**9, "limit": 0.3})
        with pytest.raises(WorkerError, match="watchdog"):
            worker._line.receive(PATIENCE_S)


def test_the_numpy_anchor_computes_the_same_every_time():
    run, effective = ANCHOR.adapter().load("48", (1,), 1, "fp32")
    assert effective == "fp32"
    assert (run(None) == run(None)).all()


def test_copies_of_a_model_take_turns_and_answer_alike(tmp_path: Path):
    with Worker("anchor", [ModelFile("48", (1,))], threads=1, precision="fp32") as worker:
        worker.greet()
        worker.ask({"do": "load", "model": 0})
        assert [worker.ask({"do": "copy", "model": 0})["copies"] for _ in range(2)] == [2, 3]
        assert all(len(worker.ask({"do": "time", "model": 0, "repeats": 2})["ms"]) == 2 for _ in range(4))


def test_streaming_anchors_are_networks_of_some_megabytes_that_a_runtime_answers_alike(tmp_path: Path):
    answers = []
    for path, shape in ((Path(file.path), file.shape) for file in anchor_files("onnxruntime", tmp_path)[-3:]):
        assert 8e6 < path.stat().st_size < 21e6
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        found = [find_runtime(runtime).load(path, shape=shape).run(images) for runtime in ("onnxruntime", "openvino")]
        np.testing.assert_allclose(found[0], found[1], atol=1e-3 * np.abs(found[0]).max())
        answers.append(found[0])
    assert np.isfinite(answers).all()
    assert np.abs(answers).max() > 0


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_power_state_is_what_the_host_says_sets_its_clock(tmp_path: Path):
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    assert runner.power_state(str(tmp_path)) == "", "what a host does not say was made up"
    for core, governor in enumerate(("performance", "performance", "powersave")):
        write(f"devices/system/cpu/cpu{core}/cpufreq/scaling_governor", governor)
    assert runner.power_state(str(tmp_path)) == "governor performance+powersave"
    write("devices/system/cpu/intel_pstate/no_turbo", "1")
    write("class/power_supply/AC/online", "1")
    assert runner.power_state(str(tmp_path)) == "governor performance+powersave, turbo off"
    write("devices/system/cpu/intel_pstate/no_turbo", "0")
    write("class/power_supply/AC/online", "0")
    assert runner.power_state(str(tmp_path)) == "governor performance+powersave, turbo on, on battery"
    (tmp_path / "devices/system/cpu/intel_pstate/no_turbo").unlink()
    write("devices/system/cpu/cpufreq/boost", "0")
    assert runner.power_state(str(tmp_path)) == "governor performance+powersave, turbo off, on battery"


def test_a_runner_says_what_it_runs_on(model: ModelFile):
    with Worker("onnxruntime", [model], threads=1, precision="fp32") as worker:
        worker.greet()
        assert (worker.processor, worker.power_state) == (runner.processor(), runner.power_state())


def test_a_runtime_of_a_gpu_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tutelage.bench.runtimes.ort import Onnxruntime

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 700.00 W'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Onnxruntime("CUDAExecutionProvider").gpu() == ("NVIDIA H100 80GB HBM3", "GPU limit 700.00 W")
    assert Onnxruntime().gpu() == ("", "")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert Onnxruntime("CUDAExecutionProvider").gpu() == ("", "")
