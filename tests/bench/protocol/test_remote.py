"""Other hosts: a real sshd on the loopback address that the test starts, and launcher templates."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.bench.boards.ssh import SSH_OPTIONS, Ssh
from tutelage.bench.layers.profile import profile_layers
from tutelage.bench.protocol import worker as worker_module
from tutelage.bench.protocol.host import describe_host, thread_environment
from tutelage.bench.protocol.measure import Job, measure, measure_jobs
from tutelage.bench.protocol.remote import open_launcher
from tutelage.bench.protocol.worker import ModelFile, Worker, WorkerError, start_workers, stop_workers
from tutelage.records import DeviceProfile, InputError

from .far import PATIENCE_S, Far, parent_of

SHAPE = (32, 20, 20)
# Behind a launcher that is not ssh: another process here, as docker or adb would start one.
BOX = DeviceProfile(name="box", runtime="onnxruntime", command=f"env OMP_NUM_THREADS=7 {sys.executable} {{runner}}")
SHORT = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 10.0}


def state_of(pid: int) -> str:
    """Give the state of a process: S sleeps, T is stopped, R runs."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def environment_of(pid: int) -> dict[str, str]:
    """Give the environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def stops(pid: int) -> bool:
    """Say whether a process is stopped within a moment."""
    end = time.monotonic() + PATIENCE_S
    while state_of(pid) != "T" and time.monotonic() < end:
        time.sleep(0.01)
    return state_of(pid) == "T"


@contextlib.contextmanager
def a_runner(far: Far, device: DeviceProfile, models: dict[str, Path]) -> Iterator[Worker]:
    """Start one runner there, with the net loaded."""
    with open_launcher(device, ssh=far.ssh) as launcher:
        argv, seen = launcher([ModelFile(str(models["net"]), (1, *SHAPE))])
        with Worker("onnxruntime", seen, threads=1, precision="fp32", argv=argv) as worker:
            worker.greet()
            worker.ask({"do": "load", "model": 0})
            assert far.runners()
            yield worker


@pytest.mark.slow
def test_measure_over_ssh(far: Far, device: DeviceProfile, models: dict[str, Path], tmp_path: Path):
    far.python.write_text(f'#!/bin/sh\nTUTELAGE_SYS={tmp_path}/there exec {sys.executable} "$@"\n')
    with open_launcher(device, ssh=far.ssh) as launcher:
        jobs = [Job(name, path, (1, *SHAPE)) for name, path in models.items()]
        timed = measure_jobs(jobs, device, launcher=launcher, **SHORT)
    result = timed.measurements["net"]
    assert timed.cpu_model == describe_host()["cpu_model"]  # the far host names its processor; here it is this one
    assert result.device == "far"
    assert len(result.samples_ms) >= 40
    assert result.runtime_version
    assert result.peak_rss_bytes > result.runtime_rss_bytes
    assert result.energy_missing.startswith(f"{tmp_path}/there/class/powercap is missing")  # of that side's files
    assert not far.left()


@pytest.mark.slow
def test_layers_are_profiled_there(
    far: Far, device: DeviceProfile, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    client = tmp_path / "ssh"  # as the user's configuration would reach that host
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {shlex.join(far.ssh[1:])} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    here = profile_layers(models["net"], DeviceProfile(name="box", runtime="onnxruntime"), SHAPE)
    there = profile_layers(models["net"], device, SHAPE)
    assert [(layer.name, layer.kernel) for layer in there] == [(layer.name, layer.kernel) for layer in here]
    assert sum(layer.ms for layer in there) > 0
    assert not far.left()


def test_runners_there_have_their_threads_and_cores_and_are_stopped_between_turns(
    far: Far, device: DeviceProfile, models: dict[str, Path]
):
    groups = [("onnxruntime", [ModelFile(str(models["net"]), (1, *SHAPE))]), ("anchor", [ModelFile("48", (1,))])]
    with open_launcher(device, ssh=far.ssh) as launcher:
        workers = start_workers(groups, threads=1, precision="fp32", launcher=launcher)
        try:
            pids = [worker.pid for worker in workers]
            assert len(far.runners()) == 2 * len(pids)  # each with its keeper
            for pid in pids:
                assert parent_of(pid) in far.runners()
                assert thread_environment(1).items() <= environment_of(pid).items()  # that host says 7
                assert stops(pid)
            assert len({frozenset(os.sched_getaffinity(pid)) for pid in pids}) == 1
            assert len(os.sched_getaffinity(pids[0])) == 1  # as many as threads, the same ones for all
            assert "\nThreads:\t1\n" in Path(f"/proc/{pids[1]}/status").read_text()  # numpy took one alone
            workers[0].ask({"do": "load", "model": 0})
            assert all(map(stops, pids))
        finally:
            stop_workers(workers)
    assert not far.left()


def test_an_unknown_host_key_is_refused(far: Far, device: DeviceProfile, tmp_path: Path):
    (tmp_path / "none").touch()
    stranger = [
        part if "UserKnownHostsFile" not in part else f"UserKnownHostsFile={tmp_path / 'none'}" for part in far.ssh
    ]
    with pytest.raises(InputError, match="ost key verification failed"), open_launcher(device, ssh=stranger):
        pass


def test_a_wrong_key_and_a_dead_port_are_one_line(far: Far, device: DeviceProfile, tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    other = [str(tmp_path / "k") if part.endswith("/user") else part for part in far.ssh]
    with pytest.raises(InputError, match="Permission denied") as caught, open_launcher(device, ssh=other):
        pass
    assert "\n" not in str(caught.value)
    dead = ["1" if part == far.ssh[4] else part for part in far.ssh]
    with pytest.raises(InputError, match="refused"), open_launcher(device, ssh=dead):
        pass


@pytest.mark.slow
def test_a_lost_connection_leaves_nothing_running(far: Far, device: DeviceProfile, models: dict[str, Path]):
    with a_runner(far, device, models) as worker:
        worker._process.kill()  # the line is cut: ssh dies without a word
        # Over a shared connection its master holds the line, and drops it when it notices.
        assert far.ends()
        with pytest.raises(WorkerError, match="runner ended"):
            worker.ask({"do": "memory"}, timeout=10)
    assert not far.left()


@pytest.mark.long
def test_a_line_cut_while_measuring_is_one_line(far: Far, device: DeviceProfile, models: dict[str, Path]):
    cut: list[int] = []

    def cut_it(stage: str, done: int, total: int) -> None:
        if stage == "measuring" and done == 2 and not cut:
            cut.extend(far.lines())
            for process in cut:
                os.kill(process, 9)

    with (
        pytest.raises(InputError, match=r"cannot measure .*exit code 255 \(ssh: connection lost") as caught,
        open_launcher(device, ssh=far.ssh) as launcher,
    ):
        measure(models, device, SHAPE, launcher=launcher, progress=cut_it, **SHORT)
    assert len(cut) == 1  # of all five runners
    assert "\n" not in str(caught.value)
    assert not far.left()


@pytest.mark.slow
def test_a_dead_line_that_looks_open_leaves_nothing_running(
    far: Far, device: DeviceProfile, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    # The far end of the line stands still: no end of input reaches the runner, which must not wait for ever.
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 5.0)  # a busy host needs some of it to come to the line
    with a_runner(far, device, models):
        lines = far.lines()
        try:
            for process in lines:
                os.kill(process, 19)
            assert far.ends()
        finally:
            for process in lines:
                os.kill(process, 18)
    assert not far.left()


@pytest.mark.slow
def test_a_hanging_runner_there_is_ended_in_time(far: Far, device: DeviceProfile, models: dict[str, Path]):
    with a_runner(far, device, models) as worker:
        worker.wake()
        worker._line.send({"do": "time", "model": 0, "repeats": 10**9, "limit": 0.5})
        with pytest.raises(WorkerError, match="the runner ended"):
            worker._line.receive(PATIENCE_S)
        assert far.ends()
    assert not far.left()


def test_a_python_of_another_architecture_is_reported(far: Far, device: DeviceProfile):
    program = bytearray(Path(os.path.realpath("/bin/sh")).read_bytes()[:4096])
    program[18] = 62 if program[18] == 183 else 183  # the machine of an ELF header: 62 is x86-64, 183 is AArch64
    far.python.write_bytes(program)
    far.python.chmod(0o755)
    with (
        pytest.raises(InputError, match=r"TUTELAGE_PYTHON there says: .*xec") as caught,
        open_launcher(device, ssh=far.ssh),
    ):
        pass
    assert f"install them there for {os.uname().machine}" in str(caught.value)
    assert not far.left()


@pytest.mark.slow
def test_a_runtime_of_another_architecture_is_reported(far: Far, device: DeviceProfile, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    (site / "numpy.pth").write_text(str(Path(pytest.__file__).parents[1]))
    (site / "onnxruntime").mkdir()
    (site / "onnxruntime" / "__init__.py").write_text("from . import state")
    library = bytearray(Path(os.path.realpath("/bin/sh")).read_bytes()[:4096])
    library[4] = 1  # the class of an ELF header: 32 bits
    (site / "onnxruntime" / "state.so").write_bytes(library)
    far.python.write_text(f'#!/bin/sh\nexec {tmp_path}/venv/bin/python "$@"\n')
    with (
        pytest.raises(InputError, match=r"runs numpy and onnxruntime .*state\.so.* wrong ELF class") as caught,
        open_launcher(device, ssh=far.ssh),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert not far.left()


def test_a_host_without_the_runtime_is_reported(far: Far, device: DeviceProfile, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    far.python.write_text(f'#!/bin/sh\nexec {tmp_path}/venv/bin/python "$@"\n')
    with (
        pytest.raises(InputError, match=r"No module named 'numpy'\): install them there"),
        open_launcher(device, ssh=far.ssh),
    ):
        pass


@pytest.mark.slow
def test_a_full_disk_there_is_reported(far: Far, device: DeviceProfile, models: dict[str, Path]):
    net = ModelFile(str(models["net"]), (1, *SHAPE))
    with (
        a_small_disk(far.temporary),
        pytest.raises(InputError, match=r"cannot copy net\.onnx .*No space left on device"),
        open_launcher(device, ssh=far.ssh) as launcher,
    ):
        launcher([net])
    assert not far.left()


def test_a_file_that_arrives_in_part_is_reported(far: Far, device: DeviceProfile, models: dict[str, Path]):
    with pytest.raises(InputError, match=r"No space left|disk full"):
        Ssh([*far.ssh, *SSH_OPTIONS], device.host).copy(models["net"], "/dev/full")


@contextlib.contextmanager
def a_small_disk(folder: Path) -> Iterator[None]:
    """Lay a disk of 76 kB over a folder: room for the runner and its counters, not for a net."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=76k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here: run the tests as root")
    try:
        yield
        assert not list(folder.glob("tmp.*"))  # cleaned up there, although the disk was full
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_runners_behind_a_template_have_their_threads_and_are_stopped():
    with open_launcher(BOX) as launcher:
        workers = start_workers([("anchor", [])], threads=1, precision="fp32", launcher=launcher)
        try:
            assert environment_of(workers[0].pid)["OMP_NUM_THREADS"] == "1"
            assert stops(workers[0].pid)
        finally:
            stop_workers(workers)


def test_a_stopped_runner_elsewhere_ends_with_its_keeper():
    with (
        open_launcher(BOX) as launcher,
        Worker("anchor", [], threads=1, precision="fp32", argv=launcher([])[0]) as worker,
    ):
        worker.greet()
        assert stops(worker.pid)
        keeper = parent_of(worker.pid)
        os.kill(keeper, 9)
        end = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{worker.pid}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not Path(f"/proc/{worker.pid}").exists()
