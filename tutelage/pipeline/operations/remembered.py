"""The recipe of a workspace's last search or run: `distill`, `explain`, `quantize` and `bundle` go on with it.

`remember` files it as `recipe.yaml` in the workspace, with the options of the command in their keys, so that it can be
read, edited and run. `recall` gives it to a verb that is given no recipe.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from tutelage.files import write_text
from tutelage.pipeline.recipe import Recipe, built_in_recipes, load_recipe
from tutelage.records import InputError

FILE = "recipe.yaml"
DEFAULT = "demo"  # of a workspace in which nothing was searched or run
_OF_ITS_DATA = ("title", "about", "expect")  # what a built-in recipe says of the images that it comes with


def remember(recipe: Recipe, workspace: Path) -> None:
    """File a recipe as the last one of its workspace; a file that says the same stays, with its comments."""
    place = workspace / FILE
    if place.is_file():
        try:
            found = load_recipe(str(place))
            # Recipes compare as equal where one has a section at its defaults that the other does not write.
            if found == recipe and _written(found) == _written(recipe):
                return
        except InputError:  # damaged, or of another version: it is replaced
            pass
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    values |= {name: {} for name in _written(recipe) - values.keys()}
    if recipe.name in built_in_recipes() and recipe.data.dataset != load_recipe(recipe.name).data.dataset:
        values = {key: value for key, value in values.items() if key not in _OF_ITS_DATA}
    head = "# The recipe of the last search or run in this workspace; the next one replaces this file.\n"
    write_text(place, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def recall(named: str | None, workspace: Path) -> tuple[str, str]:
    """Give the recipe that a verb goes on with, by name or file, and a line that says which where none was `named`."""
    place = workspace / FILE
    if named is not None:
        return named, ""
    if not place.is_file():
        return DEFAULT, f"recipe: {DEFAULT}, since nothing was searched or run in {workspace}; --recipe names another"
    return str(place), f"recipe: {place}, of the last search or run; --recipe names another"


def _written(recipe: Recipe) -> set[str]:
    """Name the sections that count by being written (`search: {}`): beside named students a supernet and a search."""
    return recipe.model_fields_set & {"supernet", "search"} if recipe.students else set()
