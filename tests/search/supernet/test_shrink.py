"""Supernet training: it learns, it goes on to the same bits, and its phases and choices are the papers'."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.accelerator import CPU, Accelerator
from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet
from tutelage.search.supernet.forward import forward_subnet
from tutelage.search.supernet.training import (
    PHASES,
    SupernetSchedule,
    choose_archs,
    finish,
    pace,
    phase_at,
    start,
    subnet_loss,
    train_step,
    train_supernet,
    wants_bf16,
)

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((28, 32))


def _batches(epoch: int, steps: int = 2, teacher: bool = False):
    """Two classes that differ in brightness: a network that learns tells them apart at once."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(steps):
        labels = torch.arange(8) % 2
        images = 0.5 * torch.randn(8, 1, 32, 32, generator=generator) + labels[:, None, None, None]
        yield images, labels, torch.nn.functional.one_hot(labels).float() if teacher else None


def _state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sandwich", "random", "progressive"])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path: Path, method):
    torch.set_num_threads(1)
    one_step = partial(_batches, steps=1)
    schedule = SupernetSchedule(epochs=3, method=method, num_random=1, ema_decay=0.9, bf16=False)
    whole = build_supernet(SPACE, 2, 1)
    log = train_supernet(whole, SPACE, one_step, 1, schedule)
    assert [entry["epoch"] for entry in log.epochs] == [0, 1, 2]

    def stopped(epoch: int):
        if epoch == 2:
            raise KeyboardInterrupt
        return one_step(epoch)

    checkpoint = tmp_path / "supernet.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_supernet(build_supernet(SPACE, 2, 1), SPACE, stopped, 1, schedule, checkpoint=checkpoint)
    resumed = build_supernet(SPACE, 2, 1, seed=9)  # its own weights must not matter
    asked: list[int] = []

    def recorded(epoch: int):
        asked.append(epoch)
        return one_step(epoch)

    train_supernet(resumed, SPACE, recorded, 1, schedule, checkpoint=checkpoint)
    assert asked == [2]
    expected = _state(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.state_dict().items())
    other = SupernetSchedule(epochs=3, method=method, num_random=1, ema_decay=0.9, bf16=False, lr=0.5)
    with pytest.raises(InputError, match=r"lr = 0\.001, now it is 0\.5"):
        train_supernet(resumed, SPACE, one_step, 1, other, checkpoint=checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=pytest.mark.long)])  # slow where the CPU lacks it
def test_the_sandwich_learns_and_shows_progress(bf16):
    torch.set_num_threads(1)
    net, seen = build_supernet(SPACE, 2, 1), []
    # Six epochs: in bfloat16 that the processor multiplies itself, four leave the loss at two thirds.
    schedule = SupernetSchedule(epochs=6, lr=2e-3, num_random=1, label_smoothing=0.0, bf16=bf16)
    log = train_supernet(
        net, SPACE, lambda epoch: _batches(epoch, 6, True), 6, schedule, progress=lambda *line: seen.append(line)
    )
    assert log.epochs[5]["loss"] < 0.6 * log.epochs[0]["loss"]
    assert seen[-1] == ("train supernet", 36, 36)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    checkpoint = tmp_path / "supernet.safetensors"
    checkpoint.write_bytes(b"\x08\x00\x00")
    with pytest.raises(InputError, match="not a whole supernet checkpoint"):
        train_supernet(
            build_supernet(SPACE, 2, 1), SPACE, _batches, 2, SupernetSchedule(epochs=1), checkpoint=checkpoint
        )


def test_the_sandwich_has_bread_on_both_sides_and_sides_that_fit():
    options = SupernetSchedule(epochs=1, num_random=2)
    archs = choose_archs(SPACE, options, 0, 28, np.random.default_rng(0))
    assert len(archs) == 4
    assert (archs[0], archs[-1]) == (SPACE.largest(28), SPACE.smallest(28))
    with pytest.raises(InputError, match="smaller than every side"):
        choose_archs(SPACE, options, 0, 16, np.random.default_rng(0))


def test_progressive_shrinking_opens_choices_in_the_order_of_the_paper():
    total = sum(phase.epochs for phase in PHASES)
    starts = np.cumsum([0, *[phase.epochs for phase in PHASES]])[:-1]
    assert [phase_at(int(start), total) for start in starts] == list(range(6))
    assert phase_at(total - 1, total) == 5
    options, rng = SupernetSchedule(epochs=1, method="progressive"), np.random.default_rng(0)
    seen = [[arch for _ in range(20) for arch in choose_archs(SPACE, options, phase, 32, rng)] for phase in range(6)]
    kernels = [{k for arch in archs for k in arch.ks if k} for archs in seen]
    depths = [{d for arch in archs for d in arch.d} for archs in seen]
    expands = [{e for arch in archs for e in arch.e if e} for archs in seen]
    assert kernels == [{7}, *[{3, 5, 7}] * 5]
    assert depths == [{4}, {4}, {3, 4}, *[{2, 3, 4}] * 3]
    assert expands == [*[{6}] * 4, {4, 6}, {3, 4, 6}]


def test_losses_follow_their_formulas():
    logits, soft, labels = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.25, 0.75]]), torch.tensor([1])
    logs = logits.log_softmax(1)
    hard, crossed = -logs[0, 1], -(soft * logs).sum()
    got = subnet_loss(logits, labels, soft, 0.25, 0.0, multi_label=False)
    torch.testing.assert_close(got, 0.75 * hard + 0.25 * crossed)
    torch.testing.assert_close(subnet_loss(logits, labels, None, 1.0, 0.0, multi_label=False), hard)


@pytest.mark.parametrize("method", ["random", "progressive"])
@pytest.mark.parametrize("kd_ratio", [1.0, 0.25])
def test_a_teacher_is_learnt_from_without_bread_too(method, kd_ratio):
    """The step's loss is the formula on the logits that the same subnets gave before it; targets differ from labels."""
    net = build_supernet(SPACE, 2, 1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images, labels, _ = next(_batches(0))
    soft = torch.tensor([[0.3, 0.7]]).expand(len(labels), 2)
    options = SupernetSchedule(epochs=1, method=method, num_random=2, kd_ratio=kd_ratio, bf16=False)
    state = start(net, 1e-3, 0.0, None)
    loss = train_step(state, SPACE, options, 100, np.random.default_rng(3), (images, labels, soft))
    twin = build_supernet(SPACE, 2, 1)
    twin.load_state_dict(before)
    twin.train()
    expected = []
    with torch.no_grad():
        for index, arch in enumerate(choose_archs(SPACE, options, 0, 32, np.random.default_rng(3))):
            sized = torch.nn.functional.interpolate(images, size=arch.r, mode="bilinear", antialias=True)
            logs = forward_subnet(twin, arch, sized if arch.r < 32 else images, track=index == 0).log_softmax(1)
            hard = -logs.gather(1, labels[:, None]).mean()
            expected.append(kd_ratio * -(soft * logs).sum(1).mean() + (1 - kd_ratio) * hard)
    assert len(expected) == (2 if method == "random" else 1)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_to_the_asked_norm():
    def norm_after(clip: float) -> float:
        net = build_supernet(SPACE, 2, 1)
        options = SupernetSchedule(epochs=1, method="random", num_random=1, clip_norm=clip, bf16=False)
        train_step(start(net, 1e-3, 0.0, None), SPACE, options, 9, np.random.default_rng(0), next(_batches(0)))
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads])))

    free = norm_after(1e9)
    assert norm_after(free / 50) == pytest.approx(free / 50, rel=1e-3)
    assert norm_after(2 * free) == pytest.approx(free, rel=1e-6)


def test_the_average_follows_its_formula_and_is_what_training_leaves():
    net = build_supernet(SPACE, 2, 1)
    options = SupernetSchedule(epochs=1, method="random", num_random=1, ema_decay=0.15, bf16=False)
    state = start(net, 1e-2, 0.0, options.ema_decay)
    name, parameter = next(iter(net.named_parameters()))
    seen = [parameter.detach().clone()]
    for step in range(3):
        train_step(state, SPACE, options, 9, np.random.default_rng(step), next(_batches(step)))
        seen.append(parameter.detach().clone())
    expected = seen[0]
    for step, current in enumerate(seen[1:]):
        decay = min(0.15, (1 + step) / (10 + step))  # .1, .15, .15: the warm-up binds at first
        expected = decay * expected + (1 - decay) * current
    finish(state)
    torch.testing.assert_close(net.state_dict()[name], expected)
    assert not torch.equal(expected, seen[-1])


@pytest.mark.parametrize(
    "method", [pytest.param("sandwich", marks=pytest.mark.long), "random", "progressive"]
)  # slow where the CPU lacks it
def test_a_step_in_bfloat16_is_close_to_one_in_float32_and_leaves_float32(method):
    torch.set_num_threads(1)
    states, losses = [], []
    for bf16 in (False, True):
        net = build_supernet(SPACE, 2, 1)
        schedule = SupernetSchedule(epochs=1, method=method, num_random=1, bf16=bf16)
        losses.append(train_supernet(net, SPACE, lambda epoch: _batches(epoch, 1), 1, schedule).epochs[0]["loss"])
        states.append(net.state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in states[1].values() if tensor.is_floating_point())
    assert any(not torch.equal(tensor, states[0][name]) for name, tensor in states[1].items())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


def test_the_learning_rate_rises_then_falls_to_nothing():
    assert [pace(step, 100, 3) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert pace(3, 100, 3) == 1.0
    assert pace(100, 100, 3) == pytest.approx(0.0)


def test_impossible_schedules_are_refused():
    with pytest.raises(InputError, match="epochs 0"):
        SupernetSchedule(epochs=0)
    with pytest.raises(InputError, match="num_random 0 under method random"):
        SupernetSchedule(epochs=1, method="random", num_random=0)


@pytest.mark.parametrize("has", ["avx512_bf16", "amx_bf16", ""])
def test_a_cpu_trains_in_bfloat16_where_it_multiplies_it_and_the_schedule_leaves_it_open(monkeypatch, has):
    features = {"avx512_bf16": False, "amx_bf16": False, "amx_tile": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**features, **({has: True} if has else {})})
    assert wants_bf16(SupernetSchedule(epochs=1), CPU) == bool(has)
    assert wants_bf16(SupernetSchedule(epochs=1, bf16=True), CPU)
    assert not wants_bf16(SupernetSchedule(epochs=1, bf16=False), CPU)
    other = Accelerator(torch.device("cuda"))
    assert not wants_bf16(SupernetSchedule(epochs=1), other)
    assert wants_bf16(SupernetSchedule(epochs=1), replace(other, bf16=True))
