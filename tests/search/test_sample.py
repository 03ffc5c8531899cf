"""Feasible sampling: uniform by chi-square on spaces that can be listed, proven empty budgets, EEEA's redraw rule."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from tutelage.records import InfeasibleBudgetError, InputError
from tutelage.search.counts import count_genes
from tutelage.search.sample import FeasibleSampler, check_feasible, eeea_initial, sample_feasible
from tutelage.search.space import SPACES, Genes, Space

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


def assert_uniform(drawn: Genes, feasible: Genes) -> None:
    """Chi-square over all feasible archs at the 1e-4 level; the seed is fixed, so a fair sampler passes for good."""
    rows, counts = np.unique(np.concatenate([feasible, drawn]), axis=0, return_counts=True)
    assert len(rows) == len(feasible), "drew what is not feasible"
    assert chisquare(counts - 1).pvalue > 1e-4


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
def test_draws_are_uniform_over_the_feasible(make: Callable[[], Space], names: list[str], share: float) -> None:
    space = make()
    genes = every(space)
    assert len(genes) == space.size()
    bounds = medians(space, genes, names, share)
    feasible = genes[within(space, genes, bounds)]
    assert 5 < len(feasible) < len(genes)
    assert_uniform(sample_feasible(space, bounds, 40 * len(feasible), np.random.default_rng(1)), feasible)


def kernel_sum(space: Space) -> Callable[[Genes], Costs]:
    """A given cost that is a sum over slots: its latency in ms, a constant and .1 for every larger kernel."""

    def cost(genes: Genes) -> Costs:
        active = space.active(genes)[:, space.columns("ks")]
        return {"latency_ms@toy": 1.0 + 0.1 * (genes[:, space.columns("ks")] * active).sum(axis=1)}

    return cost


def test_a_given_cost_that_adds_up_is_counted_too() -> None:
    space = mobile()
    genes = every(space)
    cost = kernel_sum(space)
    bounds = {"latency_ms@toy": 1.35, "macs": float(np.quantile(count_genes(space, genes).macs, 0.5))}
    feasible = genes[within(space, genes, {"macs": bounds["macs"]}) & (cost(genes)["latency_ms@toy"] <= 1.35)]
    sampler = FeasibleSampler(space, bounds, cost=cost)
    assert_uniform(sampler.draw(40 * len(feasible), np.random.default_rng(2)), feasible)


def test_a_given_cost_of_another_form_is_kept_by_rejection() -> None:
    space = mobile()
    genes = every(space)
    sums = kernel_sum(space)

    def cost(genes: Genes) -> Costs:
        return {"latency_ms@toy": sums(genes)["latency_ms@toy"] ** 2}

    feasible = genes[cost(genes)["latency_ms@toy"] <= 1.5]
    assert_uniform(
        sample_feasible(space, {"latency_ms@toy": 1.5}, 40 * len(feasible), np.random.default_rng(3), cost=cost),
        feasible,
    )
    with pytest.raises(InfeasibleBudgetError, match=r"latency_ms@toy <= 0.5 ms: the smallest found has 1 ms"):
        check_feasible(space, {"latency_ms@toy": 0.5}, cost=cost)


@pytest.mark.parametrize("name", SPACES)
def test_tight_budgets_of_whole_spaces_are_kept(name: str) -> None:
    space = SPACES[name].with_resolutions((32, 64))
    small = count_genes(space, space.encode([space.smallest(64)]))
    bounds = {"macs": 1.1 * float(small.macs[0]), "params": 1.05 * float(small.params[0])}
    genes = sample_feasible(space, bounds, 200, np.random.default_rng(4))
    assert within(space, genes, bounds).all()
    np.testing.assert_array_equal(space.canonical(genes), genes)
    assert len(np.unique(genes, axis=0)) > 50


def test_the_smallest_arch_alone_is_drawn_when_it_alone_fits() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((28,))
    macs = float(count_genes(space, space.encode([space.smallest()])).macs[0])
    genes = sample_feasible(space, {"macs": macs}, 5, np.random.default_rng(5))
    assert space.decode(genes) == [space.smallest()] * 5


def test_no_bounds_is_uniform_over_archs_not_over_genes() -> None:
    """Deep archs are many: in one stage of `deep` 4 of 6 archs have two blocks, though half the depth genes do."""
    genes = sample_feasible(deep(), {}, 6000, np.random.default_rng(6))
    share = genes[:, :5].mean()
    assert abs(share - 4 / 6) < 0.015  # 30,000 draws: five standard errors are .0136


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
    told = float(text.split("raise --max-macs to at least ")[1].removesuffix("M")) * 1e6
    assert smallest <= told <= 1.001 * smallest  # rounded up, so that the told budget is met
    check_feasible(space, {"macs": told, "params": 9e6})


@pytest.mark.parametrize("make", [mobile, residual])
@pytest.mark.parametrize("name", ["macs", "params", "activations", "int8_bytes", "size_bytes", "peak_activation_bytes"])
def test_the_least_of_every_count_is_exact(make: Callable[[], Space], name: str) -> None:
    space = make()
    least = float(getattr(count_genes(space, every(space)), name).min())
    check_feasible(space, {name: least})
    with pytest.raises(InfeasibleBudgetError, match=name):
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
    ("bounds", "told"),
    [
        ({"mac": 1e6}, "no cost 'mac' to bound: did you mean macs"),
        ({"macs": -1.0}, "macs = -1.0 must be a positive"),
        ({"macs": float("nan")}, "must be a positive finite"),
        ({"latency_ms@pi": 5.0}, "no cost 'latency_ms@pi'"),
    ],
)
def test_bad_bounds_are_refused(bounds: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_feasible(SPACES["ofa_mbv3_w1.0"], bounds)


def test_eeea_redraws_until_under_beta() -> None:
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    genes = eeea_initial(space, 40, np.random.default_rng(9), 5e6)
    assert genes.shape == (40, space.num_genes)
    assert (count_genes(space, genes).params < 5e6).all()
    with pytest.raises(InfeasibleBudgetError, match="params"):
        eeea_initial(space, 1, np.random.default_rng(9), 1e6)


def test_eeea_is_rejection_from_plain_draws() -> None:
    """Redrawing keeps the shape of plain random genes: the share of depth choices is that of feasible plain draws."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    plain = space.random(60_000, np.random.default_rng(10))
    plain = plain[count_genes(space, plain).params < 5e6]
    drawn = eeea_initial(space, 4000, np.random.default_rng(11), 5e6)
    # Means of a code in {0, 1, 2} over 4000 draws: five standard errors are at most .07.
    np.testing.assert_allclose(drawn[:, :5].mean(axis=0), plain[:, :5].mean(axis=0), atol=0.07)
