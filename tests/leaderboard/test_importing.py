"""Other people's results: read what is plain, refuse what is odd, and never call it measured."""

import json

import pytest

from tutelage.leaderboard.importing import read_file
from tutelage.records import InputError


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
        ("a.csv", "model,role,dataset,auc\nm,student,d,nan\n", "row 2: auc is 'nan'"),
        ("a.csv", "model,role,dataset,auc\nm,student,d,81.5\n", "auc is '81.5'"),
        ("a.csv", "model,role,dataset,latency_p50_ms\nm,student,d,0\n", "latency_p50_ms is '0'"),
        ("a.csv", "model,role,dataset,auc\nm,student,d,good\n", "auc"),
        ("a.csv", "model,role,dataset\nm,pupil,d\n", "role"),
        ("a.csv", "model,role,dataset\nm,student\n", "line 2"),
        ("a.csv", "model,role,dataset\nm,student,d,more\n", "line 2"),
        ("a.csv", "model,role,dataset,arch\nm,student,d,{\n", "arch is not JSON"),
        ("results-x.csv", "model,top1,param_count\nm,high,3\n", "line 2"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "list of rows"),
        ("a.txt", "", "cannot import"),
    ],
)
def test_odd_input_is_named_with_its_line(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_file(written(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        read_file(tmp_path / "none.csv")
