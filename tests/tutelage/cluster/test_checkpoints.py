"""Checkpoints in the share: stored while a stage goes on, taken where it begins anew, removed when it is done."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from tutelage.cluster.checkpoints import forget, travelling
from tutelage.cluster.files import open_share
from tutelage.distill.training.checkpoint import load_checkpoint, save_checkpoint
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.workspace import CHECKPOINT

PATIENCE_S = 60.0


@pytest.fixture
def share(tmp_path: Path) -> SharedFiles:
    return open_share(str(tmp_path / "share"))


def stage(machine: Path) -> Path:
    folder = machine / "artifacts" / "aa-1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train(folder: Path, epoch: int) -> None:
    weights = {"model": {"w": torch.full((3,), float(epoch))}, "best": {"w": torch.zeros(3)}}
    save_checkpoint(folder / CHECKPOINT, epoch, weights, {"step": epoch}, {"fingerprint": "f", "epoch": epoch})


def stored(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "share").rglob("*") if path.is_file())


def until(share: Path, name: str) -> None:
    """Wait until the share lists a checkpoint."""
    end = time.monotonic() + PATIENCE_S
    while not any(json.loads(path.read_text())["name"] == name for path in share.rglob("files.json")):
        assert time.monotonic() < end, f"{name} was not stored"
        time.sleep(0.02)


def test_a_training_goes_on_elsewhere_and_leaves_nothing_when_it_is_done(tmp_path: Path, share: SharedFiles) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        for epoch in (1, 2):
            train(first, epoch)
            until(tmp_path / "share", f"epoch-{epoch:05d}")
    assert len(stored(tmp_path)) == 5  # of the newer checkpoint alone, and their list
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
        until(tmp_path / "share", "epoch-00003")
    # The first machine takes what is newer than its own, and nothing older.
    with travelling(share, "run", first, 0):
        assert [path.name for path in (first / CHECKPOINT).iterdir() if path.name != "epoch-00002"] == ["epoch-00003"]
    train(second, 4)
    with travelling(share, "run", second, 1000):
        assert [path.name for path in (second / CHECKPOINT).iterdir()] == ["epoch-00004"]
    forget(share, "run", second.name)
    assert not stored(tmp_path)
    forget(share, "run", second.name)


def test_the_one_file_of_a_supernet_travels_too(tmp_path: Path, share: SharedFiles) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        (first / CHECKPOINT).write_bytes(b"step 10")
        until(tmp_path / "share", "")
    with travelling(share, "run", second, 0):
        assert (second / CHECKPOINT).read_bytes() == b"step 10"


def test_a_damaged_checkpoint_is_left_and_said(
    tmp_path: Path, share: SharedFiles, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = stage(tmp_path / "first"), stage(tmp_path / "second")
    with travelling(share, "run", first, 0):
        train(first, 1)
        until(tmp_path / "share", "epoch-00001")
    largest = max(stored(tmp_path), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"torn")
    with travelling(share, "run", second, 0):
        assert not (second / CHECKPOINT).exists() or not list((second / CHECKPOINT).iterdir())
    assert "the training begins anew" in caplog.text
    shutil.rmtree(tmp_path / "share")
    with travelling(share, "run", second, 0):
        pass
