"""LC25000 histopathology, and the near-duplicate grouping it needs: 25,000 augmented copies of about 1,250 images.

`list_lc25000` lists the folder; `group_near_duplicates` finds images that show the same tissue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.containers.paths import glob
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request, has_files
from tutelage.distill.data.images import is_image, to_channels
from tutelage.records import InputError

CLASSES = {"lung": ("lung_aca", "lung_n", "lung_scc"), "colon": ("colon_aca", "colon_n")}

# Largest difference of any number of two signatures, in gray levels, for two pictures to count as copies of one.
DEFAULT_NEAR = 8.0

_NUM_QUANTILES = 12
_NUM_RINGS = 4


def list_lc25000(request: Request) -> Listing:
    """List LC25000, one organ or both; near-duplicates are grouped when the pictures are decoded."""
    root = request.where()
    organ = str(request.option("organ", "both"))
    if organ not in ("both", *CLASSES):
        raise InputError(f"organ {organ!r} is not one of both, lung, colon")
    paths: list[Path] = []
    labels: list[int] = []
    class_names: list[str] = []
    for name, classes in CLASSES.items():
        if organ not in ("both", name):
            continue
        for class_name in classes:
            folder = root / f"{name}_image_sets" / class_name
            files = sorted(path for path in glob(folder, "*") if is_image(path))
            if not files:
                raise InputError(f"class {class_name} holds no image in {folder}: the download is not whole")
            paths += files
            labels += [len(class_names)] * len(files)
            class_names.append(class_name)
    names = [path.relative_to(root).as_posix() for path in paths]
    return Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(class_names),
        groups=np.array(names, dtype=np.str_),
        splits=np.full(len(paths), "", dtype="<U5"),
        near_duplicates=request.near(DEFAULT_NEAR),
    )


def group_near_duplicates(images: NDArray[np.uint8], labels: NDArray[np.int64], near: float) -> NDArray[np.int64]:
    """Number the groups of near-duplicates within each class: images `(n, s, s, c)` -> `(n,)`.

    Two pictures are linked when no number of their signatures differs by more than `near` gray levels; groups are the
    connected parts. Copies of one picture never carry two classes in the sets this is for.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    group, features = np.zeros(len(images), dtype=np.int64), signatures(images)
    num_groups = 0
    for label in np.unique(labels):
        chosen = np.flatnonzero(labels == label)
        tree = cKDTree(features[chosen])
        pairs = tree.query_pairs(near, p=np.inf, output_type="ndarray")
        links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(chosen), len(chosen)))
        num_parts, part = connected_components(links, directed=False)
        group[chosen] = part + num_groups
        num_groups += int(num_parts)
    return group


def signatures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe images by features that rotation and mirroring do not change: `(n, s, s, c)` -> `(n, d)`.

    A perceptual hash in gray levels: quantiles of each colour, and its mean in rings about the centre, all within the
    inscribed circle. LC25000's copies are rotated by up to 25 degrees and mirrored (Borkowski et al. 2019), which
    hashes of the pixel grid (dHash, pHash) do not survive.
    """
    size = images.shape[1]
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    radius = np.sqrt(axis[None, :] ** 2 + axis[:, None] ** 2).ravel()
    rings = [np.flatnonzero((radius >= k / _NUM_RINGS) & (radius < (k + 1) / _NUM_RINGS)) for k in range(_NUM_RINGS)]
    inside = np.flatnonzero(radius < 1)
    levels = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    out = []
    for start in range(0, len(images), 256):
        block = to_channels(np.asarray(images[start : start + 256]), 3).reshape(-1, size * size, 3)
        spread = np.quantile(block[:, inside], levels, axis=1).transpose(1, 0, 2).reshape(len(block), -1)
        means = [block[:, ring].mean(axis=1) for ring in rings]
        out.append(np.concatenate([spread, *means], axis=1))
    return np.concatenate(out).astype(np.float32)


LC25000 = DatasetEntry(
    "lc25000",
    "LC25000 histopathology of lung and colon; augmented copies of one picture form one group.",
    list_lc25000,
    options={
        "organ": "both (default), lung or colon",
        "near": f"gray levels by which copies of one picture may differ (default {DEFAULT_NEAR:g}; 0: no grouping)",
    },
    recognise=has_files("lung_image_sets", "colon_image_sets"),
)
