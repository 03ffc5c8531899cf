"""Files of rows that a served board gives: of the hash that the row says, and nothing else."""

import csv
import hashlib
import http.client
import io
import json
import os
import socket
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tutelage.files import model_digest
from tutelage.leaderboard.serving.access import Access
from tutelage.leaderboard.serving.downloads import safe_name
from tutelage.leaderboard.serving.limits import Limits
from tutelage.leaderboard.store import Store
from tutelage.pipeline.sharing.downloads import BUNDLES, REQUESTED, Downloads
from tutelage.pipeline.sharing.requested import Bundler
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.bundle.manifest import write_manifest
from tutelage.records import Row

from .conftest import TOKEN

EVIL = '../../<script>"\r\nX-Evil: 1'
MODEL = np.random.default_rng(0).bytes(3_000_000)


def row_of(path, sha256, name="net", **more):
    how = {"file": {"kind": "model", "path": path, "sha256": sha256, "size_bytes": 3_000_000}}
    return Row(model=name, role="student", dataset="d", details={"how": how, **more}, auc=0.9, latency_p50_ms=1.0)


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a model of one file, and a secret beside it."""
    folder = tmp_path / "artifacts" / "aa"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(MODEL)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "artifacts" / "link.onnx").symlink_to(tmp_path / "secret.txt")
    return tmp_path


@pytest.fixture
def board(serve, workspace):
    """Give a function that serves rows with the files of the workspace."""

    def start(rows, **options):
        store = Store(workspace / "leaderboard.db")  # a first look, as the command's own
        downloads = Downloads(workspace, store.details)
        return serve(rows, find=downloads.find, detailed=downloads.offered, **options)

    return start


GOOD = row_of("artifacts/aa/model.tflite", hashlib.sha256(MODEL).hexdigest(), EVIL)


def fetch(served, path, method="GET", headers=None):
    """Give status, headers and bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=300)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_a_model_is_sent_as_it_is_with_its_name_and_size(board):
    served = board([GOOD])
    status, headers, content = fetch(served, f"/rows/{GOOD.key}/model")
    assert (status, content) == (200, MODEL)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Length"] == str(len(MODEL))
    assert headers["Content-Disposition"] == f'attachment; filename="model-{GOOD.key[:8]}.tflite"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Evil" not in headers
    head = fetch(served, f"/rows/{GOOD.key}/model", "HEAD")
    assert (head[0], head[1]["Content-Length"], head[2]) == (200, str(len(MODEL)), b"")
    for span in ("bytes=5-", "bytes=9999999999-", "bytes=-1", "lines=1", "bytes=5-2", "x" * 500):
        assert fetch(served, f"/rows/{GOOD.key}/model", headers={"Range": span})[::2] == (200, MODEL)


def test_a_model_of_several_files_is_an_archive_of_all(board, workspace):
    folder = workspace / "artifacts" / "bb"
    folder.mkdir()
    (folder / "model.xml").write_text("<net/>")
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "other.txt").write_text("secret")
    rows = [row_of("artifacts/bb/model.xml", model_digest(folder / "model.xml"))]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], np.ones(2, np.float32).tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [weight])
    (workspace / "artifacts" / "cc").mkdir()
    path = workspace / "artifacts" / "cc" / "model.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="w.data", size_threshold=0)
    rows.append(row_of("artifacts/cc/model.onnx", model_digest(path)))
    served = board(rows)
    for row, folder, names in ((rows[0], "bb", ["model.xml", "model.bin"]), (rows[1], "cc", ["model.onnx", "w.data"])):
        status, headers, content = fetch(served, f"/rows/{row.key}/model")
        assert (status, headers["Content-Type"]) == (200, "application/zip")
        archive = zipfile.ZipFile(io.BytesIO(content))
        assert archive.namelist() == [f"model-{row.key[:8]}/{name}" for name in names]
        for name, entry in zip(names, archive.namelist(), strict=True):
            assert archive.read(entry) == (workspace / "artifacts" / folder / name).read_bytes()
        assert fetch(served, f"/rows/{row.key}/model")[2] == content
    (workspace / "artifacts" / "bb" / "model.bin").write_bytes(b"others.")
    assert fetch(served, f"/rows/{rows[0].key}/model")[0] == 404


def test_only_bytes_of_the_hash_that_a_row_says_leave_the_workspace(board, workspace):
    secret, right = hashlib.sha256(b"secret").hexdigest(), hashlib.sha256(MODEL).hexdigest()
    inside = workspace / "artifacts" / "aa" / "x;y.onnx"
    inside.write_text("secret")
    paths = ["../secret.txt", "artifacts/../secret.txt", str(workspace / "secret.txt"), "secret.txt", "leaderboard.db"]
    paths += ["artifacts/aa/x;y.onnx", "artifacts/aa/\0", "artifacts\\..\\secret.txt", "artifacts/aa", "artifacts/", ""]
    rows = [row_of(path, secret, f"outside {path!r}") for path in paths]
    rows += [row_of("artifacts/link.onnx", right, "a link"), row_of("artifacts/aa/model.tflite", secret, "other hash")]
    rows += [row_of("artifacts/aa/model.tflite", "", "no hash"), row_of("artifacts/zz/model.tflite", right, "absent")]
    rows += [
        row_of("artifacts/aa/model.tflite", right, "hash of its files", artifacts={"artifacts/aa/model.tflite": secret})
    ]
    odd = [{"how": {"file": "x"}}, {"how": []}, {"how": {"file": {"path": ["artifacts/a"], "sha256": 1}}}, {}]
    rows += [Row(model=f"odd {n}", role="student", dataset="d", details=one) for n, one in enumerate(odd)]
    served = board(rows)
    for row in rows:
        status, headers, content = fetch(served, f"/rows/{row.key}/model")
        assert (status, headers["Content-Type"]) == (404, "text/plain; charset=utf-8"), row.model
        assert content.count(b"\n") == 1
        assert b"secret" not in content
        assert str(workspace).encode() not in content


@pytest.mark.parametrize("what", ["model", "bundle", "figures.csv"])
def test_what_is_no_row_and_no_file_is_not_found(board, workspace, what):
    served = board([GOOD])
    for row_id in ("0" * 16, GOOD.key[:8], "..", "%2e%2e", f"{GOOD.key}%00", "x" * 5000, "a/b", "'--", ""):
        status, _, content = fetch(served, f"/rows/{row_id}/{what}")
        assert status == 404, row_id
        assert len(content) < 200
    assert fetch(served, f"/rows/{GOOD.key}/{what}/..")[0] == 404
    assert fetch(served, f"/rows/{GOOD.key}/../{GOOD.key}/{what}")[0] == 404
    assert fetch(served, f"/rows/{GOOD.key}/weights")[0] == 404


def test_a_file_that_was_moved_away_or_changed_is_said_in_one_line(board, workspace):
    served = board([GOOD])
    path = workspace / "artifacts" / "aa" / "model.tflite"
    path.rename(workspace / "moved")
    assert b"is not here" in fetch(served, f"/rows/{GOOD.key}/model")[2]
    path.write_bytes(MODEL[:-1] + b"!")
    assert b"changed or replaced" in fetch(served, f"/rows/{GOOD.key}/model")[2]
    (workspace / "moved").rename(path)
    assert fetch(served, f"/rows/{GOOD.key}/model")[2] == MODEL


def bundle_of(folder, row):
    folder.mkdir(parents=True)
    for name in ("preprocess.json", "labels.json", "thresholds.json", "parity.json", "predict.py"):
        (folder / name).write_text("{}")
    (folder / "MODEL_CARD.md").write_text(f"# net\n\n| name | value |\n|---|---|\n| row | `{row.key}` |\n")
    (folder / "model.onnx").write_bytes(b"graph")
    write_manifest(folder, "model.onnx", "onnxruntime")
    return folder


def test_the_bundle_that_is_there_is_sent_whole_or_not_at_all(board, workspace):
    folder = bundle_of(workspace / "bundles" / "recipe" / "net", GOOD)
    other = row_of("artifacts/aa/model.tflite", hashlib.sha256(MODEL).hexdigest(), "another")
    bundle_of(workspace / "bundles" / "recipe" / ".new-1-net", other)
    served = board([GOOD, other])
    status, headers, content = fetch(served, f"/rows/{GOOD.key}/bundle")
    assert (status, headers["Content-Type"]) == (200, "application/zip")
    assert headers["Content-Disposition"] == f'attachment; filename="bundle-{GOOD.key[:8]}.zip"'
    archive = zipfile.ZipFile(io.BytesIO(content))
    there = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name.partition("/")[2]: archive.read(name) for name in archive.namelist()} == there
    missing = fetch(served, f"/rows/{other.key}/bundle")
    assert missing[0] == 404
    assert f"tutelage bundle make {other.key[:8]} --out bundle".encode() in missing[2]
    (folder / "labels.json").write_text("[]")
    assert fetch(served, f"/rows/{GOOD.key}/bundle")[0] == 404
    (folder / "labels.json").write_text("{}")
    (folder / "secret.txt").symlink_to(workspace / "secret.txt")
    assert fetch(served, f"/rows/{GOOD.key}/bundle")[0] == 404


@pytest.mark.parametrize("damaged", ["recipe", REQUESTED])
def test_a_damaged_bundle_hides_no_whole_one(board, workspace, damaged):
    for folder in ("recipe", REQUESTED):
        bundle_of(workspace / BUNDLES / folder / GOOD.key, GOOD)
    (workspace / BUNDLES / damaged / GOOD.key / "labels.json").write_text("[]")
    assert fetch(board([GOOD]), f"/rows/{GOOD.key}/bundle")[0] == 200


class Command:
    """Takes the place of the command that makes bundles: it makes that of GOOD, whole or damaged."""

    def __init__(self, monkeypatch, is_whole=True):
        self.asked, self.is_whole = [], is_whole
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command, **options):
        self.asked.append(command)
        folder = bundle_of(Path(command[command.index("--out") + 1]), GOOD)
        if not self.is_whole:
            (folder / "labels.json").write_text("[]")
        return subprocess.CompletedProcess(command, 0, "", "")


def bundler_of(workspace, **options):
    return Bundler(workspace, lambda ids: dict.fromkeys(ids, "{}"), **options)


def test_who_asks_while_a_bundle_is_made_gets_that_one(workspace, monkeypatch):
    command, bundler = Command(monkeypatch), bundler_of(workspace)
    for _ in range(2):  # the second reader looked before the first one's was there
        bundler.make(GOOD.key)
    assert len(command.asked) == 1
    (workspace / BUNDLES / REQUESTED / GOOD.key / "labels.json").write_text("[]")
    bundler.make(GOOD.key)
    assert len(command.asked) == 2, "one that is damaged is made again"


def test_a_bundle_that_is_not_whole_when_it_was_made_is_not_made_again_at_once(board, workspace, monkeypatch, caplog):
    command = Command(monkeypatch, is_whole=False)
    served = board([GOOD], make=bundler_of(workspace).make)
    for _ in range(2):
        assert fetch(served, f"/rows/{GOOD.key}/bundle")[0] == 404
    assert len(command.asked) == 1
    assert [one.getMessage() for one in caplog.records] == [f"bundle of row {GOOD.key}: it was made, but is not whole"]


def test_a_workspace_in_use_is_no_failure_and_other_code_than_ours_is_not_run(board, workspace, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tutelage").mkdir(parents=True)
    (elsewhere / "tutelage" / "__init__.py").write_text("")
    (elsewhere / "tutelage" / "__main__.py").write_text("open('was_run', 'w')")
    monkeypatch.chdir(elsewhere)
    served = board([GOOD], make=bundler_of(workspace).make)
    with Workspace(workspace).locked():
        status, headers, said = fetch(served, f"/rows/{GOOD.key}/bundle")
    assert not (elsewhere / "was_run").exists()
    assert (status, headers["Retry-After"]) == (503, "30")
    assert said == b"a run goes on in the workspace: try again when it has ended\n"
    Command(monkeypatch)
    assert fetch(served, f"/rows/{GOOD.key}/bundle")[0] == 200, "it is tried again at once"


def test_what_a_killed_command_left_is_removed_and_is_no_bundle(workspace, monkeypatch):
    Command(monkeypatch)
    place = workspace / BUNDLES / REQUESTED
    for name, age in (("another", 3_000), (".killed.1", 1_000), (".written.2", -1_000)):
        (place / name).mkdir(parents=True)
        os.utime(place / name, (time.time() - age,) * 2)
    bundler_of(workspace, seconds=600, most=2).make(GOOD.key)
    assert {one.name for one in place.iterdir()} == {"another", ".written.2", GOOD.key}


def test_figures_are_the_line_of_the_export(board):
    served = board([GOOD])
    status, headers, content = fetch(served, f"/rows/{GOOD.key}/figures.csv")
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert headers["Content-Disposition"] == f'attachment; filename="row-{GOOD.key[:8]}.csv"'
    whole = fetch(served, "/rows.csv")[2].decode()
    heading, line = content.decode().split("\n", 1)
    assert whole.startswith(f"{heading}\n")
    assert line in whole
    for row in served.store.rows():
        text = fetch(served, f"/rows/{row.key}/figures.csv")[2].decode().split("\n", 1)[1]
        assert text in whole, "the front is that of the whole board"


def test_names_are_no_formulas_to_who_downloads_them(board):
    row = row_of("artifacts/aa/model.tflite", hashlib.sha256(MODEL).hexdigest(), '=HYPERLINK("http://evil")')
    served = board([row])
    for path in (f"/rows/{row.key}/figures.csv", "/rows.csv"):
        names = [line["model"] for line in csv.DictReader(io.StringIO(fetch(served, path)[2].decode()))]
        assert '\'=HYPERLINK("http://evil")' in names
        assert not [name for name in names if name.startswith("=")]


def test_who_may_not_read_downloads_nothing(board):
    served = board([GOOD], access=Access(TOKEN))
    for what in ("model", "bundle", "figures.csv"):
        status, _, content = fetch(served, f"/rows/{GOOD.key}/{what}")
        assert status == 401
        assert len(content) < 100
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert fetch(served, f"/rows/{GOOD.key}/model", headers=headers)[0] == 200


def test_few_downloads_are_made_at_once_and_one_that_breaks_off_makes_room(board):
    served = board([GOOD], limits=Limits(downloads=1, downloads_each=1, answer_seconds=60))
    slow = socket.create_connection(("127.0.0.1", served.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(f"GET /rows/{GOOD.key}/model HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert slow.recv(12) == b"HTTP/1.0 200"
    assert fetch(served, f"/rows/{GOOD.key}/model")[0] == 503
    slow.close()
    deadline = time.monotonic() + 300
    while fetch(served, f"/rows/{GOOD.key}/model")[0] == 503:
        assert time.monotonic() < deadline
        time.sleep(0.25)  # 240 requests a minute: fewer than one client may ask


@pytest.mark.parametrize("name", [EVIL, "..", "", ".ssh", "a" * 500, "ünï\u202ecode", "-rf"])
def test_a_name_of_a_file_is_plain(name):
    made = safe_name(name, "." + name)
    assert made.isascii()
    assert not set(made) & set('/\\"\r\n <>')
    assert not made.startswith((".", "-"))
    assert len(made) < 100


@pytest.mark.slow
def test_a_served_page_offers_what_is_here_and_the_command_for_the_rest(board, workspace, browser):
    folder = bundle_of(workspace / "bundles" / "recipe" / "net", GOOD)
    size = sum(file.stat().st_size for file in folder.iterdir())
    gone = row_of("artifacts/zz/model.xml", "0" * 64, "gone")
    served = board([GOOD, gone])
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/#row={GOOD.key}")
    part = page.locator(".row-part[aria-label='Downloads']")
    assert part.locator("a").all_inner_texts() == ["Model, 3.00 MB", f"Bundle, ZIP, {size / 1000:.2f} kB"]
    with page.expect_download() as download:
        part.locator("a").first.click()
    assert download.value.path().read_bytes() == MODEL
    assert download.value.suggested_filename == f"model-{GOOD.key[:8]}.tflite"
    with page.expect_download() as download:
        part.locator("a").last.click()
    assert zipfile.is_zipfile(download.value.path())
    page.goto(f"http://127.0.0.1:{served.port}/#row={gone.key}")
    page.locator(f"text=bundle make {gone.key[:8]}").wait_for()
    assert part.locator("a").count() == 0
    page.close()


def test_details_that_cannot_be_extended_stay_as_they_are(workspace):
    texts = {"a": "", "b": json.dumps({"how": {"file": {"path": "artifacts/aa/model.tflite", "size_bytes": 7}}})}
    downloads = Downloads(workspace, lambda ids: texts)
    found = downloads.offered(lambda ids: texts)(["a", "b"])
    assert found["a"] == ""
    assert json.loads(found["b"])["made"] == {"downloads": {"model": 7}}
