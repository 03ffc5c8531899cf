"""One session at a time on a device: processes, threads and workspaces of one host wait for each other."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tutelage.bench.devices.turns import LOCKS_VARIABLE, exclusively, lock_path
from tutelage.bench.protocol.remote import launcher_of
from tutelage.records import DeviceProfile, InputError

from ..protocol.far import PATIENCE_S

HERE = DeviceProfile(name="here", runtime="onnxruntime", threads=1)

# Takes turns on a device and notes in a file when its turn begins and ends.
_TURNS = """
import sys, time
from tutelage.bench.protocol.remote import launcher_of
from tutelage.records import DeviceProfile
name, notes, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
for turn in range(turns):
    with launcher_of(DeviceProfile(name=name, runtime="onnxruntime", threads=1)):
        for word in ("begin", "end"):
            with open(notes, "a") as file:
                file.write(f"{word} {name} {turn}\\n")
            time.sleep(0.01)
"""
_HOLD = """
import sys, time
from tutelage.bench.devices.turns import exclusively
from tutelage.records import DeviceProfile
with exclusively(DeviceProfile(name="other", runtime="onnxruntime", threads=1)):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCKS_VARIABLE, str(tmp_path))


def test_sessions_of_several_processes_on_one_machine_follow_each_other(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    names = ("first", "second", "third")  # profiles of different workspaces, all of this machine
    processes = [subprocess.Popen([sys.executable, "-c", _TURNS, name, str(notes), "4"]) for name in names]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = [line.split(maxsplit=1) for line in notes.read_text().splitlines()]
    assert len(lines) == 2 * 3 * 4
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert (begin[0], end[0], begin[1]) == ("begin", "end", end[1])


def test_a_device_that_is_in_use_is_waited_for_and_free_when_its_holder_is_killed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        entered = threading.Event()

        def take() -> None:
            with launcher_of(HERE):
                entered.set()

        thread = threading.Thread(target=take)
        thread.start()
        while not caplog.records:
            assert not entered.is_set()
            thread.join(0.05)
        assert not entered.is_set()
        os.kill(other.pid, signal.SIGKILL)
        assert entered.wait(PATIENCE_S)
        thread.join()
    finally:
        other.kill()
        other.communicate()
    said = f"device here: waiting for process {other.pid}, which times on device other"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_thread_may_take_its_device_again() -> None:
    with exclusively(HERE), launcher_of(HERE), launcher_of(HERE.model_copy(update={"name": "of this machine, too"})):
        pass


def test_profiles_of_one_machine_or_board_share_a_lock_and_others_do_not() -> None:
    def lock(**fields: str) -> Path:
        return lock_path(HERE.model_copy(update=fields))

    assert lock() == lock(name="b", runtime="openvino")
    assert lock(host="adb:A1") == lock(host="adb:A1", name="b")
    different = [lock(), lock(host="adb:A1"), lock(host="adb:A2"), lock(host="adb-A1"), lock(command="run {runner}")]
    assert len(set(different)) == len(different)


def test_ways_to_one_board_share_its_lock() -> None:
    def lock(**fields: str) -> Path:
        return lock_path(HERE.model_copy(update=fields))

    by_ssh = {lock(host=host) for host in ("me@board", "you@Board", "board")}
    by_ssh |= {
        lock(command=command)
        for command in (
            "ssh me@board ./device",
            "/usr/bin/ssh -T -p 22 -o BatchMode=yes -i key board 'cd models && ./device --int8'",
            "ssh ssh://me@board ./device",
        )
    }
    assert len(by_ssh) == 1
    assert lock(command="ssh -l board other ./device") == lock(host="other")
    assert {lock(host="adb:A1"), lock(command="adb -s A1 shell /data/local/tmp/device")} == {lock(host="adb:A1")}
    assert lock(command="./device one") != lock(command="./device two")
    assert lock(command="ssh -T") == lock(command="ssh -T")  # names no host: by its words


def test_a_lock_that_cannot_be_made_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCKS_VARIABLE, str(tmp_path / "nowhere"))
    remedy = f"cannot lock the device.*set {LOCKS_VARIABLE} to a folder"
    with pytest.raises(InputError, match=remedy), exclusively(HERE):
        pass


def test_a_file_that_another_user_made_is_locked_all_the_same(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with exclusively(HERE):
            pass
    finally:
        os.umask(old)
    assert lock_path(HERE).stat().st_mode & 0o777 == 0o666
    assert lock_path(HERE).parent == tmp_path
