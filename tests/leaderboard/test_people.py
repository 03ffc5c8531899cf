"""Users, projects and tags of rows: filed, filtered, shown and exported, and nothing of a row is changed for them."""

import json
import sqlite3

import pytest

from tutelage.cli.app import app
from tutelage.leaderboard.export import export
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.data import page_columns
from tutelage.leaderboard.store import Store, import_file, schema
from tutelage.leaderboard.team.people import filed_by, tag, tags_of
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.records import InputError, Row, Student

from .filed import run_row


def verb(*words):
    app(["leaderboard", *map(str, words)], standalone_mode=False)


@pytest.fixture
def store(tmp_path):
    board = Store(tmp_path / "leaderboard.db")
    rows = [
        Row(model=name, role="student", dataset="d", auc=0.9, details={"user": user, "project": project})
        for name, user, project in (("a", "ada", "lungs"), ("b", "ben", "lungs"), ("c", "ada", "skin"))
    ]
    board.add([*rows, Row(model="old", role="student", dataset="d")])
    return board


def test_rows_are_found_by_user_and_project_with_and_without_a_database(store):
    for wanted, models in (
        ("user=ada", "ac"),
        ("project=lungs and not user=ben", "a"),
        ("project=empty", ["old"]),
        ("user in (ben, eve)", "b"),
    ):
        assert [row.model for row in store.rows(wanted)] == list(models), wanted
    plan = "EXPLAIN QUERY PLAN SELECT number FROM rows WHERE project = 'skin'"
    with sqlite3.connect(store.place) as connection:
        assert "rows_by_project" in str(connection.execute(plan).fetchall())


def test_tags_are_set_and_taken_off_and_the_last_word_counts(store, monkeypatch):
    monkeypatch.setenv("TUTELAGE_USER", "eve")
    a, b = (store.rows(f"model={name}")[0].key for name in "ab")
    before, version = store.history(), store.version()
    assert tag(store, a, ["paper", "fast"])[1] == ["fast", "paper"]
    assert tag(store, b[:6], ["faster"])[1] == ["faster"]
    assert tag(store, a, ["fast"], ["paper"])[1] == ["fast"]
    assert tag(store, a, ["paper"])[1] == tags_of(store, a) == ["fast", "paper"]
    assert store.version() > version, "a served page shows it"
    assert store.history() == before
    for wanted, models in (
        ("tags=fast", "a"),
        ("tags!=fast", ["b", "c", "old"]),
        ("tags~fast", "ab"),
        ("tags in (faster, paper)", "ab"),
        ("tags=empty", ["c", "old"]),
        ("not tags=paper and user=ada", "c"),
        ("tags in (paper, empty)", ["a", "c", "old"]),
    ):
        assert [row.model for row in store.rows(wanted)] == list(models), wanted
        assert store.count(wanted) == len(models)
    with pytest.raises(InputError, match="tags is a list"):
        store.rows("tags<fast")
    with sqlite3.connect(store.place) as connection:
        assert connection.execute("SELECT DISTINCT by FROM tags").fetchall() == [("eve",)]
        assert "tags_by_tag" in str(connection.execute(f"EXPLAIN QUERY PLAN {_sql(store, 'tags=fast')}").fetchall()), (
            "of a million rows the few that bear a tag are looked up"
        )


def _sql(store, wanted):
    query = store._query([schema.rows.c.number], wanted)
    return str(query.compile(store._engine, compile_kwargs={"literal_binds": True}))


@pytest.mark.parametrize("odd", ["", "Paper", "a b", "<script>", "x" * 41, "-a", "é", "a,b"])
def test_what_is_no_tag_is_refused(store, odd):
    with pytest.raises(InputError, match="no tag"):
        tag(store, store.rows()[0].key, [odd])
    with pytest.raises(InputError, match="has no tag 'absent': it has none"):
        tag(store, store.rows()[0].key, [], ["absent"])
    with pytest.raises(InputError, match="both set and taken off"):
        tag(store, store.rows()[0].key, ["a"], ["a"])
    assert store.count("tags!=empty") == 0


def test_the_command_line_tags_shows_and_exports(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    key = store.rows("model=a")[0].key
    workspace = ("--workspace", tmp_path)
    verb("tag", key[:8], "+paper", "+w2", *workspace)
    verb("tag", key, "-w2", "+fast", *workspace)
    assert capsys.readouterr().out.splitlines()[-1] == f"row {key} (a): fast paper"
    verb("tag", key, *workspace)
    assert capsys.readouterr().out == f"row {key} (a): fast paper\n"
    with pytest.raises(InputError, match=r"'paper' neither sets a tag nor takes one off: write \+paper or -paper"):
        verb("tag", key, "paper", *workspace)
    verb("show", *workspace)
    table = capsys.readouterr().out
    assert all(word in table for word in ("user", "project", "tags", "ada", "lungs", "fast paper"))
    verb("show", key, *workspace)
    assert "fast paper" in capsys.readouterr().out
    verb("show", "--json", "--filter", "tags=paper", *workspace)
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["tags"], said["details"]["user"]) == ("fast paper", "ada")
    verb("show", key, "--json", *workspace)
    assert json.loads(capsys.readouterr().out)["tags"] == ["fast", "paper"]
    verb("export", "--format", "csv", "--out", tmp_path / "rows.csv", *workspace)
    head, *lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert {"user", "project", "tags"} <= set(head.split(","))
    assert any("fast paper" in line and "lungs" in line for line in lines)
    other = Store(tmp_path / "other.db")
    assert import_file(other, tmp_path / "rows.csv") == 4
    assert [row.model for row in other.rows("project=lungs and user=ada")] == ["a"], "who made it comes along"
    assert other.rows("tags!=empty") == [], "what others tagged it with does not"


def test_the_page_has_them_and_plain_records_have_no_tags(store):
    tag(store, store.rows("model=a")[0].key, ["paper"])
    page = page_text(store.frame(columns=page_columns()), "t")
    assert '"tags":{"texts":["paper",""]' in page
    assert '"project":{"texts":["lungs","skin",""]' in page
    assert '"lists":["tags"]' in page
    assert ",tags," in export(store.rows(), None, "csv").splitlines()[0]


def test_the_user_is_the_account_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv("TUTELAGE_PROJECT", raising=False)
    monkeypatch.delenv("TUTELAGE_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "ada")
    assert filed_by() == {"user": "ada"}
    monkeypatch.setenv("TUTELAGE_USER", " ben ")
    monkeypatch.setenv("TUTELAGE_PROJECT", "lungs")
    assert filed_by() == {"user": "ben", "project": "lungs"}
    assert filed_by("skin") == {"user": "ben", "project": "skin"}
    monkeypatch.setenv("TUTELAGE_USER", "")
    assert filed_by("skin") == {"project": "skin"}, "who wants to be named nowhere is not"
    monkeypatch.setenv("TUTELAGE_USER", "a\nb")
    with pytest.raises(InputError, match="TUTELAGE_USER is"):
        filed_by()


def test_a_project_is_no_part_of_what_a_row_is_of():
    plain, named = load_recipe("demo"), load_recipe("demo", ["project=lungs"])
    assert "project" not in plain.model_dump(mode="json"), "ids of rows that were filed before stay"
    assert Recipe.model_validate(named.model_dump(mode="json")).project == "lungs"
    student = Student(model="m", role="teacher")
    assert settings_of(plain, student, "fp32") == settings_of(named, student, "fp32")
    first, second = (run_row("complete", auc=0.9, details={"user": user}) for user in ("ada", "ben"))
    assert first.key == second.key
    with pytest.raises(InputError, match="one line of at most 100"):
        load_recipe("demo", ["project=" + "x" * 101])
