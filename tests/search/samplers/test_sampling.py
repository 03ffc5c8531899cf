"""Feasible sampling: one measure under all bounds, by chi-square; listings by brute force; empty budgets."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from tutelage.records import InfeasibleBudgetError, InputError
from tutelage.search.costs import sampling
from tutelage.search.costs.budget import Cost, check_feasible
from tutelage.search.costs.counts import count_genes
from tutelage.search.costs.listing import list_feasible
from tutelage.search.costs.sampling import FeasibleSampler
from tutelage.search.spaces.space import SPACES, Genes, Space

Costs = Mapping[str, NDArray[np.float64]]


def mobile() -> Space:
    """Kernels and the side elastic: 2^10 archs on two sides."""
    return replace(SPACES["ofa_mbv3_w1.0"], kernels=(3, 7), expands=(3,), depths=(2,), resolutions=(28, 40))


def deep() -> Space:
    """Depth and expand ratio elastic, where filler genes would spoil uniformity: (2 + 4)^5 archs."""
    return replace(SPACES["ofa_mbv3_w1.0"], kernels=(3,), expands=(3, 6), depths=(1, 2), resolutions=(28,))


def residual() -> Space:
    """Widths shared between neighbouring stages, which is where the parts are not independent."""
    wide = tuple(choices[::2] for choices in SPACES["ofa_resnet50"].widths)
    return replace(SPACES["ofa_resnet50"], expands=(0.25,), depths=(0, 2), resolutions=(32,), widths=wide)


def every(space: Space) -> Genes:
    """List all archs: gene by gene, depths first, every code where the gene decides anything and 0 where not."""
    rows = np.zeros((1, space.num_genes), dtype=np.int64)
    for column, num_codes in enumerate(space.num_choices):
        grown = [rows]
        for code in range(1, num_codes):
            grown.append(rows[space.active(rows)[:, column]].copy())
            grown[-1][:, column] = code
        rows = np.concatenate(grown)
    return rows


def medians(space: Space, genes: Genes, names: list[str], share: float) -> dict[str, float]:
    counts = count_genes(space, genes)
    return {name: float(np.quantile(getattr(counts, name), share)) for name in names}


def within(space: Space, genes: Genes, bounds: Mapping[str, float]) -> NDArray[np.bool_]:
    counts = count_genes(space, genes)
    return np.all([getattr(counts, name) <= bound for name, bound in bounds.items()], axis=0)


def assert_random(drawn: Genes, feasible: Genes, space: Space) -> None:
    """Chi-square against plain draws given the bounds, at the 1e-4 level; seeds are fixed, so it passes for good.

    A plain draw's probability is the product over active genes of 1 / choices. Rare archs are pooled until five of
    them are expected, as the test needs.
    """
    probability = np.exp(space.log_probability(feasible))
    order = np.argsort(probability, kind="stable")
    rows, counts = np.unique(np.concatenate([feasible[order], drawn]), axis=0, return_counts=True)
    assert len(rows) == len(feasible), "drew what is not feasible"
    seen = {row.tobytes(): int(count) - 1 for row, count in zip(rows, counts, strict=True)}
    observed = np.array([seen[row.tobytes()] for row in np.ascontiguousarray(feasible[order])])
    expected = len(drawn) * probability[order] / probability.sum()
    pool = np.unique((np.cumsum(expected) // 5).astype(int), return_inverse=True)[1]
    assert pool.max() >= 5
    assert chisquare(np.bincount(pool, observed), np.bincount(pool, expected)).pvalue > 1e-4


def sample_feasible(
    space: Space, bounds: Mapping[str, float], n: int, rng: np.random.Generator, cost: Cost | None = None
) -> Genes:
    """Prepare a sampler and draw once."""
    return FeasibleSampler(space, bounds, cost=cost).draw(n, rng)


def test_the_measure_adds_up_to_one_over_all_archs() -> None:
    for space in (mobile(), deep(), residual()):
        assert np.exp(space.log_probability(every(space))).sum() == pytest.approx(1)


@pytest.mark.parametrize("make", [mobile, deep, residual])
@pytest.mark.parametrize("share", [None, 1.0, 0.05])
def test_without_a_bound_and_with_any_bound_draws_have_one_measure(
    make: Callable[[], Space], share: float | None
) -> None:
    """No bound, one that never binds, and one that 1 arch in 20 keeps: always plain draws, given the bound."""
    space = make()
    genes = every(space)
    bounds = {} if share is None else medians(space, genes, ["macs"], share)
    feasible = genes[within(space, genes, bounds)] if bounds else genes
    drawn = sample_feasible(space, bounds, 4000, np.random.default_rng(12))
    assert_random(drawn, feasible, space)


@pytest.mark.parametrize("make", [deep, residual])
def test_tables_draw_what_redrawing_draws(make: Callable[[], Space], monkeypatch: pytest.MonkeyPatch) -> None:
    """With tables in use for any bound: were archs counted and not weighed, deep ones would be drawn too often."""
    monkeypatch.setattr(sampling, "_REDRAW_FROM", 1.1)
    space = make()
    genes = every(space)
    bounds = medians(space, genes, ["macs", "params"], 0.4)
    sampler = FeasibleSampler(space, bounds)
    assert sampler._plans
    assert_random(sampler.draw(4000, np.random.default_rng(13)), genes[within(space, genes, bounds)], space)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names", "share"),
    [
        (mobile, ["macs"], 0.3),
        (mobile, ["macs", "params", "peak_activation_bytes"], 0.6),
        (deep, ["params"], 0.02),
        (deep, ["macs", "activations", "int8_bytes"], 0.1),
        (residual, ["macs"], 0.3),
        (residual, ["macs", "params"], 0.4),
        (residual, ["peak_activation_bytes", "size_bytes"], 0.5),
    ],
)
def test_draws_are_plain_ones_given_the_bounds(
    make: Callable[[], Space], names: list[str], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_REDRAW_FROM", 1.1)  # tables, whatever redrawing would cost
    space = make()
    genes = every(space)
    assert len(genes) == space.size()
    bounds = medians(space, genes, names, share)
    feasible = genes[within(space, genes, bounds)]
    assert 5 < len(feasible) < len(genes)
    assert_random(sample_feasible(space, bounds, 40 * len(feasible), np.random.default_rng(1)), feasible, space)


def kernel_sum(space: Space) -> Callable[[Genes], Costs]:
    """A given cost that is a sum over slots: its latency in ms, a constant and .1 for every larger kernel."""

    def cost(genes: Genes) -> Costs:
        active = space.active(genes)[:, space.columns("ks")]
        return {"latency_ms@toy": 1.0 + 0.1 * (genes[:, space.columns("ks")] * active).sum(axis=1)}

    return cost


def test_a_given_cost_is_kept_beside_a_counted_one() -> None:
    space = mobile()
    genes = every(space)
    cost = kernel_sum(space)
    bounds = {"latency_ms@toy": 1.35, "macs": float(np.quantile(count_genes(space, genes).macs, 0.5))}
    feasible = genes[within(space, genes, {"macs": bounds["macs"]}) & (cost(genes)["latency_ms@toy"] <= 1.35)]
    sampler = FeasibleSampler(space, bounds, cost=cost)
    assert_random(sampler.draw(40 * len(feasible), np.random.default_rng(2)), feasible, space)


def test_a_given_cost_alone_is_kept_by_rejection() -> None:
    space = mobile()
    genes = every(space)
    sums = kernel_sum(space)

    def cost(genes: Genes) -> Costs:
        return {"latency_ms@toy": sums(genes)["latency_ms@toy"] ** 2}

    feasible = genes[cost(genes)["latency_ms@toy"] <= 1.5]
    drawn = sample_feasible(space, {"latency_ms@toy": 1.5}, 40 * len(feasible), np.random.default_rng(3), cost=cost)
    assert_random(drawn, feasible, space)
    with pytest.raises(InfeasibleBudgetError, match=r"latency_ms@toy <= 0.5 ms: the smallest found has 1 ms"):
        check_feasible(space, {"latency_ms@toy": 0.5}, cost=cost)


@pytest.mark.parametrize("name", SPACES)
def test_tight_budgets_of_whole_spaces_are_kept(name: str) -> None:
    space = SPACES[name].with_resolutions((32, 64))
    small = count_genes(space, space.encode([space.smallest(64)]))
    # Of few slots, and plain convolutions, one more choice costs more: at 1.05 four to eight architectures fit.
    slack = 1.05 if len(space.slots) > 12 else 1.2
    bounds = {"macs": 1.1 * float(small.macs[0]), "params": slack * float(small.params[0])}
    genes = sample_feasible(space, bounds, 200, np.random.default_rng(4))
    assert within(space, genes, bounds).all()
    np.testing.assert_array_equal(space.canonical(genes), genes)
    assert len(np.unique(genes, axis=0)) > 50


def test_the_smallest_arch_alone_is_drawn_when_it_alone_fits() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((28,))
    macs = float(count_genes(space, space.encode([space.smallest()])).macs[0])
    genes = sample_feasible(space, {"macs": macs}, 5, np.random.default_rng(5))
    assert space.decode(genes) == [space.smallest()] * 5


def test_a_bound_that_never_binds_leaves_the_depths_of_a_whole_space_alone() -> None:
    """A third of the stages at each depth. Were every arch as likely, depth 4 would have 6561 / 7371 = .89 of them."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    for bounds in ({}, {"macs": 1e12}):
        genes = sample_feasible(space, bounds, 4000, np.random.default_rng(6))
        deepest = (genes[:, :5] == 2).mean()
        assert abs(deepest - 1 / 3) < 0.017  # 20,000 draws: five standard errors


def test_one_arch_in_two_hundred_is_drawn_by_tables_as_redrawing_would() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    plain = space.random(200_000, np.random.default_rng(14))
    macs = count_genes(space, plain).macs
    bounds = {"macs": float(np.quantile(macs, 0.005))}
    kept = plain[macs <= bounds["macs"]]
    sampler = FeasibleSampler(space, bounds)
    assert sampler._plans
    drawn = sampler.draw(1000, np.random.default_rng(15))
    kernels = np.array([3, 5, 7])

    def kernel_sums(genes: Genes) -> NDArray[np.float64]:
        columns = space.columns("ks")
        sums = (kernels[genes[:, columns]] * space.active(genes)[:, columns]).sum(axis=1)
        return np.asarray(sums, dtype=np.float64)

    for figure in (kernel_sums, lambda genes: genes[:, :5].sum(axis=1)):  # a thousand each: five standard errors
        ours, theirs = figure(drawn), figure(kept)
        assert abs(ours.mean() - theirs.mean()) < 5 * np.hypot(ours.std(), theirs.std()) / 1000**0.5


def test_the_same_seed_draws_the_same() -> None:
    space, bounds = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)), {"macs": 30e6}
    one, two = (sample_feasible(space, bounds, 50, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_an_empty_budget_names_the_bound_and_the_nearest() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((28,))
    smallest = int(count_genes(space, space.encode([space.smallest()])).macs[0])
    with pytest.raises(InfeasibleBudgetError) as error:
        sample_feasible(space, {"macs": 1e6, "params": 9e6}, 1, np.random.default_rng(8))
    text = str(error.value)
    assert text.startswith("no architecture of ofa_mbv3_w1.0 at r=28 has macs <= 1 M: the smallest has ")
    reported = float(text.split("raise --max-macs to at least ")[1].removesuffix("M")) * 1e6
    assert smallest <= reported <= 1.001 * smallest  # rounded up, so that the reported budget is met
    check_feasible(space, {"macs": reported, "params": 9e6})


@pytest.mark.parametrize("make", [mobile, residual])
@pytest.mark.parametrize("name", ["macs", "params", "activations", "int8_bytes", "size_bytes", "peak_activation_bytes"])
def test_the_least_of_every_count_is_exact(make: Callable[[], Space], name: str) -> None:
    space = make()
    least = float(getattr(count_genes(space, every(space)), name).min())
    check_feasible(space, {name: least})
    options = {"macs": "--max-macs", "params": "--max-params", "size_bytes": "--max-size"}  # others have none
    with pytest.raises(InfeasibleBudgetError, match=f"{name} .*raise {options.get(name, f'the bound on {name}')} to"):
        check_feasible(space, {name: least - 1})


def test_bounds_that_only_together_ask_too_much() -> None:
    """A cost that falls with the kernels against one that rises: each bound can be kept, both cannot."""
    space = mobile().with_resolutions((28,))
    genes = every(space)
    macs = count_genes(space, genes).macs
    slow = kernel_sum(space)

    def cost(genes: Genes) -> Costs:
        return {"latency_ms@odd": 3.0 - slow(genes)["latency_ms@toy"]}

    bounds = {"macs": float(np.quantile(macs, 0.1)), "latency_ms@odd": 1.1}
    jointly = macs[cost(genes)["latency_ms@odd"] <= 1.1].min()
    assert (cost(genes)["latency_ms@odd"] <= 1.1).any()
    assert jointly > bounds["macs"]
    with pytest.raises(InfeasibleBudgetError, match=" with "):
        check_feasible(space, bounds, cost=cost)
    check_feasible(space, bounds | {"macs": float(jointly)}, cost=cost)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"mac": 1e6}, "no cost 'mac' to bound: did you mean macs"),
        ({"macs": -1.0}, "macs = -1.0 must be a positive"),
        ({"macs": float("nan")}, "must be a positive finite"),
        ({"latency_ms@pi": 5.0}, "no cost 'latency_ms@pi'"),
    ],
)
def test_bad_bounds_are_refused(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_feasible(SPACES["ofa_mbv3_w1.0"], bounds)


@pytest.mark.parametrize("make", [mobile, deep, residual])
@pytest.mark.parametrize("names", [[], ["macs"], ["macs", "params"], ["peak_activation_bytes", "macs"]])
def test_a_listing_is_what_brute_force_keeps(make: Callable[[], Space], names: list[str]) -> None:
    space = make()
    genes = every(space)
    bounds = medians(space, genes, names, 0.2)
    expected = genes[within(space, genes, bounds)] if names else genes
    listed = list_feasible(space, bounds, len(genes))
    assert listed is not None
    np.testing.assert_array_equal(np.unique(listed, axis=0), np.unique(expected, axis=0))
    assert len(listed) == len(expected)
    assert list_feasible(space, bounds, len(expected) - 1) is None


@pytest.mark.parametrize("power", [1, 2])  # a sum over slots, and none
def test_a_listing_keeps_given_costs(power: int) -> None:
    space = mobile()
    genes = every(space)
    sums = kernel_sum(space)

    def cost(genes: Genes) -> Costs:
        return {"latency_ms@toy": sums(genes)["latency_ms@toy"] ** power}

    listed = list_feasible(space, {"latency_ms@toy": 1.31}, 5000, cost=cost)
    assert listed is not None
    assert len(listed) == (cost(genes)["latency_ms@toy"] <= 1.31).sum()


def test_a_whole_space_is_listed_where_a_budget_leaves_a_handful() -> None:
    """Of 2e19 archs the smallest and some one step away keep the bound; a wide bound leaves too many to list."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    smallest = space.encode([space.smallest()])
    macs = float(count_genes(space, smallest).macs[0])
    near = space.neighbours(smallest[0])
    listed = list_feasible(space, {"macs": 1.005 * macs}, 100)
    assert listed is not None
    assert {row.tobytes() for row in listed} >= {
        row.tobytes() for row in near[count_genes(space, near).macs <= 1.005 * macs]
    }
    assert list_feasible(space, {"macs": 3 * macs}, 10_000) is None
