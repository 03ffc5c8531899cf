"""Records: canonical archs, JSON round trips, ids by content, and figures that cannot be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tutelage.records import Arch, Measurement, Row
from tutelage.search.spaces.space import SPACES

DEPTHS = st.lists(st.sampled_from([2, 3, 4]), min_size=5, max_size=5)


@given(DEPTHS, st.randoms())
def test_filler_genes_do_not_make_another_arch(depth: list[int], random: object) -> None:
    kernels = [random.choice([3, 5, 7]) for _ in range(20)]  # type: ignore[attr-defined]
    expands = [random.choice([3, 4, 6]) for _ in range(20)]  # type: ignore[attr-defined]
    arch = Arch(space="ofa_mbv3_w1.0", ks=tuple(kernels), e=tuple(expands), d=tuple(depth), r=64)
    for slot in range(20):
        if slot % 4 >= depth[slot // 4]:
            kernels[slot] = 10 - kernels[slot]
    other = Arch(space="ofa_mbv3_w1.0", ks=tuple(kernels), e=tuple(expands), d=tuple(depth), r=64)
    assert arch == other
    assert arch.id == other.id
    assert hash(arch) == hash(other)
    assert Arch.from_dict(arch.to_dict()) == arch


@given(DEPTHS)
def test_compact_lists_are_spread_over_the_active_slots(depth: list[int]) -> None:
    compact = Arch(space="ofa_mbv3_w1.0", ks=(3,) * sum(depth), e=(4,) * sum(depth), d=tuple(depth), r=64)
    full = Arch(space="ofa_mbv3_w1.0", ks=(3,) * 20, e=(4,) * 20, d=tuple(depth), r=64)
    assert compact == full


def test_a_list_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValidationError, match="ks has 7 entries"):
        Arch(space="ofa_mbv3_w1.0", ks=(3,) * 7, e=(4,) * 20, d=(4,) * 5, r=64)


@given(st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=1, max_size=40), st.sampled_from([50, 90, 99]))
def test_percentiles_are_those_of_numpy(samples: list[float], percent: int) -> None:
    found = _measurement(tuple(samples)).percentile(percent)
    assert found == pytest.approx(np.percentile(samples, percent), rel=1e-9)


@pytest.mark.parametrize("samples", [(), (1.0, math.nan), (0.0,), (-1.0,)])
def test_samples_that_no_clock_gives_are_refused(samples: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        _measurement(samples)


def test_the_short_name_of_an_arch_says_its_kind_of_space() -> None:
    names = [SPACES[space].smallest(32).short_name for space in ("ofa_mbv3_w1.0", "mbconv_small_w1.0")]
    assert [name[:-6] for name in names] == ["ofa-", "mbconv-"]


def test_the_same_result_at_another_time_is_the_same_row() -> None:
    row = Row(model="m", role="student", dataset="phantom", created="2026-01-01T00:00:00Z")
    later = row.model_copy(update={"created": "2026-01-02T00:00:00Z"})
    assert row.key == later.key
    assert row.id != later.id
    assert row.key != row.model_copy(update={"seed": 1}).key


def _measurement(samples: tuple[float, ...]) -> Measurement:
    return Measurement(
        device="host",
        runtime="onnxruntime",
        runtime_version="1",
        threads=1,
        batch=1,
        precision="fp32",
        effective_precision="fp32",
        samples_ms=samples,
    )
