"""Users without a home, disks that are full, file systems without locks: one line each."""

import errno
import os
import resource
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tutelage.bench.converters.litert import converter_folder
from tutelage.bench.devices.profiles import list_profiles, profile_folders
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.training.checkpoint import save_checkpoint
from tutelage.files import os_errors, whole_file, write_text
from tutelage.leaderboard.store.engines import plain_errors
from tutelage.records import InputError, NotAvailableError

from .command import assert_exit, tutelage


def test_a_user_without_a_home_needs_none_but_for_caches_that_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "TUTELAGE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(RuntimeError):
        Path.home()
    assert profile_folders(tmp_path)[0] == tmp_path / "devices"
    assert list_profiles(tmp_path) == []
    assert tutelage("device", "list", "-w", str(tmp_path)).returncode == 0
    with pytest.raises(NotAvailableError, match="no home: set XDG_CACHE_HOME"):
        converter_folder()
    with pytest.raises(InputError, match=r"no home: say where with data\.path"):
        load_dataset("medmnist", size=28, options={"flag": "breastmnist"})


def test_a_home_that_cannot_be_written_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")  # nobody can make a folder there
    assert tutelage("device", "list", "-w", str(tmp_path)).returncode == 0
    assert_exit(tutelage("run", "demo", "-w", "~/w"), 2, "/proc/none/w cannot be written")


@pytest.fixture
def full_disk() -> object:
    """Let no file grow past a kilobyte, as on a disk that is full; the signal of it is ignored as in a run."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("full_disk")
def test_libraries_that_meet_a_full_disk_raise_what_the_command_line_reports(tmp_path: Path) -> None:
    """safetensors and PyTorch raise errors of their own there, which name no file."""
    tensors = {"a": torch.zeros(10_000)}
    with pytest.raises(OSError, match="File too large") as caught, whole_file(tmp_path / "w.safetensors") as aside:
        save_file(tensors, aside)
    assert caught.value.filename == str(tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir()), "a half-written file was left"
    with pytest.raises(OSError, match="No space left"), os_errors(tmp_path / "x.pt"):
        torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path / "c", 1, {"model": tensors}, {}, {})
    with pytest.raises(ZeroDivisionError), os_errors(tmp_path):
        raise ZeroDivisionError


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "weights.safetensors")

    monkeypatch.setattr("tutelage.pipeline.preflight.checks.load_recipe", full)
    assert_exit(tutelage("run", "demo", "-w", str(tmp_path)), 2, "weights.safetensors: No space left on device")


def test_a_store_without_locks_is_named() -> None:
    message = r"b.db: locking protocol.* no locks: name a --workspace on a local disk"
    with pytest.raises(InputError, match=message), plain_errors("b.db", writes=False):
        raise sqlite3.OperationalError("locking protocol")


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    """A file written aside and renamed would take the place of /dev/stdout or /dev/full."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_text(pipe, "figures")
    reader.join(10)
    assert read == ["figures"]
    assert pipe.is_fifo()
    assert not [file for file in tmp_path.iterdir() if file != pipe]
