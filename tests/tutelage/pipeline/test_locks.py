"""The lock of a workspace: one process writes, the lock ends with it, and where there are no locks that is said."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from tutelage.cli.app import app
from tutelage.leaderboard.store import Store
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError


def _hold(path: str, ready: "multiprocessing.synchronize.Event") -> None:
    with Workspace(Path(path)).locked():
        ready.set()
        signal.pause()


def test_a_second_run_is_kept_out_until_the_first_is_gone_even_by_sigkill(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready), daemon=True)
    process.start()
    assert ready.wait(500)
    with pytest.raises(InputError, match="in use"), Workspace(tmp_path).locked():
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with Workspace(tmp_path).locked():
        pass


def test_a_lock_closes_its_file_whether_it_was_given_or_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        with workspace.locked(), suppress(InputError), Workspace(tmp_path).locked():
            pytest.fail("the lock was given twice")
        gc.collect()
    assert not [str(warning.message) for warning in left_open if ".lock" in str(warning.message)]


def test_the_holder_of_a_workspace_may_lock_it_again_and_releases_it_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.locked():
        with workspace.for_recipe("any").locked():
            pass
        with pytest.raises(InputError, match="in use"), Workspace(tmp_path).locked():
            pass
    with Workspace(tmp_path).locked():
        pass


def test_verbs_that_write_into_a_workspace_are_kept_out_while_another_process_has_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready), daemon=True)
    process.start()
    (tmp_path / "model.onnx").write_bytes(b"")
    model = str(tmp_path / "model.onnx")
    verbs = [
        ["run", "demo"],
        ["run", "demo", "--fresh"],
        ["search", "--max-params", "4M"],
        ["distill"],
        ["quantize", model, "--out", str(tmp_path / "int8.onnx")],
        ["bench", model, "--device", "any"],
        ["explain"],
        ["bundle", "abcdef"],
        ["device", "add", "any"],
        ["device", "check", "any"],
        ["device", "remove", "any"],
    ]
    Store(tmp_path / "leaderboard.db").close()
    assert ready.wait(500)
    try:
        for verb in verbs:
            with pytest.raises(InputError, match="in use by another command"):
                app([*verb, "--workspace", str(tmp_path)], standalone_mode=False)
        with pytest.raises(InputError, match="in use by another command"):
            app(["reproduce", "abc", "--into", str(tmp_path)], standalone_mode=False)
        assert not (tmp_path / "attempts").exists()
        with pytest.raises(InputError, match="no row"):  # reading needs no lock
            app(["leaderboard", "show", "abcdef", "--workspace", str(tmp_path)], standalone_mode=False)
    finally:
        process.kill()
        process.join()


def test_a_child_process_that_lives_on_does_not_keep_the_lock(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.locked():
        handle = workspace._held._handle
        assert handle is not None
        # A fork leaves its child every open file; so does this.
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[handle.fileno()])
    try:
        with Workspace(tmp_path).locked():
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As NFS with nolock and some Lustre mounts: flock gives ENOLCK."""
    import errno
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    place = Workspace(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(InputError, match=r"on a file system without locks \(No locks available\).*--workspace"),
        place.locked(),
    ):
        pass
