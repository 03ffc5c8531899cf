"""A run on two machines that share no folder: the same bytes as in one process; a machine or the command is killed."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import yaml

from tests.gcs import serving_gcs
from tests.ray_cluster import RayCluster, cluster
from tests.s3 import serving_s3
from tests.tutelage.cluster.small_run import SMALL, Killer, changed, files, result_in, rows_of, searching, small_recipe
from tutelage.cluster import scoring
from tutelage.cluster.files import CACHE_VARIABLE, Sender, files_in, open_share, pack_made, placed, receive, unpack
from tutelage.cluster.scoring import Scored
from tutelage.cluster.session import on_cluster
from tutelage.cluster.spread import LOGS, spread_by_files
from tutelage.cluster.task import Task
from tutelage.cluster.tasks import Tasks
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.keys.stage_inputs import FileInput, Part
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import InputError
from tutelage.search.replies import Evaluation

SERVING = {"s3": serving_s3, "gs": serving_gcs}
DOOMED = "doomed"  # the machine that is killed while it scores
_score = scoring.score


class Inputs(Part):
    network: FileInput
    others: tuple[FileInput, ...]
    names: dict[str, int]


class Store:
    """The part of Ray that sends: what is put there comes back by its reference."""

    def __init__(self) -> None:
        self.puts: list[np.ndarray] = []  # type: ignore[type-arg]

    def put(self, value: Any) -> Any:
        self.puts.append(value)
        return value


def filed(path: Path, content: bytes, name: str) -> FileInput:
    from tutelage.files import sha256_of

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return FileInput(sha256=sha256_of(path), path=name)


@pytest.fixture(params=["store", "folder", "s3", "gs"])
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedFiles | None]:
    """Give a share of each kind; None: files go through Ray's store."""
    if request.param in SERVING:
        with SERVING[request.param]() as served:
            yield open_share(f"{request.param}://{served.bucket}/share")
    else:
        yield open_share(str(tmp_path / "share")) if request.param == "folder" else None


def test_what_a_stage_reads_and_makes_travels_by_its_hash(
    share: SharedFiles | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away, outside = tmp_path / "home", tmp_path / "away", tmp_path / "elsewhere" / "w.safetensors"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "machine"))
    network = filed(home / "artifacts/aa/m.xml", b"graph", "artifacts/aa/m.xml")
    (home / "artifacts/aa/m.bin").write_bytes(b"weights")  # belongs to it and is not named
    given = filed(outside, b"pretrained", str(outside))
    same = filed(home / "artifacts/bb/copy", b"pretrained", "artifacts/bb/copy")
    inputs = Inputs(network=network, others=(given, same), names={"a": 1})

    ray = Store()
    sender = Sender(ray, home, share)
    sent = sender.pack(inputs)
    sender.pack(inputs)
    assert len(ray.puts) == (3 if share is None else 0)  # each content once
    receive(sent, away)
    there = placed(inputs)
    assert there.model_dump() == inputs.model_dump()  # where a file lies is in no key
    contents = [(away / file.path).read_bytes() for file in files_in(there)]
    assert contents == [b"graph", b"pretrained", b"pretrained"]
    assert (away / "artifacts/aa/m.bin").read_bytes() == b"weights"
    assert there.names is inputs.names

    stage = away / "artifacts/cc"
    (stage / "checkpoint").mkdir(parents=True)
    (stage / "checkpoint/moments").write_bytes(b"large")
    (stage / "deep").mkdir()
    (stage / "deep/weights").write_bytes(b"trained")
    unpack(pack_made(stage, share.url if share else None), home / "artifacts/cc")
    assert [str(path.relative_to(home)) for path in (home / "artifacts/cc").rglob("*") if path.is_file()] == [
        "artifacts/cc/deep/weights"
    ]


def test_a_file_of_another_content_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "machine"))
    file = filed(tmp_path / "home/a", b"whole", "a")
    share = open_share(str(tmp_path / "share"))
    sent = Sender(Store(), tmp_path / "home", share).pack(Inputs(network=file, others=(), names={}))
    (tmp_path / "share" / file.sha256[:2] / file.sha256).write_bytes(b"who")
    with pytest.raises(OSError, match=r"a has another content in .*share than its hash says"):
        receive(sent, tmp_path / "away")
    assert not (tmp_path / "away/a").exists()
    assert not list((tmp_path / "machine/files").iterdir())


def test_a_share_of_an_unknown_protocol_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"--share: nope://x cannot be opened \(Protocol not known: nope\)"):
        open_share("nope://x")


@dataclass
class Machines:
    """A cluster on this host: a head that computes nothing, and machines with a cache of their own each."""

    cluster: RayCluster
    folder: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str) -> Any:
        variables = {CACHE_VARIABLE: str(self.folder / name)}
        self.nodes[name] = self.cluster.add(num_cpus=1, env_vars=variables)
        return self.nodes[name]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with cluster() as started:
        machines = Machines(started, tmp_path_factory.mktemp("machines"))
        machines.add("a")
        yield machines


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return small_recipe(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def alone(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Run the recipe in this process; give its workspace and what it published."""
    place = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
        return place, pipeline.run(recipe, Workspace(place), silent, 1)[1]


def cache_of(process: int) -> str:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(one.decode().partition("=")[2] for one in variables if one.startswith(CACHE_VARIABLE.encode() + b"="))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)  # two runs, and machines that start
def test_a_run_whose_machine_is_killed_ends_with_the_bytes_of_one_process(
    machines: Machines, recipe: Recipe, alone: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
    place, nodes = tmp_path / "spread", {"b": machines.add("b")}

    def kill(process: int) -> None:
        """Take away the whole machine of a training, if it is the second one."""
        name = Path(cache_of(process)).name
        if name in nodes:
            machines.cluster.remove(nodes.pop(name))

    trainings = ("train teacher resnet10t", "train small on labels", "train other on labels")
    killer = Killer(place / LOGS, dict.fromkeys(trainings, 1), kill)
    with on_cluster(machines.cluster.address) as (ray, threads):
        assert threads == 1
        workspace = spread_by_files(ray, recipe, Workspace(place), silent, threads)
        killer.start()
        _, published = pipeline.run(recipe, workspace, silent, threads)
        killer.over.set()
        killer.join()
    assert not workspace.failed
    assert not nodes  # one of the trainings that ran beside each other was on it
    assert rows_of(published) == rows_of(alone[1])
    mine, theirs = files(place), files(alone[0])
    assert len(mine) > 20
    assert mine == theirs
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    assert "failed: its worker was lost" in logs
    # What one machine made was read by another from its own folder, never from this one.
    for name in ("a", "b"):
        assert list((machines.folder / name / "workspaces").glob("*/artifacts/*"))
    assert list((machines.folder / "a" / "files").iterdir())


def disturbed(machines: Machines, one: Recipe, title: str, tmp_path: Path) -> tuple[Path, str]:
    """Do a recipe's trainings and search, and take the machine of a stage away when it left a checkpoint in the share.

    Gives the workspace, and what the logs hold.
    """
    extra = tmp_path.name
    machines.add(extra)
    place, share, killed = tmp_path / "spread", tmp_path / "share", list[str]()

    def kill(process: int) -> None:
        name, end = Path(cache_of(process)).name, time.monotonic() + 300
        while not list(share.glob("checkpoints/*/files.json")):
            assert time.monotonic() < end, "no checkpoint came to the share"
            time.sleep(0.02)
        machines.cluster.remove(machines.nodes.pop(name))
        killed.append(name)

    killer = Killer(place / LOGS, {title: 1}, kill)
    with on_cluster(machines.cluster.address) as (ray, threads):
        share_of_run = open_share(str(share))
        workspace = spread_by_files(ray, one, Workspace(place), silent, threads, share_of_run, checkpoint_s=0)
        killer.start()
        go: Any = pipeline.search if one.searches else pipeline.distill
        go(one, workspace, silent, threads)
        killer.over.set()
        killer.join()
    assert len(killed) == 1
    if "a" in killed:
        machines.add("a")
        machines.cluster.remove(machines.nodes.pop(extra))
    assert not workspace.failed
    assert not list(share.glob("checkpoints/*"))
    return place, "".join(path.read_text() for path in (place / LOGS).glob("*.log"))


def test_what_the_workers_say_is_kept_where_no_machine_takes_it_away(machines: Machines, tmp_path: Path) -> None:
    """Placed by chance, one of eight mails would lie on a machine that may die."""
    with on_cluster(machines.cluster.address) as (ray, _):
        mails = [Tasks(ray, Mock(), tmp_path / str(number), silent)._mail for number in range(8)]
        node = ray.get_runtime_context
        places = ray.get([mail.__ray_call__.remote(lambda _: node().get_node_id()) for mail in mails])
        (head,) = [one["NodeID"] for one in ray.nodes() if "node:__internal_head__" in one["Resources"]]
    assert places == [head] * 8


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_training_whose_machine_is_killed_goes_on_elsewhere_from_its_checkpoint(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    """Every file is that of a training that nobody disturbed, and the share holds no checkpoint at the end."""
    one = changed(recipe, teachers=[{**SMALL, "epochs": 150, "batch_size": 8}], baselines=[])
    pipeline.distill(one, Workspace(tmp_path / "alone"), silent, 1)
    place, logs = disturbed(machines, one, "train teacher resnet10t", tmp_path)
    assert re.search(r"attempt 2 of 3\n(?:.*\n)*?.*goes on from epoch-\d{5}, which another machine left", logs), logs
    mine, theirs = files(place), files(tmp_path / "alone")
    assert len(mine) > 4
    assert mine == theirs


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_search_whose_machine_is_killed_goes_on_elsewhere_from_its_evaluations(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    one = searching(recipe, evaluations=150, strategy="default")
    pipeline.search(one, Workspace(tmp_path / "alone"), silent, 1)
    place, logs = disturbed(machines, one, "search mbconv_micro_w0.25", tmp_path)
    assert re.search(r"attempt 2 of 3\n(?:.*\n)*?.*goes on from checkpoint, which another machine left", logs), logs
    untimed = {"search_seconds": 0, "scoring_seconds": 0}
    found, undisturbed = (result_in(at)[0].model_copy(update=untimed) for at in (place, tmp_path / "alone"))
    assert found == undisturbed


def score_and_hang(task: Task, evaluation: Evaluation) -> Scored:
    """Score as a worker does; on the machine that will be killed it says that it has begun, and never ends."""
    here = Path(os.environ[CACHE_VARIABLE])
    begun, end = here.parent / "begun", time.monotonic() + 300
    if here.name == DOOMED:
        begun.touch()
        time.sleep(1800)
    while not begun.exists():  # so that the other machine has not scored all before
        assert time.monotonic() < end, "nothing was scored on the machine that is to be killed"
        time.sleep(0.05)
    return _score(task, evaluation)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_machine_is_killed_while_subnets_are_scored_and_the_order_replayed_without_workers(
    machines: Machines, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine was scoring is scored by the other one, and the recorded order gives the same result."""
    machines.add(DOOMED)
    begun = machines.folder / "begun"
    place, searched = tmp_path / "spread", searching(recipe, parallel=3)
    monkeypatch.setattr(scoring, "score", score_and_hang)

    def kill() -> None:
        while not begun.exists():
            time.sleep(0.05)
        machines.cluster.remove(machines.nodes.pop(DOOMED))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with on_cluster(machines.cluster.address) as (ray, threads):
        workspace = spread_by_files(ray, searched, Workspace(place), silent, threads)
        there = pipeline.search(searched, workspace, silent, threads)
    killer.join()
    found, file = result_in(place)
    assert sorted(found.order) == list(range(16))
    assert not found.failed
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    assert re.search(r"evaluation \d+ \(\w+\), attempt 1 of 3 failed: its worker was lost", logs)

    again = searching(recipe, parallel=3, replay=str(file))
    here = pipeline.search(again, Workspace(tmp_path / "alone"), silent, 1)
    assert here.found.winners == there.found.winners
    untimed = {"search_seconds": 0, "scoring_seconds": 0}
    mine, replayed = (result_in(at)[0].model_copy(update=untimed) for at in (place, tmp_path / "alone"))
    assert mine == replayed


def kill_when_it_starts(address: str, killed: list[int]) -> None:
    """Kill the process that the head of a cluster starts for its first client from elsewhere, as a busy host may."""
    while not killed:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if "specific-server" in words and address in words:
                    process.kill()
                    killed.append(process.pid)
                    return


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_is_joined_from_elsewhere_by_its_client_address(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    one = changed(recipe, teachers=[{**SMALL, "epochs": 1, "batch_size": 8}], baselines=[])
    pipeline.distill(one, Workspace(tmp_path / "alone"), silent, 1)
    place = tmp_path / "spread"
    killed = list[int]()
    first = threading.Thread(target=kill_when_it_starts, args=(machines.cluster.address, killed), daemon=True)
    first.start()
    with on_cluster(machines.cluster.client) as (ray, threads):
        workspace = spread_by_files(ray, one, Workspace(place), silent, threads)
        pipeline.distill(one, workspace, silent, threads)
    assert killed
    assert not workspace.failed
    assert files(place) == files(tmp_path / "alone")


def trained_so_far(place: Path) -> bool:
    return any(re.search(r": \d+/", path.read_text()) for path in (place / LOGS).glob("*.log"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_command_that_is_killed_goes_on_from_its_workspace(
    machines: Machines, recipe: Recipe, alone: tuple[Path, Any], tmp_path: Path
) -> None:
    place, written = tmp_path / "spread", tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    command = [
        *(sys.executable, "-m", "tutelage", "run", str(written), "-w", str(place)),
        *("--cluster", machines.cluster.address, "--share", str(tmp_path / "share")),
    ]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        while not trained_so_far(place):
            assert first.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
    finally:
        first.kill()
        first.wait()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    mine, theirs = files(place), files(alone[0])
    assert theirs.items() <= mine.items()
    assert len([path for path in (tmp_path / "share").rglob("*") if path.is_file()]) > 10
    assert not list((tmp_path / "share").glob("checkpoints/*"))  # of stages that are done
