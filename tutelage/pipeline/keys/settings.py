"""The settings that one network of a recipe is a result of: by them a later run of the same is known.

`settings_of` gives those of a row that is filed now; `file_earlier_settings` fills them in where an older version of
this package filed rows without them.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from tutelage.leaderboard.store import Store
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import DistillSection
from tutelage.records import InputError, Row, Student

# How a run is called, what it measures how long and on what beside: no part of what a network is a result of.
_NO_SETTINGS = (
    *("name", "title", "about", "command", "expect", "seed", "seeds", "baselines", "devices", "search"),
    *("measure", "explain", "accelerator", "bundle", "project"),
)
# Of `distill`, what a network without a teacher does not read.
_SOFT = ("alpha", "method", "temperature", "soft_weight", "combine", "options", "teacher_weight")
# Which rows there are, and nothing of any of them; and what each row says itself.
_CHOICE = ("teacher_mode", "teachers", "self_teacher", "supernet_teacher", "baselines", "start")
_EPOCHS = DistillSection().epochs


def settings_of(recipe: Recipe, student: Student, scheme: str) -> dict[str, Any]:
    """Give the settings that one network of a recipe is a result of, without those that are at their default.

    Without the defaults a setting that a later version adds changes nothing. Where the images lie and how they are
    called is no setting: their manifest says what they are.
    """
    said = recipe.model_dump(
        mode="json",
        exclude_defaults=True,
        exclude={**dict.fromkeys(_NO_SETTINGS, True), "data": {"path", "workers"}},
    )
    options = said.get("data", {}).get("options", {})
    if options.pop("title", None) is not None and not options:
        del said["data"]["options"]
    reads_supernet = _reads_supernet(recipe, student)
    teachers = {student.model} if student.role == "teacher" else set(student.teacher.split("+"))
    if reads_supernet:
        teachers |= set(recipe.supernet.teachers)
    said["teachers"] = [one for one in said.get("teachers", ()) if one["name"] in teachers]
    origin = student.pruned.parent if student.pruned is not None else student.model
    said["students"] = [
        _of_network(one, student) for one in said.get("students", ()) if (one.get("title") or one["name"]) == origin
    ]
    # The row says a baseline's name; what it started from, and how that was trained on, stands in the recipe alone.
    said["baselines"] = [
        _of_network(one.model_dump(mode="json", exclude_defaults=True), student)
        for one in recipe.baselines
        if (one.weights is not None or one.options or (student.pruned and (one.epochs or one.start != "auto")))
        and (one.title or one.name) == origin
        and (student.pruned or student.role == "baseline")
    ]
    for section, unread in (
        ("distill", (*_CHOICE, *(() if student.teacher else _SOFT))),
        ("quantize", () if scheme == "int8-qat" else [name for name in said.get("quantize", ()) if name[:4] == "qat_"]),
    ):
        said[section] = {name: value for name, value in said.get(section, {}).items() if name not in unread}
    if student.role != "teacher" and student.epochs:  # its own, whatever the recipe's
        said["distill"].pop("epochs", None)
        said["distill"] |= {"epochs": student.epochs} if student.epochs != _EPOCHS else {}
    if _reads_largest(recipe, student):  # whose batch norm is calibrated as the search does it
        said["search"] = recipe.search.model_dump(mode="json", exclude_defaults=True, include={"calibration_batches"})
    unused = {
        "supernet": not reads_supernet,
        "distill": student.role == "teacher",
        "pruned": student.pruned is None,
        "quantize": scheme == "fp32",
    }
    return {name: value for name, value in said.items() if value and not unused.get(name, False)}


def _reads_supernet(recipe: Recipe, student: Student) -> bool:
    """Say whether a network is a result of the recipe's supernet: by its start, by its teacher, or by its parent's."""
    if student.teacher == recipe.supernet.space:
        return True
    if student.pruned is None and student.start:
        return student.start == "supernet"
    # A row of an earlier version does not say its start: the subnets of a search began as those of its supernet.
    if student.pruned is None or student.arch is None or not recipe.trains_supernet:
        return student.subnet is not None and recipe.searches
    named = (one for one in (*recipe.students, *recipe.baselines) if (one.title or one.name) == student.pruned.parent)
    parent = next(named, None)
    if parent is None:
        return recipe.searches and recipe.distill.start == "supernet"
    return parent.weights is None and parent.start != "fresh" and student.arch.space == recipe.supernet.space


def _reads_largest(recipe: Recipe, student: Student) -> bool:
    """Say whether a network is the largest subnet of the recipe's supernet, or distilled by it."""
    return student.teacher == recipe.supernet.space or (student.role == "teacher" and student.start == "supernet")


def _of_network(section: dict[str, Any], student: Student) -> dict[str, Any]:
    """Give the settings of a named network without what its record says as it came out: its start and its epochs.

    The record of a pruned network says those of its fine-tuning, and nothing of its parent's.
    """
    if student.pruned is not None:
        return section
    values = {name: value for name, value in section.items() if name != "start" and (name != "epochs" or value == 0)}
    return {**values, "start": "supernet"} if student.start == "supernet" else values


def file_earlier_settings(store: Store) -> int:
    """File the settings of rows that lack them, from the recipe that each recorded; count the rows that have them now.

    What later runs of the same have then superseded is no longer current.
    """
    return store.file_settings(recorded_settings)


def recorded_settings(row: Row) -> dict[str, Any] | None:
    """Give the settings of a row by its recorded recipe and network; None where these do not say them.

    None for recipes that this version does not read, and where the images are not known: no run is known to be on them.
    """
    made = row.details.get("how")
    if not isinstance(made, dict) or not row.manifest or row.source != "measured":
        return None
    try:
        recipe, student = Recipe.model_validate(made.get("recipe")), Student.model_validate(made.get("network"))
    except (ValidationError, InputError):
        return None
    if (recipe.name, student.role, student.teacher) != (row.recipe, row.role, row.teacher):
        return None
    return settings_of(recipe, student, row.scheme)
