"""Rows of a run as they come: one that stops leaves what it evaluated, the next one completes those rows."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from tutelage.leaderboard.best import OVER_BUDGET
from tutelage.leaderboard.export import export
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.keys import order
from tutelage.pipeline.operations.bundle import bundle_row
from tutelage.pipeline.operations.paired import paired_tests
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.sharing.downloads import Downloads
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.quant.bundle.write import load_bundle
from tutelage.records import Row, UnsteadyDeviceError

pytestmark = pytest.mark.slow

RECIPE = {
    "name": "small",
    "data": {"dataset": "phantom", "size": 32, "limit": 120, "augment_variants": 1},
    "teachers": [{"name": "resnet10t", "epochs": 1, "batch_size": 32}],
    "students": [{"name": "mobilenetv3_small_050"}],
    "devices": [{"name": "host-ort", "runtime": "onnxruntime"}],
    "distill": {"epochs": 1, "batch_size": 32},
    "quantize": {"method": "minmax", "calibration_images": 8},
    "bundle": {"rows": "front"},
    "measure": {"bootstrap": 100, "tolerance": 0.99},  # a test must not hang on how busy the machine is
}
# The teacher in fp32 and the student alone and distilled, each in fp32 and int8.
NUM_ROWS = 6


def recipe_file(folder: Path, **changes: object) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def states(rows: list[Row]) -> set[str]:
    return {row.details["state"] for row in rows}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Row], list[str]]:
    """A run that trained and evaluated everything and could not measure: workspace, recipe, rows, versions seen."""
    workspace, recipe = tmp_path_factory.mktemp("stopped"), recipe_file(tmp_path_factory.mktemp("recipe"))
    seen: list[str] = []
    filed = pipeline.file_rows

    def noted(*arguments: object, **options: object) -> list[Row]:
        rows = filed(*arguments, **options)  # type: ignore[arg-type]
        seen.append(f"{len(Store(workspace / 'leaderboard.db', read_only=True).rows())} {options['state']}")
        return rows

    def unsteady(*_: object) -> None:
        raise UnsteadyDeviceError("the device was busy")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "file_rows", noted)
        patch.setattr(order, "measure_all", unsteady)
        with pytest.raises(UnsteadyDeviceError):
            pipeline.run(load_recipe(str(recipe)), Workspace(workspace), silent, 1)
    return workspace, recipe, Store(workspace / "leaderboard.db", read_only=True).rows(), seen


def test_every_network_has_its_rows_as_soon_as_it_is_evaluated(
    stopped: tuple[Path, Path, list[Row], list[str]],
) -> None:
    _, _, rows, seen = stopped
    assert seen == ["2 evaluated", "4 evaluated", "6 evaluated"]
    assert states(rows) == {"evaluated"}
    for row in rows:
        assert row.accuracy is not None
        assert row.latency_p50_ms is None


def test_the_run_that_goes_on_completes_the_rows_under_their_ids(
    stopped: tuple[Path, Path, list[Row], list[str]],
) -> None:
    workspace, recipe, before, _ = stopped
    server = make_server(workspace / "leaderboard.db")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()

    def ask(path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    try:
        version, table = ask("/version"), ask("/rows.csv")
        assert all(row.key in table for row in before)
        _, published = pipeline.run(load_recipe(str(recipe)), Workspace(workspace), silent, 1)
        assert ask("/version") != version, "the page would not load again"
        assert ask("/rows.csv").count("\n") == 1 + NUM_ROWS
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    store = Store(workspace / "leaderboard.db", read_only=True)
    after = store.rows()
    assert [row.key for row in after] == [row.key for row in before] == [row.key for row in published.rows]
    assert states(after) == {"complete"}
    assert all(row.latency_p50_ms and row.measurement for row in after)
    for row, was in zip(after, before, strict=True):
        assert (row.accuracy, row.auc) == (was.accuracy, was.auc)
        assert ("gain_over_control" in row.details) == (bool(row.teacher) and row.role == "student")
    (bundle,) = published.bundles  # one network, however many of its rows are on the front
    assert bundle.folder == workspace / "bundles" / "small" / "mobilenetv3_small_050"
    made = load_bundle(bundle.folder)
    downloads = Downloads(workspace, store.details)
    with downloads.find(bundle.row.key, "bundle").content as content:
        assert {Path(name).name for name in zipfile.ZipFile(content).namelist()} == set(os.listdir(bundle.folder))
    for row in after:
        file = row.details["how"]["file"]
        with downloads.find(row.key, "model").content as content:
            assert content.read() == (workspace / file["path"]).read_bytes()
    assert f"`{bundle.row.key}`" in (bundle.folder / "MODEL_CARD.md").read_text()
    assert (made.parity.evaluated_difference or 0.0) < 1e-6  # in batches of other sizes
    # Once more: nothing is new, and nothing is taken back on the way; a bundle that was changed is put back.
    version, number = str(store.version()), bundle.folder.stat().st_ino
    _, again = pipeline.run(load_recipe(str(recipe)), Workspace(workspace), silent, 1)
    assert str(store.version()) == version
    assert [(one.row.key, one.folder) for one in again.bundles] == [(bundle.row.key, bundle.folder)]
    assert bundle.folder.stat().st_ino == number, "an unchanged bundle was copied again"
    (bundle.folder / "labels.json").write_text("[]")
    pipeline.run(load_recipe(str(recipe)), Workspace(workspace), silent, 1)
    assert load_bundle(bundle.folder).manifest_id == made.manifest_id
    started = [one for one in Workspace(workspace).journal() if one["stage"].startswith("bundle")]
    assert [one["event"] for one in started] == ["start", "done"], "an unchanged bundle was made again"
    assert export(store.frame(), None, "csv").count("\n") == 1 + NUM_ROWS
    # A device that has less flash than the float file takes: it is marked, said, and not what is bundled.
    profile, sizes = workspace / "devices" / "host-ort.yaml", {row.scheme: row.size_bytes for row in after}
    profile.write_text(f"{profile.read_text()}\nflash_bytes: {sizes['int8-ptq']}\n")
    _, tight = pipeline.run(load_recipe(str(recipe)), Workspace(workspace), silent, 1)
    students = [row for row in tight.rows if row.role == "student"]
    assert [OVER_BUDGET in row.details for row in students] == [row.scheme == "fp32" for row in students]
    assert [line.split(" (")[0] for line in tight.over] == ["mobilenetv3_small_050 fp32, onnxruntime"] * 2
    assert [one.row.scheme for one in tight.bundles] == ["int8-ptq"]


def test_older_rows_are_bundled_and_compared_after_starting_over(
    stopped: tuple[Path, Path, list[Row], list[str]], tmp_path: Path
) -> None:
    workspace, _, rows, _ = stopped
    teacher, student = (next(row for row in rows if row.role == role) for role in ("teacher", "student"))
    Workspace(workspace).start_over("small")
    made = bundle_row(student, Workspace(workspace), silent, 1, out=tmp_path / "bundle")
    assert (made.folder / "model.onnx").is_file()
    assert paired_tests(teacher, student, workspace)


# `tutelage` that is killed as soon as it has filed rows.
KILLED = """
import os, signal
from tutelage.cli.app import main
from tutelage.pipeline import run
filed = run.file_rows
def file_and_die(*arguments, **options):
    filed(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
run.file_rows = file_and_die
main()
"""


@pytest.mark.long
def test_a_killed_run_leaves_its_rows_and_the_next_one_takes_their_place(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    words = ["run", str(recipe_file(tmp_path)), "--workspace", str(workspace)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    left = Store(workspace / "leaderboard.db", read_only=True).rows()
    assert 0 < len(left) < NUM_ROWS
    assert states(left) == {"evaluated"}
    subprocess.run([sys.executable, "-m", "tutelage", *words], check=True, capture_output=True)
    rows = Store(workspace / "leaderboard.db", read_only=True).rows()
    assert len(rows) == NUM_ROWS
    assert states(rows) == {"complete"}
    assert {row.key for row in left} < {row.key for row in rows}
    shown = subprocess.run(
        [sys.executable, "-m", "tutelage", "leaderboard", "show", "--workspace", str(workspace)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "goes on, or was stopped" not in shown.stdout
