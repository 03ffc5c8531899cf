"""What `device list` says of pools: boards that are up, in use and gone, who waits, calibration and drift."""

import contextlib
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.ray_cluster import HeadStore
from tutelage.bench.boards.shelf import Pool, _most_seen, pools
from tutelage.cli.inventory import print_devices
from tutelage.pipeline.operations import pools as operation
from tutelage.pipeline.operations.pools import pools_of
from tutelage.records import DeviceProfile

PI4 = DeviceProfile(name="pi4", runtime="onnxruntime", host="ray:pi4", created="2026-01-02T03:04:05+00:00")
GONE = DeviceProfile(name="far", runtime="onnxruntime", host="ray:gone")
HERE = DeviceProfile(name="box", runtime="onnxruntime")


class Ray:
    """The part of Ray that says what there is: two boards on a shelf, both in use.

    At an earlier look there were one more beside the first, two of another machine, and one of another pool.

    Three sessions want a board of the pool, one a board of another pool; an actor of somebody else has a like name.
    """

    experimental = HeadStore()
    for earlier in ('["pi4", "shed", 2]', '["pi4", "shed", 1]', '["pi4", "cellar", 2]', '["gone", "cellar", 1]'):
        experimental.held[f"seen:{earlier}"] = "1"
    util = SimpleNamespace(
        list_named_actors=lambda all_namespaces: [
            *({"name": f"pi4/{number}", "namespace": "tutelage-boards"} for number in range(3)),
            {"name": "gone/0", "namespace": "tutelage-boards"},
            {"name": "pi4/0", "namespace": "another"},
        ]
    )

    @staticmethod
    def nodes() -> list[Any]:
        return [
            {"Alive": True, "NodeManagerHostname": "shed", "Resources": {"CPU": 1.0, "device:pi4": 1.0}},
            {"Alive": True, "NodeManagerHostname": "attic", "Resources": {"device:pi4": 1.0}},
            {"Alive": False, "NodeManagerHostname": "cellar", "Resources": {}},
        ]

    @staticmethod
    def available_resources() -> dict[str, float]:
        return {"CPU": 1.0}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a workspace with three sessions: the newest of them on another device."""

    @contextlib.contextmanager
    def joined() -> Iterator[Any]:
        yield Ray

    monkeypatch.setattr(operation, "joined", joined)
    for number, (device, day, drifts) in enumerate(
        [("pi4", 3, [0.01, 0.02, 0.06]), ("pi4", 2, [0.5]), ("box", 4, [0.9])]
    ):
        folder = tmp_path / "artifacts" / f"a{number}"
        folder.mkdir(parents=True)
        one = {"device": device, "created": f"2026-02-0{day}T00:00:00+00:00"}
        filed = {str(place): {**one, "drift": drift} for place, drift in enumerate(drifts)}
        (folder / "measurements.json").write_text(json.dumps(filed))
    return tmp_path


def test_boards_that_are_up_in_use_and_waited_for_are_counted() -> None:
    assert pools(Ray) == {
        "gone": Pool("gone", waiting=1, left=1, left_from=("cellar",)),
        "pi4": Pool("pi4", 2, 2, 1, ("attic", "shed"), 3, ("cellar", "shed")),
    }
    assert 'seen:["pi4", "attic", 1]' in Ray.experimental.held


class Lately(HeadStore):
    """A head to which another session writes what it sees after this one has read, and before it writes."""

    def put(self, key: str, value: str, overwrite: bool, *, namespace: str) -> None:
        if not self.other_has_looked:
            self.other_has_looked = True
            _most_seen(SimpleNamespace(experimental=self), {"pi4": {"cellar": 3}})
        super().put(key, value, overwrite, namespace=namespace)

    other_has_looked = False


def test_sessions_that_look_at_once_lose_no_board() -> None:
    ray = SimpleNamespace(experimental=Lately())
    _most_seen(ray, {"pi4": {"shed": 1}})
    assert _most_seen(ray, {}) == {"pi4": {"shed": 1, "cellar": 3}}


def test_a_list_of_devices_says_the_state_of_pools(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiles, states = [PI4, HERE, GONE], pools_of([PI4, HERE, GONE], workspace)
    console = Console(file=StringIO(), width=200)
    print_devices([(one, workspace) for one in profiles], console, pools=states)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[-2:] == [
        "pool pi4 of pi4: 2 up on attic, shed, 2 in use, 3 left (cellar, shed), 1 waiting; "
        "calibrated 2026-01-02T03:04:05+00:00, drift +2.0% (2026-02-03T00:00:00+00:00)",
        "pool gone of far: no board is up, 1 left (cellar), 1 waiting; calibrated never",
    ]
    print_devices([(one, workspace) for one in profiles], console, True, states)
    found = {one["name"]: one.get("pool") for one in json.loads(capsys.readouterr().out)}
    assert found["box"] is None
    assert (found["pi4"]["boards"]["up"], found["pi4"]["boards"]["waiting"], found["pi4"]["drift"]) == (2, 1, 0.02)
