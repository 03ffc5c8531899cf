"""Weights that a recipe names: find, download and check them (`given_weights`), all before the first training.

`check_available` says whether weights can be had, without downloading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage.distill.data.loader import NORMALISATION
from tutelage.distill.teachers.zoo import timm_name
from tutelage.files import sha256_of
from tutelage.progress import Report, silent
from tutelage.records import InputError, Normalisation, NotAvailableError, Student

from .entry import Pretrained, Wanted
from .sources import WEIGHTS

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar", ".ckpt")


@dataclass(frozen=True)
class Given:
    """A file of weights on this disk, and how the network that it is for takes its images."""

    path: Path
    sha256: str
    supernet: str  # the space whose supernet the file holds, where the network is a subnet of it; else empty
    normalisation: Normalisation | None  # None: as the run normalises its images
    note: str  # how the weights were trained on other images than this run's; empty where they were not


def given_weights(text: str, wanted: Wanted, size: int, report: Report = silent) -> Given:
    """Find the weights that a recipe names for a network, download them where this disk lacks them, and check them.

    size: of the run's images in pixels, for the note. Raises InputError for a name that does not fit the network, and
    NotAvailableError, with what to fetch and where to put it, for a file that cannot be had.
    """
    found = find_weights(text, wanted)
    path = found.location.fetch(report)
    if found.convert is not None:
        path = found.convert(path)
    normalisation = _normalisation(found, wanted)
    return Given(path.absolute(), sha256_of(path), found.supernet, normalisation, _note(text, found, size))


def find_weights(text: str, wanted: Wanted) -> Pretrained:
    """Find what a recipe names, without downloading weights: see docs/recipes.md for the notation."""
    prefix, colon, rest = text.partition(":")
    if text == "imagenet":
        return WEIGHTS.find("imagenet").find("", wanted)
    if colon and WEIGHTS.declared(prefix):
        return WEIGHTS.find(prefix).find(rest, wanted)
    path = Path(text).expanduser()
    if path.is_file() or "/" in text or "\\" in text or text.endswith(_SUFFIXES):
        return WEIGHTS.find("file").find(text, wanted)
    from timm.models import is_model

    if is_model(text.partition(".")[0]):
        return WEIGHTS.find("timm").find(text, wanted)
    known = ", ".join("imagenet" if name == "imagenet" else f"{name}:…" for name in WEIGHTS)
    raise InputError(f"no file and no source of weights {text!r}: give a file, a tag of timm, or one of {known}")


def check_available(text: str, wanted: Wanted) -> None:
    """Refuse weights that do not fit the network or that cannot be had; only small descriptions are downloaded."""
    if reason := find_weights(text, wanted).location.missing():
        raise NotAvailableError(reason)


def wanted_for(student: Student, channels: int) -> Wanted:
    """Say what weights are wanted for: a network by its record, for images of so many channels."""
    if student.arch is not None:
        return Wanted(student.model, channels, arch=student.arch)
    return Wanted(student.model, channels, timm_name(student.library_name))


def wanted_for_space(space: str, channels: int) -> Wanted:
    """Say what weights are wanted for: the supernet of a space."""
    return Wanted(f"the supernet {space}", channels, space=space)


def _normalisation(found: Pretrained, wanted: Wanted) -> Normalisation | None:
    """Give a network's own mean and standard deviation where they differ from those of the run's images.

    For gray images the first convolution is summed over its three channels (timm's rule), and the mean of the three
    values stands for each.
    """
    if not found.mean or wanted.space:
        return None
    mean, std = found.mean, found.std
    if len(mean) != wanted.channels:
        mean, std = ((sum(values) / len(values),) * wanted.channels for values in (mean, std))
    if (mean, std) == NORMALISATION[wanted.channels]:
        return None
    return Normalisation(mean=mean, std=std)


def _note(text: str, found: Pretrained, size: int) -> str:
    """Say what the weights were trained on that this run's images are not."""
    differs = []
    if found.resolution is not None and found.resolution != size:
        differs.append(f"images of {found.resolution} px, here {size}")
    if found.crop < 1:
        differs.append(f"evaluated on the middle {found.crop:.0%}, here on the whole image")
    if found.interpolation not in ("", "bilinear"):
        differs.append(f"resized by {found.interpolation}, here bilinear")
    return f"weights {text}: {'; '.join(differs)}" if differs else ""
