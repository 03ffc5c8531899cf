"""Fetch image data sets of the Hugging Face hub: `hf:owner/name[@revision][:config]`, by the package huggingface_hub.

Downloads go to that package's cache and go on where they were stopped; HF_ENDPOINT, HF_TOKEN, HF_HOME and
HF_HUB_OFFLINE mean what they mean to it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.distill.data.dataset import Request
from tutelage.hub import endpoint, first_line, hub_errors
from tutelage.records import InputError

from .card import CARDS, Card, read_card

log = logging.getLogger(__name__)

PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?(?::([\w.+-]+))?")
_DATA = (".parquet", ".tar")

# Where the hub puts the parquet files that it makes of sets in other formats.
_CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class HubName:
    """A data set of the hub; `revision` is a branch, a tag or a commit, "" the main branch."""

    repository: str
    revision: str = ""
    config: str = ""


@dataclass(frozen=True)
class Fetched:
    """A downloaded set: its folder, the commit that it is, the configuration that was asked for."""

    folder: Path
    commit: str
    name: HubName


def is_hub_name(path: Path | str | None) -> bool:
    """Tell `hf:owner/name` from a path."""
    return str(path).startswith(PREFIX)


def parse_hub_name(text: str) -> HubName:
    """Read `hf:owner/name[@revision][:config]`."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is not hf:owner/name, hf:owner/name@revision or hf:owner/name@revision:config")
    return HubName(found[1], found[2] or "", found[3] or "")


def fetch(text: str, config: str = "") -> Fetched:
    """Give the folder of a hub data set, downloaded where the package's cache lacks it.

    `config` is the configuration that is wanted where the name has none; of the others nothing is downloaded. A
    repository without parquet files or tars is read from the branch that the hub converts to parquet. Raises
    InputError, one line, that says what to download and where to put it where the hub cannot be reached.
    """
    name = parse_hub_name(text)
    if config and name.config not in ("", config):
        raise InputError(f"config {config!r} and {text!r} name two configurations: leave one out")
    name = replace(name, config=name.config or config)
    folder = _snapshot(name, name.revision, list(CARDS))
    commit = folder.name
    folder = _snapshot(name, commit, [*_patterns(read_card(folder), name.config), *CARDS])
    if not _holds_data(folder) and not name.revision:
        log.info("%s holds no parquet file: read from its branch %s", text, _CONVERTED)
        folder = _snapshot(name, _CONVERTED, [f"{name.config or '*'}/*.parquet"])
    if not _holds_data(folder):
        what = f" of the configuration {name.config}" if name.config else ""
        raise InputError(f"{text} holds no .parquet or .tar file{what}: download it and read it as class folders or a "
                         "table (data.dataset: folder, table)")  # fmt: skip
    return Fetched(folder, folder.name, name)


def locate(request: Request) -> tuple[Path, str, str]:
    """Give where a set lies that may be the hub's: file or folder, configuration, and `owner/name@commit` or ""."""
    config = str(request.option("config", ""))
    if not is_hub_name(request.path):
        return request.where(), config, ""
    fetched = fetch(str(request.path), config)
    return fetched.folder, fetched.name.config, f"{fetched.name.repository}@{fetched.commit}"


def _patterns(card: Card, config: str) -> list[str]:
    """Give the patterns of the parquet files and tars of a configuration, of the card's own or the default one.

    A card may name pictures (`train/**`): without a suffix of ours a pattern would download all of them.
    """
    listed = [pattern for found in card.files.get(config or "default", {}).values() for pattern in found]
    if listed:
        return [one for pattern in listed for one in _of_data(pattern)]
    within = f"*{config}/*" if config else "*"
    return [f"{within}{suffix}" for suffix in _DATA]


def _of_data(pattern: str) -> list[str]:
    return [pattern] if pattern.endswith(_DATA) else [f"{pattern}{suffix}" for suffix in _DATA]


def _holds_data(folder: Path) -> bool:
    return any(file.suffix in _DATA for file in folder.rglob("*"))


def _snapshot(name: HubName, revision: str, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    others: tuple[type[Exception], ...] = (ValueError, errors.EntryNotFoundError, *hub_errors())
    try:
        folder = huggingface_hub.snapshot_download(
            name.repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=patterns,
            endpoint=endpoint(),
            local_files_only=huggingface_hub.constants.HF_HUB_OFFLINE,
        )
        return Path(folder)
    except absent as error:
        what = f"revision {revision!r} of " if isinstance(error, errors.RevisionNotFoundError) else ""
        raise InputError(
            f"{endpoint()} has no {what}data set {name.repository}, or shows it only to those with a token: check the "
            "name, or set HF_TOKEN"
        ) from None
    except others as error:
        log.debug("download of %s failed", name.repository, exc_info=True)
        raise InputError(
            f"data set {name.repository} is not in the cache and cannot be fetched from {endpoint()} "
            f"({first_line(error)[:120]}): where there is a network, run `hf download {name.repository} --repo-type "
            "dataset --local-dir DIR`, and set data.path to DIR"
        ) from None
