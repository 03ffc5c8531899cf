"""Other people's results: read what is plain, refuse what is odd, and never call it measured."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tutelage.leaderboard.columns import GAINS
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.store.importing import read_file
from tutelage.records import InputError, Row


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_timm_results_are_read_in_our_units(tmp_path):
    path = written(
        tmp_path,
        "results-imagenet-real.csv",
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        "resnet50.a1_in1k,288,85.956,14.044,96.61,3.39,25.56,0.950,bicubic\n"
        'big.x,448,90.0,10.0,99.0,1.0,"1,014.45",1.000,bicubic\n',
    )
    (first, second), samples = read_file(path)
    assert samples == []
    assert (first.model, first.dataset, first.source, first.role) == (
        "resnet50.a1_in1k",
        "imagenet-real",
        "imported",
        "baseline",
    )
    assert first.accuracy == pytest.approx(0.85956)
    assert (first.params, second.params) == (25_560_000, 1_014_450_000)
    assert first.latency_p50_ms is None
    assert first.details["timm"]["img_size"] == "288"


def test_a_small_table_of_somebody_else_is_enough(tmp_path):
    path = written(
        tmp_path, "paper.csv", "\ufeffmodel,role,dataset,auc,params,venue\nNet,baseline,chest,0.81,,MICCAI\n"
    )
    ((row,), _) = read_file(path)
    assert (row.auc, row.params, row.source) == (0.81, None, "imported")
    assert row.details == {"imported_from": "paper.csv", "venue": "MICCAI"}


def test_json_may_be_a_list_or_hold_one(tmp_path):
    record = {"model": "m", "role": "teacher", "dataset": "d", "accuracy": 0.5, "on_front": True, "row_id": "x"}
    for data in ([record], {"rows": [record]}):
        ((row,), _) = read_file(written(tmp_path, "rows.json", json.dumps(data)))
        assert (row.model, row.accuracy) == ("m", 0.5)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "model,role,dataset,auc\nm,student,d,nan\n", "line 2: auc is 'nan'"),
        ("a.csv", "model,role,dataset,auc\nm,student,d,81.5\n", "auc is 81.5"),
        ("a.csv", "model,role,dataset,latency_p50_ms\nm,student,d,0\n", "latency_p50_ms is 0.0"),
        ("a.csv", "model,role,dataset,auc\nm,student,d,good\n", "auc"),
        ("a.csv", "model,role,dataset\nm,pupil,d\n", "role"),
        ("a.csv", "model,role,dataset\nm,student\n", "line 2"),
        ("a.csv", "model,role,dataset\nm,student,d,more\n", "line 2"),
        ("a.csv", "model,role,dataset,arch\nm,student,d,{\n", "arch is not JSON"),
        ("a.csv", "model,role,dataset,auc\nm,student,d,.9\n\n'n,student,d\n", "line 4: 3 cells, and the head has 4"),
        ("a.csv", "model,role,dataset,model\nm,student,d,n\n", "column 'model' 2 times"),
        ("a.csv", ",model,role,dataset\n0,m,student,d\n", "column '' 1 times"),
        ("a.csv", "model,role,dataset,details\nm,student,d,[1]\n", r"details is \[1\]"),
        ("results-x.csv", "model,top1,param_count\nm,high,3\n", "line 2"),
        ("results-x.csv", "model,top1,param_count\n,69.8,3\n", "line 2: model is empty"),
        ("results-x.csv", "model,top1,param_count\nm,0.698,11.7\nn,0.719,3.5\n", "percentages"),
        (
            "results-x.csv",
            "model,top1,param_count\nm,69.8,11689512\n",
            "line 2: param_count is '11689512': give millions",
        ),
        ("results-x.csv", "model,top1,param_count,gmacs\nm,69.8,11.7,inf\n", "line 2: gmacs is 'inf'"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "list of rows"),
        ("a.txt", "", "cannot import"),
    ],
)
def test_odd_input_is_named_with_its_line(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_file(written(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_reported(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        read_file(tmp_path / "none.csv")


# What no column takes, as JSON has it; what a column does take is left out below.
ODD = [5, -1, 0, 1.5, True, "word", "nan", float("inf"), 1e300, 2**70, [1], {"a": 1}, "a\0b", "\ud800"]
FRACTIONS = [f"{name}{end}" for name in ("accuracy", "auc") for end in ("", "_lo", "_hi")]
WHOLE = ["batch", "threads", "params", "macs", "size_bytes", "peak_rss_bytes"]
REAL = ["latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "energy_mj"]
TEXT = ["model", "teacher", "recipe", "dataset", "split", "scheme", "runtime", "device", "created", "control", "parent"]
TAKEN: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(FRACTIONS, (0,)),
    **dict.fromkeys(WHOLE, (5,)),
    **dict.fromkeys(REAL, (5, 1.5, 1e300, 2**70)),
    **dict.fromkeys(TEXT, ("word", "nan")),
    **dict.fromkeys(GAINS, (5, -1, 0, 1.5, 1e300, 2**70)),
    "seed": (5, -1, 0),
    "details": ({"a": 1},),
}


@pytest.mark.parametrize(
    "name", [*FRACTIONS, *WHOLE, *REAL, *TEXT, *GAINS, "seed", "arch", "role", "source", "details"]
)
def test_a_value_of_a_wrong_type_is_refused_in_every_column(tmp_path, name):
    record = {"model": "m", "role": "student", "dataset": "d"}
    for value in ODD:
        path = written(tmp_path, "rows.json", json.dumps([record, {**record, name: value}]))
        if any(value is one or (type(value) is type(one) and value == one) for one in TAKEN.get(name, ())):
            import_file(Store(tmp_path / "leaderboard.db"), path)  # and the database takes it
            continue
        with pytest.raises(InputError, match=rf"rows\.json, row 2: .*({name}|holds a NUL)") as caught:
            read_file(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "arch",
    [
        "5",
        "[1]",
        '"a"',
        "{}",
        '{"d": 5}',
        '{"space": "ofa_mbv3_w1.0", "d": [null], "r": 32}',
        '{"space": "ofa_mbv3_w1.0", "d": [2, 2, 2, 2, 2], "ks": 5, "r": 32}',
        '{"space": "ofa_mbv3_w1.0", "d": ["2"], "r": 32}',
        '{"space": "ofa_resnet50", "d": 1, "r": 32}',
        '{"space": 5, "d": [2], "r": 32}',
        '{"space": "ofa_mbv3_w1.0", "d": [1e999], "r": 32}',
    ],
)
def test_what_is_no_architecture_is_refused(tmp_path, arch):
    quoted = arch.replace('"', '""')
    for name, text in (
        ("a.json", f'[{{"model": "m", "role": "student", "dataset": "d", "arch": {arch}}}]'),
        ("a.csv", f'model,role,dataset,arch\nm,student,d,"{quoted}"\n'),
    ):
        with pytest.raises(InputError, match=r"(row 1|line 2): arch") as caught:
            read_file(written(tmp_path, name, text))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("auc,auc_lo,auc_hi", ".8,.95,.7"),
        ("accuracy,accuracy_lo", ".8,.9"),
        ("latency_p50_ms,latency_p99_ms", "2,1"),
        ("latency_p90_ms,latency_p99_ms", "2,-5"),
    ],
)
def test_bounds_in_the_wrong_order_are_refused(tmp_path, names, values):
    with pytest.raises(InputError, match=r"line 2: .*(swapped|leave it empty)"):
        read_file(written(tmp_path, "a.csv", f"model,role,dataset,{names}\nm,student,d,{values}\n"))


def test_what_is_undefined_in_details_becomes_null_and_deep_nesting_is_refused(tmp_path):
    record = {"model": "m", "role": "student", "dataset": "d"}
    ((row,), _) = read_file(written(tmp_path, "a.json", json.dumps([{**record, "details": {"ece": float("nan")}}])))
    assert row.details["ece"] is None
    deep = "[" * 200 + "]" * 200
    path = written(tmp_path, "b.json", json.dumps([record])[:-2] + f', "details": {{"a": {deep}}}}}]')
    with pytest.raises(InputError, match="nested more than"):
        read_file(path)


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"state": "complete", "how": 3}, "details.how is 3"),
        ({"state": "done"}, "details.state is 'done': give one of evaluated, measured, complete"),
        ({"how": {"command": "x", "recipe": {}, "network": {"weights": "w"}}}, "details.how.network.weights is 'w'"),
        ({"how": {"command": "x", "recipe": {}, "file": 4}}, "details.how.file is 4"),
        ({"how": {"file": {"sha256": 5}}}, "details.how.file.sha256 is 5"),
        ({"how": {"network": {"weights": {"sha256": True}}}}, "details.how.network.weights.sha256 is True"),
        ({"how": {"recipe": {"data": [1]}}}, r"details.how.recipe.data is \[1\]"),
        ({"manifest": {"a": 1}}, "details.manifest is {'a': 1}"),
        ({"predictions": "/etc/passwd"}, "give a path inside the workspace"),
        ({"predictions": "../x.npz"}, "give a path inside the workspace"),
        ({"threshold": "half"}, "details.threshold"),
        ({"seeds": {"files": [1]}}, "details.seeds.files.0 is 1"),
        ({"versions": 3}, "details.versions is 3"),
        ({"gain_over_control": [1]}, r"details.gain_over_control is \[1\]"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "db"])
def test_details_that_no_reader_of_rows_could_use_are_refused(tmp_path, details, words, kind):
    record = {"model": "m", "role": "student", "dataset": "d", "details": details}
    path = written(tmp_path, "rows.json", json.dumps([record]))
    if kind == "db":
        path = tmp_path / "rows.db"
        store = Store(path)
        store.add([Row.model_validate({**record, "details": {}})])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT INTO details (number, body) VALUES (1, ?)", (json.dumps(details),))
    with pytest.raises(InputError, match=words):
        read_file(path)


def test_details_of_a_run_come_back_as_they_were(tmp_path):
    how = {"command": "tutelage run demo", "recipe": {"name": "demo"}, "network": {"weights": None}, "file": {}}
    details = {"state": "complete", "how": how, "threshold": [0.5, None], "seeds": {"files": [{"predictions": "a"}]}}
    record = {"model": "m", "role": "student", "dataset": "d", "details": details}
    ((row,), _) = read_file(written(tmp_path, "rows.json", json.dumps([record])))
    assert row.details == {"imported_from": "rows.json", **details}
    assert row.key


def test_a_leaderboard_is_imported_by_a_relative_path(tmp_path, monkeypatch):
    other = tmp_path / "colleague"
    other.mkdir()
    Store(other / "leaderboard.db").add([Row(model="m", role="student", dataset="d")])
    monkeypatch.chdir(tmp_path)
    assert import_file(Store(tmp_path / "ours.db"), Path("colleague/leaderboard.db")) == 1
    (other / "leaderboard.db").write_bytes(b"no database")
    with pytest.raises(InputError, match="not made by tutelage"):
        read_file(Path("colleague/leaderboard.db"))


@pytest.mark.parametrize(("params", "gmacs", "word"), [("11.69", "1e308", "gmacs"), ("-1e308", "1.8", "param_count")])
def test_counts_of_timm_beyond_every_network_are_refused(params: str, gmacs: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"model,top1,param_count,gmacs\nm,70.1,{params},{gmacs}\n")
    with pytest.raises(InputError, match=f"line 2: {word} is "):
        read_file(path)
