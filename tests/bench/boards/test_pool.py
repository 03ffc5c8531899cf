"""Boards of a Ray cluster, each played by a machine with the device protocol's speaker behind it."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ray_cluster import HeadStore, RayCluster, cluster
from tests.tutelage.command import tutelage
from tutelage.bench.boards import pool
from tutelage.bench.boards.pool import BOARD_VARIABLE, WAIT_VARIABLE, joined, open_board
from tutelage.bench.boards.shelf import Pool, pools
from tutelage.bench.devices.profiles import check_profile_values, write_profile
from tutelage.bench.devices.turns import LOCKS_VARIABLE
from tutelage.bench.protocol.lines import LostDeviceError
from tutelage.bench.protocol.measure import measure
from tutelage.records import DeviceProfile, InputError, NotAvailableError

SPEAKER = Path(__file__).with_name("speaker.py")
SHORT: dict[str, Any] = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 1.0}
SHAPE = (3, 8, 8)
Z80 = DeviceProfile(name="z80", runtime="onnxruntime", host="ray:z80", cpu_model="Z80")


def test_a_pool_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="give the name of the pool after it, ray:NAME"):
        check_profile_values(Z80.model_copy(update={"host": "ray:"}))


def test_without_a_cluster_the_device_is_not_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(pool, "load_ray", lambda: _Unreachable)
    with (
        pytest.raises(NotAvailableError, match=r"RAY_ADDRESS 127.0.0.1:1: nothing answers there \(.*refused\)"),
        joined(),
    ):
        pass
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(NotAvailableError, match=r"no Ray cluster answers at .* \(nobody there\)"), joined():
            pass
    write_profile(Z80, tmp_path / "devices")
    listed = tutelage("device", "list", "-w", str(tmp_path))
    assert "pool z80 of z80: boards not known: RAY_ADDRESS 127.0.0.1:1: nothing answers there" in listed.stdout


class _Unreachable:
    @staticmethod
    def is_initialized() -> bool:
        return False

    @staticmethod
    def init(**_: Any) -> None:
        raise ConnectionError("nobody there")

    @staticmethod
    def shutdown() -> None:
        pass


class Clock:
    """Seconds that pass when they are said to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Boardless:
    """Stands for a cluster that has boards of other pools, and a session that waits for one of `z80`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.util = SimpleNamespace(list_named_actors=lambda all_namespaces: [])
        self.experimental = HeadStore()
        self.board = SimpleNamespace(reached=SimpleNamespace(remote=lambda: "reply"))

    def wait(self, replies: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.clock.now += timeout
        return [], replies

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "NodeManagerHostname": "shed", "Resources": {"CPU": 1.0, "device:z81": 1.0}}]

    def available_resources(self) -> dict[str, float]:
        return {}


MEASURED = Z80.model_copy(update={"runtime_version": "1.20"})


@pytest.mark.parametrize(
    ("device", "setting", "seconds"), [(Z80, "", 20), (MEASURED, "", 600), (Z80, "90", 90), (MEASURED, "5", 5)]
)
def test_a_pool_without_a_board_is_waited_for_as_long_as_it_is_said(
    device: DeviceProfile,
    setting: str,
    seconds: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    monkeypatch.setenv(WAIT_VARIABLE, setting)
    monkeypatch.setattr(pool, "time", clock)
    monkeypatch.setattr(pool, "_seen", set())
    ray = Boardless(clock)
    start = r"run `ray start --address=HEAD --resources='\{\"device:z80\": 1\}'` on it"
    with pytest.raises(
        NotAvailableError,
        match=rf"no board of the pool z80 is up, and none came in {seconds} s \(TUTELAGE_BOARD_WAIT sets how long\): "
        rf"{start}, or on .*; pools that are up: z81$",
    ):
        pool._wait(ray, ray.board, device)
    assert seconds < clock.now <= seconds + 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 + (seconds - 1) // 60
    assert re.search(rf"z80 is up: waiting up to {seconds - 1} s for one \(TUTELAGE_BOARD_WAIT\): {start}", said[0])


@pytest.mark.parametrize("setting", ["soon", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused_before_ray_is_asked(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, setting)
    with pytest.raises(InputError, match=rf"TUTELAGE_BOARD_WAIT is '{setting}': give the seconds"), open_board(Z80):
        pass


# Says that it is there, and works on for a while when its input has ended; then it notes in a file that it has ended.
LINGERS = """
import os, sys, time
print(os.getpid(), flush=True)
sys.stdin.read()
time.sleep(float(sys.argv[2]))
open(sys.argv[1], "w").close()
"""


def lingering(ended: Path, seconds: float) -> list[str]:
    """Give the words that start it by the Python of a board's machine."""
    return ["", "-I", "-c", LINGERS, str(ended), str(seconds)]


def test_a_board_ends_what_was_started_there_and_starts_nothing_more(tmp_path: Path) -> None:
    board = pool._Board(Z80)
    numbers = [board.start(lingering(tmp_path / str(number), 0.2)) for number in range(2)]
    board.end_all(600)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    assert [board.end(number) for number in numbers] == [(0, "")] * 2
    with pytest.raises(RuntimeError, match="the session on this board is over"):
        board.start(lingering(tmp_path / "2", 0))
    board._turn.close()


class Shelf:
    """A cluster on this host whose machines each have one board at the end of a cable."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def plug(self, pool: str, number: int, script: Path = SPEAKER) -> Any:
        """Plug a board in; its machine waits for nobody else's boards."""
        variables = {
            BOARD_VARIABLE: f"{sys.executable} -I {script} '' {self.folder} {number}",
            LOCKS_VARIABLE: str(self.folder),
        }
        offered: dict[str, Any] = {"num_cpus": 0, "resources": {f"device:{pool}": 1}, "env_vars": variables}
        return self.cluster.add(**offered)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with cluster() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", started.address)
        with joined():
            yield Shelf(started, tmp_path_factory.mktemp("shelf"))


def model(folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(b"x" * 700)
    return path


def sessions_of(folder: Path) -> dict[int, list[tuple[float, float]]]:
    """Give when the sessions of each board began and ended, as the programs that played it wrote it down."""
    found: dict[int, dict[int, list[float]]] = {}
    for line in (folder / "spans").read_text().splitlines():
        one = json.loads(line)
        found.setdefault(one["board"], {}).setdefault(one["session"], []).extend((one["from"], one["to"]))
    return {board: sorted((min(times), max(times)) for times in held.values()) for board, held in found.items()}


PLAYED = """
import json, os, runpy, sys, time
folder, number, begun = sys.argv[2], int(sys.argv[3]), time.time()
sys.argv = sys.argv[:1]
runpy.run_path({speaker!r})
with open(folder + "/spans", "a") as file:
    file.write(json.dumps({{"board": number, "from": begun, "to": time.time(), "session": os.getppid()}}) + "\\n")
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)  # eleven machines start
def test_ten_boards_time_what_twenty_sessions_ask_one_at_a_time_each(shelf: Shelf, tmp_path: Path) -> None:
    played = tmp_path / "played.py"
    played.write_text(PLAYED.format(speaker=str(SPEAKER)))
    boards = [shelf.plug("z80", number, played) for number in range(10)]
    net, seen = model(tmp_path), list[Pool]()

    with ThreadPoolExecutor(20) as sessions:
        asked = [sessions.submit(measure, {"net": net}, Z80, SHAPE, seed=seed, **SHORT) for seed in range(20)]
        import ray

        while not all(one.done() for one in asked):
            seen.append(pools(ray)["z80"])
            time.sleep(0.5)
        times = [one.result()["net"].samples_ms for one in asked]
    # The speaker says a nanosecond a byte.
    assert all(set(one) == {700e-6} for one in times)
    # All ten were used, each by one session at a time: those of one board follow each other.
    held = sessions_of(shelf.folder)
    assert set(held) == set(range(10))
    assert sum(map(len, held.values())) == 20
    assert all(one[1] <= other[0] for board in held.values() for one, other in pairwise(board))
    assert max(one.waiting for one in seen) > 0
    assert max(one.used for one in seen) == max(one.up for one in seen) == 10
    assert all(one.used <= one.up for one in seen)

    write_profile(Z80, tmp_path / "devices")
    (tmp_path / "artifacts/aa").mkdir(parents=True)
    filed = {"sha": {**asked[0].result()["net"].to_dict(), "drift": 0.031, "created": "2026-01-02T03:04:05+00:00"}}
    (tmp_path / "artifacts/aa/measurements.json").write_text(json.dumps(filed))
    wait_for(lambda: (pools(ray)["z80"].used, pools(ray)["z80"].waiting) == (0, 0))  # given back by and by
    listed = tutelage("device", "list", "-w", str(tmp_path)).stdout
    assert re.search(r"pool z80 of z80: 10 up on \S+, 0 in use, 0 waiting; calibrated never, drift \+3.1%", listed)
    # Two are unplugged, and one comes back.
    for board in boards[:2]:
        shelf.cluster.remove(board)
    wait_for(lambda: pools(ray)["z80"].up == 8)
    listed = tutelage("device", "list", "-w", str(tmp_path)).stdout
    assert re.search(r"pool z80 of z80: 8 up on (\S+), 0 in use, 2 left \(\1\), 0 waiting", listed)
    shelf.plug("z80", 0, played)
    wait_for(lambda: pools(ray)["z80"].up == 9)
    listed = tutelage("device", "list", "--json", "-w", str(tmp_path)).stdout
    (state,) = (one["pool"]["boards"] for one in json.loads(listed) if one["name"] == "z80")
    assert (state["up"], state["left"], state["left_from"]) == (9, 1, state["machines"][:1])


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_board_is_given_back_when_what_ran_there_has_ended(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command here is killed, as a session does with one that does not end; the program there works on."""
    device = Z80.model_copy(update={"name": "ends", "host": "ray:ends"})
    shelf.plug("ends", 103)
    monkeypatch.setattr(pool, "_REPLY_S", 600.0)
    for end_s, lasts_s, ends_by_itself in ((600.0, 3.0, True), (0.5, 900.0, False)):
        monkeypatch.setattr(pool, "_END_S", end_s)
        ended = tmp_path / f"ended-{lasts_s}"
        with open_board(device) as board:
            here = subprocess.Popen(
                board.start(lingering(ended, lasts_s)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert here.stdout is not None
            there = int(here.stdout.readline())
            here.kill()
            here.communicate()
        assert ended.exists() is ends_by_itself
        assert not Path(f"/proc/{there}").exists()


def put_for_ever(board: pool.HeldBoard) -> None:
    """Put a file until that fails: what holds the session there outlives its machine by a moment."""
    while True:
        board.put("file", b"x")
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_board_that_leaves_gives_its_session_to_another(
    shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first board is unplugged in the middle of a session; the next one is plugged in only then."""
    begun, hangs = tmp_path / "begun", tmp_path / "hangs.py"
    hangs.write_text(
        "import json, os, sys, time\n"
        f"open({str(begun)!r}, 'w').write(str(os.getppid()))\n"
        "sys.stdin.readline()\n"
        "time.sleep(600)\n"
    )
    device = Z80.model_copy(update={"name": "leaves", "host": "ray:leaves"})
    first = shelf.plug("leaves", 100, hangs)
    with ThreadPoolExecutor(1) as sessions:
        asked = sessions.submit(measure, {"net": model(tmp_path)}, device, SHAPE, **SHORT)
        while not begun.exists():
            assert not asked.done(), asked.exception()
            time.sleep(0.1)
        shelf.cluster.remove(first)
        second = shelf.plug("leaves", 101)
        assert set(asked.result()["net"].samples_ms) == {700e-6}
    assert re.search(r"device leaves: .*the board of leaves on \S+ left; the session is held again", caplog.text)
    with open_board(device) as board:
        with pytest.raises(NotAvailableError, match=r"device leaves: .*keeps no file: .*No such file"):
            board.put("no folder/file", b"x")
        shelf.cluster.remove(second)
        with pytest.raises(NotAvailableError, match=r"device leaves: the board of leaves on \S+ left") as left:
            put_for_ever(board)
    assert isinstance(left.value.__cause__, LostDeviceError)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_pool_in_which_no_board_is_up_is_waited_for_and_then_given_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Z80.model_copy(update={"name": "gone", "host": "ray:gone"})
    monkeypatch.setenv(WAIT_VARIABLE, "3")
    refused = pytest.raises(NotAvailableError, match=r"no board of the pool gone is up, .* run `ray start")
    with refused, open_board(device):
        pass
    import ray

    wait_for(lambda: "gone" not in pools(ray))  # nobody waits there any more
    monkeypatch.setenv(WAIT_VARIABLE, "500")

    def held() -> str:
        with open_board(device) as board:
            return board.command

    with ThreadPoolExecutor(1) as sessions:
        asked = sessions.submit(held)
        while "gone" not in pools(ray):
            assert not asked.done(), asked.exception()
            time.sleep(0.1)
        assert (pools(ray)["gone"].up, pools(ray)["gone"].waiting) == (0, 1)
        shelf.plug("gone", 102)
        assert str(SPEAKER) in asked.result()
