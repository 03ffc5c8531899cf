"""Class folders: `root/class/*` or `root/{train,val,test}/class/*`, grouped by a regex on the name or a built-in rule.

`cxr3` is a class folder with the rule of that name. No image is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.distill.data.images import is_image
from tutelage.records import InputError

# How people name the folders of the official splits.
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip


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
    """Make a rule's name or a regex a function from a file's name (below the root) to its group."""
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
        return found[1] if pattern.groups else found[0]

    return match


def find_split_folders(root: Path) -> dict[str, Path]:
    """Find `train`, `val`, `test` folders (and their usual other names) right below the root."""
    found: dict[str, Path] = {}
    for folder in sorted(item for item in root.iterdir() if item.is_dir()):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in found:
            raise InputError(f"{root} has both {found[split].name} and {folder.name} for the split {split!r}: keep one")
        if split:
            found[split] = folder
    return found


def _list(root: Path, group_of: Callable[[str], str], request: Request) -> Listing:
    if not root.is_dir():
        raise InputError(f"{root} is a file: data set {request.name} needs a folder with one folder a class")
    splits = find_split_folders(root) or {"": root}
    if "" not in splits and "train" not in splits:
        raise InputError(f"{root} has {', '.join(splits)} but no train folder")
    class_names = sorted(
        {folder.name for top in splits.values() for folder in top.iterdir() if folder.is_dir() and _plain(folder)}
    )
    if len(class_names) < 2:
        raise InputError(
            f"{root} holds {len(class_names)} class folders ({', '.join(class_names) or 'none'}): needs two"
        )
    paths: list[Path] = []
    labels: list[int] = []
    given: list[str] = []
    for split, top in splits.items():
        for label, class_name in enumerate(class_names):
            files = (
                sorted(path for path in (top / class_name).rglob("*") if is_image(path))
                if (top / class_name).is_dir()
                else []
            )
            paths += files
            labels += [label] * len(files)
            given += [split] * len(files)
    counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(class_names))
    empty = [class_name for class_name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise InputError(
            f"class {empty[0]} at {root} holds no image ({len(empty)} such): add images or remove the folder"
        )
    return Listing(
        root=root,
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(class_names),
        groups=np.array([group_of(path.relative_to(root).as_posix()) for path in paths], dtype=np.str_),
        splits=np.array(given, dtype="<U5"),
        near_duplicates=request.near(),
    )


def _plain(folder: Path) -> bool:
    return not folder.name.startswith((".", "__"))


def _group_rule_of(path: Path) -> dict[str, str] | None:
    """Read any folder as class folders: by patient where files are named as NIH's are (`00001280_004.png`)."""
    if not path.is_dir():
        return None
    nih = any(re.fullmatch(r"\d{8}_\d{3}", file.stem) for file in path.rglob("*") if is_image(file))
    return {"group": "cxr3" if nih else ""}


def _empty_classes(path: Path) -> list[str]:
    tops = list(find_split_folders(path).values()) or [path]
    folders = [folder for top in tops for folder in sorted(top.iterdir()) if folder.is_dir()]
    empty = [folder for folder in folders if not any(map(is_image, folder.rglob("*")))]
    return [f"class folder {folder.relative_to(path)} holds no image" for folder in empty]


NEAR_HELP = "gray levels by which copies of one picture, rotated or mirrored too, may differ; they form one group"

FOLDER = DatasetEntry(
    "folder",
    "Folders of pictures, one a class, in train, val and test folders or not.",
    list_folder,
    options={
        "group": "a rule's name (cxr3), or a regex on file names whose group 1 names the patient",
        "near": NEAR_HELP,
    },
    recognise=_group_rule_of,
    faults=_empty_classes,
)

CXR3 = DatasetEntry(
    "cxr3",
    "DarkCovidNet's three classes of chest X-rays, grouped by patient or series.",
    list_cxr3,
    options={"near": NEAR_HELP},
)
