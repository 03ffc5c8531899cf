"""Image data sets in parquet files as the Hugging Face hub stores them, read without unpacking.

One column holds images (a struct of bytes and path, or binary), one the class (ClassLabel, numbers, words) or a list of
labels. Splits are in the names of files and folders (`data/train-00000-of-00002.parquet`), or in the card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tutelage.distill.data.containers.card import Card, Feature, label_names, read_card, schema_features
from tutelage.distill.data.containers.hub import locate
from tutelage.distill.data.containers.naming import own_name
from tutelage.distill.data.containers.rows import SUFFIX, guarded_parquet, open_parquet
from tutelage.distill.data.containers.shards import Shard, assign_splits, find_shards, listing_of, split_word
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.distill.data.reading.folders import walk
from tutelage.distill.data.reading.labels import UNKNOWN_HELP, read_listed, unknown_policy
from tutelage.records import InputError

from .folders import NEAR_HELP


def list_parquet(request: Request) -> Listing:
    """List the images of parquet files at `path`: a file, a folder, or `hf:owner/name[@revision][:config]`."""
    root, config, origin = locate(request)
    card = read_card(root if root.is_dir() else root.parent)
    files = _files(root, config, card)
    shards, notes = _shards(root, files, config, card)
    first = next((shard.file for shard in shards if shard.split == "train"), shards[0].file)  # a test may lack labels
    features = _features(first, card, config)
    image = _image_column(first, features, str(request.option("image", "")))
    label = _label_column(first, features, str(request.option("label", "")), image)
    classes = _class_names(shards, label, label_names(features.get(label)))
    sizes = [_num_rows(shard.file, image) for shard in shards]
    columns = [shard.file / image for shard in shards]
    paths = [column / str(row) for column, size in zip(columns, sizes, strict=True) for row in range(size)]
    values, unknown = _column(shards, sizes, label), unknown_policy(request.option("unknown", "refuse"))
    labels = read_listed(values, classes, lambda row: str(paths[row]), f"{root}: column {label}", unknown)
    group = str(request.option("group", ""))
    return listing_of(
        request,
        root.parent if root.is_file() else root,
        paths,
        [shard.split for shard, size in zip(shards, sizes, strict=True) for _ in range(size)],
        labels,
        _column(shards, sizes, group, needed=True) if group else None,
        notes=notes,
        facts={"parquet files": len(shards)},
        origin=origin,
    )


def _files(root: Path, config: str, card: Card) -> list[Path]:
    """Find the parquet files of one configuration; where there are several and none is asked for, an error."""
    if root.is_file():
        return [root]
    files = find_shards(root, SUFFIX)
    if not files:
        tars = " (it holds .tar files: say dataset: webdataset)" if any(root.rglob("*.tar")) else ""
        raise InputError(f"no {SUFFIX} file in {root}{tars}")
    names = {file: file.relative_to(root).as_posix() for file in files}
    configs: dict[str, list[Path]] = {}
    for name, splits in card.files.items():
        patterns = [pattern for found in splits.values() for pattern in found]
        configs[name] = [file for file in files if _matches(names[file], patterns)]
    if not any(configs.values()):
        configs = {}
        for file in files:
            configs.setdefault(_config_of(Path(names[file])), []).append(file)
    known = {name: found for name, found in configs.items() if found}
    if not config and len(known) > 1:
        config = "default" if "default" in known else ""
    if config or len(known) > 1:
        if config not in known:
            asked = f"has no configuration {config!r}: it" if config else "holds several configurations: it"
            raise InputError(f"{root} {asked} has {', '.join(sorted(map(repr, known)))}; name one, data.options.config")
        return known[config]
    return next(iter(known.values()))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _config_of(name: Path) -> str:
    """Give the configuration of a file: its first folder that is no `data` and names no split."""
    folders = [part for part in name.parts[:-1] if part != "data" and not split_word(part)]
    return folders[0] if folders else ""


def _shards(root: Path, files: Sequence[Path], config: str, card: Card) -> tuple[list[Shard], list[str]]:
    """Give each file its split: by the card, else by its name or folders."""
    listed = card.files.get(config or "default") or (next(iter(card.files.values())) if len(card.files) == 1 else {})
    top = root if root.is_dir() else root.parent

    def by_card(name: str) -> str:
        return next((split for split, patterns in listed.items() if _matches(name, patterns)), "")

    shards, notes = assign_splits(files, top, by_card)
    if any("partial-" in part for shard in shards for part in shard.file.relative_to(top).parts):
        notes.append("the hub converted a part of this set only (folders partial-...)")
    return shards, notes


def _features(file: Path, card: Card, config: str) -> Mapping[str, Feature]:
    """Give what each column holds, by the file itself, else by the card."""
    own = schema_features(open_parquet(file).schema_arrow.metadata)
    listed = card.features.get(config or "default") or next(iter(card.features.values()), {})
    return {**listed, **own}


def _class_names(shards: Sequence[Shard], label: str, names: Sequence[str] | None) -> Sequence[str] | None:
    """Give the names of the codes; files whose schemas name one code differently are an error.

    A file may know the first of the names only.
    """
    known = dict(enumerate(names or ()))
    for shard in shards:
        own = label_names(schema_features(open_parquet(shard.file).schema_arrow.metadata).get(label))
        for code, name in enumerate(own or ()):
            if known.setdefault(code, name) != name:
                raise InputError(f"{shard.file} names the code {code} of {label} {name!r}, and other files name it "
                                 f"{known[code]!r}: write all files with the same classes")  # fmt: skip
    called = [known[code] for code in sorted(known)]
    twice = [name for name, number in Counter(called).items() if number > 1]
    if twice:
        raise InputError(f"{shards[0].file}: the name {twice[0]!r} of {label} stands for several codes: rename the "
                         "classes")  # fmt: skip
    return called or None


def _image_column(file: Path, features: Mapping[str, Feature], asked: str) -> str:
    """Find the column of images: the one asked for, or the only one that can be."""
    schema = open_parquet(file).schema_arrow
    able = [str(field.name) for field in schema if _holds_bytes(field.type)]
    if asked:
        if asked not in able:
            raise InputError(f"{file} has no column {asked!r} of images (binary, or bytes and path); it has "
                             f"{', '.join(schema.names)}")  # fmt: skip
        return asked
    stated = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    usual = [name for name in able if name.lower() in ("image", "img")]
    for found in (stated, usual, able):
        if len(found) == 1:
            return found[0]
    if not able:
        raise InputError(f"{file} has no column of images (binary, or a struct of bytes and path); it has "
                         f"{', '.join(schema.names) or 'no column'}")  # fmt: skip
    raise InputError(f"{file} has {len(able)} columns of images ({', '.join(able)}): name one, data.options.image")


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _label_column(file: Path, features: Mapping[str, Feature], asked: str, image: str) -> str:
    """Find the column of labels: the one asked for, the only ClassLabel, or one named so."""
    names = [str(name) for name in open_parquet(file).schema_arrow.names if name != image]
    if asked:
        if asked not in names:
            raise InputError(f"{file} has no column {asked!r}; it has {', '.join(names) or 'images only'}")
        return asked
    classes = [name for name in names if label_names(features.get(name)) is not None]
    usual = [name for name in names if name.lower() in ("label", "labels")]
    for found in (classes, usual):
        if len(found) == 1:
            return found[0]
    if classes or usual:
        raise InputError(
            f"{file} has the columns of labels {', '.join(classes or usual)}: name one, data.options.label"
        )
    raise InputError(f"{file} has no column label or labels; it has {', '.join(names) or 'images only'}: name one, "
                     "data.options.label")  # fmt: skip


def _num_rows(file: Path, image: str) -> int:
    """Count a file's rows; one without the column of images is an error."""
    opened = open_parquet(file)
    schema = opened.schema_arrow
    if image not in schema.names or not _holds_bytes(schema.field(image).type):
        raise InputError(f"{file} has no column {image!r} of images, as the first file has; it has "
                         f"{', '.join(schema.names)}")  # fmt: skip
    if _num_nulls(opened.metadata, image) == opened.metadata.num_rows > 0:
        raise InputError(f"{file} holds no bytes of images in column {image!r}, only paths at most: embed them "
                         "(datasets: embed_external_files=True), or list the files in a table "
                         "(data.dataset: table)")  # fmt: skip
    return int(opened.metadata.num_rows)


def _num_nulls(metadata: Any, image: str) -> int:
    """Count the images that are null, as far as the statistics of a file say."""
    number = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for column in (group.column(place) for place in range(group.num_columns)):
            if column.path_in_schema in (image, f"{image}.bytes") and column.statistics is not None:
                number += column.statistics.null_count or 0
    return number


def _column(shards: Sequence[Shard], sizes: Sequence[int], name: str, *, needed: bool = False) -> list[Any]:
    """Read one column of all files; of a file without it (a test split that is not labelled) None for each row."""
    values: list[Any] = []
    for shard, size in zip(shards, sizes, strict=True):
        opened = open_parquet(shard.file)
        if name not in opened.schema_arrow.names:
            if needed:
                raise InputError(f"{shard.file} has no column {name!r}; it has {', '.join(opened.schema_arrow.names)}")
            values += [None] * size
            continue
        with guarded_parquet(shard.file):
            found = opened.read(columns=[name], use_threads=False).column(name).to_pylist()
            if len(found) != size:
                raise ValueError(f"column {name} has {len(found)} of {size} rows")
            values += found
    return values


def _recognise(path: Path) -> Mapping[str, Any] | None:
    """Tell a parquet file, or a folder that holds them in itself, `data/`, configurations or splits.

    Files without a column of images, beside folders of pictures, are tables about those.
    """
    if path.is_file():
        return {} if path.suffix.lower() == SUFFIX else None
    files = find_shards(path, SUFFIX, most_folders=2) if path.is_dir() else []
    if not files or (not any(map(_has_images, files)) and len({file.parent for file in walk(path).pictures}) > 1):
        return None
    return {}


def _has_images(file: Path) -> bool:
    try:
        return any(_holds_bytes(field.type) for field in open_parquet(file).schema_arrow)
    except InputError:  # the listing says it
        return False


PARQUET = DatasetEntry(
    "parquet",
    "Parquet files as the Hugging Face hub stores image data sets, or hf:owner/name[@revision][:config] of the hub.",
    list_parquet,
    options={
        "label": "column of the class or of a list of labels (default: the only ClassLabel, or label)",
        "image": "column of the images (default: the only one that holds any)",
        "group": "column of the patient or series (default: each image is a group of its own)",
        "config": "which configuration, where the set has several",
        "unknown": UNKNOWN_HELP,
        "near": NEAR_HELP,
    },
    recognise=_recognise,
    called=lambda request: own_name(request.path),
)
