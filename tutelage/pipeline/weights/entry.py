"""What a source of pretrained weights is: an entry that says, for a name and a network, which file holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tutelage.progress import Report
from tutelage.records import Arch


class Location(Protocol):
    """Where a file of weights lies, and how it comes to this disk."""

    def held(self) -> Path | None:
        """Give the file where this disk holds it whole, without asking any network."""
        ...

    def fetch(self, report: Report) -> Path:
        """Give the file, downloaded where this disk lacks it and checked against its hash.

        Raises NotAvailableError, in one line that says what to fetch and where to put it, where it cannot be had, and
        InputError where its content is not what it should be.
        """
        ...

    def missing(self) -> str:
        """Say in one line why the file cannot be had, without downloading it; empty where it can."""
        ...


@dataclass(frozen=True)
class Wanted:
    """The network that weights are wanted for."""

    title: str  # as the recipe calls it
    channels: int  # of the images
    library_name: str = ""  # in timm, where the network is not of a space
    arch: Arch | None = None  # of a subnet of a space
    space: str = ""  # of a supernet


@dataclass(frozen=True)
class Pretrained:
    """Weights that were found by their name: where they lie, and what images they were trained on.

    `mean` and `std` normalise pixels in 0..1, one value a channel; empty: as this run's images are normalised.
    """

    location: Location
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = ""  # how images were resized in training; empty: not known
    crop: float = 1.0  # fraction of an image's height and width that was seen in evaluation
    resolution: int | None = None  # of the images, in pixels
    supernet: str = ""  # the space whose supernet the file holds, where the wanted network is a subnet of it
    convert: Callable[[Path], Path] | None = None  # writes the file in a form that is read without unpickling


@dataclass(frozen=True)
class WeightsSource:
    """A source of pretrained weights: `weights: NAME:TEXT` in a recipe asks it for TEXT.

    `find` gives what it has for a network without asking any network, and raises InputError for a text or a network
    that it does not know.
    """

    name: str
    help: str
    find: Callable[[str, Wanted], Pretrained]
