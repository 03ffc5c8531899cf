"""The published subnets by name, and how to place their genes in another space of the family.

Sources: OFA-595 is the specialised subnet `flops@595M_top1@80.0_finetune@75` of Once for All (Cai et al., ICLR 2020);
EEEA-Net-C1 and C2 are the subnets of EEEA-Net (Termritthikun et al., 2021). Lists are compact: one entry a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.records import Arch, InputError

if TYPE_CHECKING:
    from .space import Space

PRESETS: dict[str, Arch] = {
    "OFA-595": Arch(
        space="ofa_mbv3_w1.2",
        d=(3, 4, 4, 4, 4),
        ks=(3, 5, 3, 5, 5, 3, 5, 7, 5, 3, 5, 3, 5, 7, 3, 3, 3, 5, 3),
        e=(3, 4, 3, 4, 4, 6, 3, 6, 6, 3, 4, 6, 6, 6, 4, 6, 6, 6, 3),
        r=236,
    ),
    "EEEA-Net-C1": Arch(
        space="ofa_mbv3_w1.0",
        d=(2, 2, 2, 2, 4),
        ks=(3, 5, 7, 5, 7, 7, 5, 3, 7, 3, 3, 7),
        e=(3, 3, 3, 3, 3, 4, 4, 4, 6, 4, 6, 3),
        r=192,
    ),
    "EEEA-Net-C2": Arch(
        space="ofa_mbv3_w1.0",
        d=(3, 3, 4, 4, 4),
        ks=(3, 5, 3, 7, 3, 7, 5, 7, 5, 3, 7, 5, 3, 3, 5, 3, 5, 7),
        e=(3, 4, 3, 4, 3, 3, 6, 6, 3, 3, 6, 4, 3, 3, 6, 6, 6, 3),
        r=192,
    ),
}


def place(preset: Arch, space: Space, r: int) -> Arch:
    """Give the same kernels, expands and depths in another space of the family, e.g. a wider one or a stride-1 stem.

    Raises InputError when the genes do not fit, naming the field.
    """
    if len(preset.d) != space.num_depths or (preset.ks and len(preset.ks) != len(space.slots)):
        raise InputError(f"an arch of {preset.space} has no place in {space.name}: choose a space of its family")
    placed = preset.replace(space=space.name, r=r)
    space.check(placed)
    return placed
