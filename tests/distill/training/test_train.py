"""The training loop on tiny real networks: it learns, resumes to the same bits, and stops on nonsense."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.accelerator import CPU, cpu_multiplies_bf16
from tutelage.distill.training.schedule import KDConfig, TrainSchedule, build_optimizer, lr_factor, wants_bf16
from tutelage.distill.training.soft_targets import SoftTargets, tensors_id
from tutelage.distill.training.train import TrainResult, train
from tutelage.records import InputError


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor


class Blobs:
    """Images of noise, brighter on the left for class 0, on the right for class 1, ... ; batches by (seed, epoch)."""

    def __init__(
        self, num: int = 96, classes: int = 2, batch_size: int = 16, seed: int = 0, shift: float = 0.7
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, classes, (num,), generator=g)
        self.images = torch.randn(num, 1, 12, 12, generator=g)
        for i, label in enumerate(self.labels.tolist()):
            self.images[i, :, :, label * 4 : label * 4 + 4] += shift
        self.batch_size = batch_size

    @property
    def identity(self) -> str:
        return tensors_id(self.images, self.labels)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def epoch(self, k: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(k))
        for rows in order.split(self.batch_size):
            yield Batch(self.images[rows], self.labels[rows], rows, torch.zeros_like(rows))


class Stopping(Blobs):
    """Blobs whose stream breaks off in an epoch, as a kill would."""

    def __init__(self, stop_at: int) -> None:
        super().__init__()
        self.stop_at = stop_at

    def epoch(self, k: int) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(k)):
            if k == self.stop_at and step == 2:
                raise KeyboardInterrupt
            yield batch


def toy(classes: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(200, classes),
    )


def held_out(classes: int = 2) -> tuple[Tensor, Tensor]:
    blobs = Blobs(64, classes, seed=9)
    return blobs.images, blobs.labels


SCHEDULE = TrainSchedule(epochs=4, lr=0.01)


def timeless(result: TrainResult) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "wait_seconds", "images")}
        for record in result.history
    ]


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_it_learns_and_keeps_the_best_epoch(optimizer: Any) -> None:
    model, val = toy(), held_out()
    result = train(model, Blobs(), val, replace(SCHEDULE, epochs=6, optimizer=optimizer, lr=0.02))
    assert result.val_accuracy >= 0.85
    best = max(result.history, key=lambda record: (record["val_auc"], record["val_accuracy"], -record["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_auc == best["val_auc"]
    with torch.no_grad():
        accuracy = (model.eval()(val[0]).argmax(1) == val[1]).float().mean()
    assert float(accuracy) == pytest.approx(result.val_accuracy)


def test_same_seed_same_bits() -> None:
    models = [toy() for _ in range(3)]
    results = [train(m, Blobs(), held_out(), SCHEDULE, seed=s) for m, s in zip(models, (1, 1, 2), strict=True)]
    assert same_bits(models[0], models[1])
    assert timeless(results[0]) == timeless(results[1])
    assert not same_bits(models[0], models[2])


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    schedule = replace(SCHEDULE, ema_decay=0.9, mixup=0.4, cutmix=1.0, clip_norm=1.0)
    whole, halved = toy(), toy()
    teacher = toy(seed=5)
    expected = train(whole, Blobs(), held_out(), schedule, teachers=[teacher])
    with pytest.raises(KeyboardInterrupt):
        train(halved, Stopping(stop_at), held_out(), schedule, teachers=[teacher], checkpoint=tmp_path)
    fresh = toy()
    got = train(fresh, Blobs(), held_out(), schedule, teachers=[teacher], checkpoint=tmp_path)
    assert timeless(got) == timeless(expected)
    assert same_bits(fresh, whole)
    assert len(list(tmp_path.iterdir())) == 1
    again = toy()
    assert timeless(
        train(again, Stopping(0), held_out(), schedule, teachers=[teacher], checkpoint=tmp_path)
    ) == timeless(got)
    assert same_bits(again, whole)


def test_a_half_written_checkpoint_is_not_taken(tmp_path: Path) -> None:
    torn = tmp_path / "epoch-00003.part"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("{")
    result = train(toy(), Blobs(), held_out(), SCHEDULE, checkpoint=tmp_path)
    assert len(result.history) == SCHEDULE.epochs


def test_a_checkpoint_of_another_training_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(toy(), Blobs(), held_out(), SCHEDULE, checkpoint=tmp_path)
    other = replace(SCHEDULE, lr=0.02)
    result = train(toy(), Blobs(), held_out(), other, checkpoint=tmp_path)
    assert "another training" in caplog.text
    assert result.history[1]["lr"] == pytest.approx(0.02 * lr_factor(other, 1 + 5 / 6))


@pytest.mark.parametrize("part", ["images", "labels", "validation"])
def test_a_checkpoint_of_other_data_is_not_taken_up(tmp_path: Path, part: str) -> None:
    """One image, one label, or one image that the epochs are chosen by: the training starts again."""
    train(toy(), Blobs(), held_out(), replace(SCHEDULE, epochs=1), checkpoint=tmp_path)
    blobs, val = Blobs(), held_out()
    if part == "images":
        blobs.images[90] += 1
    elif part == "labels":
        blobs.labels[90] = 1 - blobs.labels[90]
    else:
        val[0][5] += 1
    changed, fresh = toy(), toy()
    expected = train(fresh, blobs, val, SCHEDULE)
    # Half-trained on other data: what is left in the folder must not show.
    with pytest.raises(KeyboardInterrupt):
        train(toy(), Stopping(2), held_out(), SCHEDULE, checkpoint=tmp_path)
    got = train(changed, blobs, val, SCHEDULE, checkpoint=tmp_path)
    assert timeless(got) == timeless(expected)
    assert same_bits(changed, fresh)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    for name in ("state.json", "model.safetensors"):
        with pytest.raises(KeyboardInterrupt):
            train(toy(), Stopping(2), held_out(), SCHEDULE, checkpoint=tmp_path)
        (tmp_path / "epoch-00002" / name).write_bytes(b"{")
        with pytest.raises(InputError, match=r"epoch-00002 is no whole checkpoint .*delete it") as caught:
            train(toy(), Blobs(), held_out(), SCHEDULE, checkpoint=tmp_path)
        assert "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "epoch-00002")


def test_the_time_of_a_stopped_training_counts(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(toy(), Stopping(3), held_out(), SCHEDULE, checkpoint=tmp_path)
    state = tmp_path / "epoch-00003" / "state.json"
    saved = json.loads(state.read_text())
    saved["history"][0]["seconds"] = 1000.0
    state.write_text(json.dumps(saved))
    assert train(toy(), Blobs(), held_out(), SCHEDULE, checkpoint=tmp_path).seconds > 1000


def test_the_cache_changes_nothing(tmp_path: Path) -> None:
    teacher, students = toy(seed=5), [toy(seed=1), toy(seed=1), toy(seed=1)]
    kept = SoftTargets(teacher, tmp_path)
    results = [
        train(student, Blobs(), held_out(), SCHEDULE, teachers=[one])
        for student, one in zip(students, (teacher, kept, kept), strict=True)
    ]
    assert timeless(results[0]) == timeless(results[1]) == timeless(results[2])
    assert same_bits(students[0], students[1])
    assert same_bits(students[0], students[2])
    assert kept.num_computed == 96  # one pass over the data for two students of four epochs


def test_a_good_teacher_alone_teaches() -> None:
    teacher = toy(seed=5)
    train(teacher, Blobs(400), held_out(), replace(SCHEDULE, epochs=8))
    # Every label the student sees is 0: what it knows in the end, the teacher said.
    lying = Blobs()
    lying.labels = torch.zeros_like(lying.labels)
    student = toy(seed=1)
    result = train(student, lying, held_out(), replace(SCHEDULE, epochs=6), teachers=[teacher], kd=KDConfig(alpha=0.0))
    assert result.val_accuracy > 0.85


def test_several_labels_with_unknown_ones() -> None:
    blobs = Blobs()
    labels = nn.functional.one_hot(blobs.labels, 2).float()
    labels[::7, 1] = float("nan")
    blobs.labels = labels
    images, classes = held_out()
    val = (images, nn.functional.one_hot(classes, 2).float())
    schedule = replace(SCHEDULE, epochs=6, class_weights=(1.0, 1.0))
    result = train(toy(), blobs, val, schedule, multi_label=True, teachers=[toy(seed=3)], kd=KDConfig(alpha=0.9))
    assert result.val_auc is not None
    assert result.val_auc > 0.85


def test_patience_stops() -> None:
    result = train(toy(), Blobs(shift=0.0), held_out(), replace(SCHEDULE, epochs=50, patience=2))
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 3


def test_nan_logits_stop_and_name_the_batch() -> None:
    blobs = Blobs()
    blobs.images[7] = float("nan")
    with pytest.raises(InputError, match=r"epoch 0, batch \d+ .*image 7\)"):
        train(toy(), blobs, held_out(), SCHEDULE)


def test_a_teacher_for_other_classes() -> None:
    with pytest.raises(InputError, match="the teacher knows 3 classes and the student 2"):
        train(toy(), Blobs(), held_out(), SCHEDULE, teachers=[toy(3)])


def test_a_method_that_teaches_nothing_at_two_classes_is_refused_before_training() -> None:
    with pytest.raises(InputError, match="at least 3 classes, got 2"):
        train(toy(), Blobs(), held_out(), SCHEDULE, teachers=[toy()], kd=KDConfig(method="dkd"))


def test_a_last_batch_of_one_is_left_out() -> None:
    result = train(toy(), Blobs(num=33), held_out(), replace(SCHEDULE, epochs=1))
    assert len(result.history) == 1
    with pytest.raises(InputError, match="no batch of at least 2 images"):
        train(toy(), Blobs(batch_size=1), held_out(), SCHEDULE)


def test_progress_and_other_sizes() -> None:
    lines: list[tuple[str, int, int]] = []
    sized = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))  # fits 8 x 8 alone
    schedule = replace(SCHEDULE, epochs=2)
    train(sized, Blobs(), held_out(), schedule, progress=lambda *line: lines.append(line), resolution=8)
    assert lines[0] == ("train", 1, 12)
    assert lines[-1] == ("train", 12, 12)


@pytest.mark.parametrize("bf16", [True, None])
def test_bf16(bf16: bool | None) -> None:
    result = train(toy(), Blobs(), held_out(), replace(SCHEDULE, bf16=bf16, epochs=6))
    assert result.val_accuracy > 0.85


def test_bf16_is_not_chosen_for_depthwise_convolutions() -> None:
    place = CPU
    depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    assert not wants_bf16(replace(SCHEDULE, bf16=None), place, depthwise)
    assert wants_bf16(replace(SCHEDULE, bf16=None), place, toy()) == cpu_multiplies_bf16()
    assert wants_bf16(replace(SCHEDULE, bf16=True), place, depthwise)
    assert not wants_bf16(SCHEDULE, place, toy())


def test_vectors_are_not_decayed() -> None:
    optimizer = build_optimizer([toy()], TrainSchedule(weight_decay=0.3))
    assert {p.ndim > 1 for p in optimizer.param_groups[0]["params"]} == {True}
    assert optimizer.param_groups[1]["weight_decay"] == 0
