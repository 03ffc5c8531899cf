"""Counts against hand figures, torch's FlopCounterMode, `ofa`'s counter, fvcore, thop, and hooks on real networks.

Networks are built by the `ofa` package on torch's meta device: shapes and calls are real, no arithmetic is done.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
from ofa.utils.flops_counter import profile as ofa_profile
from ofa.utils.layers import LinearLayer, ResidualBlock, ResNetBottleneckBlock, set_layer_from_config
from ofa.utils.pytorch_modules import SEModule
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import cost_tables, count, count_genes
from tutelage.search.costs.memory import memory_of
from tutelage.search.spaces.blocks import BlockSpec, block_specs
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch
from tutelage.search.supernet.basic import BasicBlock

SIDES = (32, 75, 224)  # 75 is odd at every stride: sides must round up as padding makes them
NUM_CLASSES, IN_CHANNELS = 14, 1
# The spaces that the package `ofa` builds too, and whose networks it counts.
OFA_SPACES = [name for name in SPACES if name.startswith("ofa_")]
# One space of each family; the widths and stems beside it are the wide matrix of `make test-slow`.
EACH_FAMILY = ("ofa_mbv3_w1.2_stem1", "ofa_proxyless_w1.3", "ofa_resnet50")
WIDE = [name if name in EACH_FAMILY else pytest.param(name, marks=pytest.mark.long) for name in OFA_SPACES]


@contextmanager
def doubles() -> Iterator[None]:
    """`ofa`'s counter adds up in the default type: doubles hold every sum exactly, floats do not."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def supernet(name: str, num_classes: int = NUM_CLASSES, in_channels: int = IN_CHANNELS) -> Any:
    """The `ofa` package's own supernet, with its first convolution swapped for other channels or stride."""
    with doubles(), torch.device("meta"):
        if name == "ofa_resnet50":
            return OFAResNets(
                num_classes, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35], width_mult_list=[0.65, 0.8, 1.0]
            )
        kind, width = name.removeprefix("ofa_").removesuffix("_stem1").split("_w")
        make = OFAMobileNetV3 if kind == "mbv3" else OFAProxylessNASNets
        net = make(
            num_classes, width_mult=float(width), ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
        )
        old = net.first_conv.conv
        stride = 1 if name.endswith("_stem1") else 2
        net.first_conv.conv = nn.Conv2d(in_channels, old.out_channels, 3, stride, 1, bias=False)
        return net


def activate(net: Any, arch: Arch) -> None:
    depth = [*arch.d, 1] if "proxyless" in arch.space else list(arch.d)
    choices = {"ks": list(arch.ks)} if arch.ks else {"w": list(arch.w)}
    net.set_active_subnet(e=list(arch.e), d=depth, **choices)


def subnet(net: Any, arch: Arch) -> nn.Module:
    """The extracted subnet; ResNet's `ofa` code builds its first convolution for three channels, whatever it was."""
    activate(net, arch)
    with doubles(), torch.device("meta"):
        built: nn.Module = net.get_active_subnet(preserve_weight=False).eval()
    return built


def channels(name: str) -> int:
    return 3 if name == "ofa_resnet50" else IN_CHANNELS


def flop_counter(net: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, *shape, device="meta", dtype=torch.float64))
    return int(counter.get_total_flops()) // 2


def draw(name: str, n: int, seed: int = 0, sides: tuple[int, ...] = SIDES) -> list[Arch]:
    space = SPACES[name].with_resolutions(sides)
    return space.decode(space.random(n, np.random.default_rng(seed)))


# Params and MACs (M) at 28, 64, 224 px and the native side, from the published subnets.
PUBLISHED = {
    "OFA-595": (9_135_928, (16.0, 47.6, 512.9, 595.2)),
    "EEEA-Net-C2": (5_995_904, (9.7, 27.6, 291, 215.0)),
    "EEEA-Net-C1": (5_068_128, (7.1, 18.3, 183, 135.5)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_their_published_params_and_macs(name: str) -> None:
    params, macs = PUBLISHED[name]
    preset = PRESETS[name]
    counts = count([preset.replace(r=r) for r in (28, 64, 224)] + [preset])
    assert counts.params.tolist() == [params] * 4
    np.testing.assert_allclose(counts.macs / 1e6, macs, atol=0.5 if 291 in macs or 183 in macs else 0.05)


def test_the_14_class_preset_has_its_published_params() -> None:
    assert round(int(count([PRESETS["EEEA-Net-C2"]], num_classes=14).params[0]) / 1e6, 3) == 4.733


@pytest.mark.parametrize("name", WIDE)
def test_whole_networks_agree_with_torch_and_ofa(name: str) -> None:
    space, net = SPACES[name], supernet(name)
    for arch in [draw(name, 1)[0], space.largest(SIDES[-1] // 4 * 4)]:
        built = subnet(net, arch)
        counted = count([arch], NUM_CLASSES, channels(name))
        assert counted.macs[0] == flop_counter(built, channels(name), arch.r, arch.r)
        assert counted.params[0] == sum(parameter.numel() for parameter in built.parameters())
        with doubles():
            macs, params = ofa_profile(built, (1, channels(name), arch.r, arch.r))
        assert (macs, params) == (counted.macs[0], counted.params[0])


@pytest.mark.parametrize("name", SPACES)
def test_networks_as_built_here_agree_with_torch(name: str) -> None:
    arch = draw(name, 1, seed=6)[0]
    with doubles(), torch.device("meta"):
        built = build_arch(arch, NUM_CLASSES, IN_CHANNELS).eval()
    counted = count([arch], NUM_CLASSES, IN_CHANNELS)
    assert counted.macs[0] == flop_counter(built, IN_CHANNELS, arch.r, arch.r)
    assert counted.params[0] == sum(parameter.numel() for parameter in built.parameters())


def block_configs(net: Any, arch: Arch) -> list[dict[str, Any]]:
    """What the `ofa` package says the active subnet is made of, in the order it runs."""
    activate(net, arch)
    config = net.get_active_net_config()
    if "input_stem" in config:
        stem = config["input_stem"]
        if len(stem) == 3:  # the residual block's shortcut stands there as a module
            stem[1] = {**stem[1], "shortcut": stem[1]["shortcut"].config}
        return [*stem, {"name": "max_pooling"}, *config["blocks"], {"name": "pooling"}, config["classifier"]]
    ends = [config[key] for key in ("final_expand_layer", "feature_mix_layer") if key in config]
    ends.insert(1, {"name": "pooling"})
    return [config["first_conv"], *config["blocks"], *ends, config["classifier"]]


def count_config(config: dict[str, Any], in_channels: int, side: int) -> tuple[int, int, int, int]:
    """Build a block from its config: its MACs by torch and by `ofa`, its params, its output's channels and side."""
    if config["name"] in ("pooling", "max_pooling"):
        return 0, 0, in_channels, 1 if config["name"] == "pooling" else -(-side // 2)
    with doubles(), torch.device("meta"):
        block = set_layer_from_config(config).eval()
    outs: list[torch.Tensor] = []
    handle = block.register_forward_hook(lambda _module, _args, out: outs.append(out))
    shape = (in_channels,) if isinstance(block, LinearLayer) else (in_channels, side, side)
    macs = flop_counter(block, *shape)
    handle.remove()
    with doubles():
        assert ofa_profile(block, (1, *shape)) == (macs, sum(p.numel() for p in block.parameters()))
    return (
        macs,
        sum(p.numel() for p in block.parameters()),
        outs[0].shape[1],
        outs[0].shape[2] if outs[0].dim() == 4 else 1,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param("ofa_mbv3_w1.0", marks=pytest.mark.long), "ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50"],
)
@pytest.mark.parametrize("num", [3, pytest.param(300, marks=pytest.mark.long)])
def test_subnets_at_three_resolutions_agree_with_torch_and_ofa(name: str, num: int) -> None:
    """Both counters add over modules, so each distinct block is counted once and looked up after."""
    net, known = supernet(name), {}
    archs = [arch.replace(r=side) for arch in draw(name, num, seed=1) for side in SIDES]
    counted = count(archs, NUM_CLASSES, channels(name))
    for i, arch in enumerate(archs):
        macs, params, shape = 0, 0, (channels(name), arch.r)
        if i % len(SIDES) == 0:
            configs = block_configs(net, arch)
            if "in_channels" in configs[0]:
                configs[0] = {**configs[0], "in_channels": channels(name)}
            texts = [json.dumps(config) for config in configs]
        for text in texts:
            if (text, *shape) not in known:
                known[text, *shape] = count_config(json.loads(text), *shape)  # building empties the config
            found = known[text, *shape]
            macs, params, shape = macs + found[0], params + found[1], found[2:]
        assert (macs, params) == (counted.macs[i], counted.params[i]), arch


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_mbv3_w1.2_stem1", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_fvcore_and_thop_add_norms_and_pooling_and_nothing_else(name: str) -> None:
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from thop import profile as thop_profile

    arch = draw(name, 1, seed=2, sides=(40,))[0]
    activate(net := supernet(name), arch)
    with torch.device("cpu"):
        built = net.get_active_subnet(preserve_weight=False).to_empty(device="cpu").float().eval()
    image = torch.zeros(1, channels(name), 40, 40)
    counted = count([arch], NUM_CLASSES, channels(name))
    specs = block_specs(arch, NUM_CLASSES, channels(name))
    normed = sum(layer.activations for spec in specs for layer in spec.layers if layer.norm)
    # ResNet50D's projection pools before its 1x1, also at stride 1, where that changes nothing.
    projections = [spec for spec in specs if spec.family == "resnet50" and spec.kind == "block" and not spec.shortcut]
    pooled = sum(spec.in_channels * spec.out_hw**2 for spec in projections)

    flops = FlopCountAnalysis(built, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert flops.total() - 2 * normed == counted.macs[0]
    outputs = ActivationCountAnalysis(built, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert outputs.total() == counted.activations[0]
    macs, _ = thop_profile(built, (image,), verbose=False)
    assert macs - 4 * normed - pooled == counted.macs[0]


class Tape:
    """Watches a real network run: which tensors are alive at each convolution, linear layer and strided pooling."""

    def __init__(self, net: nn.Module) -> None:
        self.peak = self.outputs = 0
        self.block_input: torch.Tensor | None = None
        self.residual: torch.Tensor | None = None
        self.gated: torch.Tensor | None = None
        for module in net.modules():
            if isinstance(module, ResidualBlock | ResNetBottleneckBlock | BasicBlock):
                module.register_forward_pre_hook(self.enter_block)
                module.register_forward_hook(self.leave_block)
            if isinstance(module, ResNetBottleneckBlock):
                module.downsample.register_forward_hook(self.keep_residual)
            if isinstance(module, BasicBlock):
                module.shortcut.register_forward_hook(self.keep_residual)
            if isinstance(module, SEModule):
                module.register_forward_pre_hook(self.enter_gate)
                module.register_forward_hook(self.leave_gate)
            if isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d):
                module.register_forward_hook(self.measure)

    def enter_block(self, module: Any, args: tuple[torch.Tensor, ...]) -> None:
        self.block_input = args[0]
        if isinstance(module, ResidualBlock):
            self.residual = args[0] if module.shortcut is not None else None

    def keep_residual(self, _module: nn.Module, _args: Any, out: torch.Tensor) -> None:
        self.residual, self.block_input = out, None

    def leave_block(self, *_: Any) -> None:
        self.residual = self.block_input = None

    def enter_gate(self, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self.gated = args[0]

    def leave_gate(self, *_: Any) -> None:
        self.gated = None

    def measure(self, module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        in_projection = self.residual is None and self.block_input is not None and self.bottleneck
        alive = [args[0], out, self.residual, self.gated, self.block_input if in_projection else None]
        self.peak = max(self.peak, sum(t.numel() for t in {id(t): t for t in alive if t is not None}.values()))
        if not isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            self.outputs += out.numel()

    bottleneck = False


@pytest.mark.parametrize("name", [*WIDE, "resnet_small_w1.5_stem1", "resnet18_w0.25"])
def test_peak_and_activations_agree_with_hooks(name: str) -> None:
    net = supernet(name) if name in OFA_SPACES else None
    for arch in [*draw(name, 2, seed=3), SPACES[name].smallest(28)]:
        with doubles(), torch.device("meta"):
            built = build_arch(arch, NUM_CLASSES, IN_CHANNELS).eval() if net is None else subnet(net, arch)
        for module in built.modules():  # pooling by 1 copies its input and computes nothing: not part of the count
            for child, part in module.named_children():
                if isinstance(part, nn.AvgPool2d) and part.kernel_size == 1:
                    setattr(module, child, nn.Identity())
        tape = Tape(built)
        tape.bottleneck = name == "ofa_resnet50"
        with torch.no_grad():
            built(torch.empty(1, channels(name), arch.r, arch.r, device="meta", dtype=torch.float64))
        counted = count([arch], NUM_CLASSES, channels(name))
        assert counted.peak_activation_bytes[0] == 4 * tape.peak
        assert counted.activations[0] == tape.outputs


@pytest.mark.parametrize("name", OFA_SPACES)
def test_bytes_follow_from_the_layers(name: str) -> None:
    arch = draw(name, 1, seed=4)[0]
    built = subnet(supernet(name), arch)
    wanted = 0
    for parent in built.modules():
        for layer in parent.children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                normed = any(isinstance(other, nn.BatchNorm2d) for other in parent.children())
                wanted += layer.weight.numel() + 4 * len(layer.weight) * (1 + (normed or layer.bias is not None))
    counted = count([arch], NUM_CLASSES, channels(name))
    assert counted.int8_bytes[0] == wanted
    assert counted.size_bytes[0] == 4 * sum(parameter.numel() for parameter in built.parameters())


@pytest.mark.parametrize("name", SPACES)
def test_tables_agree_with_the_blocks_one_by_one(name: str) -> None:
    space = SPACES[name]
    genes = space.random(60, np.random.default_rng(5))
    counted = count_genes(space, genes, NUM_CLASSES, IN_CHANNELS)
    for i, arch in enumerate(space.decode(genes)):
        specs = block_specs(arch, NUM_CLASSES, IN_CHANNELS)
        costs, memories = np.array([spec.costs for spec in specs]), [memory_of(spec) for spec in specs]
        assert [values[i] for values in vars(counted).values()] == [
            costs[:, 0].sum(),
            costs[:, 1].sum(),
            costs[:, 2].sum(),
            4 * costs[:, 4].max(),
            4 * costs[:, 0].sum(),
            costs[:, 3].sum(),
            4 * costs[:, 4].max() + sum(memory.persistent for memory in memories),
            costs[:, 4].max() + sum(memory.int8_persistent for memory in memories),
            sum(memory.int8_file for memory in memories),
        ]


def test_images_are_colour_and_classes_1000_where_nothing_is_said() -> None:
    space = SPACES["ofa_mbv3_w1.0"]
    genes = space.random(3, np.random.default_rng(8))
    for found in (count_genes(space, genes), count(space.decode(genes))):
        expected = count_genes(space, genes, 1000, 3)
        np.testing.assert_array_equal(found.params, expected.params)
        np.testing.assert_array_equal(found.macs, expected.macs)


@pytest.mark.parametrize("name", SPACES)
def test_tables_are_numbered_by_the_part_of_the_network_that_they_cost(name: str) -> None:
    """The stem is part 0, stage s part s + 1 in tables of two slots each, the head the last part."""
    space = SPACES[name]
    lengths = [len(list(slots)) for _, slots in groupby(space.slots, key=lambda slot: slot.stage)]
    stages = [stage + 1 for stage, length in enumerate(lengths) for _ in range(0, length, 2)]
    parts = [table.part for table in cost_tables(space, 64, NUM_CLASSES, IN_CHANNELS)]
    assert parts == [0, *stages, len(lengths) + 1]


def test_filler_genes_cost_nothing() -> None:
    space = SPACES["ofa_mbv3_w1.0"]
    rng = np.random.default_rng(6)
    genes = rng.integers(0, space.num_choices, size=(50, space.num_genes))
    raw, masked = count_genes(space, genes), count_genes(space, space.canonical(genes))
    np.testing.assert_array_equal(raw.macs, masked.macs)
    np.testing.assert_array_equal(raw.peak_activation_bytes, masked.peak_activation_bytes)


def test_archs_of_many_spaces_are_counted_in_their_order() -> None:
    archs = [SPACES[name].smallest(64) for name in SPACES] + [SPACES["ofa_mbv3_w1.0"].largest(224)]
    together = count(archs)
    for i, arch in enumerate(archs):
        alone = count([arch])
        assert (alone.params[0], alone.macs[0]) == (together.params[i], together.macs[i])
    assert len(count([]).params) == 0


def test_a_side_outside_the_list_and_an_unknown_space() -> None:
    assert count([PRESETS["EEEA-Net-C1"].replace(r=99)]).macs[0] > 0
    with pytest.raises(InputError, match=r"did you mean 'ofa_mbv3_w1\.0"):
        count([PRESETS["EEEA-Net-C1"].replace(space="ofa_mbv3_w1.0_")])


def test_block_keys_name_what_is_computed() -> None:
    """A mbv3 space at one side has 93 distinct blocks: stem, first, head, and per stage 9 first and 9 later ones."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    keys: dict[str, BlockSpec] = {}
    for arch in space.decode(space.random(400, np.random.default_rng(7))):
        for spec in block_specs(arch):
            same = keys.setdefault(spec.key, spec)
            assert replace(spec, stage=0, slot=0) == replace(same, stage=0, slot=0)
    assert len(keys) == 93
