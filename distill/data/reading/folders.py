"""Walk a folder for its pictures: what is no picture is counted, system folders are left out, links followed once.

`walk` lists the pictures; `find_shadows` finds the masks and thumbnails among them that another picture is beside of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.distill.data.containers.paths import Identity, children, folder_at, identity, is_dir, tree
from tutelage.records import InputError

from .suffixes import is_image, looks_like_dicom

# How people name the folders and files of the official splits; the words of the Hugging Face hub are among them
# (datasets, data_files.py).
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip

# The word alone, or beside one that says nothing: `training_set`, `train_images`, `val2017`. Other numbers are parts.
_NOTHING = r"(?:data|sets?|images?|imgs?|pictures?|folder|split|(?:19|20)\d\d)"
_SPLIT_NAME = re.compile(rf"(?:{_NOTHING}[\s_.-]*)*({'|'.join(SPLIT_FOLDERS)})(?:[\s_.-]*{_NOTHING})*")

_SYSTEM_FOLDERS = ("@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found")
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir")

# Names of folders and ends of file names that say "the mask of" or "a thumbnail of".
_SHADOWS = {
    "masks": "masks?|segmentations?|segs?|labels?|labelmaps?|ground[ _-]?truths?|gt|annotations?|overlays?",
    "thumbnails": "thumbs?|thumbnails?|previews?|icons?",
}


@dataclass
class Walk:
    """What a folder holds: `pictures` sorted by path, `skipped` other files by suffix, and pictures of `caches`.

    `again` names links to folders that were listed already.
    """

    root: Path
    pictures: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    caches: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Say what was left out."""
        notes = []
        if self.skipped:
            by_suffix = self.skipped.most_common()
            counts = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in by_suffix)
            notes.append(f"{self.skipped.total()} files that are no pictures are left out: {counts}")
        if self.caches:
            notes.append(f"{self.caches.total()} pictures in folders of the system are left out: "
                         f"{', '.join(sorted(self.caches))}")  # fmt: skip
        notes += [f"{link} leads to a folder that is listed already: left out" for link in self.again]
        return notes


def is_system(name: str) -> bool:
    """Tell a folder that a system or tool made: hidden, `__MACOSX`, `@eaDir`, checkpoints."""
    return name.startswith((".", "__")) or name.lower() in _SYSTEM_FOLDERS


def walk(root: Path, seen: set[Identity] | None = None) -> Walk:
    """List the pictures below a folder. `seen` holds the folders that were listed, by device and number, and grows."""
    found = Walk(root)
    seen = set() if seen is None else seen

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None

    for place, folders, files in tree(root, refuse):
        here = Path(place)
        if identity(here) in seen:
            found.again.append(str(here))
            folders.clear()
            continue
        seen.add(identity(here))
        for name in [name for name in folders if is_system(name)]:
            folders.remove(name)
            inside = sum(is_image(Path(file)) for _, _, names in tree(here / name, refuse) for file in names)
            found.caches.update({name: inside} if inside else {})
        folders.sort()
        for name in files:
            path = here / name
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                continue
            if is_image(path) or looks_like_dicom(path):
                found.pictures.append(path)
            else:
                found.skipped[path.suffix.lower()] += 1
    found.pictures.sort()
    return found


def find_shadows(pictures: Sequence[Path], root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Find pictures that are made from another one beside them: their kind ("masks", "thumbnails") and paths.

    A shadow lies in a folder below `root` that is named so, or its name ends (starts) with the word, and what is left
    of its name is the name of another picture: `masks/7.png` beside `images/7.png`, `7_mask.png` beside `7.png`. The
    second result are those that look like one and have no other picture beside them.
    """
    marked = {path: mark for path in pictures if (mark := _mark(path, root)) is not None}
    plain = {path.stem.lower() for path in pictures if path not in marked}
    beside: dict[str, list[Path]] = {}
    alone: dict[str, list[Path]] = {}
    for path, (kind, stem) in marked.items():
        (beside if stem in plain else alone).setdefault(kind, []).append(path)
    return beside, alone


def _mark(path: Path, root: Path) -> tuple[str, str] | None:
    """Give the kind of shadow that a path is named as, and the name of the picture it would belong to."""
    stem = path.stem.lower()
    for kind, word in _SHADOWS.items():
        inner = _without_word(stem, word)
        if inner is not None:
            return kind, inner
        if any(re.search(rf"(^|[\s_.-])({word})$", part.lower()) for part in path.relative_to(root).parts[:-1]):
            return kind, stem
    return None


def _without_word(stem: str, word: str) -> str | None:
    end = re.fullmatch(rf"(.+?)[\s_.-]+\(?({word})\)?([\s_.-]*\d+)?", stem)
    start = re.fullmatch(rf"({word})[\s_.-]+(.+)", stem)
    return end[1] if end else start[2] if start else None


def split_of_folder(name: str) -> str:
    """Give the split that a folder's name says, "" where it says none."""
    found = _SPLIT_NAME.fullmatch(name.strip().lower())
    return SPLIT_FOLDERS[found[1]] if found else ""


def is_split_folder(name: str) -> bool:
    """Tell a folder's name that says train, validation or test."""
    return split_of_folder(name) != ""


def is_mask_name(name: str) -> bool:
    """Tell a folder's name that says masks."""
    return re.search(rf"(^|[\s_.-])({_SHADOWS['masks']})$", name.lower()) is not None


def subfolders(root: Path) -> list[Path]:
    """List the folders right below a folder, without the system's, sorted by name.

    Where there are none, archives stand for the folders of their names (`folder_name`). Raises InputError for an
    archive of pictures beside folders, unless one has its name: it may be one of them, or a copy of all.
    """
    found = [item for item in children(root) if is_dir(item) and not is_system(item.name)]
    packed = [item for item in found if item.is_file()]
    plain = [item for item in found if item not in packed]
    if not plain:
        return [folder_at(root / item.stem) or item for item in packed]
    names = {item.name for item in plain}
    for item in packed:
        if item.stem not in names and walk(item).pictures:
            raise InputError(f"{item} lies beside folders ({', '.join(sorted(names)[:3])}): unpack it if it is one of "
                             "them, else move it away")  # fmt: skip
    return plain


def folder_name(folder: Path) -> str:
    """Give the name of a folder, of an archive without its suffix."""
    return folder.stem if folder.is_file() else folder.name
