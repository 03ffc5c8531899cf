"""Offline throughput over batch sizes, on real models and a runtime that runs here."""

from pathlib import Path

import onnx
import pytest

from tutelage.bench.anchors import ANCHORS, anchor_onnx
from tutelage.bench.offline import measure_throughput
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


def test_batches_cost_less_an_image_than_single_images(fixed: Path, tmp_path: Path):
    model = onnx.load(fixed)
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    free = tmp_path / "free.onnx"
    onnx.save(model, free)
    told: list[str] = []
    found = measure_throughput(
        free, DEVICE, SHAPE, batches=(1, 8), seconds=0.1, progress=lambda stage, done, total: told.append(stage)
    )
    assert list(found) == [1, 8]
    assert found[8] > found[1] / 3  # eight at once cost no three times as much each, on a loaded host either
    assert found[1] > 10
    assert told


def test_sizes_that_a_file_does_not_take_are_left_out(fixed: Path):
    assert list(measure_throughput(fixed, DEVICE, SHAPE, batches=(1, 4), seconds=0.05)) == [1]
    with pytest.raises(InputError, match="takes none of the batch sizes 4"):
        measure_throughput(fixed, DEVICE, SHAPE, batches=(4,), seconds=0.05)
    with pytest.raises(InputError, match="give one or more"):
        measure_throughput(fixed, DEVICE, SHAPE, batches=(0,))
