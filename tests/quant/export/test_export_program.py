"""Exported programs answer as the network does, eager and lowered for XNNPACK; int8 says that it is int8."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.quant.export.programs import export_pt2, export_pte
from tutelage.records import InputError

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def images() -> torch.Tensor:
    return torch.randn(8, *SHAPE[1:], generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_pt2_program_answers_as_the_network(net: nn.Module, tmp_path: Path):
    path = export_pt2(net, tmp_path / "net.pt2", SHAPE)
    session = RUNTIMES["torch"].load(path, 1, "fp32", SHAPE)
    one = images()[:1]
    np.testing.assert_allclose(session.run(one.numpy()), net(one).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.long  # its first import and lowering take a quarter of a minute
def test_executorch_answers_as_the_network_and_int8_says_so(net: nn.Module, tmp_path: Path):
    if not RUNTIMES["executorch"].installed():
        with pytest.raises(InputError, match=r"tutelage\[executorch\]"):
            export_pte(net, tmp_path / "net.pte", SHAPE)
        return
    one = images()[:1]
    exact = net(one).detach().numpy()
    plain = RUNTIMES["executorch"].load(export_pte(net, tmp_path / "net.pte", SHAPE), 1, "fp32", SHAPE)
    assert plain.effective_precision == "fp32"
    np.testing.assert_allclose(plain.run(one.numpy()), exact, rtol=1e-4, atol=1e-5)
    small = RUNTIMES["executorch"].load(export_pte(net, tmp_path / "int8.pte", SHAPE, images()), 1, "int8", SHAPE)
    assert small.effective_precision == "int8"
    assert 0 < np.abs(small.run(one.numpy()) - exact).max() < 0.05
