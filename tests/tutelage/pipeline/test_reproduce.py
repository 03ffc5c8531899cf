"""What agrees when a row is run again: to the digit, or within a tolerance that is said."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from tutelage.cli.output import print_agreement
from tutelage.leaderboard.store import Store
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.operations.reproduce import Agreement, reproduce
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row


@pytest.mark.parametrize(
    ("then", "now", "tolerance", "agrees", "words"),
    [
        (0.9, 0.9, 0.0, True, "the same"),
        (0.9, 0.91, 0.0, False, "differs by +0.01"),
        (0.0, 0.0, 0.0, True, "the same"),
        (2.0, 2.1, 0.1, True, "+5.0%, within ±10%"),
        (2.0, 1.5, 0.1, False, "-25.0%, outside ±10%"),
        (None, None, 0.1, None, "not measured"),
        (2.0, None, 0.1, None, "measured once only"),
    ],
)
def test_an_agreement_says_within_what(then, now, tolerance, agrees, words):
    one = Agreement("latency_p50_ms", then, now, tolerance)
    assert one.agrees is agrees
    assert words in one.difference


def test_the_table_counts_what_agrees():
    console = Console(width=100, file=io.StringIO())
    print_agreement([Agreement("auc", 0.9, 0.9, 0.0), Agreement("latency_p50_ms", 1.0, 2.0, 0.1)], console)
    assert "1 of 2 figures agree within their tolerance" in console.file.getvalue()


def test_a_recipe_of_another_version_is_named(tmp_path):
    how = {"command": "tutelage run old", "recipe": {"name": "old", "no_longer_a_key": 1}}
    row = Row(model="m", role="student", dataset="d", details={"how": how, "versions": {"tutelage": "0.0.1"}})
    (tmp_path / "origin").mkdir()
    Store(tmp_path / "origin" / "leaderboard.db").add([row])
    with pytest.raises(InputError, match=r"no_longer_a_key.*install the version that made it, 0\.0\.1"):
        reproduce(row.key, tmp_path / "origin", Workspace(tmp_path / "into"), lambda *_: None, 1)


def test_a_row_of_before_fresh_is_run_again_by_its_own_recipe(tmp_path, monkeypatch):
    def made(auc, epochs, sha256):
        recipe = load_recipe("demo", [f"distill.epochs={epochs}"])
        how = {"command": "tutelage run demo", "recipe": recipe.model_dump(mode="json"), "file": {"sha256": sha256}}
        details = {"state": "complete", "how": how}
        return recipe, Row(model="m", role="student", dataset="d", recipe="demo", auc=auc, details=details)

    origin, (recipe, before), (_, after) = Workspace(tmp_path / "here"), made(0.9, 3, "a"), made(0.8, 5, "b")
    Store(origin.store).add([before])
    origin.start_over("demo")
    Store(origin.store).add([after])
    asked = []

    def run(recipe, workspace, report, threads, announce):
        asked.append((recipe, workspace.path))
        return None, SimpleNamespace(rows=[before.model_copy(update={"params": 7})], table="leaderboard.csv")

    monkeypatch.setattr(pipeline, "run", run)
    agreed = reproduce(before.key, origin.path, Workspace(tmp_path / "again"), lambda *_: None, 1)
    assert asked == [(recipe, tmp_path / "again")]
    assert {one.name: (one.then, one.now) for one in agreed}["auc"] == (0.9, 0.9)
    assert before.key in {row.key for row in Store(origin.store, read_only=True).rows()}


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("parallel", [2, 1])
def test_a_search_on_workers_is_run_again_in_the_order_of_its_replies_and_another_by_its_seed(
    parallel, is_there, tmp_path, monkeypatch, caplog
):
    recipe, file = load_recipe("demo", [f"search.parallel={parallel}"]), "artifacts/abc/search.json"
    how = {"command": "tutelage run demo", "recipe": recipe.model_dump(mode="json")}
    row = Row(model="m", role="student", dataset="d", details={"how": how, "search": {"file": file}})
    origin = Workspace(tmp_path / "here")
    Store(origin.store).add([row])
    if is_there:
        (origin.path / file).parent.mkdir(parents=True)
        (origin.path / file).write_text("{}")
    asked = []

    def run(recipe, *_):
        asked.append(recipe.search.replay)
        return None, SimpleNamespace(rows=[row], table="leaderboard.csv")

    monkeypatch.setattr(pipeline, "run", run)
    reproduce(row.key, origin.path, Workspace(tmp_path / "again"), lambda *_: None, 1)
    assert asked == [str(origin.path / file) if parallel == 2 and is_there else None]
    assert ("another order" in caplog.text) is (parallel == 2 and not is_there)
