"""Recipes: every built-in one is whole, and wrong input is one line that names the value and the remedy."""

from pathlib import Path

import pytest
import yaml

from tutelage.recipe import built_in_recipes, load_recipe
from tutelage.records import InputError


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_built_in_recipes_say_what_they_are(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert recipe.expect
    assert recipe.command.startswith(f"tutelage run {name}")


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "distill": {"temprature": 3}}))
    with pytest.raises(InputError, match=r"unknown key 'distill.temprature' \(nearest: 'temperature'\)"):
        load_recipe(str(path))


def test_unknown_key_in_a_list_entry_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "teachers": [{"name": "resnet18", "epoch": 3}]}))
    with pytest.raises(InputError, match=r"teachers.0.epoch' \(nearest: 'epochs'\)"):
        load_recipe(str(path))


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(InputError, match="nearest: 'demo'"):
        load_recipe("deom")


def test_a_value_out_of_range_is_shown() -> None:
    with pytest.raises(InputError, match=r"distill\.alpha = 1\.5"):
        load_recipe("demo", ["distill.alpha=1.5"])


def test_set_reaches_list_entries_by_name_and_by_place() -> None:
    first = load_recipe("demo").teachers[0].name
    assert load_recipe("demo", [f"teachers.{first}.epochs=7"]).teachers[0].epochs == 7
    assert load_recipe("demo", ["teachers.0.epochs=9"]).teachers[0].epochs == 9
    more = load_recipe("cxr3-folds-teachers", ["students.3={name: mobilenetv3_small_100}"])
    assert [student.name for student in more.students][2:] == ["mobilenetv2_100", "mobilenetv3_small_100"]
    assert load_recipe("demo", ["seed=3"]).seed == 3
    added = load_recipe("demo", ["pruned.0={of: winners, keep: 40%}", "pruned.1={of: EEEA-Net-C1}"]).pruned
    assert [(one.of, one.share) for one in added] == [("winners", 0.4), ("EEEA-Net-C1", 0.5)]
    with pytest.raises(InputError, match="the list has 3 entries"):
        load_recipe("cxr3-folds-teachers", ["students.4={name: mobilenetv3_small_100}"])
    with pytest.raises(InputError, match="no entry 'nobody'"):
        load_recipe("demo", ["teachers.nobody.epochs=9"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "just words"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml"):
        load_recipe(str(path))
