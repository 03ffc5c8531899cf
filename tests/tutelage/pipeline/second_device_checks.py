"""Training, scoring and explanations on a second device: nothing mixes it with the CPU, and no step waits for it.

The device (tests/second_device.py) computes real values, so that results are compared with those of the CPU. No GPU is
needed and none is tested. `test_on_second_device.py` runs these in a process of their own: a device must be known to
torch before its first backward pass.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.second_device import NAME, SEEN, OnSecond, second_device
from tutelage.accelerator import CPU, Accelerator, drawing, find_accelerator
from tutelage.distill.data.loader import Loader, tensors
from tutelage.distill.data.registry import Dataset, load_dataset
from tutelage.distill.training.schedule import KDConfig, TrainSchedule
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import TrainResult, train
from tutelage.files import sha256_of
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, TeacherSet
from tutelage.pipeline.objectives import Subnets
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.explain import explain_network
from tutelage.pipeline.stages.supernet import Supernet, train_the_supernet
from tutelage.pipeline.stages.train import take_student, train_student, train_teacher
from tutelage.pipeline.stages.training import PretrainedInput
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.quant.int8.qat import Rounding, prepare_qat
from tutelage.records import Student
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, score_subnets
from tutelage.search.supernet.training import SupernetSchedule, train_supernet

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
# SGD: Adam divides rounding by rounding where a gradient is 0.
SCHEDULE = TrainSchedule(
    epochs=1, batch_size=8, warmup_epochs=0, ema_decay=0.5, clip_norm=1.0, optimizer="sgd", lr=0.02
)


@pytest.fixture(scope="module")
def second() -> Iterator[Accelerator]:
    with second_device() as device:
        yield Accelerator(device)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(
        "phantom", size=32, channels=1, seed=0, val_fraction=0.2, test_fraction=0.2, limit=48, cache=None, options={}
    )


@pytest.fixture
def reads() -> list[str]:
    SEEN.reads.clear()
    return SEEN.reads


def loader(data: Dataset, accelerator: Accelerator, batch_size: int = 8) -> Loader:
    return Loader(
        data, "train", batch_size, augment="medical", augment_variants=2, shuffle=True, drop_last=True, seed=1,
        device=accelerator.device,
    )  # fmt: skip


def small(seed: int = 0) -> nn.Module:
    with drawing(seed):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.0), nn.Linear(32, 4),
        )  # fmt: skip


def assert_close(net: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value.cpu(), theirs[name].cpu(), msg=lambda text, name=name: f"{name}: {text}")


def trained(data: Dataset, accelerator: Accelerator, folder: Path | None = None, **more: object) -> TrainResult:
    net = more.pop("net", None) or small()
    schedule = more.pop("schedule", SCHEDULE)
    val = tensors(data, "val")[:2]
    return train(  # type: ignore[arg-type]
        net,
        loader(data, accelerator, schedule.batch_size),
        val,
        schedule,
        accelerator=accelerator,
        checkpoint=folder,
        **more,
    )


def test_a_network_trains_there_as_on_the_cpu(data: Dataset, second: Accelerator, reads: list[str]) -> None:
    net, other = small(), small()
    there = trained(data, second, net=net)
    once = len(reads)
    assert {one.device.type for one in net.parameters()} == {NAME}
    here = trained(data, CPU, net=other)
    assert_close(net, other)
    assert there.history[0]["loss"] == pytest.approx(here.history[0]["loss"], rel=1e-6)
    reads.clear()
    trained(data, second, schedule=replace(SCHEDULE, batch_size=4), net=small())
    assert len(reads) <= once + 1, "a step of training waits for the device"


def test_soft_targets_and_features_come_from_teachers_there(
    data: Dataset, second: Accelerator, tmp_path: Path, reads: list[str]
) -> None:
    for method in ("kd", "at"):
        kd = KDConfig(method=method)

        def student(accelerator: Accelerator, folder: Path, kd: KDConfig = kd) -> nn.Module:
            net = small()
            teachers = [SoftTargets(small(1), folder, data_id="x", device=accelerator.device)]
            trained(data, accelerator, net=net, teachers=teachers, kd=kd, resolution=24)
            return net

        assert_close(student(second, tmp_path / method), student(CPU, tmp_path / method))
    kept = sorted(path.name for path in (tmp_path / "kd").iterdir())
    assert len(kept) == 2, "what a GPU computed is not what the CPU would have"


def test_bf16_is_used_there_and_losses_stay_in_float32(data: Dataset, second: Accelerator) -> None:
    SEEN.low_precision.clear()
    teachers = [SoftTargets(small(1), bf16=True, device=second.device)]
    half = replace(second, bf16=True)
    trained(data, half, schedule=replace(SCHEDULE, bf16=None), teachers=teachers, kd=KDConfig())
    assert "aten::convolution" in SEEN.low_precision
    assert not {one for one in SEEN.low_precision if "loss" in one or "log_softmax" in one}
    SEEN.low_precision.clear()
    trained(data, half, schedule=replace(SCHEDULE, bf16=False))
    assert not SEEN.low_precision


def test_a_stopped_training_goes_on_there(data: Dataset, second: Accelerator, tmp_path: Path) -> None:
    """Moments, averages and projectors come from files, which are read on the CPU."""
    net, whole = small(), small()
    two = replace(SCHEDULE, epochs=2, lr=1e-3, optimizer="adamw", decay="constant")

    class StoppedError(Exception):
        pass

    def stop(text: str, done: int, total: int) -> None:
        if done > total // 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        trained(data, second, tmp_path, schedule=two, net=net, progress=stop)
    net = small()
    result = trained(data, second, tmp_path, schedule=two, net=net)
    trained(data, second, schedule=two, net=whole)
    assert len(result.history) == 2
    assert_close(net, whole)


def supernet(data: Dataset, accelerator: Accelerator, checkpoint: Path | None = None, epochs: int = 1) -> nn.Module:
    net = accelerator.place(build_supernet(SPACE, 4, 1, seed=3))
    batches = loader(data, accelerator, 15)
    train_supernet(
        net, SPACE, lambda epoch: ((one.images, one.labels, None) for one in batches.epoch(epoch)), len(batches),
        SupernetSchedule(epochs=epochs, num_random=0, ema_decay=0.5, bf16=False),  # else a CPU that has it uses it
        seed=5, checkpoint=checkpoint, accelerator=accelerator,
    )  # fmt: skip
    return net


def test_a_supernet_trains_and_is_scored_there(data: Dataset, second: Accelerator, reads: list[str]) -> None:
    net = supernet(data, second)
    assert len(reads) <= 3, f"a step of the supernet waits for the device: {reads}"
    assert {one.device.type for one in net.parameters()} == {NAME}
    images, labels, _ = tensors(data, "val")
    calibration, archs = [images[:6]], [SPACE.smallest()]
    there = score_subnets(net, archs, calibration, images, labels, workers=2)
    here = score_subnets(net.to("cpu"), archs, calibration, images, labels)
    assert [one.loss for one in there] == pytest.approx([one.loss for one in here], rel=1e-4)


def test_a_supernet_trains_there_as_on_the_cpu_and_its_average_is_restored_there(
    data: Dataset, second: Accelerator, tmp_path: Path
) -> None:
    net = supernet(data, second, tmp_path / "checkpoint")
    assert_close(supernet(data, second, tmp_path / "checkpoint"), net)
    # AdamW: a step of the size of lr has the sign of a gradient that may be rounding.
    theirs = supernet(data, CPU).state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value.cpu(), theirs[name], atol=3e-3, rtol=1e-3)


def test_qat_rounds_there_as_on_the_cpu_without_reading_ranges(
    data: Dataset, second: Accelerator, reads: list[str]
) -> None:
    images = tensors(data, "train")[0][:8].numpy()
    net, other = prepare_qat(small(), images), prepare_qat(small(), images)
    trained(data, second, net=net, schedule=replace(SCHEDULE, lr=1e-4))
    once = len(reads)
    trained(data, CPU, net=other, schedule=replace(SCHEDULE, lr=1e-4))
    assert_close(net, other)
    reads.clear()
    trained(data, second, net=prepare_qat(small(), images), schedule=replace(SCHEDULE, batch_size=4))
    assert len(reads) <= once + 1


@pytest.mark.parametrize("gate", [None, (3.0, 6.0), (3.0, np.inf)])
def test_the_grid_as_tensors_is_the_grid(gate: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(0)
    for low, high in [(0.0, 0.0), (-1e-9, 2e-9), *np.sort(rng.normal(0, 5, (200, 2)), axis=1)]:
        rounding = Rounding(gate)
        rounding.range.copy_(torch.tensor([low, high]))
        scale, zero = rounding.grid()
        scales, zeros = rounding.grid_on_device()
        assert (float(scales), int(zeros)) == (float(np.float32(scale)), zero), (low, high)


RECIPE = {
    "name": "second",
    "data": {"dataset": "phantom", "size": 32, "limit": 48, "augment_variants": 1},
    "teachers": [{"name": "test_resnet", "epochs": 1, "batch_size": 16, "warmup_epochs": 0}],
    "supernet": {"epochs": 1, "batch_size": 16, "num_random": 0, "teachers": ["test_resnet"], "warmup_epochs": 0},
    "distill": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0, "accumulate": 2},
    "search": {"calibration_batches": 1},
    "explain": {"images": 1, "method": "gradcam"},
}


def test_the_stages_of_a_run_compute_there(data: Dataset, second: Accelerator, tmp_path: Path) -> None:
    """Every stage that computes a network: weights come back on the CPU, and each says what it was computed on."""
    recipe = Recipe.model_validate(RECIPE)
    ctx = Context(recipe, Workspace(tmp_path), data, silent, 1, accelerator=second)
    teacher = train_teacher(ctx, recipe.teachers[0])
    net: Supernet = train_the_supernet(ctx, [teacher])
    errors = Subnets(ctx, net.part, 8, 1, 0).score([SPACE.smallest()], "error").values
    student = train_student(
        ctx, Student(model="s", role="student", arch=SPACE.smallest()), net.part, TeacherSet((teacher,))
    )
    figures = explain_network(ctx, student, [teacher], [])
    assert 0 <= errors[0] <= 1
    assert 0 <= figures["explanation"]["insertion_auc"] <= 1
    for one in (teacher, student):
        assert one.weights is not None
        key = Path(one.weights.path).parent.name
        assert ctx.workspace.accelerator(key) == f"{NAME}:0"


def test_what_a_cpu_trained_is_done_under_auto_and_not_under_a_name(
    data: Dataset, second: Accelerator, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate({**RECIPE, "students": [{"name": "test_resnet"}]})
    file = tmp_path / "weights.safetensors"
    student = Student(model="s", role="student", arch=SPACE.smallest())
    ctx = Context(recipe, Workspace(tmp_path), data, silent, 1)
    save_file(networks.build(ctx, student).state_dict(), file)
    weights = PretrainedInput(sha256=sha256_of(file), path=str(file), supernet=False)
    on_cpu = take_student(ctx, student, weights)
    elsewhere = replace(ctx, accelerator=second)
    assert take_student(elsewhere, student, weights).weights == on_cpu.weights
    named = replace(elsewhere, recipe=recipe.model_copy(update={"accelerator": "cuda"}))
    there = take_student(named, student, weights)
    assert on_cpu.weights is not None
    assert there.weights is not None
    assert on_cpu.weights.path != there.weights.path
    assert ctx.workspace.accelerator(Path(there.weights.path).parent.name) == f"{NAME}:0"
    assert there.validation == pytest.approx(on_cpu.validation)


def test_generators_are_left_alone_on_both_devices(second: Accelerator) -> None:
    place: object = getattr(torch, NAME)
    before = torch.get_rng_state().clone(), place.get_rng_state()  # type: ignore[attr-defined]
    with drawing(7, second.device):
        torch.rand(3)
        assert not torch.equal(place.get_rng_state(), before[1])  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(place.get_rng_state(), before[1])  # type: ignore[attr-defined]
    assert isinstance(torch.ones(2).to(second.device), OnSecond)
    assert find_accelerator("cpu").device == torch.device("cpu")
