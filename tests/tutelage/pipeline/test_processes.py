"""A run in several processes, as a launcher starts them: one leads, the other trains along."""

import json
import os
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


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_teach_one_workspace(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 190)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(level, 40, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{number}.png")
    (tmp_path / "two.yaml").write_text(RECIPE)
    # What `accelerate launch --multi_gpu` starts, set to use the CPU.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    verb = ["-m", "tutelage", "distill", "--recipe", "two.yaml", "--workspace", "w", "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *verb], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    students = json.loads(done.stdout)  # the leader alone prints
    assert [student["teacher"] for student in students] == ["", "resnet10t"]
    assert all(student["notes"] == ["2 processes"] for student in students)
    events = Workspace(tmp_path / "w").journal()
    assert (
        len([event for event in events if event["event"] == "done"]) == 3
    )  # a teacher, a student and its control, once
    assert not list((tmp_path / "w").rglob("*.part"))
