"""Parquet files as the hub stores image sets, for tests: `write` makes a shard, `hub_layout` a set of three."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tutelage.distill.data.dataset import Dataset
from tutelage.distill.data.registry import load_dataset

NAMES = ["cat", "dog", "ant"]  # not in alphabetical order


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def feature(names: Sequence[str] | None = NAMES, *, many: bool = False) -> dict[str, Any]:
    label = {"_type": "ClassLabel", "names": names} if names is not None else {"_type": "Value", "dtype": "string"}
    return {"_type": "Sequence", "feature": label} if many else label


def write(
    file: Path,
    labels: Sequence[Any],
    *,
    first: int = 0,
    features: dict[str, Any] | None = None,
    image: str = "image",
    plain: bool = False,
    more: dict[str, Sequence[Any]] | None = None,
    label: str = "label",
    group_rows: int = 7,
) -> Path:
    """Write a shard whose images are drawn from seeds `first`, `first + 1`, ..."""
    pictures = [png(first + number) for number in range(len(labels))]
    structs = pa.array([{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(pictures)],
                       pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    columns = {image: pa.array(pictures, pa.binary()) if plain else structs, label: pa.array(labels)}
    table = pa.table({**columns, **{name: pa.array(values) for name, values in (more or {}).items()}})
    if features is not None:
        info = {"features": {image: {"_type": "Image"}, **features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": info})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group_rows)
    return file


def load(path: Path, **changes: Any) -> Dataset:
    return load_dataset("parquet", path=path, size=16, channels=3, **changes)


def hub_layout(root: Path, **changes: Any) -> Path:
    """Lay out a set of two train shards and a test shard in `data/`."""
    features = {"label": feature()}
    write(root / "data" / "train-00000-of-00002.parquet", [n % 3 for n in range(30)], features=features, **changes)
    write(
        root / "data" / "train-00001-of-00002.parquet",
        [n % 3 for n in range(18)],
        first=30,
        features=features,
        **changes,
    )
    write(
        root / "data" / "test-00000-of-00001.parquet",
        [n % 3 for n in range(12)],
        first=48,
        features=features,
        **changes,
    )
    return root
