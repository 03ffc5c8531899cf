"""A cluster whose machines share no folder with the run: what travels, the share, the mail, the client address."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.gcs import serving_gcs
from tests.s3 import serving_s3
from tests.tutelage.cluster.small_run import SMALL, Machines, changed, files
from tutelage.cluster.files import CACHE_VARIABLE, Sender, files_in, open_share, pack_made, placed, receive, unpack
from tutelage.cluster.session import on_cluster
from tutelage.cluster.spread import spread_by_files
from tutelage.cluster.tasks import Tasks
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.keys.stage_inputs import FileInput, Part
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import InputError

SERVING = {"s3": serving_s3, "gs": serving_gcs}

# Run by each process of the cluster: the first one that the head starts for a client is killed before it can serve it.
FIRST_CLIENT_DIES = """
import os, signal, sys
if "--mode=specific-server" in sys.orig_argv and not os.path.exists({mark!r}):
    open({mark!r}, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


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
@pytest.mark.timeout(900)
def test_a_cluster_is_joined_from_elsewhere_by_its_client_address(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    """The process that the head starts for its client dies once at its start, as on a busy host."""
    one = changed(recipe, teachers=[{**SMALL, "epochs": 1, "batch_size": 8}], baselines=[])
    pipeline.distill(one, Workspace(tmp_path / "alone"), silent, 1)
    place, killed = tmp_path / "spread", tmp_path / "killed"
    (machines.site / "sitecustomize.py").write_text(FIRST_CLIENT_DIES.format(mark=str(killed)))
    with on_cluster(machines.cluster.client) as (ray, threads):
        assert killed.exists()
        workspace = spread_by_files(ray, one, Workspace(place), silent, threads)
        pipeline.distill(one, workspace, silent, threads)
    assert not workspace.failed
    assert files(place) == files(tmp_path / "alone")
