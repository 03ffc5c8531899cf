"""RAM and flash of architectures: sums and peaks by hand, exact bounds by a second listing, draws that keep them."""

import numpy as np
import pytest

from tutelage.records import Budget, InfeasibleBudgetError
from tutelage.search.costs.budget import check_feasible, collapsed, front_at, terms_of
from tutelage.search.costs.counts import count, count_genes
from tutelage.search.costs.listing import list_feasible
from tutelage.search.costs.memory import memory_of
from tutelage.search.costs.sampling import FeasibleSampler
from tutelage.search.spaces.blocks import block_specs
from tutelage.search.spaces.space import SPACES, Genes, Space

SPACE = SPACES["mbconv_micro_w0.25"].with_resolutions((48,))
CLASSES, CHANNELS = 3, 1
RAM, FLASH = "int8_ram_bytes", "int8_file_bytes"


def counted(genes: Genes) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in vars(count_genes(SPACE, genes, CLASSES, CHANNELS)).items()}


def within(space: Space, bounds: dict[str, float], at_most: int = 5000) -> set[bytes]:
    """All architectures that keep the bounds and are joined to the smallest by single decisions: a second listing."""
    todo = [space.encode([space.smallest()])[0]]
    found = {todo[0].tobytes()}
    while todo:
        near = space.neighbours(todo.pop())
        costs = counted(near)
        keeps = np.all([costs[name] <= bound for name, bound in bounds.items()], axis=0)
        fresh = [row for row in near[keeps] if row.tobytes() not in found]
        found |= {row.tobytes() for row in fresh}
        todo += fresh
        assert len(found) < at_most
    return found


def test_the_smallest_network_by_hand() -> None:
    """48 px, one channel: five bottlenecks of expand 3 at widths 8, 8, 8, 16, 24, 24, 48, then 80 and three classes."""
    arch = SPACE.smallest()
    counts = count([arch], CLASSES, CHANNELS)
    # The peak is in the first bottleneck, at 24 px: its input, and the expanded map of 24 channels.
    peak = 24 * 24 * (8 + 24)
    convolutions = [8, 8, 8]  # stem, depthwise, first
    for inp, out in zip((8, 8, 16, 24, 24), (8, 16, 24, 24, 48), strict=True):
        convolutions += [3 * inp, 3 * inp, out]
    convolutions.append(80)
    layers = sum(64 + 108 + 8 * channels + 3 * 24 for channels in convolutions)
    # Interpreter and input; the addition of the fourth stage, whose width stays; mean, reshape, classifier.
    rest = 840 + 24 + (64 + 68 + 24) + (64 + 52 + 48) + (64 + 36 + 48) + (64 + 104 + 72)
    assert counts.ram_bytes[0] == 4 * peak + layers + rest
    assert counts.int8_ram_bytes[0] == peak + layers + rest + 8 * CLASSES + 72


def test_flash_of_a_strided_layer_holds_its_zeros() -> None:
    block = next(spec for spec in block_specs(SPACE.smallest(), CLASSES, CHANNELS) if spec.kind == "block")
    expand, depthwise, project = block.layers
    weights = expand.num_weights + project.num_weights + depthwise.out_channels * 4 * 4  # 3 x 3 and a border of zeros
    channels = expand.out_channels + depthwise.out_channels + project.out_channels
    assert memory_of(block).int8_file == weights + 28 * channels + 3 * 344


def test_ram_is_a_peak_and_a_sum() -> None:
    assert [(term.name, term.peak) for term in terms_of(["macs", RAM])] == [("macs", False), (RAM, True), (RAM, False)]
    np.testing.assert_array_equal(collapsed(np.array([[5.0, 10.0, 3.0]]), ["macs", RAM]), [[5.0, 13.0]])


@pytest.mark.parametrize("bounds", [{RAM: 1.0}, {FLASH: 1.0}, {RAM: 45_000.0, FLASH: 1.0}])
def test_the_nearest_feasible_bound_is_exact(bounds: dict[str, float]) -> None:
    smallest = counted(SPACE.encode([SPACE.smallest()]))
    name = min(bounds, key=lambda one: bounds[one])
    option = {RAM: "--max-ram", FLASH: "--max-size"}[name]
    with pytest.raises(InfeasibleBudgetError, match=option):
        check_feasible(SPACE, bounds, CLASSES, CHANNELS)
    least = float(smallest[name][0])
    check_feasible(SPACE, {**bounds, name: least}, CLASSES, CHANNELS)
    with pytest.raises(InfeasibleBudgetError):
        check_feasible(SPACE, {**bounds, name: least - 1}, CLASSES, CHANNELS)


def test_the_front_is_of_networks_that_there_are() -> None:
    front = front_at(SPACE, 48, [RAM, "macs"], CLASSES, CHANNELS)
    some = counted(SPACE.random(2000, np.random.default_rng(0)))
    points = np.stack([some[RAM], some["macs"]], axis=1)
    assert not (points[:, None] < front[None]).all(axis=2).any()


def test_what_keeps_the_bounds_is_listed_and_drawn() -> None:
    smallest = counted(SPACE.encode([SPACE.smallest()]))
    bounds = {RAM: float(smallest[RAM][0]) + 1500, FLASH: float(smallest[FLASH][0]) + 2600}
    listed = list_feasible(SPACE, bounds, 10_000, CLASSES, CHANNELS)
    assert listed is not None
    wanted = within(SPACE, bounds)
    assert {row.tobytes() for row in listed} == wanted
    assert len(wanted) > 10
    drawn = FeasibleSampler(SPACE, bounds, CLASSES, CHANNELS).draw(60, np.random.default_rng(1))
    assert {row.tobytes() for row in drawn} <= wanted
    assert len({row.tobytes() for row in drawn}) > 5


def test_most_networks_for_microcontrollers_fit_256_kb_and_1_mb() -> None:
    space = SPACES["mbconv_micro_w0.5"]
    counts = count_genes(space, space.random(1000, np.random.default_rng(0)), 10, 3)
    fits = (counts.int8_ram_bytes <= 256 * 1024) & (counts.int8_file_bytes <= 1e6)
    assert 700 < fits.sum() < 1000


def test_a_budget_names_its_memories() -> None:
    budget = Budget(ram_bytes=1.0, int8_ram_bytes=2.0, int8_file_bytes=3.0, energy_mj=4.0)
    assert budget.counted == {"ram_bytes": 1.0, RAM: 2.0, FLASH: 3.0}
