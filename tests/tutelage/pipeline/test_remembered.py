"""What a search or run was of is what `distill`, `explain`, `quantize` and `bundle` go on with."""

from pathlib import Path
from typing import Any

import pytest

from tutelage.pipeline import run as pipeline
from tutelage.pipeline.operations.remembered import FILE, recall, remember
from tutelage.pipeline.recipe import Recipe, built_in_recipes, load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent

from ..command import assert_exit, image_folder, tutelage


class ReachedError(Exception):
    """The verb went as far as the test looks."""


@pytest.mark.parametrize("name", built_in_recipes())
def test_what_is_remembered_is_read_as_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["seed=3", "distill.epochs=7"])
    remember(recipe, tmp_path)
    assert load_recipe(str(tmp_path / FILE)) == recipe


@pytest.mark.parametrize("written", [{"search": {}}, {"supernet": {}}])
def test_a_section_counts_when_it_is_remembered_although_all_in_it_is_a_default(
    written: dict[str, Any], tmp_path: Path
) -> None:
    named = {"name": "mine", "students": [{"name": "EEEA-Net-C2"}]}
    (tmp_path / FILE).write_text("name: mine\nstudents: [{name: EEEA-Net-C2}]\n")
    for values in ({**named, **written}, named):
        recipe = Recipe.model_validate(values)
        remember(recipe, tmp_path)
        found = load_recipe(str(tmp_path / FILE))
        assert (found.searches, found.trains_supernet) == (recipe.searches, recipe.trains_supernet)


def _stopping_at(monkeypatch: pytest.MonkeyPatch, place: str) -> list[Recipe]:
    """Let a function of the pipeline stop the verb, and give the recipes that it was called with."""
    seen: list[Recipe] = []

    def stop(recipe: Recipe, *rest: Any, **options: Any) -> None:
        seen.append(recipe)
        raise ReachedError

    monkeypatch.setattr(place, stop)
    return seen


def test_a_verb_goes_on_with_the_options_of_the_search_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, place = image_folder(tmp_path / "my images"), tmp_path / "w"
    monkeypatch.setattr(pipeline, "_open", lambda *arguments: (_ for _ in ()).throw(ReachedError))
    options = ["--dataset", "folder", "--path", str(images), "--max-params", "3M", "--seed", "4", "-w", str(place)]
    small = [f"supernet.batch_size={8}", "teachers=[]", "supernet.teachers=[]", "distill.batch_size=8"]
    with pytest.raises(ReachedError):
        tutelage("search", *options, *(word for one in small for word in ("--set", one)))
    remembered = load_recipe(str(place / FILE))
    assert (remembered.data.path, remembered.search.max_params, remembered.seed) == (images, "3M", 4)
    assert not remembered.title, "the demo's title is of other images"
    for verb, stage in (
        ("distill", "tutelage.pipeline.run.distill"),
        ("explain", "tutelage.pipeline.operations.explain.explain_recipe"),
        ("quantize m.onnx --out n.onnx", "tutelage.pipeline.operations.quantize.quantize_file"),
    ):
        seen = _stopping_at(monkeypatch, stage)
        words = [*verb.split(), "-w", str(place)]
        with pytest.raises(ReachedError):
            tutelage(*words)
        with pytest.raises(ReachedError):
            tutelage(*words, "--set", "seed=5")
        with pytest.raises(ReachedError):
            tutelage(*words, "--recipe", "demo")
        assert seen == [remembered, remembered.model_copy(update={"seed": 5}), load_recipe("demo")]


def test_the_line_names_the_recipe_that_is_used(tmp_path: Path) -> None:
    """`bundle` looks for rows of the remembered recipe, and names the file whose run makes some."""
    from tutelage.leaderboard.store import Store

    Store(tmp_path / "leaderboard.db").close()
    remember(Recipe(name="mine"), tmp_path)
    done = tutelage("bundle", "make", "--out", str(tmp_path / "b"), "-w", str(tmp_path))
    assert f"recipe: {tmp_path / FILE}, of the last search or run" in done.stderr
    assert_exit(done, 2, "no student", str(tmp_path / FILE))
    assert recall("demo", tmp_path) == ("demo", "")
    assert recall(None, tmp_path / "elsewhere")[0] == "demo"


def test_a_file_with_comments_of_the_user_stays_while_it_says_the_same(tmp_path: Path) -> None:
    recipe = Recipe(name="mine", seed=2)
    (tmp_path / FILE).write_text("# mine\nname: mine\nseed: 2\n")
    remember(recipe, tmp_path)
    assert (tmp_path / FILE).read_text().startswith("# mine")
    remember(recipe.model_copy(update={"seed": 3}), tmp_path)
    assert load_recipe(str(tmp_path / FILE)).seed == 3
    (tmp_path / FILE).write_text("name: [\n")
    remember(recipe, tmp_path)
    assert load_recipe(str(tmp_path / FILE)) == recipe


def test_a_run_is_remembered_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped is gone on with, too."""
    recipe = load_recipe("demo", ["data.limit=60", "teachers=[]", "supernet.teachers=[]"])
    monkeypatch.setattr(pipeline, "open_for_run", lambda place: (_ for _ in ()).throw(ReachedError))
    with pytest.raises(ReachedError):
        pipeline.run(recipe, Workspace(tmp_path), silent, 1)
    assert load_recipe(str(tmp_path / FILE)) == recipe
