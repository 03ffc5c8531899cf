"""The blocks an architecture is made of, layer by layer, and what each costs. No torch.

`block_specs` lists an arch's `BlockSpec`s in the order they run: "stem", "first" (the fixed block of mbconv families),
"block" (one an active slot), "head". Everything counted follows from a spec's `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from tutelage.records import Arch

from .definition import Slot, Space
from .family import Family, Style, divisible
from .space import find_space

# SE squeezes to a quarter of the channels (OFA, `SEModule.REDUCTION`).
_SE_REDUCTION = 4


class Layer(NamedTuple):
    """One convolution, linear or pooling layer with square maps; `held` elements stay alive beside it for later."""

    kind: str  # "conv" | "linear" | "pool"
    in_channels: int
    out_channels: int
    in_hw: int
    out_hw: int
    kernel: int = 1
    groups: int = 1
    norm: bool = False
    bias: bool = False
    held: int = 0

    @property
    def num_weights(self) -> int:
        """Elements of the kernel: (in / groups) x out x kernel^2; a linear layer is a kernel of 1, pooling has none."""
        if self.kind == "pool":
            return 0
        return self.in_channels // self.groups * self.out_channels * self.kernel**2

    @property
    def params(self) -> int:
        """Weights, biases and the scale and shift of a batch norm; its running statistics are no parameters."""
        return self.num_weights + self.out_channels * (2 * self.norm + self.bias)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image: each weight once a position of the output map; bias and norm are free."""
        return self.num_weights * self.out_hw**2

    @property
    def activations(self) -> int:
        """Elements of the output of a convolution or linear layer; pooling is not counted."""
        return 0 if self.kind == "pool" else self.out_channels * self.out_hw**2

    @property
    def live(self) -> int:
        """Elements alive while the layer runs: its input, its output and what is held for later."""
        return self.in_channels * self.in_hw**2 + self.out_channels * self.out_hw**2 + self.held

    @property
    def int8_bytes(self) -> int:
        """A byte a weight, a 4-byte scale an output channel, a 4-byte bias where there is a bias or a norm to fold."""
        if self.kind == "pool":
            return 0
        return self.num_weights + 4 * self.out_channels * (1 + (self.norm or self.bias))


@dataclass(frozen=True)
class BlockSpec:
    """One block with its shapes: enough to build it, to cost it, and to look its latency up by `key`.

    `mid_channels` are those of the depthwise (or bottleneck's, or basic block's first) convolution, equal to
    `in_channels` where nothing expands; of a stem, those before its last convolution; of a head of two convolutions,
    those before the pooling (else 0). `shortcut` says that the input is added to the output (a bottleneck family's
    stem: that its residual block is kept; a bottleneck or basic block without one adds a projection). `in_hw` is the
    side of the input in pixels.
    """

    family: str
    style: Style
    kind: str
    stage: int
    slot: int
    in_channels: int
    mid_channels: int
    out_channels: int
    kernel: int
    stride: int
    se: bool
    act: str
    in_hw: int
    shortcut: bool
    num_classes: int = 0  # of the head only
    head_convs: int = 0  # of the head only: convolutions before the classifier

    @property
    def key(self) -> str:
        """Name what is computed: specs that differ only in stage and slot share it."""
        shape = f"{self.in_channels}-{self.mid_channels}-{self.out_channels}"
        flags = f"{'-se' if self.se else ''}{'-skip' if self.shortcut else ''}"
        classes = f"-n{self.num_classes}" if self.num_classes else ""
        return (
            f"{self.family}-{self.kind}-h{self.in_hw}-{shape}-k{self.kernel}s{self.stride}-{self.act}{flags}{classes}"
        )

    @property
    def out_hw(self) -> int:
        """Side of the output map; a bottleneck family's stem ends with a max pooling of stride 2, a head with 1."""
        if self.kind == "head":
            return 1
        side = _halved(self.in_hw, self.stride)
        return _halved(side, 2) if self.style == "bottleneck" and self.kind == "stem" else side

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order they run."""
        if self.kind == "head":
            return _head_layers(self)
        if self.kind == "stem" and self.style == "bottleneck":
            return _resnet_stem_layers(self)
        if self.kind == "stem":
            side = _halved(self.in_hw, self.stride)
            return (Layer("conv", self.in_channels, self.out_channels, self.in_hw, side, self.kernel, norm=True),)
        return _BLOCK_LAYERS[self.style](self)

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def costs(self) -> tuple[int, int, int, int, int]:
        """Params, MACs, activation elements, int8 bytes, and the largest number of elements alive at once."""
        return (
            self.params,
            self.macs,
            sum(layer.activations for layer in self.layers),
            sum(layer.int8_bytes for layer in self.layers),
            max(layer.live for layer in self.layers),
        )


def block_specs(arch: Arch, num_classes: int = 1000, in_channels: int = 3) -> list[BlockSpec]:
    """List the blocks of an arch in the order they run; raises InputError for an arch that is in no known space."""
    space = find_space(arch.space).with_resolutions((arch.r,))
    space.check(arch)
    widths = list(arch.w) or [0] * len(space.widths)
    specs = stem_specs(space, arch.r, widths, arch.d[0], in_channels)
    depths = space.num_blocks(space.encode([arch]))[0]
    for i, slot in enumerate(space.slots):
        if slot.position < depths[slot.stage]:
            channels = stage_channels(space, slot, widths)
            kernel = arch.ks[i] if arch.ks else space.kernels[0]
            specs.append(slot_spec(space, slot, stage_side(space, slot.stage, arch.r), *channels, kernel, arch.e[i]))
    return [*specs, head_spec(space, arch.r, widths, num_classes)]


def stem_specs(space: Space, r: int, widths: list[int], depth: int, in_channels: int) -> list[BlockSpec]:
    """List what comes before the stages, for width choices by index; `depth` is d[0], read in bottleneck families."""
    family, act = space.family, space.family.act
    named = (family.name, family.style)
    inner = space.widths[0][widths[0]]
    if family.style == "basic":
        return [BlockSpec(*named, "stem", -1, 0, in_channels, 0, inner, 3, space.stem_stride, False, act, r, False)]
    outer = space.widths[1][widths[1]]
    if family.style == "bottleneck":
        return [
            BlockSpec(*named, "stem", -1, 0, in_channels, inner, outer, 3, space.stem_stride, False, act, r, depth != 0)
        ]
    stem = BlockSpec(*named, "stem", -1, 0, in_channels, 0, inner, 3, space.stem_stride, False, act, r, False)
    skip = family.first_shortcut and inner == outer
    first = BlockSpec(*named, "first", -1, 1, inner, inner, outer, 3, 1, False, family.first_act, stem.out_hw, skip)
    return [stem, first]


def stage_channels(space: Space, slot: Slot, widths: list[int]) -> tuple[int, int]:
    """Give the input and output channels of a slot, for width choices by index."""
    place = slot.stage + space.family.num_stem_widths
    before = place if slot.position else place - 1
    return space.widths[before][widths[before]], space.widths[place][widths[place]]


def slot_spec(space: Space, slot: Slot, side: int, inp: int, out: int, kernel: int, expand: float) -> BlockSpec:
    """Describe the block in a slot, for its channels and choices; `side` is that of the map entering its stage."""
    family, stage = space.family, space.family.stages[slot.stage]
    stride = stage.stride if slot.position == 0 else 1
    if slot.position:
        side = _halved(side, stage.stride)
    mid = divisible(round((inp if family.style == "mbconv" else out) * expand))
    skip = slot.position > 0 or (stride == 1 and inp == out)
    named, where = (family.name, family.style), (slot.stage, slot.position)
    return BlockSpec(*named, "block", *where, inp, mid, out, kernel, stride, stage.se, stage.act, side, skip)


def head_spec(space: Space, r: int, widths: list[int], num_classes: int) -> BlockSpec:
    """Describe what comes after the stages: convolutions, pooling, classifier."""
    family = space.family
    num_stages = len(family.stages)
    side = stage_side(space, num_stages, r)
    last = num_stages + family.num_stem_widths - 1
    inp = space.widths[last][widths[last]]
    tail = [choices[0] for choices in space.widths[last + 1 :]]
    out = tail[-1] if tail else inp
    mid = tail[0] if len(tail) > 1 else 0
    named = (family.name, family.style, "head", num_stages, 0)
    return BlockSpec(*named, inp, mid, out, 1, 1, False, family.act, side, False, num_classes, len(tail))


@lru_cache(maxsize=4096)
def _side(family: Family, stem_stride: int, stage: int, r: int) -> int:
    side = _halved(r, stem_stride)
    if family.style == "bottleneck":
        side = _halved(side, 2)
    for before in family.stages[:stage]:
        side = _halved(side, before.stride)
    return side


def stage_side(space: Space, stage: int, r: int) -> int:
    """Give the side of the map that enters a stage (or the head, one past the last stage)."""
    return _side(space.family, space.stem_stride, stage, r)


def _halved(side: int, stride: int) -> int:
    """Every strided layer here is padded by half its kernel (or pools with a ceiling), so sides round up."""
    return -(-side // stride)


def _mbconv_layers(spec: BlockSpec) -> tuple[Layer, ...]:
    side, out_side, mid = spec.in_hw, spec.out_hw, spec.mid_channels
    held = spec.in_channels * side**2 if spec.shortcut else 0
    layers = []
    if mid != spec.in_channels:  # the block's input is its own layer's input here, so nothing more is held
        layers.append(Layer("conv", spec.in_channels, mid, side, side, norm=True))
    held_inside = held if layers else 0
    layers.append(
        Layer("conv", mid, mid, side, out_side, spec.kernel, groups=mid, norm=True, held=held_inside),
    )
    if spec.se:
        squeezed = divisible(mid // _SE_REDUCTION)
        kept = held + mid * out_side**2
        layers.append(Layer("conv", mid, squeezed, 1, 1, bias=True, held=kept))
        layers.append(Layer("conv", squeezed, mid, 1, 1, bias=True, held=kept))
    layers.append(Layer("conv", mid, spec.out_channels, out_side, out_side, norm=True, held=held))
    return tuple(layers)


def _bottleneck_layers(spec: BlockSpec) -> tuple[Layer, ...]:
    """ResNet50D's block: the shortcut's projection runs first (average pooling, 1x1), then 1x1, 3x3, 1x1."""
    side, out_side, mid, inp, out = spec.in_hw, spec.out_hw, spec.mid_channels, spec.in_channels, spec.out_channels
    layers = []
    if not spec.shortcut:
        if spec.stride > 1:
            layers.append(Layer("pool", inp, inp, side, out_side, spec.stride))
        held_input = inp * side**2 if spec.stride > 1 else 0  # pooled: the block's input is kept for the first 1x1
        layers.append(Layer("conv", inp, out, out_side, out_side, norm=True, held=held_input))
    residual = out * out_side**2
    layers.append(Layer("conv", inp, mid, side, side, norm=True, held=0 if spec.shortcut else residual))
    layers.append(Layer("conv", mid, mid, side, out_side, spec.kernel, norm=True, held=residual))
    layers.append(Layer("conv", mid, out, out_side, out_side, norm=True, held=residual))
    return tuple(layers)


def _basic_layers(spec: BlockSpec) -> tuple[Layer, ...]:
    """ResNet's basic block: the shortcut's projection runs first (1x1, strided), then 3x3 (strided), 3x3."""
    side, out_side, mid, inp, out = spec.in_hw, spec.out_hw, spec.mid_channels, spec.in_channels, spec.out_channels
    residual = out * out_side**2  # the block's own input where nothing is projected
    projection = () if spec.shortcut else (Layer("conv", inp, out, side, out_side, norm=True),)
    return (
        *projection,
        Layer("conv", inp, mid, side, out_side, spec.kernel, norm=True, held=0 if spec.shortcut else residual),
        Layer("conv", mid, out, out_side, out_side, 3, norm=True, held=residual),
    )


_BLOCK_LAYERS: dict[Style, Callable[[BlockSpec], tuple[Layer, ...]]] = {
    "mbconv": _mbconv_layers,
    "bottleneck": _bottleneck_layers,
    "basic": _basic_layers,
}


def _resnet_stem_layers(spec: BlockSpec) -> tuple[Layer, ...]:
    side, mid = _halved(spec.in_hw, spec.stride), spec.mid_channels
    layers = [Layer("conv", spec.in_channels, mid, spec.in_hw, side, spec.kernel, norm=True)]
    if spec.shortcut:
        layers.append(Layer("conv", mid, mid, side, side, spec.kernel, norm=True))
    layers.append(Layer("conv", mid, spec.out_channels, side, side, spec.kernel, norm=True))
    layers.append(Layer("pool", spec.out_channels, spec.out_channels, side, spec.out_hw, 3))
    return tuple(layers)


def _head_layers(spec: BlockSpec) -> tuple[Layer, ...]:
    """Two convolutions: 1x1 with norm, pool, bare 1x1, linear. One: 1x1 with norm, pool, linear. None: pool, linear."""
    layers = []
    if spec.head_convs == 2:
        layers.append(Layer("conv", spec.in_channels, spec.mid_channels, spec.in_hw, spec.in_hw, norm=True))
        layers.append(Layer("conv", spec.mid_channels, spec.out_channels, 1, 1))
    elif spec.head_convs == 1:
        layers.append(Layer("conv", spec.in_channels, spec.out_channels, spec.in_hw, spec.in_hw, norm=True))
    layers.append(Layer("linear", spec.out_channels, spec.num_classes, 1, 1, bias=True))
    return tuple(layers)
