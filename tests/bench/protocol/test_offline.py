"""Offline throughput over batch sizes, on real models and a runtime that runs here."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.offline import measure_throughput, take_turns
from tutelage.records import DeviceProfile, InputError

ANCHOR = ANCHORS[2]
SHAPE = (ANCHOR.channels, ANCHOR.side, ANCHOR.side)
DEVICE = DeviceProfile(name="here", runtime="onnxruntime")


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """A net whose file takes batches of 1 alone."""
    path = tmp_path / "fixed.onnx"
    path.write_bytes(anchor_onnx(ANCHOR))
    return path


def test_a_net_of_any_batch_is_timed_at_each_size(fixed: Path, tmp_path: Path):
    model = onnx.load(fixed)
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    free = tmp_path / "free.onnx"
    onnx.save(model, free)
    messages: list[str] = []
    found = measure_throughput(
        free, DEVICE, SHAPE, batches=(1, 8), seconds=0.1, progress=lambda stage, done, total: messages.append(stage)
    )
    assert list(found) == [1, 8]
    assert min(found.values()) > 0
    assert messages


class SteadyWorker:
    """Answers as a process whose model takes 2 ms an image, whatever the batch."""

    def __init__(self, batches: tuple[int, ...]) -> None:
        self.batches, self.loaded, self.timed = batches, [], dict.fromkeys(range(len(batches)), 0)

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        index = request["model"]
        if request["do"] == "load":
            self.loaded.append(index)
        if request["do"] != "time":
            return {"ms": 2.0 * self.batches[index]}
        assert index in self.loaded
        self.timed[index] += request["repeats"]
        return {"ms": [2.0 * self.batches[index]] * request["repeats"]}


@pytest.mark.parametrize("batches", [(1,), (1, 8), (3, 5, 64)])
def test_images_a_second_are_all_images_over_all_their_time(batches: tuple[int, ...]):
    worker = SteadyWorker(batches)
    found = take_turns(worker, Path("net.onnx"), batches, 0.5, None, np.random.default_rng(0))
    assert found == {batch: pytest.approx(500) for batch in batches}
    for index, batch in enumerate(batches):
        assert worker.timed[index] * 2.0 * batch >= 500  # each size is timed for half a second or more


def test_sizes_that_a_file_does_not_take_are_left_out(fixed: Path):
    assert list(measure_throughput(fixed, DEVICE, SHAPE, batches=(1, 4), seconds=0.05)) == [1]
    with pytest.raises(InputError, match="takes none of the batch sizes 4"):
        measure_throughput(fixed, DEVICE, SHAPE, batches=(4,), seconds=0.05)
    with pytest.raises(InputError, match="give one or more"):
        measure_throughput(fixed, DEVICE, SHAPE, batches=(0,))
