"""Soft targets: the cache gives the very bits, survives a kill, and knows whose it is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.distill.data.loader import resize
from tutelage.distill.training.soft_target_store import LogitStore
from tutelage.distill.training.soft_targets import SoftTargets, combine_logits, weights_id
from tutelage.records import InputError


@dataclass
class Rows:
    images: Tensor
    indices: Tensor
    aug_seeds: Tensor


def rows(num: int, aug_seed: int = 0, start: int = 0) -> Rows:
    images = torch.randn(num, 1, 8, 8, generator=torch.Generator().manual_seed(start * 1000 + aug_seed))
    return Rows(images, torch.arange(start, start + num), torch.full((num,), aug_seed))


def toy_teacher(classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))


def test_the_cache_gives_the_very_bits_and_pays_once(tmp_path: Path) -> None:
    teacher = toy_teacher()
    bare, kept = SoftTargets(teacher), SoftTargets(teacher, tmp_path)
    batches = [rows(5, aug_seed=seed) for seed in range(3)]
    truth = [bare.logits(batch) for batch in batches]
    assert all(torch.equal(kept.logits(batch), answer) for batch, answer in zip(batches, truth, strict=True))
    assert kept.num_computed == 15
    later = SoftTargets(teacher, tmp_path)
    assert all(torch.equal(later.logits(batch), answer) for batch, answer in zip(batches, truth, strict=True))
    assert later.num_computed == 0


def test_a_batch_partly_known(tmp_path: Path) -> None:
    kept = SoftTargets(toy_teacher(), tmp_path)
    whole = rows(6)
    expected = SoftTargets(toy_teacher()).logits(whole)
    kept.logits(Rows(whole.images[1:4], whole.indices[1:4], whole.aug_seeds[1:4]))
    kept.logits(Rows(whole.images[4:5], whole.indices[4:5], whole.aug_seeds[4:5]))  # one row alone, other kernels
    assert torch.equal(kept.logits(whole), expected)
    assert kept.num_computed == 6


def test_a_torn_and_a_damaged_record_are_computed_again(tmp_path: Path) -> None:
    teacher, batch = toy_teacher(), rows(8)
    kept = SoftTargets(teacher, tmp_path)
    expected = kept.logits(batch)
    (path,) = tmp_path.rglob("logits.bin")
    content = bytearray(path.read_bytes())
    content[20] ^= 255  # inside the first record
    path.write_bytes(bytes(content[:-7]))  # the last one is torn
    again = SoftTargets(teacher, tmp_path)
    assert torch.allclose(again.logits(batch), expected, atol=1e-6)
    assert again.num_computed == 2


def test_a_cache_of_another_data_set_is_not_used_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, batch = toy_teacher(), rows(4)
    SoftTargets(teacher, tmp_path, data_id="first").logits(batch)
    second = SoftTargets(teacher, tmp_path, data_id="second")
    second.logits(batch)
    assert second.num_computed == 4
    assert "another data set" in caplog.text
    first = SoftTargets(teacher, tmp_path, data_id="first")  # still whole: two runs side by side do not mix
    first.logits(batch)
    assert first.num_computed == 0
    path = next(tmp_path.rglob("logits.bin"))
    (path.parent / "meta.json").write_text("{")  # a header that cannot be read: whose records are these?
    caplog.clear()
    SoftTargets(teacher, tmp_path, data_id="first").logits(batch)
    SoftTargets(teacher, tmp_path, data_id="second").logits(batch)
    assert "rebuilt" in caplog.text


def test_processes_at_work_together_pay_for_each_image_once(tmp_path: Path) -> None:
    """Two readers of one cache, opened before there was any: an image that comes back to the other one is known."""
    teacher = toy_teacher()
    readers = [SoftTargets(teacher, tmp_path) for _ in range(2)]
    batches = [rows(4, start=start) for start in (0, 4, 8)]
    truth = [SoftTargets(teacher).logits(batch) for batch in batches]
    for turn in range(4):
        for number, batch in enumerate(batches):
            assert torch.equal(readers[(turn + number) % 2].logits(batch), truth[number])
    assert sum(reader.num_computed for reader in readers) == 12


def test_a_record_torn_by_another_process_spoils_none_after_it(tmp_path: Path) -> None:
    alive = SoftTargets(toy_teacher(), tmp_path)
    alive.logits(rows(4))
    (path,) = tmp_path.rglob("logits.bin")
    with path.open("ab") as file:
        file.write(b"killed here")
    alive.logits(rows(4, start=4))
    later = SoftTargets(toy_teacher(), tmp_path)
    assert torch.equal(later.logits(rows(4, start=4)), alive.logits(rows(4, start=4)))
    assert later.num_computed == 0


def test_another_teacher_has_another_cache(tmp_path: Path) -> None:
    SoftTargets(toy_teacher(seed=0), tmp_path).logits(rows(4))
    other = SoftTargets(toy_teacher(seed=1), tmp_path)
    other.logits(rows(4))
    assert other.num_computed == 4
    assert weights_id(toy_teacher(seed=0)) == weights_id(toy_teacher(seed=0)) != weights_id(toy_teacher(seed=1))


def test_the_store_finds_what_was_put_in_whatever_the_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(-(2**62), 2**62, size=(5000, 2)), axis=0)
    values = rng.standard_normal((len(keys), 2)).astype(np.float32)
    store = LogitStore(tmp_path, {"of": "test"})
    for part in np.array_split(rng.permutation(len(keys)), 7):
        store.append(keys[part], values[part])
    assert store.path.stat().st_size == len(keys) * (20 + 4 * 2)  # as docs/real-size.md has it
    for reader in (store, LogitStore(tmp_path, {"of": "test"})):
        order = rng.permutation(len(keys))
        found, got = reader.find(keys[order])
        assert found.all()
        assert np.array_equal(got, values[order])
        found, _ = reader.find(keys + 1)
        assert not found.any()


def test_mean_of_probabilities() -> None:
    logits, labels = torch.randn(3, 5, 4), torch.randint(0, 4, (5,))
    for temperature in (1.0, 4.0):
        mean = (logits / temperature).softmax(2).mean(0)
        got = (combine_logits(logits, labels, temperature) / temperature).softmax(1)
        assert torch.allclose(got, mean, atol=1e-6)
    binary = (combine_logits(logits, labels, 2.0, multi_label=True) / 2.0).sigmoid()
    assert torch.allclose(binary, (logits / 2.0).sigmoid().mean(0), atol=1e-6)


def test_confidence_weights_by_hand() -> None:
    # Losses log 2 and log 4 on the true class: softmax (1/3, 2/3), so weights (2/3, 1/3).
    logits = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    got = combine_logits(logits, torch.tensor([0]), 1.0, "confidence").softmax(1)
    assert torch.allclose(got, torch.tensor([[0.5 * 2 / 3 + 0.25 / 3, 0.5 * 2 / 3 + 0.75 / 3]]))


def test_relative_weights_by_hand() -> None:
    logits = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    labels = torch.tensor([0])
    got = combine_logits(logits, labels, 1.0, "mean", relative=(1.0, 0.5)).softmax(1)
    assert torch.allclose(got, torch.tensor([[(0.5 + 0.125) / 1.5, (0.5 + 0.375) / 1.5]]))
    # Confidence alone gives (2/3, 1/3); times (1/2, 1) both count the same.
    got = combine_logits(logits, labels, 1.0, "confidence", relative=(0.5, 1.0)).softmax(1)
    assert torch.allclose(got, torch.tensor([[0.375, 0.625]]))
    for how in ("mean", "confidence", "best"):  # no weight: as if it were not there
        assert torch.allclose(combine_logits(logits, labels, 1.0, how, relative=(0.0, 1.0)).softmax(1), logits[1].exp())


def test_best_of_each_sample() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [3.0, 0.0]]])
    got = combine_logits(logits, torch.tensor([0, 0]), 1.0, "best")
    assert torch.allclose(got.softmax(1), torch.stack([logits[0, 0], logits[1, 1]]).softmax(1))


def test_teachers_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="disagree about the classes"):
        SoftTargets([toy_teacher(3), toy_teacher(2)]).logits(rows(2))
    broken = toy_teacher()
    nn.init.constant_(broken[-1].bias, float("nan"))  # type: ignore[index]
    with pytest.raises(InputError, match="not finite"):
        SoftTargets(broken).logits(rows(2))


def test_the_teacher_sees_its_own_size() -> None:
    images = torch.rand(2, 1, 12, 12)
    teacher = toy_teacher()
    batch = Rows(images, torch.arange(2), torch.zeros(2))
    got = SoftTargets(teacher, resolution=8).logits(batch)[0]
    assert torch.equal(got, teacher.eval()(resize(images, 8)))
