"""A space that another package declares in one file works everywhere that a space is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage import plugins
from tutelage.records import SLOTS, Arch, InputError
from tutelage.search.costs.counts import block_specs, count
from tutelage.search.encoding import choices_of, featurise, fields_of
from tutelage.search.loop import Objective, search
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES, Space, find_space
from tutelage.search.supernet import build_arch, build_block, build_supernet, extract, forward_subnet, set_active
from tutelage.search.supernet.training import SupernetSchedule, train_supernet

# A fixed stage stands between two elastic ones of three and two slots: no built-in space has such a layout.
NARROW = """
from tutelage.records import Arch
from tutelage.search.spaces.definition import Space
from tutelage.search.spaces.family import Family, Stage

family = Family(
    name="narrow",
    style="mbconv",
    stages=(Stage(2, False, "relu", 1, 2), Stage(1, False, "relu6", 1, 0), Stage(2, True, "h_swish", 0, 2)),
    act="h_swish",
    presets={"Narrow-1": Arch(space="narrow", d=(1, 2), ks=(3, 5, 0, 3, 5, 3), e=(2, 3, 0, 2, 3, 3), r=32)},
)
space = Space(
    name="narrow",
    family=family,
    kernels=(3, 5),
    expands=(2, 3),
    depths=(1, 2),
    widths=((8,), (8,), (16,), (16,), (24,), (48,)),
    stem_stride=1,
    resolutions=(24, 32),
)
"""
# ResNet50D's kind of blocks in two stages, with three widths.
SHORT = """
from tutelage.search.spaces.definition import Space
from tutelage.search.spaces.family import Family, Stage

family = Family("short", "bottleneck", (Stage(1, False, "relu", 1, 1), Stage(2, False, "relu", 2, 1)), "relu")
space = Space("short", family, (3,), (0.25, 0.5), (0, 1), ((8, 16), (16, 24), (32, 48), (64, 96)), 2, (32,))
"""

# Blocks of two 3x3 convolutions: a stage of fixed depth whose projection keeps the resolution, then an elastic one.
PLAIN = """
from tutelage.search.spaces.definition import Space
from tutelage.search.spaces.family import Family, Stage

family = Family("plain", "basic", (Stage(1, False, "relu", 1, 0), Stage(2, False, "relu6", 1, 1)), "relu6", bn_eps=1e-3)
space = Space("plain", family, (3,), (0.5, 1, 2), (0, 1), ((8,), (16,), (24,)), 1, (32,))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with the three spaces, as pip leaves it: modules and a dist-info with entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "narrow_space.py").write_text(NARROW)
    (tmp_path / "short_space.py").write_text(SHORT)
    (tmp_path / "plain_space.py").write_text(PLAIN)
    info = tmp_path / "narrow_spaces-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: narrow-spaces\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tutelage.spaces]\nnarrow = narrow_space:space\nshort = short_space:space\nplain = plain_space:space\n"
    )
    plugins.forget()
    yield
    for module in ("narrow_space", "short_space", "plain_space"):
        sys.modules.pop(module, None)
    plugins.forget()


def drawn(space: Space, n: int) -> list[Arch]:
    return [space.smallest(), space.largest(), *space.decode(space.random(n, np.random.default_rng(0)))]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["narrow", "short", "plain"])
def test_it_is_known_encoded_and_counted(name: str) -> None:
    space = find_space(name)
    assert name in SPACES
    archs = drawn(space, 20)
    assert space.decode(space.encode(archs)) == archs
    assert [Arch.from_dict(arch.to_dict()) for arch in archs] == archs
    counts = count(archs, 4, 1)
    for i, arch in enumerate(archs):  # tables over slots against a sum over blocks
        specs = block_specs(arch, 4, 1)
        assert counts.params[i] == sum(spec.params for spec in specs)
        assert counts.macs[i] == sum(spec.macs for spec in specs)
        assert [sum(s.kind == "block" and s.stage == k for s in specs) for k in range(len(space.family.stages))] == (
            space.blocks_of(arch)
        )


@pytest.mark.usefixtures("installed")
def test_its_size_follows_from_its_stages() -> None:
    """narrow: (4^2 + 4^3) of 1 + d blocks, 4 of the fixed one, (4 + 4^2), two resolutions; short: see below."""
    assert find_space("narrow").size() == (4**2 + 4**3) * 4 * (4 + 4**2) * 2
    # short: 2^(1 + d) and 2^(2 + d) for d of 0 or 1, a stem block or none, two values of four widths.
    assert find_space("short").size() == (2 + 4) * (4 + 8) * 2 * 2**4
    assert find_space("plain").size() == 3 * (3 + 3**2)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["narrow", "short", "plain"])
def test_its_supernet_agrees_with_its_subnets_blocks_and_counts(name: str) -> None:
    space = find_space(name)
    net = build_supernet(space, 4, in_channels=1).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for arch in drawn(space.with_resolutions((32,)), 3):
        set_active(net, arch)
        subnet = extract(net, arch)
        with torch.no_grad():
            expected = net(images)
            assert torch.equal(subnet(images), expected)
            torch.testing.assert_close(forward_subnet(net, arch, images), expected, rtol=1e-4, atol=1e-6)
        params = count([arch], 4, 1).params[0]
        assert sum(p.numel() for p in subnet.parameters()) == params
        assert sum(p.numel() for p in build_arch(arch, 4, 1).parameters()) == params
        x = images
        for spec in block_specs(arch, 4, 1):
            x = build_block(spec)(x)
            assert spec.kind == "head" or x.shape[1:] == (spec.out_channels, spec.out_hw, spec.out_hw)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["narrow", "short", "plain"])
@pytest.mark.parametrize("method", ["sandwich", "progressive"])
def test_its_supernet_is_trained(name: str, method: Any) -> None:
    space = find_space(name).with_resolutions((32,))
    net = build_supernet(space, 2, in_channels=1)
    batch = (torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0]), None)
    schedule = SupernetSchedule(epochs=6, method=method, num_random=1, bf16=False)
    losses = [entry["loss"] for entry in train_supernet(net, space, lambda _: [batch], 1, schedule).epochs]
    assert len(losses) == 6
    assert np.isfinite(losses).all()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["narrow", "short", "plain"])
def test_its_features_sum_every_stage(name: str) -> None:
    """Stage sums end the features: kernels, expands and their products, for the stages in order."""
    space = find_space(name)
    arch = drawn(space, 1)[-1]
    fields = fields_of([arch], 4, 1)
    *_, stages = featurise(fields, choices_of(fields))
    kernels = np.array(arch.ks or (0,) * len(space.slots), dtype=float)
    products = kernels * np.array(arch.e) if arch.ks else np.zeros(0)
    sums = [arch.d, arch.w]
    for genes in (arch.ks, arch.e, products):
        for k in range(len(space.family.stages)) if len(genes) else ():
            sums.append([sum(v for v, slot in zip(genes, space.slots, strict=True) if slot.stage == k)])
    np.testing.assert_allclose(stages[0], np.concatenate(sums))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["narrow", "short", "plain"])
def test_it_is_searched_under_a_bound(name: str) -> None:
    space = find_space(name).with_resolutions((32,))

    def error(archs: Any) -> Any:
        return np.array([1 - sum(arch.e) / 40 for arch in archs])

    bound = 1.3 * float(count([space.smallest()], 4, 1).macs[0])
    result = search(
        space,
        [Objective("error", "min", error, cheap=False), Objective("macs")],
        {"macs": bound},
        strategy="nsga2",
        evaluations=70,
        num_classes=4,
        in_channels=1,
    )
    assert result.finalists
    assert all(count([row.arch], 4, 1).macs[0] <= bound for row in result.evaluated)


@pytest.mark.usefixtures("installed")
def test_its_presets_are_found_and_placed() -> None:
    space = find_space("narrow")
    assert list(PRESETS)[-1] == "Narrow-1"
    placed = place(PRESETS["Narrow-1"], space, 24)
    assert space.decode(space.encode([placed])) == [placed]


def test_without_the_package_it_is_unknown() -> None:
    assert "narrow" not in SPACES
    assert "Narrow-1" not in PRESETS
    with pytest.raises(InputError, match="unknown space 'narrow'"):
        find_space("narrow")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ofa_mbv3_w1.0", {"widths": ((16,),) * 5}, "has 5 widths; a mbconv family of 5 stages takes 8 or 9"),
        ("ofa_mbv3_w1.0", {"widths": ((16, 24),) * 9}, "a width of style mbconv has one value"),
        ("ofa_mbv3_w1.0", {"depths": (2, 5)}, "depth 5 exceeds the 4 slots of a stage"),
        ("ofa_resnet50", {"kernels": (3, 5)}, r"the kernel of a bottleneck family is \(3,\), got \(3, 5\)"),
        ("resnet_small_w1.0", {"kernels": (3, 5)}, r"the kernel of a basic family is \(3,\), got \(3, 5\)"),
        ("resnet_small_w1.0", {"widths": ((16,),) * 5}, "has 5 widths; a basic family of 3 stages takes 4"),
        ("resnet_small_w1.0", {"widths": ((16, 24),) * 4}, "a width of style basic has one value"),
        ("ofa_resnet50", {"widths": ((24,), (64,), (64,), (128,), (256,), (512,))}, "stride 1 changes the width"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SPACES[name], **changes)


def test_every_once_for_all_space_has_the_slots_that_archs_know() -> None:
    named = {name: slots for name in SPACES for start, slots in SLOTS.items() if name.startswith(start)}
    assert len(named) >= 8
    for name, slots in named.items():
        space = SPACES[name]
        assert tuple((stage.base, stage.extra) for stage in space.family.stages) == slots
