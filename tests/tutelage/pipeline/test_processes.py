"""A run in several processes, as a launcher starts them: one leads, the other trains along."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.pipeline.workspace import Workspace

RECIPE = """
name: two
data: {dataset: folder, path: pictures, size: 16, augment: light, augment_variants: 1}
teachers:
  - {name: resnet10t, epochs: 2, batch_size: 8, options: {channels: [8, 8, 16, 16]}}
students:
  - {name: resnet10t, title: small, options: {channels: [8, 8, 8, 8]}}
distill: {epochs: 1, batch_size: 8}
"""


SEARCHED = """
name: searched
data: {dataset: folder, path: pictures, size: 16, augment: light, augment_variants: 1}
teachers:
  - {name: resnet10t, epochs: 1, batch_size: 8, options: {channels: [8, 8, 8, 8]}}
supernet: {epochs: 1, batch_size: 8, num_random: 1, teachers: [resnet10t]}
search: {strategy: random, evaluations: 2, winners: 1, calibration_batches: 1, objectives: [error, macs]}
distill: {epochs: 1, batch_size: 8}
"""


def launched(folder: Path, recipe: str) -> str:
    """Run `tutelage distill` with a recipe in two processes; give its standard output."""
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 190)):
        (folder / "pictures" / kind).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(level, 40, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / kind / f"{number}.png")
    (folder / "two.yaml").write_text(recipe)
    # What `accelerate launch --multi_gpu` starts, set to use the CPU.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    verb = ["-m", "tutelage", "distill", "--recipe", "two.yaml", "--workspace", "w", "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *verb], cwd=folder, env=environment, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list((folder / "w").rglob("*.part"))
    return done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_a_supernet_and_one_searches(tmp_path: Path) -> None:
    students = json.loads(launched(tmp_path, SEARCHED))
    assert [student["teacher"] for student in students] == ["", "resnet10t"]
    done = [event["stage"] for event in Workspace(tmp_path / "w").journal() if event["event"] == "done"]
    for stage, number in (
        ("train teacher", 1),
        ("train supernet", 1),
        ("search", 1),
        ("train ofa", 1),
        ("distil ofa", 1),
    ):
        assert sum(title.startswith(stage) for title in done) == number, done
    # Each image went through the teacher once for the supernet, whichever process showed it: a record is 2 logits.
    stores = [file.stat().st_size // (16 + 8 + 4) for file in (tmp_path / "w").rglob("logits.bin")]
    assert max(stores) <= 60


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_one_workspace(tmp_path: Path) -> None:
    students = json.loads(launched(tmp_path, RECIPE))  # the leader alone prints
    assert [student["teacher"] for student in students] == ["", "resnet10t"]
    assert all(student["notes"] == ["2 processes"] for student in students)
    events = Workspace(tmp_path / "w").journal()
    done = [event["stage"] for event in events if event["event"] == "done"]
    assert sorted(stage.split()[0] for stage in done) == ["distil", "train", "train", "validate", "validate"]
    assert len(set(done)) == 5  # each once: the teacher, the control and their comparison, the student


# Two processes, rank 0 the first; what it does comes before what the other one does.
BOTH = """
import os, time
from tutelage.pipeline import processes
from tutelage.pipeline.recipe import Recipe
from tutelage.records import InputError
reading, writing = os.pipe()
first = os.fork()
os.environ.update(RANK="1" if first == 0 else "0", LOCAL_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
recipe = Recipe.model_validate(dict(name="r", accelerator="cpu"))
if first:
    os.close(writing)
{leader}
    os._exit(0)
{follower}
try:
    list(processes.received_trainings(recipe))
except InputError as error:
    print(error)
"""
# It dies between two trainings, without a word: when the other one looks what comes next.
BETWEEN = {
    "leader": """
    with processes.leading(recipe):
        os.read(reading, 1)
        os._exit(0)""",
    "follower": """
usual = processes._comes_next
def comes_next(*given):
    os.write(writing, b".")
    return usual(*given)
processes._comes_next = comes_next""",
}
# It dies when the other one has met it at the store and left its address there, and waits for the leader's own.
JOINING = {
    "leader": """
    from torch.distributed import TCPStore
    store = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), 2, True, wait_for_workers=False)
    while store.num_keys() < 2:
        time.sleep(0.05)""",
    "follower": "",
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("death", [BETWEEN, JOINING], ids=["between", "joining"])
def test_a_follower_ends_in_one_line_when_its_leader_dies(death: dict[str, str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BOTH.format(**death)], env={**os.environ, **address}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.stdout == "the leading process has ended: look at its message, then start the run again\n", done.stderr
