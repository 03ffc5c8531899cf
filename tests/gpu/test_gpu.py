"""Training and scoring on CUDA against the CPU: skipped, with the reason, where torch finds no CUDA device."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.accelerator import CPU, Accelerator, drawing, find_accelerator
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.quant.int8.qat import Rounding
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, score_subnets
from tutelage.search.supernet.train_state import start
from tutelage.search.supernet.training import SupernetSchedule, train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))


@pytest.fixture(scope="module")
def cuda() -> Accelerator:
    return find_accelerator("cuda")


def test_a_step_of_the_supernet_has_the_loss_of_the_cpu(cuda: Accelerator) -> None:
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    losses = []
    for accelerator in (cuda, CPU):
        state = start(accelerator.place(build_supernet(SPACE, 4, 3, seed=0)), 1e-3, 0.0, 0.9)
        batch = images.to(accelerator.device), labels.to(accelerator.device), None
        schedule = SupernetSchedule(epochs=1, num_random=1, bf16=False)
        rng = np.random.default_rng(0)
        losses.append(float(train_step(state, SPACE, schedule, 9, rng, batch, accelerator=accelerator)))
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_scores_are_those_of_the_cpu(cuda: Accelerator) -> None:
    net, images, labels = build_supernet(SPACE, 4, 3, seed=0), torch.randn(32, 3, 32, 32), torch.arange(32) % 4
    archs = [SPACE.smallest(), SPACE.largest()]
    here = score_subnets(net, archs, [images[:16]], images, labels)
    there = score_subnets(cuda.place(net), archs, [images[:16]], images, labels)
    assert [one.loss for one in there] == pytest.approx([one.loss for one in here], rel=5e-2)


def test_the_generator_of_the_device_is_left_alone(cuda: Accelerator) -> None:
    before = torch.cuda.get_rng_state(cuda.device)
    with drawing(3, cuda.device):
        first = torch.rand(4, device=cuda.device)
    with drawing(3, cuda.device):
        assert torch.equal(first, torch.rand(4, device=cuda.device))
    assert torch.equal(torch.cuda.get_rng_state(cuda.device), before)


def test_rounding_is_that_of_the_cpu(cuda: Accelerator) -> None:
    here, there = Rounding(), cuda.place(Rounding())
    values = torch.randn(64)
    torch.testing.assert_close(there(values.to(cuda.device)).cpu(), here(values))
    assert isinstance(there, nn.Module)


@pytest.mark.parametrize("name", ["torch-cuda", "torch-compiled-cuda"])
def test_a_program_on_the_card_has_the_outputs_of_the_cpu_and_is_timed_by_its_events(name: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.Flatten(), nn.Linear(288, 4)).eval()
    images = torch.randn(2, 3, 8, 8)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (images,)), path)
    run = find_runtime(name).load(path).run
    np.testing.assert_allclose(run(images.numpy()), net(images).detach().numpy(), rtol=1e-4, atol=1e-5)
    times = run.times(images.numpy(), 5)  # type: ignore[attr-defined]
    assert len(times) == 5
    assert min(times) > 0
    adapter = find_runtime(name).adapter()
    assert torch.cuda.get_device_name(0) in adapter.gpu()[0]
    anchor, _ = adapter.load("48", (1,), 1, "fp32")
    assert anchor(np.zeros(1, np.float32)).shape == (48, 16)
