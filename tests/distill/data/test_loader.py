"""The loader: the same bits for the same (seed, epoch); what an image becomes depends on its name and seed alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.distill.data import loader as loading
from tutelage.distill.data.augment import augment, uniforms
from tutelage.distill.data.augmentations import AUGMENTATIONS, Policy
from tutelage.distill.data.loader import NORMALISATION, InOrder, LoadedBatch, Loader, normalise, tensors, to_unit
from tutelage.distill.data.registry import Dataset, phantom
from tutelage.distill.training.soft_targets import tensors_id
from tutelage.records import InputError


@pytest.fixture(scope="module")
def data() -> Dataset:
    return phantom(120, 32, 0)


def assert_equal(left: LoadedBatch, right: LoadedBatch) -> None:
    """Compare batches bit for bit."""
    assert left.num_global == right.num_global
    assert all(torch.equal(a, b) for a, b in zip(left[:4], right[:4], strict=True))


def test_an_epoch_repeats_to_the_bit_and_epochs_differ(data: Dataset) -> None:
    one = Loader(data, "train", 16, augment="medical", shuffle=True, seed=5)
    two = Loader(data, "train", 16, augment="medical", shuffle=True, seed=5)
    list(two.epoch(0))  # epochs may be asked for in any order
    for left, right in zip(one.epoch(3), two.epoch(3), strict=True):
        assert_equal(left, right)
    assert not torch.equal(next(one.epoch(0)).images, next(one.epoch(1)).images)


def test_batches_are_the_same_with_any_number_of_threads(data: Dataset) -> None:
    loaders = [Loader(data, "train", 16, 24, augment="medical", shuffle=True, workers=count) for count in (0, 1, 2)]
    for epoch in (2, 0):
        for batches in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            assert_equal(batches[0], batches[1])
            assert_equal(batches[0], batches[2])
    assert all(loader.spent.prepare_s > 0 for loader in loaders)


@pytest.mark.parametrize("num_ranks", [2, 3, 15])  # of 15 some have no row of the last batch
def test_every_process_reads_its_own_rows(data: Dataset, num_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they are the batch of one process, and no process looks at another's images."""
    whole = Loader(data, "train", 15, augment="medical", shuffle=True)
    looked: list[int] = []
    plain = Loader._look
    monkeypatch.setattr(Loader, "_look", lambda *given: looked.append(len(given[1])) or plain(*given))
    parts = [list(whole.epoch(1, rank, num_ranks)) for rank in range(num_ranks)]
    assert sum(looked) == whole.num_images
    assert num_ranks < 15 or 0 in looked
    for number, batch in enumerate(whole.epoch(1)):
        for rank in range(num_ranks):
            mine, rows = parts[rank][number], slice(rank, None, num_ranks)
            assert_equal(mine, LoadedBatch(*(part[rows] for part in batch[:4]), len(batch.images)))


def test_large_images_are_augmented_a_few_at_a_time_to_the_same_bits(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(data, "train", 16, augment="medical")
    together = loader.batch(np.arange(16), 3)
    monkeypatch.setattr("tutelage.distill.data.loader._CHUNK_FLOATS", 5 * 32 * 32)
    assert_equal(loader.batch(np.arange(16), 3), together)


@pytest.mark.parametrize("policy", ["light", "medical", "flip"])
def test_augmentation_does_not_depend_on_the_batch(data: Dataset, policy: str) -> None:
    images = to_unit(torch.from_numpy(data.images[:40]), 32)
    indices, seeds = np.arange(40), np.full(40, 7)
    before = images.clone()
    together = augment(images, indices, seeds, AUGMENTATIONS[policy].policy)
    assert torch.equal(images, before)
    for number in (0, 13, 39):
        alone = augment(
            images[number : number + 1], indices[number : number + 1], seeds[:1], AUGMENTATIONS[policy].policy
        )
        assert torch.equal(alone[0], together[number])
    backwards = augment(images.flip(0), indices[::-1].copy(), seeds, AUGMENTATIONS[policy].policy)
    assert torch.equal(backwards.flip(0), together)


def test_students_of_other_seeds_and_batch_sizes_see_the_same_variants(data: Dataset) -> None:
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for seed, batch_size in ((0, 16), (1, 7)):
        loader = Loader(data, "train", batch_size, augment="medical", shuffle=True, seed=seed, augment_variants=2)
        for epoch in range(4):
            for batch in loader.epoch(epoch):
                for image, index, variant in zip(
                    batch.images, batch.indices.tolist(), batch.aug_seeds.tolist(), strict=True
                ):
                    assert torch.equal(seen.setdefault((index, variant), image), image)
    assert len(seen) == 2 * len(data.splits["train"])


def test_an_epoch_shows_every_image_once_unless_the_last_is_dropped(data: Dataset) -> None:
    loader = Loader(data, "train", 13, shuffle=True)
    batches = list(loader.epoch(2))
    assert len(batches) == len(loader)
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == data.splits["train"].tolist()
    dropped = Loader(data, "train", 13, shuffle=True, drop_last=True)
    assert {len(batch.images) for batch in dropped.epoch(0)} == {13}
    assert len(list(dropped.epoch(0))) == len(dropped) == len(data.splits["train"]) // 13


def test_without_augmentation_batches_are_the_normalised_pixels(data: Dataset) -> None:
    images, labels, groups = tensors(data, "val")
    batches = list(Loader(data, "val", 7).epoch(0))
    assert torch.equal(torch.cat([batch.images for batch in batches]), images)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)
    assert len(groups) == len(labels)
    (mean,), (deviation,) = NORMALISATION[1]
    expected = (data.images[data.splits["val"][0], :, :, 0] / 255.0 - mean) / deviation
    np.testing.assert_allclose(images[0, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_large_split_lies_in_a_file_without_a_name(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tensors(data, "val", 24, change=lambda images: 2 * images)[0]
    assert torch.equal(plain, 2 * tensors(data, "val", 24)[0])
    monkeypatch.setattr(loading, "_MAX_IN_MEMORY", plain.nbytes - 1)
    large = tensors(data, "val", 24, change=lambda images: 2 * images, scratch=tmp_path / "scratch")[0]
    assert torch.equal(large, plain)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert len(mapped) == 1  # shared with the file, not a copy of it
    assert "(deleted)" in mapped[0]
    assert list((tmp_path / "scratch").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .* GB of images to"):
        tensors(data, "val", 24, scratch=tmp_path / "file")


def test_a_split_in_its_order_is_known_by_its_values_as_tensors_in_memory_are(data: Dataset) -> None:
    """Checkpoints of trainings that held their validation images in memory are found."""
    images, labels, _ = tensors(data, "val", 24)
    assert InOrder(data, "val", 7, 24, workers=1).identity == tensors_id(images, labels)


def test_a_split_is_hashed_once_for_each_resolution(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(data)
    seen = {(split, side): InOrder(data, split, 7, side).identity for split in ("val", "test") for side in (24, 32)}
    assert len({*seen.values()}) == len(seen)
    monkeypatch.setattr(InOrder, "epoch", None)
    assert all(InOrder(data, split, 9, side).identity == known for (split, side), known in seen.items())


def test_resolution_resizes_and_rgb_takes_its_own_normalisation(data: Dataset) -> None:
    batch = next(Loader(data, "train", 4, 24).epoch(0))
    assert batch.images.shape == (4, 1, 24, 24)
    grey = torch.full((1, 3, 2, 2), 0.5)
    for channel, (mean, deviation) in enumerate(zip(*NORMALISATION[3], strict=True)):
        assert normalise(grey)[0, channel, 0, 0] == pytest.approx((0.5 - mean) / deviation)


def test_a_flip_is_a_mirror_for_about_half_of_the_images() -> None:
    images = torch.rand(64, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    changed = augment(images, np.arange(64), np.zeros(64, dtype=np.int64), Policy(flip=True))
    pairs = list(zip(changed, images, strict=True))
    flipped = torch.tensor([torch.allclose(new, old.flip(2), atol=1e-5) for new, old in pairs])
    kept = torch.tensor([torch.allclose(new, old, atol=1e-5) for new, old in pairs])
    assert bool((flipped ^ kept).all())
    assert 16 < int(flipped.sum()) < 48  # of 64 fair coins: beyond 4 standard deviations otherwise


def test_draws_are_uniform_and_independent_of_each_other() -> None:
    draws = uniforms(np.arange(20000), np.zeros(20000, dtype=np.int64), 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=4 * (1 / 12) ** 0.5 / 20000**0.5)
    other = uniforms(np.arange(20000), np.ones(20000, dtype=np.int64), 4)
    correlation = np.corrcoef(np.concatenate([draws, other], axis=1), rowvar=False) - np.eye(8)
    assert np.abs(correlation).max() < 5 / 20000**0.5


def test_bad_requests_are_named(data: Dataset) -> None:
    for change, message in (
        ({"batch_size": 0}, "batch_size"),
        ({"augment": "wild"}, "unknown augmentation 'wild'"),
        ({"split": "tset"}, "no split 'tset'"),
        ({"batch_size": 500, "drop_last": True}, "fewer than one batch"),
        ({"augment_variants": 0}, "augment_variants"),
    ):
        asked = {"split": "train", "batch_size": 8, **change}
        with pytest.raises(InputError, match=message):
            Loader(data, asked.pop("split"), asked.pop("batch_size"), **asked)
