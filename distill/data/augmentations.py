"""The registry of augmentations: how far each may change an image. `augment.py` applies them; this needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutelage.plugins import Registry

if TYPE_CHECKING:
    from torch import Tensor

# (images (b, c, h, w) in 0..1, uniform draws (b, 8) of each image's own) -> images of that shape. Each image's change
# must depend on that image and its draws alone.
Change = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Policy:
    """How far a change may go: rotations in degrees, shifts as a fraction of the size, the rest as fractions of 1."""

    flip: bool = False  # left-right; off by default: a chest has a heart on one side
    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0  # standard deviation at most, of a range of 0..1

    @property
    def moves(self) -> bool:
        return self.flip or self.degrees > 0 or self.shift > 0 or self.scale > 0


@dataclass(frozen=True)
class Augmentation:
    """One augmentation of the registry: a policy, and a change of its own that follows it, where it has one."""

    name: str
    help: str
    policy: Policy = Policy()
    change: Change | None = None

    @property
    def changes_nothing(self) -> bool:
        return self.policy == Policy() and self.change is None


AUGMENTATIONS = Registry(
    "augmentations",
    "augmentation",
    Augmentation,
    (
        Augmentation("none", "the images as they are"),
        Augmentation(
            "light",
            "small rotations, shifts, zooms and changes of brightness and contrast",
            Policy(degrees=5, shift=0.04, scale=0.04, brightness=0.05, contrast=0.08),
        ),
        Augmentation(
            "medical",
            "larger ones, with noise; no flip, since a chest has a heart on one side",
            Policy(degrees=10, shift=0.06, scale=0.1, brightness=0.1, contrast=0.15, noise=0.02),
        ),
        Augmentation(
            "flip",
            "medical with horizontal flips",
            Policy(flip=True, degrees=10, shift=0.06, scale=0.1, brightness=0.1, contrast=0.15, noise=0.02),
        ),
        Augmentation(
            "natural",
            "horizontal flips and shifts by an eighth, as usual for photographs",
            Policy(flip=True, shift=0.125),
        ),
        Augmentation("chexpert", "horizontal flip and rotation by 10 degrees", Policy(flip=True, degrees=10)),
    ),
)
