"""What a data set is called that a reader of any such files lists: by its folder, its file or the hub (`own_name`)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .hub import is_hub_name, parse_hub_name

# Names that folders and files of any set bear; numbers are none either.
_OF_ANY = frozenset(
    (
        *("data", "dataset", "datasets", "images", "image", "img", "imgs", "pictures", "files", "raw", "all"),
        *("default", "train", "training", "val", "valid", "validation", "test", "testing", "shard", "shards", "part"),
        *("parts", "labels", "label", "metadata", "annotations", "index", "list", "table", "parquet", "tmp", "mnt"),
        *("media", "home", "root", "srv", "var", "opt", "usr", "users", "volumes", "workspace", "content"),
    )
)
_ENDINGS = re.compile(r"(\.(zip|tar|parquet|csv|tsv|txt|gz))+$", re.IGNORECASE)
# train-00000-of-00012, train-{000..146}
_SHARD = re.compile(r"[-_.]?(\d+-of-\d+|\{[^{}]*\}|\d+)$")
_HOMES = ("home", "users")
# Below these lie sets and people's folders alike: a name is taken from there where the path itself ends with it.
_SHARED = ("scratch", "mnt", "media", "export", "work")
_MOST = 100  # characters, as many as a name may have


def own_name(path: Path | None) -> str:
    """Name the set that lies at a path by the last part of it that is no name of any set; empty where there is none.

    `hf:owner/name@main:config` is `owner/name:config`, `beans/data/train-00000-of-00001.parquet` is `beans`.
    """
    if path is None:
        return ""
    if is_hub_name(path):
        of_hub = parse_hub_name(str(path))
        return f"{of_hub.repository}:{of_hub.config}" if of_hub.config else of_hub.repository
    parts = Path(os.path.abspath(path)).parts
    for place in range(len(parts) - 1, 0, -1):
        if parts[place - 1].lower() in (*_HOMES, *(_SHARED if place < len(parts) - 1 else ())):
            break  # the name of a person
        name = _ENDINGS.sub("", parts[place])
        is_any = _SHARD.sub("", name).lower() in ("", *_OF_ANY)
        if not is_any and not name.startswith(".") and name.isprintable():
            return name[:_MOST]
    return ""
