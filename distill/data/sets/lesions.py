"""The phantom's lesions and textures: what is added to lung tissue, and the mask of where it is.

Each lesion takes the tissue of a slice in Hounsfield units, its vessels and lungs (coverage 0..1) and a generator, and
gives the changed tissue and a 0/1 mask. Only arithmetic that rounds the same everywhere is used on pixels (no exp, no
pow).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def draw_lesion(
    kind: str, tissue: Field, vessels: Field, lungs: Field, u: Field, v: Field, rng: np.random.Generator
) -> tuple[Field, NDArray[np.uint8]]:
    """Put a lesion of one class into the lungs; "normal" puts none, and its mask is empty."""
    size = len(tissue)
    if kind == "normal":
        return tissue, np.zeros((size, size), dtype=np.uint8)
    if kind == "nodule":
        cover = _nodules(lungs, u, v, rng)
        changed = tissue + (np.float32(rng.uniform(-40, 90)) - tissue) * cover
    elif kind == "ground-glass":
        cover = _patches(lungs, u, v, rng, num=int(rng.integers(2, 4)), radius=(0.3, 0.5), peripheral=0.3)
        haze = np.float32(rng.uniform(330, 460)) * (1 + np.float32(0.25) * texture(rng, size, 13))
        changed = tissue + haze * cover * (1 - vessels)
    elif kind == "consolidation":
        cover = _patches(lungs, u, v, rng, num=int(rng.integers(1, 3)), radius=(0.32, 0.5), peripheral=0.8)
        dense = np.float32(rng.uniform(-60, 50)) + 25 * texture(rng, size, 13)
        bronchi = np.clip(vessels * 1.4 - np.float32(0.5), 0, 1) * np.float32(rng.uniform(0.2, 0.7))  # air bronchograms
        changed = tissue + (dense - np.float32(600) * bronchi - tissue) * cover
    else:
        raise ValueError(f"no lesion of kind {kind!r}")
    mask = ((cover * lungs) > 0.4).astype(np.uint8)
    return changed.astype(np.float32), mask


def _place(lungs: Field, u: Field, v: Field, rng: np.random.Generator, peripheral: float) -> tuple[float, float]:
    """Choose a point well inside the lungs; with odds `peripheral` in their outer or posterior part."""
    inside = soften(soften(lungs)) > 0.97
    if rng.uniform() < peripheral:
        outer = inside & ((np.abs(u) > 0.5) | (v > 0.28))
        inside = outer if outer.any() else inside
    candidates = np.flatnonzero(inside if inside.any() else lungs >= lungs.max())
    row, column = divmod(int(candidates[rng.integers(len(candidates))]), len(lungs))
    return float(u[row, column]), float(v[row, column])


def _nodules(lungs: Field, u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Cover one to three round, solid nodules."""
    cover = np.zeros_like(lungs)
    for _ in range(int(rng.integers(1, 4))):
        at_u, at_v = _place(lungs, u, v, rng, peripheral=0.4)
        radius = np.float32(rng.uniform(0.13, 0.19))
        du, dv = u - np.float32(at_u), (v - np.float32(at_v)) * np.float32(0.75 * rng.uniform(0.85, 1.18))
        cover = np.maximum(cover, np.clip((1 - (du * du + dv * dv) / (radius * radius)) * np.float32(1.7), 0, 1))
    return cover.astype(np.float32)


def _patches(
    lungs: Field,
    u: Field,
    v: Field,
    rng: np.random.Generator,
    *,
    num: int,
    radius: tuple[float, float],
    peripheral: float,
) -> Field:
    """Cover irregular patches: ellipses whose border is moved by low-frequency noise."""
    cover = np.zeros_like(lungs)
    border = np.float32(0.55) * texture(rng, len(lungs), 11)
    for _ in range(num):
        at_u, at_v = _place(lungs, u, v, rng, peripheral)
        wide, high = rng.uniform(*radius, 2)
        du, dv = (u - np.float32(at_u)) / np.float32(wide), (v - np.float32(at_v)) / np.float32(high)
        cover = np.maximum(cover, np.clip((1 - du * du - dv * dv + border) * np.float32(1.6), 0, 1))
    return cover.astype(np.float32)


def texture(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Draw smooth noise in about -1..1: a `cells` x `cells` grid of numbers, interpolated bilinearly."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    low = place.astype(np.int64)
    share = place - low
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    field: Field = rows[:, low] * (1 - share)[None, :] + rows[:, low + 1] * share[None, :]
    return field


def noise(rng: np.random.Generator, size: int) -> Field:
    """Draw grainy noise of unit variance: a sum of four bytes (near normal, exact in integers), slightly smoothed."""
    bytes_ = rng.integers(0, 256, (4, size + 1, size + 1), dtype=np.uint8)
    grain = bytes_.sum(axis=0, dtype=np.int32).astype(np.float32) - np.float32(510)
    smooth = grain[:-1, :-1] + grain[1:, :-1] + grain[:-1, 1:] + grain[1:, 1:]
    # variance of one byte is (256^2 - 1) / 12; four bytes, four neighbours: 16 of them
    field: Field = smooth / np.float32((16 * 65535 / 12) ** 0.5)
    return field


def soften(field: Field) -> Field:
    """Blur by the binomial kernel (1 2 1)/4 in both directions, borders repeated: a scanner's point spread."""
    padded = np.pad(field, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    blurred: Field = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 16)
    return blurred
