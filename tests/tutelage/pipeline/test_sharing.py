"""Files of rows between workspaces that have the same paths and other bytes, as two runs of one recipe leave them."""

import hashlib
import json
from pathlib import Path

import pytest

from tutelage.leaderboard.store import Store
from tutelage.leaderboard.team.place import place_at
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.curves import with_curves
from tutelage.pipeline.operations.clean import sizes
from tutelage.pipeline.sharing.fetched import FIELD, RowFiles, fetch_device, fetched_row, hashes_of
from tutelage.pipeline.sharing.named import share, share_filed, with_hashes
from tutelage.records import InputError, Row

MODEL, WEIGHTS, PREDICTIONS = "artifacts/e/model.xml", "artifacts/t/weights.safetensors", "artifacts/v/p.npz"
PROFILE = "name: box\nruntime: onnxruntime\nlatency_model: box.json\n"


def made(folder: Path, maker: str) -> Row:
    """A workspace as one maker's run leaves it, and its row without hashes, as older versions filed it."""
    contents = {MODEL: "graph", "artifacts/e/model.bin": "tensors", WEIGHTS: "weights", PREDICTIONS: "predictions"}
    contents |= {"devices/box.json": "latency model", "artifacts/t/history.json": ""}
    for path, what in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"{what} of {maker}")
    (folder / "artifacts/t/history.json").write_text(json.dumps([{"epoch": 0, "loss": len(maker)}]))
    (folder / "devices" / "box.yaml").write_text(f"{PROFILE}# {maker}\n")
    digests = [hashlib.sha256(f"{what} of {maker}".encode()).hexdigest() for what in ("graph", "tensors")]
    how = {
        "file": {"path": MODEL, "sha256": hashlib.sha256("".join(digests).encode()).hexdigest()},
        "network": {"weights": {"path": WEIGHTS, "sha256": hashlib.sha256(f"weights of {maker}".encode()).hexdigest()}},
    }
    return Row(model=maker, role="student", dataset="d", device="box", details={"predictions": PREDICTIONS, "how": how})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedFiles:
    monkeypatch.setenv("TUTELAGE_ARTIFACTS", str(tmp_path / "shared"))
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    return place_at(str(tmp_path / "shared"))


@pytest.fixture
def hers(tmp_path: Path, place: SharedFiles) -> Row:
    row = with_hashes(made(tmp_path / "hers", "ada"), tmp_path / "hers")
    assert share([row], tmp_path / "hers", place).whole == 1
    return row


def test_every_file_of_a_row_is_named_with_its_hash(hers: Row) -> None:
    assert set(hashes_of(hers.details)) == {
        *(MODEL, "artifacts/e/model.bin", WEIGHTS, "artifacts/t/history.json", PREDICTIONS),
        *("devices/box.yaml", "devices/box.json"),
    }


def test_a_file_of_ones_own_is_not_taken_for_a_colleagues(hers: Row, tmp_path: Path, place: SharedFiles) -> None:
    made(tmp_path / "his", "ben")
    assert RowFiles(tmp_path / "his").find(hers.details, PREDICTIONS) is None
    found = RowFiles(tmp_path / "his", place).fetch(hers.details, PREDICTIONS, hers.key)
    assert found is not None
    assert found.read_text() == "predictions of ada"
    assert (tmp_path / "his" / PREDICTIONS).read_text() == "predictions of ben"
    assert RowFiles(tmp_path / "his").find(hers.details, PREDICTIONS) == found  # from then on without the place
    assert RowFiles(tmp_path / "hers").find(hers.details, PREDICTIONS) == tmp_path / "hers" / PREDICTIONS


def test_a_row_is_whole_in_another_workspace_and_keeps_its_id(hers: Row, tmp_path: Path) -> None:
    made(tmp_path / "his", "ben")
    row = fetched_row(hers, tmp_path / "his")
    assert row.key == hers.key
    model = tmp_path / "his" / row.details["how"]["file"]["path"]
    assert model.read_text() == "graph of ada"
    assert model.with_suffix(".bin").read_text() == "tensors of ada"
    weights = tmp_path / "his" / row.details["how"]["network"]["weights"]["path"]
    assert weights.read_text() == "weights of ada"
    assert (tmp_path / "his" / row.details["predictions"]).read_text() == "predictions of ada"
    assert fetched_row(hers, tmp_path / "hers") is hers
    curves = with_curves(lambda ids: dict.fromkeys(ids, json.dumps(hers.details)), tmp_path / "his")(["x"])["x"]
    assert json.loads(curves)["curves"]["learning"] == {"epoch": [1], "loss": [3.0]}
    assert sizes(tmp_path / "his")["fetched files"] > 0


def test_a_device_of_the_same_name_is_the_rows(hers: Row, tmp_path: Path) -> None:
    made(tmp_path / "his", "ben")
    fetch_device(hers, tmp_path / "his", tmp_path / "again" / "devices")
    assert (tmp_path / "again" / "devices" / "box.yaml").read_text().endswith("# ada\n")
    fetch_device(hers, tmp_path / "his", tmp_path / "his" / "devices")
    assert (tmp_path / "his" / "devices" / "box.json").read_text() == "latency model of ada"


def test_hashes_are_filed_for_older_rows_of_ones_own_alone(tmp_path: Path, place: SharedFiles) -> None:
    """On one server, rows of two makers without hashes, whose paths are the same."""
    rows = [made(tmp_path / "hers", "ada"), made(tmp_path / "his", "ben")]
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    done = share_filed(store, None, tmp_path / "his", place)
    assert (done.copied, done.whole) == (7, 1)
    ada, ben = store.rows()
    assert FIELD not in ada.details
    assert ben.details == {**rows[1].details, FIELD: hashes_of(ben.details)}
    assert ben.key == rows[1].key
    with pytest.raises(Exception, match="append-only"), store.writing() as connection:
        connection.exec_driver_sql("UPDATE details SET body = ''")


@pytest.mark.parametrize("path", ["/etc/passwd", "artifacts/../../x", "artifacts\\..\\x"])
def test_a_path_outside_a_workspace_is_refused(path: str, tmp_path: Path, place: SharedFiles) -> None:
    details = {"predictions": path, FIELD: {path: "0" * 64}}
    with pytest.raises(InputError, match="no path inside a workspace"):
        RowFiles(tmp_path, place).fetch(details, path, "0123456789abcdef")
