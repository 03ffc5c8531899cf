"""Fetch image data sets of the Hugging Face hub: `hf:owner/name[@revision][:config]`, by the package huggingface_hub.

Downloads go to that package's cache and go on where they were stopped; HF_ENDPOINT, HF_TOKEN, HF_HOME and
HF_HUB_OFFLINE mean what they mean to it.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.distill.data.dataset import Request
from tutelage.records import InputError

from .card import CARDS, read_card

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


def fetch(text: str) -> Fetched:
    """Give the folder of a hub data set, downloaded where the package's cache lacks it.

    A repository without parquet files or tars is read from the branch that the hub converts to parquet. Raises
    InputError, one line, that says what to download and where to put it where the hub cannot be reached.
    """
    name = parse_hub_name(text)
    folder = _snapshot(name, name.revision, list(CARDS))
    chosen = read_card(folder).files.get(name.config, {})
    patterns = [pattern for found in chosen.values() for pattern in found]
    if not patterns:
        within = f"*{name.config}/*" if name.config else "*"
        patterns = [f"{within}{suffix}" for suffix in _DATA]
    commit = folder.name
    folder = _snapshot(name, commit, [*patterns, *CARDS])
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
    fetched = fetch(str(request.path))
    if config and fetched.name.config not in ("", config):
        raise InputError(f"config {config!r} and {str(request.path)!r} name two configurations: leave one out")
    return fetched.folder, fetched.name.config or config, f"{fetched.name.repository}@{fetched.commit}"


def _holds_data(folder: Path) -> bool:
    return any(file.suffix in _DATA for file in folder.rglob("*"))


def _snapshot(name: HubName, revision: str, patterns: list[str]) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise InputError("hub data sets are fetched by huggingface_hub: pip install huggingface_hub") from None
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    others = (OSError, ValueError, errors.EntryNotFoundError, *_http_errors())
    try:
        folder = huggingface_hub.snapshot_download(
            name.repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=patterns,
            endpoint=endpoint,
            local_files_only=huggingface_hub.constants.HF_HUB_OFFLINE,
        )
        return Path(folder)
    except absent as error:
        what = f"revision {revision!r} of " if isinstance(error, errors.RevisionNotFoundError) else ""
        raise InputError(f"{endpoint} has no {what}data set {name.repository}, or shows it only to those with a token: "
                         "check the name, or set HF_TOKEN") from None  # fmt: skip
    except others as error:
        log.debug("download of %s failed", name.repository, exc_info=True)
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise InputError(
            f"data set {name.repository} is not in the cache and cannot be fetched from {endpoint} ({reason}): where "
            f"there is a network, run `hf download {name.repository} --repo-type dataset --local-dir DIR`, and set "
            "data.path to DIR"
        ) from None


def _http_errors() -> tuple[Any, ...]:
    """Give the base of the errors of the HTTP library that the installed huggingface_hub uses."""
    from huggingface_hub import errors

    found = (getattr(errors, "HTTPError", None), getattr(errors, "RevisionResolutionError", None))
    return tuple(kind for kind in found if kind is not None)
