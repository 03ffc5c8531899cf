"""Rows as runs of a real MLflow store, in a file and behind its server, read back by MLflow's own client."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from tutelage.cli.app import app
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

from ..filed import run_row

mlflow = pytest.importorskip("mlflow", reason="no MLflow: pip install 'tutelage[mlflow]'")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["file", pytest.param("http", marks=pytest.mark.long)])
def server(request, tmp_path_factory):
    """A store that is made once, MLflow migrates an empty database through all its versions; or a server of one."""
    folder = tmp_path_factory.mktemp("mlflow")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    if request.param == "file":
        yield store
        return
    program = os.environ.get("TUTELAGE_TEST_MLFLOW", "")
    if not program:
        pytest.skip("mlflow-skinny has no server: TUTELAGE_TEST_MLFLOW names the program mlflow of another environment")
    with serving(program, folder, store) as address:
        yield address


@contextlib.contextmanager
def serving(program, folder, store):
    """Run MLflow's own server on a free port of 127.0.0.1, files behind it, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store]
    words += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "server", *words], stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
        try:
            for _ in range(600):
                assert process.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artifacts of a SQLite store lie in ./mlruns
    place = tmp_path / "own"
    (place / "artifacts" / "1").mkdir(parents=True)
    (place / "artifacts" / "1" / "weights.safetensors").write_bytes(b"w")
    (place / "artifacts" / "1" / "history.json").write_text(
        '[{"epoch": 0, "loss": 0.9, "val_auc": null}, {"epoch": 1, "loss": 0.5, "val_auc": 0.75}]'
    )
    how = {"command": "tutelage run r", "network": {"weights": {"path": "artifacts/1/weights.safetensors"}}}
    rows = [
        Row(model="net", role="student", dataset="d", device="box", auc=0.9, latency_p50_ms=1.25, seed=3,
            details={"how": how, "user": "ada", "project": "lungs"}),
        run_row("evaluated", auc=0.8),
    ]  # fmt: skip
    Store(place / "leaderboard.db").add(rows)
    return place


def push(workspace, uri, *words):
    app(["leaderboard", "push", "--mlflow", uri, "-w", str(workspace), *words], standalone_mode=False)


def test_a_row_is_one_finished_run_with_its_figures_curves_and_files(server, workspace, capsys):
    push(workspace, server, "--experiment", "whole", "--artifacts")
    assert "1 runs logged in experiment whole; 0 rows had one" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("whole")
    (run,) = client.search_runs([experiment.experiment_id])
    (row,) = Store(workspace / "leaderboard.db").rows("model=net")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "net")
    assert run.data.tags["tutelage.row_id"] == row.key
    assert (run.data.tags["user"], run.data.tags["project"]) == ("ada", "lungs")
    assert run.data.metrics["auc"] == 0.9
    assert run.data.metrics["latency_p50_ms"] == 1.25
    assert {"device": "box", "seed": "3", "dataset": "d"}.items() <= run.data.params.items()
    assert "accuracy" not in run.data.metrics
    losses = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "training.loss")]
    assert losses == [(0, 0.9), (1, 0.5)]
    assert [one.value for one in client.get_metric_history(run.info.run_id, "training.val_auc")] == [0.75]
    listed = {one.path for one in client.list_artifacts(run.info.run_id, "artifacts/1")}
    assert listed == {"artifacts/1/weights.safetensors", "artifacts/1/history.json"}


def test_a_row_is_logged_once_and_when_it_is_complete(server, workspace, capsys):
    push(workspace, server, "--experiment", "once")
    assert "1 rows are of a run that goes on" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=server)
    place = client.get_experiment_by_name("once").experiment_id
    killed = client.create_run(place, tags={"tutelage.row_id": run_row("complete", auc=0.8).key})
    Store(workspace / "leaderboard.db").add([run_row("complete", auc=0.8)])
    push(workspace, server, "--experiment", "once")
    assert "1 runs logged in experiment once; 1 rows had one" in capsys.readouterr().out
    push(workspace, server, "--experiment", "once")
    assert "0 runs logged in experiment once; 2 rows had one" in capsys.readouterr().out
    runs = client.search_runs([place])
    assert len(runs) == 3  # the killed one is MLflow's to clean up
    assert {run.info.run_id for run in runs if run.info.status == "RUNNING"} == {killed.info.run_id}


def test_a_server_that_is_away_is_said_without_the_password(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError) as caught:
        push(workspace, "http://me:hidden-word@127.0.0.1:1")
    text = str(caught.value)
    assert text.startswith("--mlflow http://127.0.0.1:1: ")
    assert "hidden-word" not in text
    assert "\n" not in text


def test_a_push_goes_to_one_place(workspace, server):
    for words in (["leaderboard", "push"], ["leaderboard", "push", "folder", "--mlflow", server]):
        with pytest.raises(InputError, match="say where rows are pushed to"):
            app([*words, "-w", str(workspace)], standalone_mode=False)
    with pytest.raises(InputError, match="--experiment x has no effect without --mlflow"):
        app(["leaderboard", "push", "folder", "--experiment", "x", "-w", str(workspace)], standalone_mode=False)
