"""Checkpoints in the share: stored while a stage goes on, taken where it begins anew, removed when it is done."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gcs import serving_gcs
from tests.s3 import Served, serving_s3
from tutelage.cluster.checkpoints import forget, travelling
from tutelage.cluster.files import open_share
from tutelage.distill.training.checkpoint import load_checkpoint, save_checkpoint
from tutelage.files import write_text
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.workspace import CHECKPOINT

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def s3() -> Iterator[Served]:
    with serving_s3() as served:
        yield served


@pytest.fixture(scope="module")
def gs() -> Iterator[Served]:
    with serving_gcs() as served:
        yield served


@pytest.fixture(params=["folder", "s3", "gs"])
def share(request: pytest.FixtureRequest, tmp_path: Path) -> SharedFiles:
    """Give a share that is empty: a folder, or a part of a bucket of a server."""
    if request.param == "folder":
        return open_share(str(tmp_path / "share"))
    served: Served = request.getfixturevalue(request.param)
    return open_share(f"{request.param}://{served.bucket}/{request.node.name.partition('[')[0]}")


def stage(machine: Path) -> Path:
    folder = machine / "artifacts" / "aa-1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train(folder: Path, epoch: int) -> None:
    weights = {"model": {"w": torch.full((3,), float(epoch))}, "best": {"w": torch.zeros(3)}}
    save_checkpoint(folder / CHECKPOINT, epoch, weights, {"step": epoch}, {"fingerprint": "f", "epoch": epoch})


def stored(share: SharedFiles) -> tuple[Any, list[str]]:
    """List the files of a share as another machine sees them; gives the file system, too."""
    from fsspec.core import url_to_fs

    files, root = url_to_fs(share.url)
    files.invalidate_cache()
    # In a hidden folder lies what is being written and has no name yet.
    return files, sorted(path for path in files.find(root) if "/." not in path.removeprefix(root))


def until(share: SharedFiles, name: str) -> None:
    """Wait until the share lists a checkpoint."""
    end = time.monotonic() + PATIENCE_S
    while True:
        files, paths = stored(share)
        if name in [json.loads(files.cat_file(path))["name"] for path in paths if path.endswith("/files.json")]:
            return
        assert time.monotonic() < end, f"{name} was not stored"
        time.sleep(0.02)


def test_a_training_goes_on_elsewhere_and_leaves_nothing_when_it_is_done(tmp_path: Path, share: SharedFiles) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        for epoch in (1, 2):
            train(first, epoch)
            until(share, f"epoch-{epoch:05d}")
    assert len(stored(share)[1]) == 5  # of the newer checkpoint alone, and their list
    with travelling(share, "another run", second, 0) as taken:
        assert taken == ""
        assert not (second / CHECKPOINT).exists()
    with travelling(share, "run", second, 0) as taken:
        assert taken == "epoch-00002"
        found = load_checkpoint(second / CHECKPOINT, "f")
        assert found is not None
        assert found.state["epoch"] == found.optimizer["step"] == 2
        assert found.weights["model"]["w"].tolist() == [2.0] * 3
        train(second, 3)
        until(share, "epoch-00003")
    # The first machine takes what is newer than its own, and nothing older.
    with travelling(share, "run", first, 0):
        assert [path.name for path in (first / CHECKPOINT).iterdir() if path.name != "epoch-00002"] == ["epoch-00003"]
    train(second, 4)
    with travelling(share, "run", second, 1000):
        assert [path.name for path in (second / CHECKPOINT).iterdir()] == ["epoch-00004"]
    forget(share, "run", second.name)
    assert not stored(share)[1]
    forget(share, "run", second.name)


def test_the_one_file_of_a_supernet_or_search_travels_too(tmp_path: Path, share: SharedFiles) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        write_text(first / CHECKPOINT, "step 10")
        until(share, "")
    with travelling(share, "run", second, 0) as taken:
        assert taken == CHECKPOINT
        assert (second / CHECKPOINT).read_bytes() == b"step 10"
    with travelling(share, "run", first, 1000) as taken:  # it is what was stored
        assert taken == ""


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_asked_for_anew(
    tmp_path: Path, share: SharedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that was given up for lost still trains, and drops what the other one reads."""
    first, second, get = stage(tmp_path / "first"), stage(tmp_path / "second"), SharedFiles.get
    with travelling(share, "run", first, 0):
        train(first, 1)
        until(share, "epoch-00001")

        def late(files: SharedFiles, sha256: str, to: Path, what: str) -> None:
            monkeypatch.setattr(SharedFiles, "get", get)
            train(first, 2)
            until(share, "epoch-00002")
            end = time.monotonic() + PATIENCE_S
            while len(stored(share)[1]) > 5:  # until it dropped those of the first epoch
                assert time.monotonic() < end
                time.sleep(0.02)
            get(files, sha256, to, what)

        monkeypatch.setattr(SharedFiles, "get", late)
        with travelling(share, "run", second, 1000) as taken:
            assert taken == "epoch-00002"


def test_a_checkpoint_that_the_stage_drops_while_it_is_stored_keeps_its_name(
    tmp_path: Path, share: SharedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, put = stage(tmp_path / "first"), stage(tmp_path / "second"), SharedFiles.put

    def dropped(files: SharedFiles, file: Path, sha256: str) -> bool:
        shutil.rmtree(first / CHECKPOINT, ignore_errors=True)
        return put(files, file, sha256)

    monkeypatch.setattr(SharedFiles, "put", dropped)
    with travelling(share, "run", first, 0):
        train(first, 1)
        until(share, "epoch-00001")
    with travelling(share, "run", second, 1000) as taken:
        assert taken == "epoch-00001"


def test_a_checkpoint_that_goes_between_two_looks_does_not_end_the_storing(
    tmp_path: Path, share: SharedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real, main = stage(tmp_path / "first"), Path.stat, threading.current_thread()

    def stat(path: Path, **how: Any) -> Any:
        found = real(path, **how)
        if path.name == "epoch-00001" and threading.current_thread() is not main:
            monkeypatch.setattr(Path, "stat", real)
            train(first, 2)  # drops the first one after it was found there
            return real(path, **how)
        return found

    monkeypatch.setattr(Path, "stat", stat)
    with travelling(share, "run", first, 0):
        train(first, 1)
        until(share, "epoch-00002")


def test_a_damaged_checkpoint_is_left_and_said(
    tmp_path: Path, share: SharedFiles, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        train(first, 1)
        until(share, "epoch-00001")
    files, paths = stored(share)
    files.pipe_file(max((path for path in paths if not path.endswith(".json")), key=files.size), b"torn")
    with travelling(share, "run", second, 0):
        assert not (second / CHECKPOINT).exists() or not list((second / CHECKPOINT).iterdir())
    assert "it begins anew" in caplog.text
    share.remove()
    with travelling(share, "run", second, 0):
        pass


@pytest.mark.parametrize("held", ["put", "write_text"])
def test_what_comes_to_a_slow_share_after_the_end_does_not_stay_there(
    held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, folder, calls = open_share(str(tmp_path / "share")), stage(tmp_path / "machine"), list[str]()
    begun, goes_on, threads = threading.Event(), threading.Event(), set(threading.enumerate())
    usual = {"put": SharedFiles.put, "write_text": SharedFiles.write_text}

    def call(name: str, *given: Any) -> Any:
        calls.append(name)
        if name == held and not begun.is_set():
            begun.set()
            goes_on.wait()
        return usual[name](*given)

    for name in usual:
        monkeypatch.setattr(SharedFiles, name, lambda *given, name=name: call(name, *given))
    monkeypatch.setattr("tutelage.cluster.checkpoints._END_S", 0)
    with travelling(share, "run", folder, 0):
        train(folder, 1)
        begun.wait()
    (storing,) = set(threading.enumerate()) - threads
    forget(share, "run", folder.name)
    goes_on.set()
    storing.join()
    assert not stored(share)[1]
    assert calls[calls.index(held) + 1 :] == []  # no other file was sent, and nothing listed


def test_a_checkpoint_that_is_being_stored_when_a_stage_fails_is_there_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, first, second = open_share(str(tmp_path / "share")), stage(tmp_path / "first"), stage(tmp_path / "second")
    begun, fails, put = threading.Event(), threading.Event(), SharedFiles.put

    def slow(files: SharedFiles, file: Path, sha256: str) -> bool:
        begun.set()
        fails.wait()
        return put(files, file, sha256)

    monkeypatch.setattr(SharedFiles, "put", slow)

    def failing() -> None:
        with travelling(share, "run", first, 0):
            train(first, 1)
            begun.wait()
            fails.set()
            raise OSError("a fault")

    with pytest.raises(OSError, match="a fault"):
        failing()
    with travelling(share, "run", second, 1000) as taken:
        assert taken == "epoch-00001"
