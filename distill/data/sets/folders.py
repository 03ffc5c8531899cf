"""Class folders: `root/class/*` or `root/{train,val,test}/class/*`, grouped by a regex on the name or a built-in rule.

`cxr3` is a class folder with the rule of that name. No image is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tutelage.distill.data.containers.naming import own_name
from tutelage.distill.data.containers.packed import is_archive
from tutelage.distill.data.containers.paths import (
    Identity,
    children,
    container_of,
    identity,
    is_dir,
    is_file,
    top_of,
)
from tutelage.distill.data.containers.shards import split_word
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.distill.data.reading.dicom_listing import with_heads
from tutelage.distill.data.reading.folders import (
    Walk,
    find_shadows,
    folder_name,
    is_mask_name,
    is_split_folder,
    split_of_folder,
    subfolders,
    walk,
)
from tutelage.distill.data.reading.suffixes import is_image
from tutelage.distill.data.reading.tables import is_table
from tutelage.records import InputError


def cxr3_group(name: str) -> str:
    """Name the patient of a DarkCovidNet X-ray: the 8 digits of an NIH file, or the series of a COVID file.

    A series is a report or paper whose figures are lettered or dated: `-fig1a`/`-fig1b`, `gr2_lrg-b`, `-day6`,
    `-12-hours`, `-admission`, `-PA`, `-left`. Where one publication shows several cases, they are kept together.
    """
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    if nih := re.match(r"^(\d{8})_\d{3}$", stem):
        return nih[1]
    if re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", stem):
        return stem  # a file named by a random id: nothing to group by
    if press := re.match(r"^auntminnie-[a-z]-(.+)$", stem):
        return f"auntminnie-{press[1]}"
    steps = (
        r"-(left|right|PA|AP|pa|ap)$",
        r"[-_]?(day-?\d+|\d+-(days|hours)|admission)$",
        r"[-_.](fx|gr|fig|f|g)-?\d+(-l|-m)?(_lrg|_HTML)?(\.webp)?[-_]?[a-z]?(-l-[a-z])?$",
        r"[-_][a-z]\d?$",
        r"\.pdf-\d{3}$",
        r"-fig-\d+-m$",
        r"(?<=case)\d+[a-z]$",
        r"-g\d{3}(-l)?$",
        r"[-_.]$",
    )
    changed = True
    while changed:
        changed = False
        for step in steps:
            shorter = re.sub(step, "", stem, flags=re.IGNORECASE)
            if shorter and shorter != stem:
                stem, changed = shorter, True
    return stem


GROUP_RULES: dict[str, Callable[[str], str]] = {"cxr3": cxr3_group}


def list_folder(request: Request) -> Listing:
    """List class folders, grouped by the option `group`."""
    group_of = group_rule(str(request.option("group", "")))
    return _list(request.where(), group_of, request)


def list_cxr3(request: Request) -> Listing:
    """List DarkCovidNet's three classes of chest X-rays, grouped by patient or series."""
    return _list(request.where(), cxr3_group, request)


def group_rule(rule: str) -> Callable[[str], str]:
    """Make a rule's name or a regex a function from a file's name (below the root) to its group.

    A file whose name the regex matches without its group 1 is a group of its own.
    """
    if not rule:
        return lambda name: name
    if rule in GROUP_RULES:
        return GROUP_RULES[rule]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise InputError(f"group {rule!r} is neither a rule ({', '.join(GROUP_RULES)}) nor a regex: {error}") from None

    def match(name: str) -> str:
        found = pattern.search(name.rsplit("/", 1)[-1])
        if found is None:
            raise InputError(f"group regex {rule!r} does not match {name}: widen it")
        group: str | None = found[1] if pattern.groups else found[0]
        return name if group is None else group  # no patient in this name: a group of its own

    return match


def find_split_folders(root: Path) -> dict[str, Path]:
    """Find `train`, `val`, `test` folders (and their usual other names) right below the root, if they hold classes.

    A folder of that name that holds pictures itself is a class (`normal/`, `test/`). InputError for two folders of one
    split, and for one split folder beside folders that are none: what they are is not known.
    """
    found: dict[str, Path] = {}
    others: list[Path] = []
    for folder in subfolders(root):
        split = split_of_folder(folder_name(folder))
        if not split or _holds_pictures(folder):
            others.append(folder)
        elif split in found:
            raise InputError(f"{root} has both {found[split].name} and {folder.name} for the split {split!r}: keep one")
        else:
            found[split] = folder
    beside = [folder_name(folder) for folder in others if walk(folder).pictures] if len(found) == 1 else []
    if beside:
        (only,) = found.values()
        raise InputError(
            f"{root} has the folder {only.name}, named like a split, and beside it {', '.join(beside[:3])}: put all "
            "classes into train, val and test folders, or none"
        )
    return found


def _holds_pictures(folder: Path) -> bool:
    return any(is_file(item) and is_image(item) for item in children(folder))


@dataclass
class _Gathered:
    """The pictures of class folders, and what is said of them, while they are listed."""

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    walks: list[Walk] = field(default_factory=list)
    shadows: dict[str, list[Path]] = field(default_factory=dict)
    alone: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, folder: Path, label: int, split: str, seen: set[Identity], others: set[Identity]) -> None:
        """List one class folder, without the masks and thumbnails of its own pictures.

        A link in it to one of `others`, the folders of all classes, is not followed: its pictures are of that class.
        """
        beside = others - {identity(folder)}
        walked = walk(folder, known := seen | beside)
        seen |= known - beside
        if walked.again and not walked.pictures:
            raise InputError(f"class folder {folder} is a link to a folder that is listed already: remove it")
        shadows, alone = find_shadows(walked.pictures, folder)
        hidden = {path for paths in shadows.values() for path in paths}
        kept = [path for path in walked.pictures if path not in hidden]
        self.paths += kept
        self.labels += [label] * len(kept)
        self.splits += [split] * len(kept)
        self.walks.append(walked)
        for kind, paths in shadows.items():
            self.shadows.setdefault(kind, []).extend(paths)
        for kind, paths in alone.items():
            self.alone.setdefault(kind, []).extend(paths)

    def notes(self, root: Path) -> list[str]:
        """Say what was left out, and what may be no picture of its class."""
        whole = Walk(root)
        for walked in self.walks:
            whole.skipped.update(walked.skipped)
            whole.caches.update(walked.caches)
            whole.again += walked.again
        notes = whole.notes()
        for kind, paths in self.shadows.items():
            example = paths[0].relative_to(root).as_posix()
            notes.append(f"{len(paths)} {kind} of pictures beside them are left out, e.g. {example}")
        for kind, paths in self.alone.items():
            example = paths[0].relative_to(root).as_posix()
            notes.append(f"{len(paths)} pictures are named as {kind} and are read as images, e.g. {example}")
        return notes


def _list(root: Path, group_of: Callable[[str], str], request: Request) -> Listing:
    if not is_dir(root):
        raise InputError(f"{root} is a file: data set {request.name} needs a folder with one folder a class")
    splits = find_split_folders(root) or {"": root}
    if "" not in splits and "train" not in splits:
        raise InputError(f"{root} has {', '.join(splits)} but no train folder")
    class_names = sorted({name for top in splits.values() for name in _class_folders(top)})
    if len(class_names) < 2:
        raise InputError(
            f"{root} holds {len(class_names)} class folders ({', '.join(class_names) or 'none'}): needs two"
            + _instead(root)
        )
    folders = [(split, name, folder) for split, top in splits.items() for name, folder in _class_folders(top).items()]
    gathered, seen = _Gathered(), set[Identity]()
    every = {identity(folder) for _, _, folder in folders}
    for split, class_name, folder in folders:
        gathered.add(folder, class_names.index(class_name), split, seen, every)
    paths, notes = gathered.paths, gathered.notes(root)
    counts = np.bincount(np.array(gathered.labels, dtype=np.int64), minlength=len(class_names))
    empty = [class_name for class_name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise InputError(
            f"class {empty[0]} at {root} holds no image ({len(empty)} such): add images or remove the folder"
            + (f"; {'; '.join(notes)}" if notes else "")
        )
    notes += _unlisted(root, splits, class_names)
    listing = Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(gathered.labels, dtype=np.int64),
        class_names=tuple(class_names),
        groups=np.array([group_of(path.relative_to(root).as_posix()) for path in paths], dtype=np.str_),
        splits=np.array(gathered.splits, dtype="<U5"),
        near_duplicates=request.near(),
        notes=tuple(notes),
    )
    return with_heads(listing, grouped=request.name != "folder" or bool(request.option("group", "")))


def _instead(root: Path) -> str:
    """Say what lies in the place of class folders: an archive inside an archive, pictures without labels."""
    files, archive = [item for item in children(root) if not is_dir(item)], container_of(root)
    packed, num_pictures = [item.name for item in files if is_archive(item)], sum(map(is_image, files))
    notes = ""
    if archive is not None and packed:
        notes += f"; {archive[0].name} holds {packed[0]}, and no archive is read inside another: unpack it"
    if tables := [item.name for item in files if is_table(item)]:
        notes += f"; {tables[0]} lies there: if it lists the pictures, give {root / tables[0]}"
    if num_pictures:
        labels = "" if archive is None else ", and no .cls, .json or .txt beside them names their classes"
        notes += f"; {num_pictures} pictures lie in no class folder{labels}"
    return notes


def _class_folders(top: Path) -> dict[str, Path]:
    """Give class folders by name; archives that are parts of a data set, each with several classes, are an error."""
    found = {folder_name(folder): folder for folder in subfolders(top)}
    packed = {name: folder for name, folder in found.items() if container_of(folder) and not container_of(top)}
    inside = {name: [one.name for one in subfolders(folder)] for name, folder in packed.items()}
    parts = [name for name, below in inside.items() if len(below) > 1 and list(inside.values()).count(below) > 1]
    parts += [name for name in packed if split_word(name)]
    if parts:
        raise InputError(f"{found[parts[0]]} is a part of a data set and no class ({', '.join(inside[parts[0]][:3])}): "
                         "unpack the parts into one folder, or say data.dataset: webdataset")  # fmt: skip
    return found


def _unlisted(root: Path, splits: dict[str, Path], class_names: Sequence[str]) -> list[str]:
    """Note pictures beside class folders, folders beside split folders, and a class that is named as masks are."""
    notes = []
    for top in splits.values():
        loose = [item for item in children(top) if is_file(item) and is_image(item)]
        if loose:
            notes.append(f"{len(loose)} pictures lie in {top} beside the class folders and are left out")
    if "" not in splits:
        others = [folder.name for folder in subfolders(root) if folder not in splits.values()]
        if others:
            notes.append(f"folders beside the splits are left out: {', '.join(others[:5])}")
    notes += [f"class {name} is named as masks are: are its pictures the masks of another class?"
              for name in class_names if is_mask_name(name)]  # fmt: skip
    return [*notes, *_levels(splits, class_names)]


def _levels(splits: dict[str, Path], class_names: Sequence[str]) -> list[str]:
    """Note folders of the same names in all class folders: they may be the classes, those above them folds or sites."""
    folders = [folder for top in splits.values() for folder in _class_folders(top).values()]
    inside = [{folder_name(one) for one in subfolders(folder)} for folder in folders if not _holds_pictures(folder)]
    common = sorted(name for name in set.intersection(*inside) if not is_mask_name(name)) if inside else []
    if len(inside) < len(folders) or len(common) < 2:
        return []
    return [f"each of the classes {', '.join(class_names[:3])} holds the folders {', '.join(common[:3])}, whose names "
            "are not read: if they are the classes, or splits, lay the data out by these"]  # fmt: skip


def _group_rule_of(path: Path) -> dict[str, str] | None:
    """Read any folder as class folders: by patient where files are named as NIH's are (`00001280_004.png`)."""
    try:
        pictures = walk(top_of(path, is_split_folder)).pictures if is_dir(path) else None
    except InputError:  # a damaged archive: the listing says it
        pictures = []
    if pictures is None:
        return None
    nih = any(re.fullmatch(r"\d{8}_\d{3}", file.stem) for file in pictures)
    return {"group": "cxr3" if nih else ""}


def _empty_classes(path: Path) -> list[str]:
    try:
        path = top_of(path, is_split_folder)
        tops = list(find_split_folders(path).values()) or [path]
    except InputError:  # the listing says it
        return []
    empty = [folder for top in tops for folder in subfolders(top) if not walk(folder).pictures]
    return [f"class folder {folder.relative_to(path)} holds no image" for folder in empty]


NEAR_HELP = "gray levels by which copies of one picture, rotated or mirrored too, may differ; they form one group"

FOLDER = DatasetEntry(
    "folder",
    "Folders of pictures or DICOM files, one a class, in train, val and test folders or not.",
    list_folder,
    options={
        "group": "a rule's name (cxr3), or a regex on file names whose group 1 names the patient (DICOM: PatientID)",
        "near": NEAR_HELP,
    },
    recognise=_group_rule_of,
    faults=_empty_classes,
    called=lambda request: own_name(request.path),
)

CXR3 = DatasetEntry(
    "cxr3",
    "DarkCovidNet's three classes of chest X-rays, grouped by patient or series.",
    list_cxr3,
    options={"near": NEAR_HELP},
)
