"""Rows pushed to a folder and to a hub on 127.0.0.1, and pulled by another board, with the hub's real client."""

import json
from pathlib import Path

import pytest

from tests.served import Served, serving
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.team.exchange import pull, push
from tutelage.leaderboard.team.people import tag
from tutelage.leaderboard.team.targets import open_target
from tutelage.records import Arch, InputError, Measurement, Row

from ..filed import run_row


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving(Served(taken=tmp_path / "hub", token="hf_a-token-of-nobody")) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served


@pytest.fixture(params=["folder", "hub"])
def place(request, tmp_path):
    """Where rows are pushed to, as a user writes it."""
    if request.param == "folder":
        return str(tmp_path / "pushed")
    request.getfixturevalue("hub")
    return "hf://datasets/lab/board"


MEASURED = Measurement(
    device="box", runtime="onnxruntime", runtime_version="1", threads=1, batch=1, precision="fp32",
    effective_precision="fp32", samples_ms=(1.0, 1.5, 2.0),
)  # fmt: skip


@pytest.fixture
def rows():
    arch = Arch(space="ofa_mbv3_w1.0_stem1", ks=[3] * 10, e=[3] * 10, d=[2] * 5, r=28)
    return [
        Row(model="a <script>", role="student", dataset="d", arch=arch, auc=0.1 + 0.2, params=2**40, latency_p50_ms=1.5,
            measurement=MEASURED.id, details={"note": "é\u2028\n", "confusion": [[1, 2], [3, 4]]}),
        Row(model="b", role="teacher", dataset="d", accuracy=0.5, source="imported"),
        run_row("evaluated", auc=0.8),
    ]  # fmt: skip


@pytest.fixture
def mine(tmp_path, rows):
    store = Store(tmp_path / "mine.db")
    store.add(rows, [MEASURED])
    return store


@pytest.fixture
def theirs(tmp_path):
    return Store(tmp_path / "theirs.db")


def test_rows_arrive_as_they_are_with_their_samples_and_only_once(place, mine, theirs, rows):
    done = push(mine, None, open_target(place, read=False))
    assert (done.copied, done.same, done.conflicts) == (3, 0, [])
    done = pull(theirs, open_target(place, read=True))
    assert (done.copied, done.same, done.conflicts) == (3, 0, [])
    by_model = {row.model: row for row in theirs.rows()}
    assert by_model == {row.model: row for row in rows}
    assert {row.key for row in theirs.rows()} == {row.key for row in rows}
    assert theirs.measurement(MEASURED.id) == MEASURED
    for again in (push(mine, None, open_target(place, read=False)), pull(theirs, open_target(place, read=True))):
        assert (again.copied, again.same, again.conflicts) == (0, 3, [])
    assert theirs.count() == 3


def test_a_push_adds_a_file_and_changes_none(place, mine, theirs, rows):
    push(mine, "role=teacher", open_target(place, read=False))
    before = {name: "".join(open_target(place, read=True).lines(name)) for name in rows_files(place)}
    assert len(before) == 1
    theirs.add([Row(model="c", role="student", dataset="d", auc=0.7)])
    push(theirs, None, open_target(place, read=False))
    push(mine, None, open_target(place, read=False))
    after = {name: "".join(open_target(place, read=True).lines(name)) for name in rows_files(place)}
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    pull(mine, open_target(place, read=True))
    pull(theirs, open_target(place, read=True))
    assert {row.model for row in mine.rows()} == {row.model for row in theirs.rows()} == {"a <script>", "b", "c", "m"}


def rows_files(place: str) -> list[str]:
    return [name for name in open_target(place, read=True).names() if name.startswith("rows/")]


def test_a_row_that_is_further_takes_the_place_of_the_earlier(place, mine, theirs):
    push(mine, None, open_target(place, read=False))
    pull(theirs, open_target(place, read=True))
    theirs.add([run_row("complete", auc=0.8)])
    assert push(theirs, None, open_target(place, read=False)).copied == 1
    done = pull(mine, open_target(place, read=True))
    assert (done.copied, done.conflicts) == (1, [])
    assert [row.details["state"] for row in mine.rows("model=m")] == ["complete"]
    # The earlier board's push has nothing to say against it.
    assert push(mine, None, open_target(place, read=False)).copied == 0


def test_other_figures_under_one_id_are_said_and_left_on_both(place, mine, theirs):
    theirs.add([run_row("evaluated", auc=0.75)])
    assert theirs.rows()[0].key == mine.rows("model=m")[0].key
    push(mine, None, open_target(place, read=False))
    done = pull(theirs, open_target(place, read=True))
    (line,) = done.conflicts
    assert "auc is 0.75 here and 0.8 in " in line
    assert theirs.rows("model=m")[0].auc == 0.75
    assert push(theirs, None, open_target(place, read=False)).conflicts == [line]
    pull(mine, open_target(place, read=True))
    assert mine.rows("model=m")[0].auc == 0.8


def test_a_retraction_follows_its_row_and_tags_stay(place, mine, theirs, rows):
    push(mine, None, open_target(place, read=False))
    pull(theirs, open_target(place, read=True))
    tag(mine, rows[1].key, ["paper"])
    mine.retract(rows[1].key, "the board was throttled")
    done = push(mine, None, open_target(place, read=False))
    assert (done.copied, done.retracted) == (0, 1)
    assert push(mine, None, open_target(place, read=False)).retracted == 0
    assert pull(theirs, open_target(place, read=True)).retracted == 1
    assert pull(theirs, open_target(place, read=True)).retracted == 0
    assert theirs.former(rows[1].key)["retracted"] == "the board was throttled"
    assert theirs.columns("model=b", ("tags",), every=True) == {"tags": [""]}


def test_pandas_and_the_hubs_viewer_find_rows_of_the_same_columns(hub, mine, tmp_path):
    import pandas as pd

    push(mine, None, open_target("hf://datasets/lab/board", read=False))
    folder = tmp_path / "hub" / "lab" / "board"
    card = (folder / "README.md").read_text()
    assert "data_files: rows/*.jsonl" in card
    (file,) = folder.glob("rows/*.jsonl")
    found = pd.read_json(file, lines=True)
    assert set(found["model"]) == {"a <script>", "b", "m"}
    assert found["details"].map(type).eq(str).all()
    assert hub.private == {"lab/board": True}
    (message, added) = hub.commits[0]
    assert message == "Tutelage: 3 rows, 0 retractions"
    assert len(added) == 2


def test_a_token_that_is_refused_is_said_without_it(hub, mine, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong-token-of-nobody")
    with pytest.raises(InputError) as caught:
        push(mine, None, open_target("hf://datasets/lab/board", read=False))
    text = str(caught.value)
    assert text.startswith("hf://datasets/lab/board cannot be reached or changed (")
    assert "HF_TOKEN" in text
    assert "hf_wrong" not in text
    assert "\n" not in text


def test_a_hub_that_is_away_or_forbidden_is_said(monkeypatch, theirs):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between the client's tries
    with pytest.raises(InputError, match=r"hf://datasets/lab/board cannot be reached"):
        pull(theirs, open_target("hf://datasets/lab/board", read=True))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        open_target("hf://datasets/lab/board", read=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf://lab/board", "hf://datasets/OWNER/NAME"),
        ("s3://bucket/board", "neither a folder nor"),
        ("nowhere", "is no folder"),
    ],
)
def test_what_is_no_target_is_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        open_target(text, read=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_id": "../../x"}, "row_id is '../../x'"),
        ({"model": 3}, "model: Input should be a valid string"),
        ({"details": json.dumps({"predictions": "/etc/passwd"})}, "give a path inside the workspace"),
        ({"details": json.dumps({"artifacts": {"../x": "0" * 64}})}, "give a path inside the workspace"),
        ({"details": json.dumps({"artifacts": {"x": "../0"}})}, "artifacts.x"),
        ({"nobodys": 1}, "nobodys"),
        ({"samples": MEASURED.model_dump_json(), "measurement": "0" * 16}, "samples are of measurement"),
        ({"samples": "{"}, "line 1"),
        ("not JSON", "is no row"),
        ("[]", "is no row"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_filed(change, words, mine, theirs, tmp_path):
    folder = tmp_path / "pushed"
    push(mine, "role=teacher", open_target(str(folder), read=False))
    (file,) = folder.glob("rows/*.jsonl")
    line = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
    file.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        pull(theirs, open_target(str(folder), read=True))
    assert words in str(caught.value)
    assert str(file.name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert theirs.count() == 0


def test_files_of_rows_are_fetched_from_a_data_set_that_they_were_pushed_to(hub, tmp_path, monkeypatch):
    """`push --artifacts`, then TUTELAGE_ARTIFACTS=hf://datasets/lab/board/artifacts in another folder."""
    import hashlib

    from tutelage.cli.app import app
    from tutelage.leaderboard.team.place import open_place
    from tutelage.pipeline.sharing.fetched import RowFiles

    own, content = tmp_path / "own", b"probabilities"
    (own / "artifacts" / "1").mkdir(parents=True)
    (own / "artifacts" / "1" / "p.npz").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    details = {"predictions": "artifacts/1/p.npz", "artifacts": {"artifacts/1/p.npz": sha256}}
    Store(own / "leaderboard.db").add([Row(model="m", role="student", dataset="d", details=details)])
    words = ["leaderboard", "push", "hf://datasets/lab/board", "--artifacts", "-w", str(own)]
    app(words, standalone_mode=False)
    assert hub.commits[0][1][-1] == f"artifacts/{sha256[:2]}/{sha256}"
    other = tmp_path / "other"
    app(["leaderboard", "pull", "hf://datasets/lab/board", "-w", str(other)], standalone_mode=False)
    (row,) = Store(other / "leaderboard.db").rows()
    monkeypatch.setenv("TUTELAGE_ARTIFACTS", "hf://datasets/lab/board/artifacts")
    found = RowFiles(other, open_place()).fetch(row.details, "artifacts/1/p.npz", row.key)
    assert found is not None
    assert Path(found).read_bytes() == content
