"""Genotypes: round trips, canonical forms, moves that stay inside, sizes against enumeration."""

import random
import sys
from dataclasses import replace
from itertools import product
from subprocess import run

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.records import Arch, InputError
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES, Space, find_space

seeds = st.integers(0, 2**32 - 1)
spaces = st.sampled_from(sorted(SPACES))
few = settings(max_examples=25, deadline=None)


def tiny(name: str = "ofa_mbv3_w1.0", **changes: object) -> Space:
    """A space small enough to list: two depths, one kernel, one expand, unless asked otherwise."""
    given = {"kernels": (3,), "expands": (3,), "depths": (2, 3), "resolutions": (28, 32)} | changes
    return replace(SPACES[name], **given)  # type: ignore[arg-type]


def enumerate_archs(space: Space) -> set[Arch]:
    """Every arch by trying every code of every gene and dropping equals."""
    rows = np.array(list(product(*(range(int(k)) for k in space.num_choices))), dtype=np.int64)
    return set(space.decode(rows))


@given(spaces, seeds)
@few
def test_encode_undoes_decode_and_json(name: str, seed: int) -> None:
    space = SPACES[name]
    genes = space.random(5, np.random.default_rng(seed))
    archs = space.decode(genes)
    np.testing.assert_array_equal(space.encode(archs), genes)
    assert [Arch.from_dict(arch.to_dict()) for arch in archs] == archs
    assert space.decode(space.encode(archs)) == archs
    for arch in archs:
        space.check(arch)


@given(spaces, seeds)
@few
def test_canonical_is_idempotent_and_keeps_the_arch(name: str, seed: int) -> None:
    space, rng = SPACES[name], np.random.default_rng(seed)
    raw = rng.integers(0, space.num_choices, size=(5, space.num_genes))
    once = space.canonical(raw)
    np.testing.assert_array_equal(space.canonical(once), once)
    assert space.decode(raw) == space.decode(once)


@given(spaces, seeds, st.floats(0, 1))
@few
def test_children_are_valid_and_made_of_their_parents(name: str, seed: int, probability: float) -> None:
    space, rng = SPACES[name], np.random.default_rng(seed)
    a, b = space.random(6, rng), space.random(6, rng)
    for child in (space.mutate(a, rng, probability), space.crossover(a, b, rng)):
        np.testing.assert_array_equal(space.canonical(child), child)
        np.testing.assert_array_equal(space.encode(space.decode(child)), child)
    crossed = space.crossover(a, b, rng)
    # A slot that is active in the child was active in the parent its genes come from.
    from_a = (crossed == a) & space.active(a)
    from_b = (crossed == b) & space.active(b)
    assert (from_a | from_b | ~space.active(crossed)).all()


@given(spaces, seeds)
@few
def test_mutation_of_nothing_and_crossover_with_oneself_change_nothing(name: str, seed: int) -> None:
    space, rng = SPACES[name], np.random.default_rng(seed)
    genes = space.random(4, rng)
    np.testing.assert_array_equal(space.mutate(genes, rng, 0.0), genes)
    np.testing.assert_array_equal(space.crossover(genes, genes, rng), genes)


@given(spaces, seeds)
@settings(max_examples=10, deadline=None)
def test_neighbours_differ_in_one_decision(name: str, seed: int) -> None:
    space = SPACES[name]
    genes = space.random(1, np.random.default_rng(seed))[0]
    near = space.neighbours(genes)
    assert len(np.unique(near, axis=0)) == len(near)
    np.testing.assert_array_equal(space.canonical(near), near)
    both = space.active(genes[None]) & space.active(near)  # what a depth masks is no decision of its own
    assert ((near != genes) & both).sum(axis=1).tolist() == [1] * len(near)
    wanted = int((space.num_choices - 1)[space.active(genes[None])[0]].sum())
    assert len(near) == wanted


def test_mutation_redraws_about_the_asked_share() -> None:
    """Each of 46 genes is redrawn with .1 and then differs unless the old value comes up; the side has one value."""
    space, rng = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)), np.random.default_rng(0)
    parents = np.repeat(space.encode([space.largest()]), 4000, axis=0)
    depth = (space.mutate(parents, rng, 0.1)[:, :5] != parents[:, :5]).mean()
    # 20,000 draws of probability .1 x 2/3: five standard errors are .009.
    assert abs(depth - 0.1 * 2 / 3) < 0.009


@pytest.mark.parametrize(
    "space",
    [
        tiny(kernels=(3, 5), depths=(1,)),
        tiny(depths=(2, 3, 4)),
        tiny(expands=(3, 6), depths=(0, 1), resolutions=(28,)),
        tiny("ofa_proxyless_w1.3", expands=(3, 6), depths=(1,)),
        replace(
            SPACES["ofa_resnet50"],
            expands=(0.2,),
            depths=(0, 2),
            resolutions=(32,),
            widths=((24, 32), (40,), (168, 208), (336, 408), (664,), (1328,)),
        ),
    ],
    ids=["kernels", "depths", "expands and depths", "fixed last block", "resnet50 widths"],
)
def test_size_equals_enumeration(space: Space) -> None:
    assert space.size() == len(walk(space))


def walk(space: Space) -> set[bytes]:
    """Walk the whole space from its smallest arch by neighbours: a second way to list it."""
    start = space.encode([space.smallest()])[0]
    seen, edge = {start.tobytes()}, [start]
    while edge:
        for row in space.neighbours(edge.pop()):
            if row.tobytes() not in seen:
                seen.add(row.tobytes())
                edge.append(row)
    return seen


def test_the_whole_space_has_its_published_size() -> None:
    """7371 = 9^2 + 9^3 + 9^4 stages to the fifth, 2.2e19 a side."""
    assert SPACES["ofa_mbv3_w1.0"].with_resolutions((224,)).size() == 7371**5
    assert SPACES["ofa_proxyless_w1.3"].with_resolutions((224,)).size() == 7371**5 * 9


def test_listing_all_codes_gives_the_same_set() -> None:
    space = tiny(resolutions=(28,), depths=(2, 3))
    assert len(enumerate_archs(space)) == space.size() == 2**5


def test_ofas_own_samples_are_of_the_space() -> None:
    """`ofa`'s sampler writes 20 values a list, filler and all, and six depths for ProxylessNAS's six groups."""
    rng = random.Random(0)
    ks, e = [rng.choice([3, 5, 7]) for _ in range(20)], [rng.choice([3, 4, 6]) for _ in range(20)]
    arch = Arch.from_dict({"space": "ofa_mbv3_w1.0", "ks": ks, "e": e, "d": [2, 3, 4, 2, 3], "r": 128})
    space = SPACES["ofa_mbv3_w1.0"]
    assert space.decode(space.encode([arch])) == [arch]
    assert arch.ks[2:4] == (0, 0)


def test_smallest_and_largest() -> None:
    space = SPACES["ofa_mbv3_w1.0"]
    small, large = space.smallest(64), space.largest(64)
    assert (small.d, set(small.ks), set(small.e), small.r) == ((2,) * 5, {3, 0}, {3, 0}, 64)
    assert (large.d, set(large.ks), set(large.e), large.r) == ((4,) * 5, {7}, {6}, 64)
    assert space.smallest().r == min(space.resolutions)
    with pytest.raises(InputError, match="r = 63"):
        space.smallest(63)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ks": [4] * 12}, r"ks\[0\] = 4 .*choose of 3, 5, 7"),
        ({"e": [3] * 11 + [5]}, r"e\[19\] = 5 .*choose of 3, 4, 6"),
        ({"d": [2, 2, 2, 2, 2, 2], "ks": [3] * 12, "e": [3] * 12}, "d has 6 entries"),
        ({"r": 63}, "r = 63 .*with_resolutions"),
        ({"ks": []}, "ks has 0 entries"),
        ({"w": [0]}, "w has 1 entries"),
        ({"space": "ofa_mbv3_w1.2"}, "space = 'ofa_mbv3_w1.2' is not 'ofa_mbv3_w1.0'"),
    ],
)
def test_what_is_not_of_the_space_is_named(changes: dict[str, object], message: str) -> None:
    arch = Arch.model_validate(PRESETS["EEEA-Net-C1"].to_dict() | {"ks": [3] * 12, "e": [3] * 12} | changes)
    for refuse in (
        SPACES["ofa_mbv3_w1.0"].check,
        lambda one: SPACES["ofa_mbv3_w1.0"].encode([PRESETS["EEEA-Net-C1"], one]),
    ):
        with pytest.raises(InputError, match=message):
            refuse(arch)


def test_presets_are_placed_in_other_spaces_of_the_family() -> None:
    preset = PRESETS["OFA-595"]
    placed = place(preset, SPACES["ofa_mbv3_w1.0_stem1"], 28)
    assert (placed.space, placed.r, placed.ks, placed.e, placed.d) == (
        "ofa_mbv3_w1.0_stem1",
        28,
        preset.ks,
        preset.e,
        preset.d,
    )
    with pytest.raises(InputError, match="its family"):
        place(preset, SPACES["ofa_resnet50"], 64)
    with pytest.raises(InputError, match="its family"):
        place(preset, SPACES["ofa_proxyless_w1.3"], 64)
    with pytest.raises(InputError, match="r = 29"):
        place(preset, SPACES["ofa_mbv3_w1.0"], 29)


def test_resolutions_are_sorted_and_positive() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64, 32, 64))
    assert space.resolutions == (32, 64)
    for wrong in ((), (0,), (2**63,)):
        with pytest.raises(InputError, match="give one or more of 1 px to 65536 px"):
            space.with_resolutions(wrong)


def test_unknown_space_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'ofa_resnet50'"):
        find_space("ofa_resnet")


def test_the_tables_need_no_torch() -> None:
    code = "import tutelage.search.costs.sampling, sys; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
