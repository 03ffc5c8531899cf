"""Models and bundles of rows as a served board gives them to readers (`Downloads`).

Only bytes of the hash that a row says leave the workspace, and of a bundle only what its manifest says. Nothing is
fetched or made here: `requested.py` makes bundles where the server is told to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from tutelage.leaderboard.serving.downloads import AbsentError, Download, safe_name
from tutelage.pipeline.curves import Details, relative_path
from tutelage.quant.bundle.manifest import MANIFEST, checked_manifest, parsed
from tutelage.records import InputError

from .fetched import RowFiles
from .named import model_files

# Of a run's bundles in its workspace: a folder a recipe, in it one a student.
BUNDLES = "bundles"
# Beside the folders of recipes, none of which can be named so: bundles that readers of a served board asked for.
REQUESTED = "@requested"
_CARD = "MODEL_CARD.md"
_CARD_BYTES = 200_000
_CARD_ROW = re.compile(r"\|\s*row\s*\|\s*`([0-9A-Za-z-]{1,80})`")
_BLOCK = 1 << 20
_MODEL, _ZIP = "application/octet-stream", "application/zip"


class Downloads:
    """The files of the rows of a store that lie in a workspace."""

    def __init__(self, workspace: Path, details: Details, *, makes: bool = False) -> None:
        """makes: bundles that are not here are made when they are asked for, and offered with a size of 0."""
        self._workspace, self._details, self._files = workspace, details, RowFiles(workspace)
        self._makes = makes
        self._known: dict[tuple[int, ...], str] = {}  # hashes of files, for as long as they are not changed

    def offered(self, details: Details) -> Details:
        """Add to details of rows which files a page may offer, with their sizes in bytes; none of them is read."""

        def read(ids: list[str]) -> Mapping[str, str]:
            bundles = _bundles(self._workspace)
            found = {row_id: (text, self._sizes(text, bundles.get(row_id))) for row_id, text in details(ids).items()}
            return {row_id: _with_sizes(text, sizes) if sizes else text for row_id, (text, sizes) in found.items()}

        return read

    def find(self, row_id: str, what: str) -> Download:
        """Open the `model` or the `bundle` of a row; AbsentError where it is not here as the row says."""
        text = self._details([row_id]).get(row_id)
        if text is None:
            raise AbsentError(f"no row {row_id[:8]} is on the board: it may be superseded or retracted")
        return self._bundle(row_id) if what == "bundle" else self._model(row_id, json.loads(text))

    def _sizes(self, text: str, bundles: Sequence[Path] | None) -> dict[str, int]:
        body: dict[str, Any] = json.loads(text) if text else {}
        path, _, size = _model_of(body)
        sizes = {"model": size} if path and self._files.may_have(body, path) else {}
        if not bundles:
            return sizes | ({"bundle": 0} if self._makes and sizes else {})
        with suppress(FileNotFoundError):  # another reader's bundle may take its place meanwhile
            sizes["bundle"] = sum(one.stat().st_size for one in bundles[0].iterdir())
        return sizes

    def _model(self, row_id: str, body: Mapping[str, Any]) -> Download:
        path, digest, _ = _model_of(body)
        try:
            found = self._files.find(body, path) if path and digest else None
            files = [] if found is None else model_files(found)
            if not files:
                raise AbsentError(
                    f"the model of row {row_id[:8]} is not here: it was imported, made elsewhere or moved"
                )
            name = safe_name(f"model-{row_id[:8]}", files[0].suffix)
            if len(files) == 1:
                return self._one_file(files[0], digest, name)
            content, digests = _zipped(files, name.partition(".")[0])
        except OSError:
            raise AbsentError(f"the model of row {row_id[:8]} cannot be read now") from None
        whole = hashlib.sha256("".join(digests).encode()).hexdigest()
        if digest not in (whole, digests[0]):  # older rows hold the hash of the graph alone
            content.close()
            raise AbsentError(_changed("model", row_id))
        return Download(safe_name(f"model-{row_id[:8]}", ".zip"), _ZIP, content.seek(0, 2), _from_start(content))

    def _one_file(self, path: Path, digest: str, name: str) -> Download:
        """Open a file whose bytes have this hash: what was hashed is sent, whatever takes its name meanwhile."""
        content = path.open("rb")
        state = os.fstat(content.fileno())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._known:
            self._known[key] = hashlib.file_digest(content, "sha256").hexdigest()
        if self._known[key] != digest:
            content.close()
            raise AbsentError(f"{name} is not the file that its row says: it was changed or replaced")
        return Download(name, _MODEL, state.st_size, _from_start(content))

    def _bundle(self, row_id: str) -> Download:
        said = AbsentError(
            f"no bundle of row {row_id[:8]} is here: `tutelage bundle make {row_id[:8]} --out bundle` makes one"
        )
        for folder in _bundles(self._workspace).get(row_id, ()):
            try:
                return _opened_bundle(folder, row_id)
            except AbsentError as error:
                said = error
        raise said


def has_whole_bundle(workspace: Path, row_id: str) -> bool:
    """Say whether a bundle of the row lies in the workspace, whole as its manifest says."""
    return any(_is_whole(folder) for folder in _bundles(workspace).get(row_id, ()))


def _is_whole(folder: Path) -> bool:
    try:
        checked_manifest(folder)
    except (InputError, OSError):
        return False
    return True


def _bundles(workspace: Path) -> dict[str, list[Path]]:
    """Find bundles by the row that each one's card names: the one that was asked for, then those of runs."""
    found: dict[str, list[Path]] = {}
    cards = workspace.glob(f"{BUNDLES}/*/*/{_CARD}")
    for card in sorted(cards, key=lambda card: (card.parts[-3] != REQUESTED, card)):
        if any(part.startswith(".") for part in card.parts[-3:-1]):  # one that is being made
            continue
        try:
            status = card.stat()
            row_id = _row_of(card, status.st_size, status.st_mtime_ns, status.st_ino)
        except (OSError, ValueError):
            continue
        if row_id:
            found.setdefault(row_id, []).append(card.parent)
    return found


def _opened_bundle(folder: Path, row_id: str) -> Download:
    try:
        checked_manifest(folder)
        said = {name: one["sha256"] for name, one in parsed(folder / MANIFEST)["files"].items()}
        files = [folder / MANIFEST, *(folder / name for name in sorted(said))]
        content, digests = _zipped(files, f"bundle-{row_id[:8]}")
    except InputError:
        raise AbsentError(_changed("bundle", row_id)) from None
    except OSError:
        raise AbsentError(f"the bundle of row {row_id[:8]} cannot be read now") from None
    if digests[1:] != [said[file.name] for file in files[1:]]:
        content.close()
        raise AbsentError(_changed("bundle", row_id))
    return Download(safe_name(f"bundle-{row_id[:8]}", ".zip"), _ZIP, content.seek(0, 2), _from_start(content))


def _model_of(body: Mapping[str, Any]) -> tuple[str, str, int]:
    """Read path, hash and size of the model that a row's details name; empty where they name none in a workspace."""
    made = body.get("how")
    file = made.get("file") if isinstance(made, Mapping) else None
    if not isinstance(file, Mapping):
        return "", "", 0
    size = file.get("size_bytes")
    return relative_path(file.get("path")), str(file.get("sha256") or ""), size if isinstance(size, int) else 0


def _with_sizes(text: str, sizes: Mapping[str, int]) -> str:
    body: dict[str, Any] = json.loads(text) if text else {}
    said = body.get("made")
    made = {**(said if isinstance(said, dict) else {}), "downloads": sizes}
    return json.dumps(body | {"made": made}, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _row_of(card: Path, size: int, mtime_ns: int, inode: int) -> str:
    with card.open(encoding="utf-8") as file:
        found = _CARD_ROW.search(file.read(_CARD_BYTES))
    return found[1] if found else ""


def _zipped(files: Sequence[Path], folder: str) -> tuple[BinaryIO, list[str]]:
    """Put files into an archive without a name on the disk; give it and the hash of each file as it went in."""
    content = TemporaryFile()  # noqa: SIM115 - who sends it closes it
    digests = []
    with zipfile.ZipFile(content, "w") as archive:
        for file in files:
            digest = hashlib.sha256()
            entry = zipfile.ZipInfo(str(PurePosixPath(folder, file.name)))  # of 1980: equal files make equal archives
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
            digests.append(digest.hexdigest())
    return content, digests


def _from_start(content: BinaryIO) -> BinaryIO:
    content.seek(0)
    return content


def _changed(what: str, row_id: str) -> str:
    return f"the {what} of row {row_id[:8]} is not the one that was filed: it was changed or replaced"
