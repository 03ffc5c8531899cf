"""Procedural axial chest-CT slices with known lesions: data for demos and tests, drawn from a seed, no download.

A `Dataset` of four classes with a lesion mask an image, drawn in Hounsfield units (HU) with soft-edged ellipses and
point-stamped vessels, then shown in a fixed window.
Every image has its own child seed, so image i of a set does not depend on the number of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.dataset import Dataset, DatasetEntry, Request, manifest_hash, split_column
from tutelage.distill.data.splits import make_splits
from tutelage.records import InputError

from .lesions import draw_lesion, noise, soften, texture

CLASSES = ("normal", "ground-glass", "nodule", "consolidation")
SLICES_PER_PATIENT = 4
DEFAULT_IMAGES = 3000

# A wide window, so that lung texture and bone are both seen: -1100 HU is black, 500 HU is white.
_WINDOW = (-1100.0, 500.0)
_AIR, _FAT, _MUSCLE, _BLOOD, _BONE = -1000.0, -110.0, 45.0, 60.0, 650.0

Field = NDArray[np.float32]


@dataclass(frozen=True)
class _Anatomy:
    """What the slices of one patient share; lengths are in units of half the image size."""

    centre: tuple[float, float]
    half_axes: tuple[float, float]
    tilt: float
    fat: float  # thickness of the subcutaneous fat, a fraction of the body's radius
    lung_width: float
    lung_height: float
    heart: float
    lung_hu: float
    gravity_hu: float  # how much denser the dependent (posterior) lung is: looks like ground glass
    noise_hu: float
    vessel_hu: float
    level: float  # where the first slice lies: -1 apex, 1 base
    label: int


def phantom(n: int, size: int, seed: int = 0, *, val_fraction: float = 0.15, test_fraction: float = 0.2) -> Dataset:
    """Draw `n` slices of `size` pixels, four a patient, split by patient."""
    return load_phantom(
        Request("phantom", None, size, seed=seed, limit=n, val_fraction=val_fraction, test_fraction=test_fraction)
    )


def load_phantom(request: Request) -> Dataset:
    """Draw the set a request asks for: `limit` (or the option `n`) slices, else 3,000."""
    planned = glance_phantom(request)
    n, size = len(planned.labels), request.size
    images = np.empty((n, size, size, 1), dtype=np.uint8)
    masks = np.empty((n, size, size), dtype=np.uint8)
    for index in range(n):
        images[index, :, :, 0], masks[index], label = draw_slice(index, size, request.seed)
        assert label == planned.labels[index], index
    return replace(
        planned, images=np.repeat(images, request.channels, axis=3) if request.channels > 1 else images, masks=masks
    )


def glance_phantom(request: Request) -> Dataset:
    """Give the set a request asks for without drawing it: its images are an array of none, and it has no masks."""
    num_slices = request.option("n", DEFAULT_IMAGES)
    if request.whole_test:
        raise InputError("whole_test: data set phantom has no test split of its own: leave it out")
    if request.limit is not None and "n" in request.options:
        raise InputError(f"limit is {request.limit} and option n is {num_slices!r}: both say how many slices, give one")
    if isinstance(num_slices, bool) or not isinstance(num_slices, int) or num_slices < 1:
        raise InputError(f"option n is {num_slices!r}: give the number of slices to draw, 1 or more")
    n = int(request.limit if request.limit is not None else num_slices)
    patients = np.arange(n, dtype=np.int64) // SLICES_PER_PATIENT
    labels = patients % len(CLASSES)
    groups = np.array([f"patient{patient:05d}" for patient in patients], dtype=np.str_)
    names = np.array([f"slice{index:06d}" for index in range(n)], dtype=np.str_)
    splits = make_splits(labels, groups, np.full(n, ""), request)
    column = split_column(splits, n)
    return Dataset(
        name="phantom",
        images=np.empty((0, request.size, request.size, request.channels), dtype=np.uint8),
        labels=labels,
        class_names=CLASSES,
        groups=groups,
        splits=splits,
        leaky=request.leaky,
        manifest=manifest_hash(names, labels, groups, column, [f"{request.seed}x{request.size}"] * n),
        notes=("procedural chest-CT phantom: a stand-in for tests and demos, not for medical claims",),
        names=names,
    )


def draw_slice(
    index: int, size: int, seed: int, per_patient: int = SLICES_PER_PATIENT
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Draw image `index` of the set with this seed: pixels and mask `(size, size)`, and the class.

    `per_patient` neighbouring slices show one patient, the same stretch of the lungs however many they are.
    """
    patient, slice_number = divmod(index, per_patient)
    anatomy = _draw_patient(np.random.default_rng([seed, 0, patient]), patient)
    rng = np.random.default_rng([seed, 1, index])
    travel = 0.22 * slice_number * SLICES_PER_PATIENT / per_patient
    level = float(np.clip(anatomy.level + travel + rng.uniform(-0.05, 0.05), -1, 1))
    u, v = _body_frame(anatomy, size)
    lungs, hu = _draw_chest(anatomy, level, u, v, size)
    vessels = _draw_vessels(anatomy, level, rng, u, v, size)
    tissue = anatomy.lung_hu + anatomy.gravity_hu * np.clip(v + 0.2, 0, 1) + 25 * texture(rng, size, 9)
    tissue = tissue + (anatomy.vessel_hu - tissue) * vessels
    tissue, mask = draw_lesion(CLASSES[anatomy.label], tissue, vessels, lungs, u, v, rng)
    hu = hu + (tissue - hu) * lungs
    hu = soften(hu) + anatomy.noise_hu * noise(rng, size)
    shown = (hu - _WINDOW[0]) * (255.0 / (_WINDOW[1] - _WINDOW[0]))
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8), mask, anatomy.label


def _draw_patient(rng: np.random.Generator, patient: int) -> _Anatomy:
    width = rng.uniform(0.82, 0.96)
    return _Anatomy(
        centre=(rng.uniform(-0.05, 0.05), rng.uniform(-0.06, 0.06)),
        half_axes=(width, width * rng.uniform(0.70, 0.84)),
        tilt=rng.uniform(-0.12, 0.12),
        fat=rng.uniform(0.04, 0.13),
        lung_width=rng.uniform(0.35, 0.40),
        lung_height=rng.uniform(0.60, 0.72),
        heart=rng.uniform(0.9, 1.2),
        lung_hu=rng.uniform(-890, -820),
        gravity_hu=rng.uniform(0, 70),
        noise_hu=rng.uniform(20, 50),
        vessel_hu=rng.uniform(-60, 60),
        level=rng.uniform(-0.75, 0.2),
        label=patient % len(CLASSES),
    )


def _body_frame(anatomy: _Anatomy, size: int) -> tuple[Field, Field]:
    """Give every pixel's place in the frame where the body is the unit circle; v grows towards the back."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2.0 / size) - np.float32(1)
    x = axis[None, :] - np.float32(anatomy.centre[0])
    y = axis[:, None] - np.float32(anatomy.centre[1])
    cos, sin = np.float32(math.cos(anatomy.tilt)), np.float32(math.sin(anatomy.tilt))
    u = (cos * x + sin * y) / np.float32(anatomy.half_axes[0])
    v = (cos * y - sin * x) / np.float32(anatomy.half_axes[1])
    return u.astype(np.float32), v.astype(np.float32)


def _ellipse(u: Field, v: Field, centre: tuple[float, float], half_axes: tuple[float, float], size: int) -> Field:
    """Cover an ellipse: 1 inside, 0 outside, one pixel of soft edge."""
    du, dv = (
        (u - np.float32(centre[0])) / np.float32(half_axes[0]),
        (v - np.float32(centre[1])) / np.float32(half_axes[1]),
    )
    sharpness = np.float32(min(half_axes) * size / 4.5)
    covered: Field = np.clip((np.float32(1) - du * du - dv * dv) * sharpness + np.float32(0.5), 0, 1)
    return covered


def _draw_chest(anatomy: _Anatomy, level: float, u: Field, v: Field, size: int) -> tuple[Field, Field]:
    """Draw all but the lungs' inside: give the lungs' cover (0..1) and the HU of everything else."""
    inner = 1 - anatomy.fat
    hu = _AIR + (_FAT - _AIR) * _ellipse(u, v, (0, 0), (1, 1), size)
    hu += (_MUSCLE - _FAT) * _ellipse(u, v, (0, 0), (inner, inner), size)
    table = np.clip(1 - np.abs(v - 1.12) * (size / 5.0), 0, 1) * (hu < -900)
    hu += 420 * table.astype(np.float32)
    shrink = 1 - 0.28 * max(0.0, -level)  # lungs narrow towards the apex
    width, height = anatomy.lung_width * shrink, anatomy.lung_height * shrink
    lungs = np.maximum(
        _ellipse(u, v, (-0.45, 0.02), (width, height), size), _ellipse(u, v, (0.45, 0.02), (width, height), size)
    )
    heart = max(0.0, min(1.0, level + 0.65)) * anatomy.heart
    if heart > 0.2:
        lungs = lungs * (1 - _ellipse(u, v, (0.16, -0.28), (0.34 * heart, 0.36 * heart), size))
    if level > 0.55:  # the dome of the liver, on the patient's right; never as small as a nodule
        dome = 0.24 + (level - 0.55) * 0.5
        lungs = lungs * (1 - _ellipse(u, v, (-0.40, -0.05), (dome * 0.8, dome), size))
    hu += (_BLOOD - _MUSCLE) * _ellipse(u, v, (0.16, -0.28), (0.3, 0.3), size)
    hu += 60 * _ellipse(u, v, (0.13, 0.42), (0.075, 0.095), size)  # aorta
    bone = _draw_bone(level, u, v, size, inner)
    hu += (_BONE - _MUSCLE) * bone * (1 - lungs)
    if level < 0.1:
        hu += (_AIR - _MUSCLE) * _ellipse(u, v, (0.0, -0.05), (0.06, 0.075), size)  # trachea
    return lungs.astype(np.float32), hu.astype(np.float32)


def _draw_bone(level: float, u: Field, v: Field, size: int, inner: float) -> Field:
    """Cover ribs, sternum and a vertebra with its canal; ribs move along the wall from slice to slice."""
    bone = _ellipse(u, v, (0, 0.66), (0.145, 0.15), size)
    bone = np.maximum(bone, 0.8 * _ellipse(u, v, (0, 0.86), (0.045, 0.1), size))
    bone = np.maximum(bone, 0.75 * _ellipse(u, v, (0, -inner + 0.11), (0.12, 0.05), size))
    radius = np.float32(inner - 0.085)
    for number in range(12):
        angle = 2 * math.pi * (number + 0.5) / 12 + 0.25 * math.sin(2.2 * level + 1.7 * number)
        if abs(math.cos(angle)) < 0.3:
            continue
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        along, across = -sin * u + cos * v, cos * u + sin * v - radius
        bone = np.maximum(bone, 0.85 * _ellipse(along, across, (0, 0), (0.15, 0.04), size))
    covered: Field = bone * (1 - _ellipse(u, v, (0, 0.79), (0.055, 0.05), size))
    return covered


def _draw_vessels(anatomy: _Anatomy, level: float, rng: np.random.Generator, u: Field, v: Field, size: int) -> Field:
    """Cover branching vessels that leave each hilum and thin out, and round cross-sections: 0..1."""
    num_branches, num_points = 26, max(24, size)
    side = np.where(np.arange(num_branches) % 2 == 0, -1.0, 1.0)
    angle = rng.uniform(-1.35, 1.35, num_branches)
    length = rng.uniform(0.25, 0.6, num_branches)
    bend = rng.uniform(-0.25, 0.25, num_branches)
    start = np.stack([side * (0.2 + rng.uniform(0, 0.25, num_branches)), rng.uniform(-0.22, 0.22, num_branches)])
    t = np.linspace(0, 1, num_points)[:, None]
    heading = np.stack([side * np.cos(angle), np.sin(angle)])
    pu = start[0] + heading[0] * length * t - heading[1] * bend * t * t
    pv = start[1] + heading[1] * length * t + heading[0] * bend * t * t
    weight = (1.15 - t) * rng.uniform(0.3, 1.0, num_branches) * (length * size / num_points / 3.0)
    dots = rng.uniform(-1, 1, (2, 18))
    pu = np.concatenate([pu.ravel(), np.sign(dots[0]) * 0.44 + dots[0] * 0.3])
    pv = np.concatenate([pv.ravel(), dots[1] * 0.55])
    weight = np.concatenate([weight.ravel(), rng.uniform(0.4, 1.2, 18) * (size / 64)])
    canvas = _stamp(anatomy, pu, pv, weight, size)
    for _ in range(max(1, round(size / 64))):
        canvas = soften(canvas)
    covered: Field = np.clip(canvas * np.float32(1.5), 0, 1)
    return covered


def _stamp(
    anatomy: _Anatomy, pu: NDArray[np.float64], pv: NDArray[np.float64], weight: NDArray[np.float64], size: int
) -> Field:
    """Add points given in the body frame to a canvas, each shared between its four nearest pixels."""
    x, y = pu * anatomy.half_axes[0], pv * anatomy.half_axes[1]
    cos, sin = math.cos(anatomy.tilt), math.sin(anatomy.tilt)
    column = (cos * x - sin * y + anatomy.centre[0] + 1) * (size / 2) - 0.5
    row = (cos * y + sin * x + anatomy.centre[1] + 1) * (size / 2) - 0.5
    column, row = np.clip(column, 0, size - 1.001), np.clip(row, 0, size - 1.001)
    left, top = column.astype(np.int64), row.astype(np.int64)
    right_fraction, low_fraction = column - left, row - top
    place = np.concatenate(
        [top * size + left, top * size + left + 1, (top + 1) * size + left, (top + 1) * size + left + 1]
    )
    shares = np.concatenate(
        [
            weight * (1 - right_fraction) * (1 - low_fraction),
            weight * right_fraction * (1 - low_fraction),
            weight * (1 - right_fraction) * low_fraction,
            weight * right_fraction * low_fraction,
        ]
    )
    canvas = np.bincount(place, shares, minlength=size * size)[: size * size]
    stamped: Field = canvas.reshape(size, size).astype(np.float32)
    return stamped


PHANTOM = DatasetEntry(
    "phantom",
    "Procedural chest-CT slices of four classes with lesion masks: for demos and tests, no download.",
    load_arrays=load_phantom,
    glance=glance_phantom,
    options={"n": f"slices to draw where no limit is given (default {DEFAULT_IMAGES})"},
    path="unused",
)
