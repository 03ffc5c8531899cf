"""Where rows are pushed to and pulled from: a folder, or a data set of the Hugging Face hub (`open_target`)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tutelage.files import whole_file
from tutelage.hub import endpoint, first_line, hub_errors, offline
from tutelage.records import InputError

from .shared_files import without_secrets

_HUB = re.compile(r"hf://datasets/([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)/?")
_CARD = """---
configs:
- config_name: default
  data_files: rows/*.jsonl
---
Rows of a Tutelage leaderboard, one a line. `tutelage leaderboard pull` adds them to a board.
"""
CARD = "README.md"


class Target(Protocol):
    """Files by name, to which more are added, all of them or none."""

    name: str

    def names(self) -> list[str]: ...

    def lines(self, name: str) -> Iterator[str]: ...

    def add(self, files: Mapping[str, bytes | Path], message: str) -> None: ...


class Folder:
    """A folder; it is made when something is added."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def names(self) -> list[str]:
        """List the files of rows, and what lies beside them."""
        return [file.relative_to(self._path).as_posix() for file in self._path.glob("*/*.jsonl") if file.is_file()]

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a file of text."""
        with _read_errors(f"{self.name}/{name}"), (self._path / name).open(encoding="utf-8") as file:
            yield from file

    def add(self, files: Mapping[str, bytes | Path], message: str) -> None:
        """Write files that are not there; one that is has the same content."""
        try:
            for name, content in files.items():
                to = self._path / name
                if not to.exists():
                    to.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(to) as aside:
                        if isinstance(content, bytes):
                            aside.write_bytes(content)
                        else:
                            shutil.copyfile(content, aside)
        except OSError as error:
            raise InputError(
                f"{self.name} cannot be written ({error.strerror or error}): name another folder"
            ) from None


class HubData:
    """A data set repository of the hub, private where a push has to make it."""

    def __init__(self, repository: str) -> None:
        if offline():
            raise InputError(f"hf://datasets/{repository}: HF_HUB_OFFLINE forbids it: unset it, or name a folder")
        from huggingface_hub import HfApi

        self.name, self._repository = f"hf://datasets/{repository}", repository
        self._api = HfApi(endpoint=endpoint())
        self._is_there = False

    def names(self) -> list[str]:
        """List the files of the repository; none where there is no repository yet."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._plain_errors():
            try:
                found = self._api.list_repo_files(self._repository, repo_type="dataset")
            except RepositoryNotFoundError:
                return []
        self._is_there = True
        return found

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a file of text, which is kept in the hub's own cache."""
        with self._plain_errors():
            file = self._api.hf_hub_download(self._repository, name, repo_type="dataset")
        with _read_errors(f"{self.name}/{name}"), Path(file).open(encoding="utf-8") as text:
            yield from text

    def add(self, files: Mapping[str, bytes | Path], message: str) -> None:
        """Add files in one commit."""
        from huggingface_hub import CommitOperationAdd

        there = set(self.names())
        with self._plain_errors():
            if not self._is_there:
                self._api.create_repo(self._repository, repo_type="dataset", private=True, exist_ok=True)
            new = {CARD: _CARD.encode(), **files} if CARD not in there else files
            operations = [
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in new.items()
                if name not in there
            ]
            if operations:
                self._api.create_commit(
                    self._repository, operations, commit_message=f"Tutelage: {message}", repo_type="dataset"
                )

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except hub_errors() as error:
            why = without_secrets(first_line(error))
            remedy = "check its name and the token (`hf auth login` or HF_TOKEN)"
            raise InputError(f"{self.name} cannot be reached or changed ({why}): {remedy}") from None


@contextmanager
def _read_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} cannot be read ({error}): it is no file of rows") from None


def open_target(text: str, *, read: bool) -> Target:
    """Open the target that a user named. InputError for one that is none, or, to be read, is not there."""
    if not text.strip():
        raise InputError("the folder is empty: name one, or hf://datasets/OWNER/NAME")
    if text.startswith("hf://"):
        found = _HUB.fullmatch(text)
        if found is None:
            raise InputError(f"{text!r} is no data set of the hub: write hf://datasets/OWNER/NAME")
        return HubData(found[1])
    if "://" in text:
        raise InputError(f"{text!r} is neither a folder nor a data set of the hub: write hf://datasets/OWNER/NAME")
    path = Path(text).expanduser()
    if read and not path.is_dir():
        raise InputError(f"{text!r} is no folder: name one that `tutelage leaderboard push` filled")
    if path.exists() and not path.is_dir():
        raise InputError(f"{text!r} is a file: name a folder")
    return Folder(path)
