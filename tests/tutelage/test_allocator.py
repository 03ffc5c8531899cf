"""Freed memory is reused inside, without new page faults, and is given back when the last user leaves."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from tutelage import allocator
from tutelage.allocator import keep_freed_memory

PAGE, NUM_PAGES = resource.getpagesize(), 16384

pytestmark = pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")


def _faults_of_a_tensor(num_pages: int = NUM_PAGES) -> int:
    """Fill a tensor of so many pages, free it, and count the page faults that took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(PAGE * num_pages // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_freed_tensor_is_reused_and_given_back_at_the_end():
    """In a process of its own: one in which an allocation has failed keeps less, as the function says."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_fill_and_free).result()


def _fill_and_free():
    with keep_freed_memory():
        _faults_of_a_tensor(4 * NUM_PAGES)  # room for small blocks that settle in between
        with keep_freed_memory():
            assert _faults_of_a_tensor() < NUM_PAGES / 100
        assert _faults_of_a_tensor() < NUM_PAGES / 100  # leaving the inner one gives nothing back
        held = _resident_pages()
    assert held - _resident_pages() > NUM_PAGES * 0.9


def test_an_error_inside_gives_back_too():
    with pytest.raises(KeyError), keep_freed_memory():
        raise KeyError
    assert allocator._users == 0


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with keep_freed_memory():
        assert allocator._users == 0
