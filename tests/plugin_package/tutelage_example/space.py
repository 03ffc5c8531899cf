"""A space: inverted bottlenecks of few channels and no squeeze-and-excitation, for microcontrollers."""

from tutelage.search.spaces.definition import Space
from tutelage.search.spaces.family import Family, Stage

# Each stage always has one block, and the depth gene adds up to two.
STAGES = tuple(Stage(stride, se=False, act="relu6", base=1, extra=2) for stride in (2, 2, 1))

MCU = Space(
    name="mcu",
    family=Family(name="mcu", style="mbconv", stages=STAGES, act="relu6", first_act="relu6"),
    kernels=(3, 5),
    expands=(2, 4),
    depths=(0, 1, 2),
    # The stem, the first block, the three stages, the head's convolution.
    widths=((8,), (8,), (16,), (24,), (32,), (64,)),
    stem_stride=2,
    resolutions=(32, 48, 64),
)
