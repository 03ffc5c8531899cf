"""A data set that is drawn: rings and discs."""

import numpy as np

from tutelage.distill.data.dataset import Dataset, DatasetEntry, Request, manifest_hash, split_column
from tutelage.distill.data.splits import make_splits

CLASSES = ("disc", "ring")


def load_rings(request: Request) -> Dataset:
    """Draw `limit` (or the option `num`) pictures of one disc or ring each, at a random place."""
    num = int(request.limit or request.option("num", 200))
    rng = np.random.default_rng(request.seed)
    labels = np.arange(num) % 2
    places = rng.uniform(0.3, 0.7, (num, 2, 1, 1))
    axis = (np.arange(request.size) + 0.5) / request.size
    distance = np.hypot(axis[None, None, :] - places[:, 0], axis[None, :, None] - places[:, 1])
    inside = (distance < 0.25) & ((distance > 0.15) | (labels == 0)[:, None, None])
    images = (inside * 160 + rng.integers(0, 60, inside.shape)).astype(np.uint8)[..., None]
    names = np.array([f"picture{i}" for i in range(num)])
    splits = make_splits(labels, names, np.full(num, ""), request)
    return Dataset(
        name="rings",
        images=np.repeat(images, request.channels, axis=3),
        labels=labels,
        class_names=CLASSES,
        groups=names,
        splits=splits,
        manifest=manifest_hash(names, labels, split_column(splits, num), [request.seed] * num),
        names=names,
    )


RINGS = DatasetEntry(
    name="rings",
    help="Rings and discs, drawn from a seed.",
    load_arrays=load_rings,
    options={"num": "pictures to draw where no limit is given (default 200)"},
    path="unused",
)
