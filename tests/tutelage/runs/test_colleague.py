"""A row made elsewhere: a colleague with the same leaderboard and no workspace of the maker compares and runs it."""

import http.client
import io
import json
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.team.place import open_place
from tutelage.pipeline.operations.paired import paired_tests
from tutelage.pipeline.sharing.downloads import Downloads
from tutelage.pipeline.sharing.fetched import FIELD, RowFiles, hashes_of
from tutelage.pipeline.sharing.requested import Bundler
from tutelage.quant.bundle.write import load_bundle
from tutelage.records import Row

from ...s3 import serving_s3
from ..command import assert_exit, tutelage

pytestmark = pytest.mark.slow

RECIPE: dict[str, Any] = {
    "name": "small",
    "data": {"dataset": "phantom", "size": 32, "limit": 120, "augment_variants": 1},
    "teachers": [{"name": "resnet10t", "epochs": 1, "batch_size": 32}],
    "students": [{"name": "mobilenetv3_small_050"}],
    "devices": [{"name": "my-ort", "runtime": "onnxruntime"}],
    "distill": {"epochs": 1, "batch_size": 32},
    "quantize": {"method": "minmax", "calibration_images": 8},
    "bundle": {"rows": "none"},
    "measure": {"bootstrap": 100, "tolerance": 0.99},  # a test must not hang on how busy the machine is
}


def succeed(*words: object) -> str:
    done = tutelage(*map(str, words))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The maker's workspace, and the folder that the team shares."""
    folder = tmp_path_factory.mktemp("maker")
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_ARTIFACTS", str(folder / "shared"))
        succeed("run", folder / "small.yaml", "--workspace", folder / "own")
    return folder / "own", folder / "shared"


def students(workspace: Path) -> tuple[Row, Row]:
    """The student alone and distilled."""
    rows = Store(workspace / "leaderboard.db", read_only=True).rows("role=student and scheme=fp32")
    alone, distilled = sorted(rows, key=lambda row: row.teacher)
    return alone, distilled


@pytest.fixture
def colleague(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A folder with a copy of the leaderboard alone."""
    folder = tmp_path / "colleague"
    folder.mkdir()
    shutil.copyfile(made[0] / "leaderboard.db", folder / "leaderboard.db")
    return folder


@pytest.fixture
def shared(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder, this test's own copy of it, as the colleague names it."""
    folder = tmp_path / "shared"
    shutil.copytree(made[1], folder)
    monkeypatch.setenv("TUTELAGE_ARTIFACTS", str(folder))
    return folder


def test_rows_say_the_hashes_of_their_files_and_no_place(made: tuple[Path, Path]) -> None:
    own, shared = made
    for row in Store(own / "leaderboard.db", read_only=True).history():
        hashes = hashes_of(row.details)
        names = {Path(path).name for path in hashes}
        assert {"probabilities.npz", "weights.safetensors", "history.json"} <= names
        assert row.details["how"]["file"]["path"] in hashes
        assert (
            hashes[row.details["how"]["network"]["weights"]["path"]]
            == row.details["how"]["network"]["weights"]["sha256"]
        )
        assert str(shared) not in json.dumps(row.details)
        for sha256 in hashes.values():
            assert (shared / sha256[:2] / sha256).is_file()


def test_a_colleague_compares_as_the_maker_does(made: tuple[Path, Path], colleague: Path, shared: Path) -> None:
    own, _ = made
    first, second = students(own)
    ours = succeed("leaderboard", "compare", first.key, second.key, "-w", own)
    assert succeed("leaderboard", "compare", first.key, second.key, "-w", colleague) == ours
    assert paired_tests(first, second, colleague) == paired_tests(first, second, own) != []


def test_without_the_place_nothing_is_tested_and_the_remedy_is_said(
    made: tuple[Path, Path], colleague: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUTELAGE_ARTIFACTS", raising=False)
    first, second = students(made[0])
    printed = " ".join(succeed("leaderboard", "compare", first.key, second.key, "-w", colleague).split())
    assert "No paired test was made" in printed
    assert "TUTELAGE_ARTIFACTS" in printed
    done = tutelage("bundle", "make", first.key, "-w", str(colleague), "--out", str(colleague / "b"))
    assert_exit(done, 2, f"of row {first.key[:8]} is not in", "TUTELAGE_ARTIFACTS")


def test_a_colleague_bundles_the_very_same_files(
    made: tuple[Path, Path], colleague: Path, shared: Path, tmp_path: Path
) -> None:
    _, row = students(made[0])
    bundles = {}
    for name, workspace in (("maker", made[0]), ("colleague", colleague)):
        out = tmp_path / name / "bundle"
        out.parent.mkdir(exist_ok=True)
        bundles[name] = json.loads(succeed("bundle", "make", row.key, "-w", workspace, "--out", out, "--json"))
        bundles[name].pop("bundle")
    assert bundles["colleague"] == bundles["maker"]
    files = RowFiles(colleague)
    kept = files.find(row.details, row.details["how"]["file"]["path"])
    assert kept is not None
    assert kept.is_relative_to(colleague / "cache" / "shared")


@pytest.mark.long
def test_a_colleague_runs_a_row_again(made: tuple[Path, Path], colleague: Path, shared: Path, tmp_path: Path) -> None:
    _, row = students(made[0])
    said = succeed("reproduce", row.key, "--into", tmp_path / "again", "-w", colleague, "--json")
    exact = {one["name"]: one["agrees"] for one in json.loads(said) if one["name"] in ("accuracy", "auc", "size_bytes")}
    assert exact == {"accuracy": True, "auc": True, "size_bytes": True}


def test_a_file_that_is_lost_or_changed_is_said_in_one_line(
    made: tuple[Path, Path], colleague: Path, shared: Path
) -> None:
    first, second = students(made[0])
    path = first.details["predictions"]
    sha256 = hashes_of(first.details)[path]
    kept = shared / sha256[:2] / sha256
    content = kept.read_bytes()
    kept.unlink()
    compare = ("leaderboard", "compare", first.key, second.key, "-w", str(colleague))
    assert_exit(tutelage(*compare), 2, f"{path} of row {first.key[:8]} is not in {shared}", "leaderboard share")
    kept.write_bytes(content[:-1] + b"!")
    assert_exit(tutelage(*compare), 2, f"{path} of row {first.key[:8]} has another content")
    # The maker shares again, and it goes on.
    assert "1 files copied" not in succeed("leaderboard", "share", "-w", made[0])  # the size is the same: removed first
    kept.unlink()
    assert "1 files copied" in succeed("leaderboard", "share", "-w", made[0])
    assert "points" in succeed(*compare)


def test_rows_of_before_are_shared_by_a_bucket(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without hashes, as older versions filed them: `share` files the hashes, and copies the files to S3."""
    older = tmp_path / "older"
    shutil.copytree(made[0], older)
    (older / "leaderboard.db").unlink()
    rows = [
        row.model_copy(update={"details": {name: one for name, one in row.details.items() if name != FIELD}}).filed_as(
            row.key
        )
        for row in Store(made[0] / "leaderboard.db", read_only=True).rows()
    ]
    measurements = Store(made[0] / "leaderboard.db", read_only=True).measurements([row.measurement for row in rows])
    Store(older / "leaderboard.db").add(rows, measurements)
    folder = tmp_path / "colleague"
    folder.mkdir()
    with serving_s3() as served:
        monkeypatch.setenv("TUTELAGE_ARTIFACTS", f"s3://{served.bucket}/boards")
        printed = succeed("leaderboard", "share", "-w", older)
        assert f"to s3://{served.bucket}/boards: all of {len(rows)} rows are there" in printed
        assert succeed("leaderboard", "share", "-w", older).startswith("0 files copied")
        shutil.copyfile(older / "leaderboard.db", folder / "leaderboard.db")
        first, second = students(folder)
        assert hashes_of(first.details) == hashes_of(students(made[0])[0].details)
        assert paired_tests(first, second, folder) == paired_tests(first, second, made[0])
        place = open_place()
        assert place is not None
        assert RowFiles(folder, place).fetch(first.details, first.details["how"]["file"]["path"], first.key)


def test_a_place_that_cannot_be_written_ends_a_run_before_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setenv("TUTELAGE_ARTIFACTS", str(tmp_path / "file" / "below"))
    done = tutelage("run", str(tmp_path / "small.yaml"), "--workspace", str(tmp_path / "own"))
    assert_exit(done, 2, "TUTELAGE_ARTIFACTS", "cannot be written")
    assert not (tmp_path / "own" / "artifacts").exists()


@pytest.mark.long
def test_a_reader_of_a_served_board_gets_a_bundle_that_no_run_left(
    made: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, for who asks with GET; what cannot be bundled is tried once, and said without a place."""
    own = tmp_path / "own"
    shutil.copytree(made[0], own)
    first, second = (row.key for row in students(own))
    store = Store(own / "leaderboard.db")
    lost = Row(model="lost", role="student", dataset="d", details={"how": {"command": "c"}})
    store.add([lost])
    downloads = Downloads(own, store.details, makes=True)
    offered = {row_id: json.loads(text).get("made") for row_id, text in downloads.offered(store.details)(
        [first, lost.key]).items()}  # fmt: skip
    assert offered[first]["downloads"]["bundle"] == 0
    assert offered[lost.key] is None
    server = make_server(own / "leaderboard.db", find=downloads.find, make=Bundler(own, store.details, most=1).make)
    with ExitStack() as stack:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)

        def fetch(row_id: str, method: str = "GET") -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
            connection.request(method, f"/rows/{row_id}/bundle")
            answer = connection.getresponse()
            return answer.status, answer.read()

        assert fetch(first, "HEAD")[0] == 404
        assert not (own / "bundles").exists()
        begun, goes_on = threading.Event(), threading.Event()
        make = Bundler._made

        def held(bundler: Bundler, row_id: str) -> bool:
            begun.set()
            return goes_on.wait(300) and make(bundler, row_id)

        monkeypatch.setattr(Bundler, "_made", held)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(fetch, first)
            try:
                assert begun.wait(300)
                assert fetch(second) == (503, b"another bundle is being made: try again\n")
            finally:
                goes_on.set()
            status, content = asked.result()
        assert status == 200, content
        zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "read")
        load_bundle(tmp_path / "read" / f"bundle-{first[:8]}")
        assert fetch(first) == (200, content), "it is made once"
        for _ in range(2):
            status, said = fetch(lost.key)
            assert (status, said.count(b"\n")) == (404, 1)
            assert str(own).encode() not in said
        assert len([one for one in caplog.records if lost.key in one.getMessage()]) == 1
        assert fetch("--help")[0] == fetch("0" * 16)[0] == 404
        assert fetch(second)[0] == 200
        assert [one.name for one in (own / "bundles").glob("*/*")] == [second], "the oldest goes first"
