"""Several processes train as one: the same losses and weights at the same global batch, each on its own rows."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# What `torch.distributed.run` gives each process, forked after the imports, which take most of the time. The process
# that forks them trains alone, for comparison.
SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import accelerate, onnx, timm, torch._dynamo  # or each process would import them, with its first optimiser
import train_in_ranks as work
folder, number = Path(sys.argv[2]), int(sys.argv[3])
children = []
for rank in range(number):
    child = os.fork()
    if child == 0:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ.update(place, WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number))
        (folder / f"rank-{rank}.json").write_text(json.dumps(work.trained(folder / "cache")))
        os._exit(0)
    children.append(child)
(folder / "alone.json").write_text(json.dumps(work.trained(folder / "cache alone")))
assert [os.waitpid(child, 0)[1] for child in children] == [0] * number
"""


def run_in(folder: Path, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give what one process found, and what each of several did."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(number)]
    return json.loads((folder / "alone.json").read_text()), ranks


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_processes_train_as_one(number: int, tmp_path: Path) -> None:
    """A distilled student with batch norm and a supernet: equal but for the order of additions.

    AdamW divides small gradients by their own size, so that the last bit of one can be the sign of a step: losses agree
    to 1e-3, weights after some steps less.
    """
    alone, ranks = run_in(tmp_path, number)
    for found in ranks:
        assert found["rank"] == [ranks.index(found), number]
        assert found["notes"] == [f"{number} processes"]
        # The student's losses and validation figures, epoch by epoch, whatever process computed which rows.
        for mine, expected in zip(found["history"], alone["history"], strict=True):
            assert mine.keys() == expected.keys()
            for name, value in expected.items():
                # Two images whose scores are all but equal may change places: 1 of 40 right, or 1 pair of 399.
                loose = name in ("val_accuracy", "val_auc")
                assert mine[name] == pytest.approx(value, rel=1e-3, abs=0.03 if loose else 1e-4), name
        np.testing.assert_allclose(found["student"], alone["student"], rtol=1e-3, atol=1e-3)
        assert found["student"] == ranks[0]["student"]
        # QAT: the ranges that activations are rounded to are those of the whole batch.
        np.testing.assert_allclose(found["rounded"], alone["rounded"], rtol=1e-3, atol=1e-3)
        # Batch norm of each process apart: one network all the same, another than that of one process.
        assert found["apart"] == [ranks[0]["apart"][0], f"{number} processes, batch norm of each apart"]
        assert not np.allclose(found["apart"][0], alone["apart"][0], rtol=1e-3, atol=1e-3)
        # The supernet: the same subnets in every step, the same losses, one set of weights in all processes.
        assert found["archs"] == alone["archs"]
        assert found["losses"] == pytest.approx(alone["losses"], rel=2e-3)
        assert found["supernet"] == ranks[0]["supernet"]
    assert alone["history"][-1]["loss"] < 0.9 * alone["history"][0]["loss"]
    # The teacher computed each image once over all processes, and each process looked at its own rows alone.
    assert sum(found["num_computed"] for found in ranks) == alone["num_computed"] == 96
    assert max(found["num_read"] for found in ranks) < alone["num_read"] / number + 60
