"""One ssh connection a device: who logs in, which files go there, and when it ends."""

import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tutelage.bench.boards.ssh import SSH_OPTIONS, Ssh
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import open_launcher
from tutelage.bench.protocol.worker import Board, ModelFile, start_workers, stop_workers
from tutelage.records import DeviceProfile

from .far import PATIENCE_S, Far

SHAPE = (32, 20, 20)
# Behind a launcher that is not ssh: another process here, as docker or adb would start one.
BOX = DeviceProfile(name="box", runtime="onnxruntime", command=f"env OMP_NUM_THREADS=7 {sys.executable} {{runner}}")
SHORT = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 10.0}


@pytest.mark.slow
def test_a_file_is_copied_once_whatever_it_is_called(
    far: Far, device: DeviceProfile, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The sessions of a calibration and their anchors: the same files under other names."""
    copies: list[str] = []
    copy = Ssh.copy

    def counted(there: Ssh, path: Path, target: str) -> None:
        copies.append(path.name)
        copy(there, path, target)

    monkeypatch.setattr(Ssh, "copy", counted)
    model = next(iter(models.values()))
    again = tmp_path / f"again{model.suffix}"
    shutil.copyfile(model, again)
    with open_launcher(device, ssh=far.ssh) as launcher:
        copies.clear()  # of the runner's own files
        for _ in range(2):
            _, there = launcher([ModelFile(str(path), (1, 3, 32, 32)) for path in (model, again)])
    assert copies == [model.name]
    assert there[0] == there[1]


@pytest.mark.slow
def test_the_sessions_of_a_device_are_one_login(
    far: Far, device: DeviceProfile, models: dict[str, Path], tmp_path: Path
):
    logins, files = far.logins(), list[bytes]()
    again = tmp_path / "again.onnx"
    shutil.copyfile(models["net"], again)
    with open_launcher(device, ssh=far.ssh) as launcher:
        measure(models, device, SHAPE, launcher=launcher, **SHORT)
        assert not isinstance(launcher, Board)
        launcher([ModelFile(str(again), (1, *SHAPE))])  # of the next session
        files = [path.read_bytes() for path in far.temporary.glob("tmp.*/*.onnx")]
    assert far.logins() == logins + 1
    assert models["net"].read_bytes() in files
    assert len(files) == len(set(files))  # the net and the anchors, each once
    assert not far.left()


@pytest.mark.parametrize("refusing", ["server", "client"])
def test_where_a_connection_cannot_be_shared_each_runner_logs_in(
    far: Far, device: DeviceProfile, refusing: str, tmp_path: Path
):
    client = [far.narrow if part == far.ssh[4] else part for part in far.ssh]
    if refusing == "client":
        (tmp_path / "ssh").write_text(
            '#!/bin/sh\ncase " $* " in *" -M "*|*" -O "*) echo unknown option >&2; exit 1 ;; esac\nexec ssh "$@"\n'
        )
        (tmp_path / "ssh").chmod(0o755)
        client = [str(tmp_path / "ssh"), *far.ssh[1:]]
    logins = far.logins()
    with open_launcher(device, ssh=client) as launcher:
        workers = start_workers([("anchor", [])] * 2, threads=1, precision="fp32", launcher=launcher)
        try:
            assert len(far.lines()) == 2
        finally:
            stop_workers(workers)
    assert far.logins() > logins + 5  # for a folder, Python, each of the runner's files, and two runners
    assert not far.left()


def test_a_connection_that_the_user_shares_is_used(far: Far, device: DeviceProfile, tmp_path: Path):
    client = [*far.ssh, *SSH_OPTIONS, "-o", f"ControlPath={tmp_path / 'own'}"]
    with subprocess.Popen([*client, "-M", device.host, "echo; exec cat"], stdin=-1, stdout=-1) as own:
        assert own.stdout is not None
        assert own.stdout.read(1)
        logins = far.logins()
        with open_launcher(device, ssh=client):
            pass
        assert far.logins() == logins
        assert own.poll() is None
        own.communicate()
    assert not far.left()


def test_the_connection_ends_with_the_process_that_holds_it(far: Far, device: DeviceProfile):
    holder = (
        "import os, sys; from tutelage.bench.boards.ssh import connect\n"
        "with connect(sys.argv[2:], sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", holder, device.host, *far.ssh, *SSH_OPTIONS])
    assert done.returncode == -9

    def masters() -> list[str]:
        lines = []
        for path in processes():
            with suppress(OSError):  # it ended meanwhile
                lines.append(path.read_bytes().decode(errors="replace"))
        return [line for line in lines if str(far.log.parent) in line and "\0-M\0" in line]

    end = time.monotonic() + PATIENCE_S
    while masters() and time.monotonic() < end:
        time.sleep(0.05)
    assert not masters()


def processes() -> list[Path]:
    return [entry / "cmdline" for entry in Path("/proc").iterdir() if entry.name.isdigit()]
