"""A recipe: a YAML file read once into a frozen `Recipe`. An unknown key is an error."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from tutelage.inputs import ACCELERATOR, ACCELERATORS, checked_name
from tutelage.records import FaultsError, InputError

from .changes import named_twice, one_line, set_text, set_value, typed_yaml, with_current_keys, without_unwritten
from .sections import (
    BaselineSection,
    BundleSection,
    DataSection,
    DeviceSection,
    DistillSection,
    ExplainSection,
    MeasureSection,
    PrunedSection,
    QuantizeSection,
    SearchSection,
    Section,
    StudentSection,
    SupernetSection,
    TeacherSection,
)

# Winners of a search where the recipe names no number and no budget of each.
DEFAULT_WINNERS = 2
# A recipe is a page of text; anything larger is not one, and YAML parsers are slow on hostile input.
MAX_RECIPE_BYTES = 1_000_000

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80
_NAME = re.compile(r"\w[\w.-]{0,99}")


class Recipe(Section):
    """A whole run. Every field has a default but the name; `seed` decides all that is drawn."""

    name: str
    title: str = ""
    about: str = ""
    project: str = ""  # that its rows belong to
    command: str = ""
    expect: str = ""
    seed: int = Field(0, ge=0, lt=2**32)
    accelerator: str = "auto"  # where networks are trained and scored: auto, cpu, cuda, cuda:N or mps
    compile: bool = False  # by torch.compile: the supernet's largest and smallest subnet, and every network trained
    sync_batch_norm: bool = True  # of several processes: statistics of the whole batch, or of each one's rows apart
    seeds: int = Field(1, ge=1)  # students (and their controls) are trained so many times; the teachers once
    data: DataSection = DataSection()
    teachers: tuple[TeacherSection, ...] = ()
    # Where some are named, a supernet is trained only where `supernet` or `search` is written, and only where `search`
    # is written anything is searched.
    students: tuple[StudentSection, ...] = ()
    supernet: SupernetSection = SupernetSection()
    devices: tuple[DeviceSection, ...] = ()
    search: SearchSection = SearchSection()
    distill: DistillSection = DistillSection()
    baselines: tuple[BaselineSection, ...] = ()
    pruned: tuple[PrunedSection, ...] = ()
    quantize: QuantizeSection = QuantizeSection()
    measure: MeasureSection = MeasureSection()
    explain: ExplainSection = ExplainSection()
    bundle: BundleSection = BundleSection()

    @model_validator(mode="before")
    @classmethod
    def _former_keys(cls, data: Any) -> Any:
        return without_unwritten(with_current_keys(data))

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the supernet and the search that a recipe of named students does not write."""
        values: dict[str, Any] = dump(self)
        if not self.project:  # ids of rows were given out before there were any
            values.pop("project", None)
        unwritten = [name for name in ("supernet", "search") if self.students and name not in self.model_fields_set]
        return {name: value for name, value in values.items() if name not in unwritten}

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("the files of a run lie in a folder of this name: use letters, digits, dots, - and _")
        return value

    @field_validator("project")
    @classmethod
    def _a_word(cls, value: str) -> str:
        return checked_name(value)

    @field_validator("accelerator")
    @classmethod
    def _an_accelerator(cls, value: str) -> str:
        if not ACCELERATOR.fullmatch(value):
            raise ValueError(f"give {ACCELERATORS}")
        return value

    @field_validator("teachers", "students", "devices", "baselines")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [getattr(section, "title", "") or section.name for section in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice, and rows could not be distinguished: name each once")
        return value

    @model_validator(mode="after")
    def _a_winner_for_each_budget(self) -> Self:
        several = [section for section in self.devices if len(section.budgets) > 1]
        if len(several) > 1:
            raise ValueError(
                f"devices {several[0].name} and {several[1].name} both have several latency budgets, and winners are "
                "spread over one: give one of them a single max_latency"
            )
        if several and self.search.winners not in (None, len(several[0].budgets)):
            raise ValueError(
                f"search.winners = {self.search.winners}, and device {several[0].name} has {len(several[0].budgets)} "
                f"latency budgets ({several[0].max_latency}): there is one winner for each, leave search.winners out"
            )
        return self

    @property
    def searches(self) -> bool:
        """Say whether a supernet is searched; beside named students it is where the recipe has a section `search`."""
        return not self.students or "search" in self.model_fields_set

    @property
    def trains_supernet(self) -> bool:
        """Say whether a supernet is trained: for a search, or for named networks that start from it."""
        return self.searches or "supernet" in self.model_fields_set

    @property
    def num_winners(self) -> int:
        """Give how many winners a search looks for."""
        budgets = max((len(section.budgets) for section in self.devices), default=0)
        return self.search.winners or (budgets if budgets > 1 else DEFAULT_WINNERS)


class RecipeFaultsError(FaultsError):
    """A recipe whose values cannot be used: `rest` is the recipe without the sections `unread`, in which they stand."""

    def __init__(self, lines: Sequence[str], rest: Recipe, unread: Sequence[str]) -> None:
        super().__init__(lines)
        self.rest, self.unread = rest, tuple(unread)


def built_in_recipes() -> dict[str, str]:
    """Name the recipes that come with the package, with their titles."""
    folder = resources.files("tutelage.recipes")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): _yaml_of((folder / name).read_text(), name).get("title", "") for name in names}


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a built-in recipe by name or a file by path, apply `section.key=value` changes, and check it whole."""
    built_in = resources.files("tutelage.recipes") / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if built_in.is_file():
        data, origin = _yaml_of(built_in.read_text(), name_or_path), f"recipe {name_or_path}"
    elif path.is_file():
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise InputError(f"{path} is larger than {MAX_RECIPE_BYTES} bytes: that is not a recipe")
        data, origin = _yaml_of(path.read_text(errors="replace"), name_or_path), str(path)
    else:
        known = list(built_in_recipes())
        near = _nearest(name_or_path, [*_recipes_beside(path), *known])
        raise InputError(f"no recipe {name_or_path!r}{near}: give a file or one of {', '.join(known)}")
    try:
        data = with_current_keys(data)
    except ValueError as error:
        raise InputError(f"{origin}: {error}") from None
    lines = named_twice(changes)
    for change in changes:
        try:
            set_text(data, Recipe, change)
        except InputError as error:
            lines.append(str(error))
    return _validated(data, origin, lines)


def with_changes(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Apply `section.key=value` changes to a recipe that was read before."""
    data = recipe.model_dump(mode="json")
    for change in changes:
        set_text(data, Recipe, change)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"--set: {explain_validation(error, Recipe, data)}") from None


def with_options(recipe: Recipe, options: Mapping[str, object], devices: Sequence[DeviceSection] = ()) -> Recipe:
    """Apply the options of a verb (`section.key` -> value; None is not given) and the devices that it names."""
    data = recipe.model_dump(mode="json")
    for key, value in options.items():
        if value is not None:
            set_value(data, Recipe, key, value)
    if devices:
        data["devices"] = [device.model_dump(mode="json") for device in devices]
    return _validated(data, "options")


def _validated(data: dict[str, Any], origin: str, lines: Sequence[str] = ()) -> Recipe:
    """Make a recipe of values. Raises every field that is wrong, after `lines`, with what else can be read."""
    found: list[Any] = []
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        found = list(error.errors())
    if not found and not lines:
        return recipe
    said = [*lines, *(f"{origin}: {_explained(one, Recipe)}" for one in found)]
    unread = sorted({str(one["loc"][0]) for one in found if one["loc"]})
    rest = {"name": "unnamed"} | {key: value for key, value in data.items() if key not in unread}
    try:
        raise RecipeFaultsError(said, Recipe.model_validate(rest), unread)
    except ValidationError:  # sections that do not go together
        raise FaultsError(said) from None


def explain_validation(error: ValidationError, model: type[BaseModel], data: Any) -> str:
    """Say in one line what the first wrong field is and held, and for an unknown key which known one is nearest."""
    return _explained(error.errors()[0], model)


def _explained(first: Any, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, first["loc"][:-1]))
        word = str(first["loc"][-1])
        return f"unknown key {place!r}{_nearest(word, known)}; known here: {', '.join(known)}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict) and first["type"] == "value_error" and first["loc"][-1:] != ("options",):
        return f"{place}: {message}" if place else message  # two keys that do not go together
    return f"{place} = {_brief.repr(first['input'])}: {message[0].lower()}{message[1:]}"


def _yaml_of(text: str, origin: str) -> dict[str, Any]:
    try:
        data = typed_yaml(text, Recipe)
    except yaml.YAMLError as error:
        raise InputError(f"{origin} is not YAML: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{origin} is not a recipe: a mapping of sections is expected, found {type(data).__name__}")
    return data


def _fields_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    for part in place:
        if part not in model.model_fields:  # a place in a list
            continue
        annotation = model.model_fields[str(part)].annotation
        inner = [kind for kind in (annotation, *getattr(annotation, "__args__", ())) if isinstance(kind, type)]
        model = next((kind for kind in inner if issubclass(kind, BaseModel)), model)
    return list(model.model_fields)


def _recipes_beside(path: Path) -> list[str]:
    """Name the YAML files in the folder of a file that is not there, as they would be typed in its place."""
    folder = path.parent
    try:
        names = [one.name for one in folder.iterdir() if one.suffix.lower() in (".yaml", ".yml")]
    except OSError:  # no such folder, or none that may be read
        return []
    return sorted(str(folder / name) for name in names)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (nearest: {close[0]!r})" if close else ""
