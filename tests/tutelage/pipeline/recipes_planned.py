"""Recipes that have every section, opened so that they can be planned without measuring or training anything."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from PIL import Image
from pydantic import BaseModel

from tutelage.accelerator import find_accelerator
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.devices.profiles import list_profiles, load_latency_model, write_profile
from tutelage.distill.evaluation.shift_sets import ShiftSets
from tutelage.pipeline.context import Context, open_context, shift_requests
from tutelage.pipeline.device import Device, budgets_ms
from tutelage.pipeline.keys.plan import Plan, plan
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import Section
from tutelage.pipeline.stages.supernet import space_of
from tutelage.pipeline.stages.winners import Winner
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import UNREACHABLE, Arch, DeviceProfile
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
ARCHS = [SPACE.smallest(), SPACE.largest(), *SPACE.decode(SPACE.random(30, np.random.default_rng(0)))]
DEVICES = {"box": "onnxruntime", "phone": "ncnn"}


def written(folder: Path) -> Workspace:
    """Make a workspace with class folders of pictures that are not square, a file of weights, and two devices."""
    rng = np.random.default_rng(0)
    for number in range(36):
        file = folder / "images" / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(file)
    for number in range(6):  # a further test set
        file = folder / "elsewhere" / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24), dtype=np.uint8)).save(file)
    shutil.copytree(folder / "images", folder / "other", ignore=shutil.ignore_patterns("0.png"))
    for split, numbers in (("train", "[0-9].png"), ("test", "??.png")):  # a set with a test split of its own
        shutil.copytree(folder / "images", folder / "parted" / split, ignore=shutil.ignore_patterns(numbers))
    (folder / "a.safetensors").write_bytes(b"a")
    (folder / "b.safetensors").write_bytes(b"b")
    (folder / "search.json").write_text("{}")
    workspace = Workspace(folder / "w")
    macs = count(ARCHS, 2, 1).macs
    for name, runtime, precision in (("box", "onnxruntime", "fp32"), ("box-int8", "onnxruntime", "int8")):
        rows = [{"arch": arch.to_dict(), "ms": float(value) / 2e7} for arch, value in zip(ARCHS, macs, strict=True)]
        table = folder / f"{name}.json"
        table.write_text(json.dumps(rows))
        import_profile(
            name, table, runtime=runtime, folder=workspace.path / "devices", precision=precision,
            num_classes=2, in_channels=1, host="local",
        )  # fmt: skip
    chip = DeviceProfile(name="chip", runtime="litert", host=UNREACHABLE, ram_bytes=10**8, flash_bytes=10**8)
    write_profile(chip, workspace.path / "devices")
    return workspace


def recipes(folder: Path) -> dict[str, dict[str, Any]]:
    """Give recipes that together have every section: one searches at int8, one names its students, one does both."""
    common: dict[str, Any] = {
        "name": "whole",
        "data": {
            **{"dataset": "folder", "path": str(folder / "images"), "size": 32, "channels": 1},
            **{"augment": "light", "options": {"fit": "squash"}},
        },
        "teachers": [
            {"name": "resnet10t", "weights": str(folder / "a.safetensors")},
            {"name": "mobilenetv3_small_050", "options": {"drop_rate": 0.1}},
        ],
        "devices": [{"name": name, "runtime": runtime} for name, runtime in DEVICES.items()],
        "baselines": [{"name": "resnet14t", "weights": str(folder / "a.safetensors")}],
        "distill": {"teacher_mode": "together"},
        "quantize": {"qat_epochs": 1},
        "explain": {"images": 2, "method": "scorecam"},
        "measure": {"corruptions": ["gaussian_blur"], "shift_sets": {"there": str(folder / "elsewhere")}},
    }
    return {
        "searched": {
            **common,
            "teachers": common["teachers"][:1],
            "distill": {"teacher_mode": "together", "supernet_teacher": True},
            "supernet": {"weights": str(folder / "a.safetensors"), "teachers": ["resnet10t"], "bf16": False},
            "devices": common["devices"][:1],
            "pruned": [{"of": "winners", "importance": "taylor"}],
            "search": {
                "objectives": ["error@int8", "latency_ms@box", "latency_ms@box:int8"],
                "images": 2,
                "parallel": 2,
            },
        },
        "named": {
            **common,
            "baselines": [],
            "students": [
                {"name": "resnet10t", "title": "small", "weights": str(folder / "a.safetensors")},
                {"name": "resnet14t", "epochs": 0, "weights": str(folder / "a.safetensors")},
            ],
        },
        "both": {
            **{name: common[name] for name in ("name", "data")},
            "teachers": [{"name": "resnet10t"}],
            "students": [{"name": "EEEA-Net-C1"}],
            "supernet": {"epochs": 2},
            "search": {"objectives": ["error", "latency_ms@box"]},
            "devices": common["devices"][:1],
            "baselines": [{"name": "EEEA-Net-C2"}, {"name": "mobilenetv3_small_050"}],
        },
    }


class Planner:
    """Plans recipes in one workspace; images are read once for each way in which they are read."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._opened: dict[str, Context] = {}
        stored = list_profiles(workspace.path)
        timed = [(profile, folder) for profile, folder in stored if profile.latency_model]
        self._profiles = {
            profile.name: (profile, folder, load_latency_model(profile, folder)) for profile, folder in timed
        }

    def context(self, values: Mapping[str, Any]) -> Context:
        """Open a recipe, given as plain values."""
        recipe = Recipe.model_validate(values)
        key = json.dumps([recipe.data.model_dump(mode="json"), recipe.seed])
        if key not in self._opened:
            self._opened[key] = open_context(recipe, self.workspace, silent, 1)
        accelerator = find_accelerator(recipe.accelerator, compiles=recipe.compile)
        dataset = self._opened[key].dataset
        sets = ShiftSets(shift_requests(recipe, self.workspace), dataset)
        return Context(recipe, self.workspace, dataset, silent, 1, accelerator=accelerator, shift_sets=sets)

    def plan(self, values: Mapping[str, Any]) -> Plan:
        """Plan a recipe, given as plain values, as if its search had found the smallest subnet."""
        ctx = self.context(values)
        space = space_of(ctx)
        names = [name for name in ctx.recipe.search.objectives if name.startswith("latency_ms@")]
        weighed = [name.removeprefix("latency_ms@").replace(":", "-") for name in names]
        sections = {section.name: section for section in ctx.recipe.devices}
        own = {name: sections.get(name.removesuffix("-int8"), ctx.recipe.devices[0]) for name in weighed}
        known = {name: self._device(name, section, space) for name, section in own.items()}
        devices = [known.get(name) or self._device(name, section, space) for name, section in sections.items()]
        return plan(ctx, devices, list(known.values()), [_winner(space.smallest())])

    def device(self, name: str, ctx: Context) -> Device:
        """Open a device of the recipe."""
        section = next(section for section in ctx.recipe.devices if section.name == name)
        return self._device(name, section, space_of(ctx))

    def _device(self, name: str, section: Any, space: Any) -> Device:
        """Open a device as its section says it is, with the latency model of `box`."""
        profile, folder, model = self._profiles["box-int8" if name.endswith("-int8") else "box"]
        said = {"name": name, "runtime": section.runtime, "threads": section.threads, "batch": section.batch}
        budgets = budgets_ms(section, model, space)
        largest = budgets[-1] if budgets else None
        return Device(profile.model_copy(update=said), folder, model, largest, section.risk, budgets)


def _winner(arch: Arch) -> Winner:
    return Winner(arch.short_name, arch, 0.1, {}, {}, {}, {})


@dataclass(frozen=True)
class Field:
    """A field of a recipe: its dotted name, the path to it in a recipe's plain values, and its declared type."""

    name: str
    path: tuple[str | int, ...]
    annotation: Any


def fields(kind: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[Field]:
    """Walk the models of a recipe; a section that `values` lacks or leaves empty has none."""
    for name, info in kind.model_fields.items():
        if name not in values:  # a section that a recipe of named students does not write
            continue
        inner = next((one for one in _types(info.annotation) if _is_section(one)), None)
        path: tuple[str | int, ...] = (name,)
        if inner is None or not issubclass(inner, Section):
            yield Field(f"{prefix}{name}", path, info.annotation)
            continue
        below = values[name]
        if get_origin(info.annotation) is tuple:
            if not below:
                continue
            below, path = below[0], (name, 0)
        for one in fields(inner, below, f"{prefix}{name}."):
            yield Field(one.name, (*path, *one.path), one.annotation)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _types(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (Union, UnionType, tuple, Annotated):
        for one in get_args(kind):
            yield from _types(one)
    else:
        yield kind


# A field of the recipe -> another value, where its type does not say one. FOLDER stands for that of the files.
FLIPS: dict[str, Any] = {
    "name": "renamed",
    "accelerator": "mps",
    "data.dataset": "phantom",
    "data.path": "FOLDER/other",
    "data.size": 48,
    "data.limit": 30,
    "data.val_fraction": 0.3,
    "data.test_fraction": 0.35,
    "data.fold": 1,
    "data.folds": 4,
    "data.augment": "none",
    "data.options": {"fit": "crop"},
    "teachers.name": "resnet14t",
    "teachers.weights": "FOLDER/b.safetensors",
    "teachers.options": {"drop_rate": 0.2},
    "teachers.epochs": 0,
    "students.name": "resnet14t",
    "students.weights": "FOLDER/b.safetensors",
    "students.options": {"drop_rate": 0.2},
    "students.start": "fresh",
    "students.epochs": 0,
    "students.arch": {"space": "ofa_mbv3_w1.0", "d": [2] * 5, "ks": [3] * 10, "e": [3] * 10, "r": 32},
    "pruned.of": "resnet14t",
    "pruned.keep": "60%",
    "supernet.space": "ofa_mbv3_w1.2",
    "supernet.resolutions": [16, 32],
    "supernet.teachers": [],
    "supernet.weights": "FOLDER/b.safetensors",
    "devices.runtime": "openvino",
    "devices.max_latency": "50%",
    "search.strategy": "random",
    "search.max_macs": "20M",
    "search.max_params": "5M",
    "search.max_size": "8MB",
    "search.max_ram": "40MB",
    "search.max_energy": "3mJ",
    "search.target": "chip",
    "search.replay": "FOLDER/search.json",
    "search.objectives": ["error@int8", "latency_ms@box:int8"],
    "distill.method": "at",
    "distill.options": {"student_layers": ["x"]},
    "distill.teacher_mode": "each",
    "quantize.method": "percentile",
    "measure.corruptions": ["jpeg"],
    "measure.severities": [2],
    "measure.shift_sets": {"elsewhere": "FOLDER/elsewhere"},
    "baselines.name": "resnet18",
    "baselines.weights": "FOLDER/b.safetensors",
    "baselines.start": "fresh",
    "baselines.options": {"drop_rate": 0.2},
}
# Of these recipes only these fields are walked: the others have all of the rest.
WALKED: dict[str, tuple[str, ...]] = {"both": ("students.start", "baselines.", "supernet.epochs")}
# What is changed beside it, without which it is refused.
BESIDE: dict[str, dict[str, Any]] = {
    "data.dataset": {"data.path": None, "data.options": {}, "measure.shift_sets": {}},
    "data.folds": {"data.fold": 1},
    "data.whole_test": {"data.path": "FOLDER/parted", "data.limit": 20},
}


def flipped(field: Field, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Give a recipe's values with another value of one field."""
    changed = copy.deepcopy(dict(values))
    for name, value in BESIDE.get(field.name, {}).items():
        section, _, key = name.partition(".")
        changed[section][key] = value.replace("FOLDER", str(folder)) if isinstance(value, str) else value
    place: Any = changed
    for part in field.path[:-1]:
        place = place[part]
    place[field.path[-1]] = _another(field, place[field.path[-1]], folder)
    return changed


def _another(field: Field, value: Any, folder: Path) -> Any:
    if field.name in FLIPS:
        declared = FLIPS[field.name]
        return json.loads(json.dumps(declared).replace("FOLDER", str(folder)))
    kinds = list(_types(field.annotation))
    for kind in kinds:
        if get_origin(kind) is Literal:
            return next(word for word in get_args(kind) if word != value)
    if bool in kinds:
        return not value
    if value is None:
        return 0.5 if float in kinds else 3
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.01 if value else 0.25
    assert isinstance(value, str), f"FLIPS must say another value of {field.name}: {value!r}"
    return f"{value}x"
