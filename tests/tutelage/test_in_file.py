"""Arrays that lie in a file: who goes through one keeps none of its pages, and every value is there again."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch

from tutelage import in_file as in_file_module
from tutelage.distill.data.loader import tensors
from tutelage.distill.data.registry import load_dataset
from tutelage.in_file import give_back, in_file
from tutelage.quant.run import _in_batches
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, score_subnets

SHAPE = (4096, 1, 32, 32)  # 16 MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def mapped_bytes(folder: Path) -> int:
    """Give the bytes of pages of a folder's files that count as this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if ":" not in line.split()[0]:
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.fixture
def stored(tmp_path: Path) -> np.ndarray:
    array = in_file(SHAPE, tmp_path)
    array[:] = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    return array


def test_what_was_written_is_there_when_its_pages_were_given_back(stored: np.ndarray, tmp_path: Path) -> None:
    assert mapped_bytes(tmp_path) >= stored.nbytes
    plain = stored.copy()
    give_back(stored[100:200])  # any part of it
    assert mapped_bytes(tmp_path) == 0
    give_back(plain)  # in memory: as it is
    np.testing.assert_array_equal(stored, plain)


def test_a_thread_may_make_an_array_while_another_gives_one_back(
    stored: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[np.ndarray] = []
    other = Thread(target=lambda: made.append(in_file((4,), tmp_path)))

    class Maps(WeakValueDictionary[int, Any]):
        def items(self) -> Iterator[tuple[int, Any]]:
            for pair in super().items():
                if other.ident is None:
                    other.start()
                    other.join(timeout=1)  # it waits for this one
                yield pair

    maps = Maps()
    for address, mapped in list(in_file_module._maps.items()):
        maps[address] = mapped
    monkeypatch.setattr(in_file_module, "_maps", maps)
    give_back(stored)
    other.join()
    assert len(made) == 1
    assert mapped_bytes(tmp_path) < stored.nbytes


def scored(images: np.ndarray) -> object:
    space = SPACES["mbconv_micro_w0.25"].with_resolutions((32,))
    net, labels = build_supernet(space, 2, in_channels=1), torch.arange(len(images)) % 2
    calibration = [torch.randn(8, 1, 32, 32)]
    return score_subnets(net, [space.smallest()], calibration, torch.from_numpy(images), labels, workers=2)


READERS: dict[str, Callable[[np.ndarray], object]] = {
    "a runtime": lambda images: _in_batches(lambda some: some.mean((2, 3)), images, (None, 1, 32, 32), 64, Path("m")),
    "a search": scored,
}


@pytest.mark.parametrize("reader", READERS)
def test_who_reads_images_in_batches_keeps_none_in_memory(reader: str, stored: np.ndarray, tmp_path: Path) -> None:
    READERS[reader](stored)
    assert mapped_bytes(tmp_path) < 2**21


def test_a_split_that_is_written_to_a_file_is_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = load_dataset("phantom", size=64, options={"n": 600})
    plain = tensors(data, "train", 64)[0]
    monkeypatch.setattr("tutelage.distill.data.loader._MAX_IN_MEMORY", 0)
    stored = tensors(data, "train", 64, scratch=tmp_path)[0]
    assert mapped_bytes(tmp_path) < 2**20 < stored.nbytes / 4
    assert torch.equal(stored, plain)
