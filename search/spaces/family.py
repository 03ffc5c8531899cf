"""What a family of spaces declares: its stages, the kind of its blocks, activations and published subnets. No torch.

Each family has a file of its own beside this one, with its spaces; see `mbv3.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tutelage.records import Arch

Style = Literal["mbconv", "bottleneck", "basic"]

_DIVISOR = 8
# OFA's small images are 28 px, the published subnets run at 192 and 236; OFA itself trained 128 to 224 in steps of 4.
RESOLUTIONS = tuple(range(28, 257, 4))


@dataclass(frozen=True)
class Stage:
    """A stage: its first block has the stride; `base` blocks are always there, the depth gene adds up to `extra`."""

    stride: int
    se: bool
    act: str  # "relu" | "relu6" | "h_swish"
    base: int
    extra: int

    @property
    def num_slots(self) -> int:
        return self.base + self.extra


@dataclass(frozen=True)
class Family:
    """What the spaces of one family share.

    `style` is the kind of block. "mbconv": a convolution, a fixed block of kernel 3, then inverted bottlenecks with
    kernel and expand genes. "bottleneck": ResNet50D's stem, whose residual block is there or not by d[0], then ResNet
    bottlenecks with expand genes and width genes. "basic": a convolution, then ResNet's blocks of two 3x3 convolutions
    with expand genes: channels between the two by those of the output. `presets` are published subnets by name.
    """

    name: str
    style: Style
    stages: tuple[Stage, ...]
    act: str  # of the stem and the head
    first_act: str = "relu"  # mbconv: of the fixed first block
    first_shortcut: bool = False  # mbconv: the first block adds its input where the widths agree
    bn_eps: float = 1e-5
    presets: Mapping[str, Arch] = field(default_factory=dict, compare=False, repr=False)

    @property
    def elastic_widths(self) -> bool:
        """Say whether the widths are genes."""
        return self.style == "bottleneck"

    @property
    def elastic_kernels(self) -> bool:
        """Say whether the kernels are genes; else they are 3."""
        return self.style == "mbconv"

    @property
    def num_stem_widths(self) -> int:
        """Count the widths before those of the stages: stem and first block, the stem's two, or the stem's one."""
        return 1 if self.style == "basic" else 2

    @property
    def stem_depths(self) -> tuple[int, ...]:
        """Give the values of d[0] where it decides the stem's residual block: absent, there."""
        return (0, max(stage.extra for stage in self.stages)) if self.style == "bottleneck" else ()


def divisible(width: float) -> int:
    """Round channels to a multiple of 8 that is not more than 10 % below the wished width (MobileNet's rule)."""
    rounded = max(_DIVISOR, int(width + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * width else rounded


def scaled(base: Sequence[int], *multipliers: float) -> tuple[tuple[int, ...], ...]:
    """Give the choices of each width: the base width times each multiplier, rounded as `divisible` does."""
    return tuple(tuple(divisible(width * multiplier) for multiplier in multipliers) for width in base)
