"""The network that tests of the measuring protocol send to a runner."""

from pathlib import Path

import pytest

from tutelage.bench.protocol.anchors import AnchorNet, anchor_onnx


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    path.write_bytes(anchor_onnx(AnchorNet("dense", 32, 20, 1, 4)))
    return {"net": path}
