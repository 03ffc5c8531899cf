"""Recipes: every built-in one is whole, and wrong input is one line that names the value and the remedy."""

from pathlib import Path

import pytest
import yaml

from tutelage.distill.teachers.zoo import timm_name
from tutelage.pipeline.changes import FORMER_KEYS
from tutelage.pipeline.recipe import Recipe, built_in_recipes, load_recipe, with_options
from tutelage.pipeline.weights.entry import Wanted
from tutelage.pipeline.weights.given import find_weights
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
    assert [(one.of, one.keep_fraction) for one in added] == [("winners", 0.4), ("EEEA-Net-C1", 0.5)]
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


TEXTS = ["2024", "1e3", "yes", "no", "#x", "images #1", "a: b", "[x", "2024-13-45", "=", "0x1F", "null.png", "&a", "*"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_field_takes_what_was_written(text: str) -> None:
    assert load_recipe("demo", ["data.dataset=folder", f"data.path={text}"]).data.path == Path(text)
    assert load_recipe("demo", [f"title={text}"]).title == text
    assert load_recipe("demo", [f"teachers.0.weights={text}"]).teachers[0].weights == text
    options = {"data.dataset": "folder", "data.path": Path(text)}
    assert with_options(load_recipe("demo"), options).data.path == Path(text)


@pytest.mark.parametrize("text", ["2024", "1e3", "yes", "no", "2024-13-45", "=", "0x1F"])
def test_a_text_field_of_a_file_or_a_list_takes_what_was_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"name: mine\ntitle: {text}\nbaselines: [{text}]\n"
        f"teachers: [{{name: {text}, epochs: 3}}]\ndata: {{dataset: folder, path: {text}}}\n"
    )
    recipe = load_recipe(str(file))
    assert (recipe.title, recipe.baselines[0].name, recipe.teachers[0].name) == (text, text, text)
    assert (recipe.data.path, recipe.teachers[0].epochs) == (Path(text), 3)
    assert load_recipe("demo", [f"supernet.teachers=[{text}, 'a, b']"]).supernet.teachers == (text, "a, b")


def test_what_is_no_text_stays_yaml_and_quotes_and_null_keep_their_meaning() -> None:
    changes = ["distill.epochs=7", "data.leaky=yes", "search.max_params=3000000", "devices=[]", "data.options.near=20"]
    changes.append("data.dataset=folder")
    recipe = load_recipe("demo", [*changes, "data.path='a b'", 'title=""', "distill.lr=1e-4"])
    assert (recipe.distill.epochs, recipe.data.leaky, recipe.search.max_params) == (7, True, "3000000")
    assert (recipe.devices, recipe.data.options["near"], recipe.data.path) == ((), 20, Path("a b"))
    assert (recipe.title, recipe.distill.lr) == ("", 1e-4)
    assert load_recipe("demo", ["search.max_params="]).search.max_params is None
    for nothing in ("null", "~", ""):
        assert load_recipe("demo", ["data.path=x", f"data.path={nothing}"]).data.path is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed.x.y=3", "seed is 0 and has no keys below it"),
        ("seed.x=3", "seed is 0 and has no keys below it"),
        ("data.dataset.x=3", "data.dataset is 'phantom' and has no keys"),
        ("teachers.name=x", "'name' is no place in the list"),
        ("teachers.0.name.x=3", "has no keys below it"),
        ("teachers.-1={name: x}", "'-1' is no place in the list"),
        ("devices.99.name=x", "no entry '99'"),
        ("supernet.resolutions.0.x=3", "the list is empty"),
        ("nowhere.x=3", "unknown key 'nowhere'"),
        ("data.nothing.x=3", "unknown key 'data.nothing'"),
        ("data..x=3", "write the key as section.key"),
        ("=3", "write the key as section.key"),
        ("epochs", "write key=value"),
        ("data=3", "data = 3"),
        ("teachers=3", "teachers = 3"),
        ("teachers=[3]", r"teachers\.0 = 3"),
        ("distill.epochs=yes", r"distill\.epochs = True"),
        ("distill.epochs=1.5", r"distill\.epochs = 1\.5"),
        ("distill.epochs=", r"distill\.epochs = None"),
        ("distill.lr=.nan", r"distill\.lr = nan"),
        ("distill.lr=.inf", r"distill\.lr = inf"),
        ("distill.lr=[1", "is not YAML"),
        ("distill.lr=2024-13-45", "cannot be read"),
        ("seed=-1", "seed = -1"),
        ("seed=1e30", "seed = '1e30'"),
        ("data.options={near: 1, near: 2}", "'near' is given twice"),
        ("search.max_params=3MB", "'3MB' is not a count"),
        ("search.max_size=8M", "'8M' is not a size"),
        ("search.max_macs=-3", "'-3' is not a count"),
        ("devices.0.max_latency=5", "'5' is not a latency"),
        ("devices.0.max_latency=-1%", "'-1%' is not a percentage"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_line(change: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        load_recipe("demo", ["seed=0", change])
    assert "\n" not in str(refused.value)
    assert "Value error" not in str(refused.value)


def test_a_number_of_subnets_that_a_method_does_not_use_is_refused() -> None:
    with pytest.raises(InputError, match=r"num_random = 1 has no effect under method progressive: set it to null"):
        load_recipe("demo", ["supernet.method=progressive"])
    assert load_recipe("demo", ["supernet.method=progressive", "supernet.num_random=null"]).supernet.num_random is None
    with pytest.raises(InputError, match="num_random = 0 under method random leaves no subnet"):
        load_recipe("demo", ["supernet.method=random", "supernet.num_random=0"])


def test_options_are_values_not_yaml() -> None:
    recipe = with_options(load_recipe("demo"), {"search.max_params": "3000000", "search.evaluations": 7, "seed": None})
    assert (recipe.search.max_params, recipe.search.evaluations) == ("3000000", 7)
    with pytest.raises(InputError, match=r"search\.max_params = '': '' is not a count"):
        with_options(load_recipe("demo"), {"search.max_params": ""})


def test_a_key_that_is_set_by_both_its_names_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"data\.val_share is the former name of data\.val_fraction, which is set, too"
    ):
        load_recipe("demo", ["data.val_fraction=0.1", "data.val_share=0.2"])


@pytest.mark.parametrize("former", FORMER_KEYS)
def test_a_renamed_key_is_read_by_its_former_name(former: str, tmp_path: Path) -> None:
    """In a file, after `--set`, and in the recipe that a row holds; a file that gives both names is refused."""
    section, key = former.split(".")
    now = FORMER_KEYS[former]
    value = {"teacher_mode": "together"}.get(now, 0.11)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", section: {key: value}}))
    stored = Recipe.model_validate({"name": "mine", section: {key: value}})
    for recipe in (load_recipe(str(file)), load_recipe("demo", [f"{former}={value}"]), stored):
        assert getattr(getattr(recipe, section), now) == value
        assert key not in recipe.model_dump()[section]
    assert getattr(load_recipe(str(file), [f"{former}={value}"]), section) == getattr(stored, section)
    file.write_text(yaml.safe_dump({"name": "mine", section: {key: value, now: value}}))
    with pytest.raises(InputError, match=f"{former} is the former name of {section}.{now}: give one of them"):
        load_recipe(str(file))


def test_a_star_stands_for_every_entry_of_a_list() -> None:
    paper = load_recipe("chest-ct-kd-ptq")
    assert [one.weights for one in paper.teachers] == ["imagenet"] * 6 + [None]
    scratch = load_recipe("chest-ct-kd-ptq", ["teachers.*.weights=null", "students.*.options.drop_rate=0.1"])
    assert {one.weights for one in scratch.teachers} == {None}
    assert {one.options["drop_rate"] for one in scratch.students} == {0.1}
    for key in ("distill.*.epochs", "pruned.*.keep", "name.*.x"):
        with pytest.raises(InputError, match=r"is no list with entries that \* could stand for"):
            load_recipe("chest-ct-kd-ptq", [f"{key}=1"])


@pytest.mark.parametrize("name", ["chest-ct-kd-ptq", "chexpert-mobilenetv2", "cxr-ofa595", "cxr14-eeea-c2"])
def test_the_papers_teachers_start_from_published_weights_by_default_and_the_demo_does_not(name: str) -> None:
    teachers = load_recipe(name).teachers
    assert all(one.weights == "imagenet" for one in teachers if one.name != "NASNetMobile")
    for one in teachers:
        if one.weights is not None:
            assert find_weights(one.weights, Wanted(one.name, 1, timm_name(one.name))).mean
    assert not any(one.weights for one in load_recipe("demo").teachers)
    assert load_recipe("demo").supernet.weights is None
