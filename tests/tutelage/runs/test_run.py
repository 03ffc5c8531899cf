"""A whole run on made images: rows as promised, the same digits twice, and the same rows after five SIGKILLs."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tutelage.bench.latency.labels import MIN_NETS
from tutelage.bench.runtimes.runner import processor
from tutelage.distill.data.registry import load_dataset
from tutelage.leaderboard.store import Store
from tutelage.pipeline.workspace import Workspace
from tutelage.records import Row

from ..command import Done, assert_exit, tutelage

pytestmark = pytest.mark.slow

# Everything a real recipe has, as small as it goes: one device, one winner, one epoch each.
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "phantom", "size": 32, "limit": 160, "augment_variants": 1},
    "teachers": [
        {"name": "resnet10t", "epochs": 1, "batch_size": 32},
        {
            "name": "vit_tiny_patch16_224",
            "epochs": 1,
            "batch_size": 32,
            "options": {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3},
        },
    ],
    "supernet": {"space": "mbconv_small_w1.0", "epochs": 1, "batch_size": 32, "teachers": ["resnet10t"]},
    # A budget that every subnet keeps: which finalists hold must not hang on how busy the machine is.
    "devices": [{"name": "host-ort-32px", "runtime": "onnxruntime", "max_latency": "1s", "minutes": 0.05}],
    "search": {"strategy": "nsga2", "evaluations": 6, "max_params": "0.8M", "winners": 1},
    "distill": {"epochs": 1, "batch_size": 32},
    "baselines": ["mobilenetv3_small_050"],
    "quantize": {"method": "minmax", "calibration_images": 16},
    "explain": {"images": 2},
    "measure": {"bootstrap": 100, "tolerance": 0.9},  # a test must not hang on how busy the machine is
}
# What a clock or the operating system tells may differ from run to run.
MEASURED = (
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "peak_rss_bytes",
    "energy_mj",
    "measurement",
    "created",
)
MEASURED_DETAILS = ("anchored_ms", "drift", "latency_p50_ms_lo", "latency_p50_ms_hi")
# Files that hold times: learning curves with the seconds of each epoch, and profiles of devices.
TIMED_FILES = re.compile(r"(^|/)history\.json$|^devices/")
TIMEOUT_S = 500


def command(recipe: Path, workspace: Path) -> list[str]:
    return [sys.executable, "-m", "tutelage", "run", str(recipe), "--workspace", str(workspace)]


def succeed(*words: object) -> str:
    """Run the command line in this process; give what it printed."""
    done: Done = tutelage(*map(str, words))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def finish(recipe: Path, workspace: Path) -> str:
    return succeed("run", recipe, "--workspace", workspace)


def figures(workspace: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows: list[Row] = Store(workspace / "leaderboard.db").rows()
    found = {}
    for row in rows:
        data = {name: value for name, value in row.to_dict().items() if name not in MEASURED}
        data["details"] = {name: value for name, value in row.details.items() if name not in MEASURED_DETAILS}
        files = data["details"]["artifacts"].items()
        data["details"]["artifacts"] = {path: sha256 for path, sha256 in files if not TIMED_FILES.search(path)}
        found[(row.model, row.teacher, row.scheme)] = data
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutelage.pipeline.operations.devices.NETS", MIN_NETS)  # each net is exported and takes processes
        finish(recipe, workspace)
    return workspace


def same_device(whole: Path, other: Path) -> None:
    shutil.copytree(whole / "devices", other / "devices")


def test_the_run_leaves_every_row_it_promises(whole: Path) -> None:
    rows = Store(whole / "leaderboard.db").rows()
    students = [row for row in rows if row.role == "student"]
    assert {row.scheme for row in rows} == {"fp32", "int8-ptq"}
    assert {row.teacher for row in students} == {
        "",
        "resnet10t",
        "vit_tiny_patch16_224",
        "resnet10t+vit_tiny_patch16_224",
    }
    assert {row.role for row in rows} == {"teacher", "student", "baseline"}
    for row in rows:
        assert row.latency_p50_ms
        assert row.latency_p50_ms <= (row.latency_p99_ms or 0)
        assert row.accuracy_lo is not None
        assert row.accuracy is not None
        assert row.accuracy_lo <= row.accuracy <= (row.accuracy_hi or 0)
        assert row.params
        assert row.macs
        assert row.size_bytes
    for row in rows:
        maps = row.details.get("explained", [])
        assert len(maps) == (2 if row.scheme == "fp32" else 0)
        assert all(one["map"].startswith("data:image/png;base64,") for one in maps)
    for row in students:
        assert ("gain_over_control" in row.details) == bool(row.teacher)
    by_key = {(row.model, row.teacher, row.scheme): row for row in rows}
    for row in rows:
        if row.scheme != "fp32":
            assert (row.size_bytes or 0) < (by_key[row.model, row.teacher, "fp32"].size_bytes or 0)


def test_the_run_leaves_a_page_a_plot_a_table_and_the_search(whole: Path) -> None:
    folder = whole / "runs" / "tiny"
    assert (folder / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "leaderboard.csv").read_text().startswith("row_id,model,role,arch,teacher")
    (search,) = whole.glob("artifacts/*/search.json")
    evaluated = json.loads(search.read_text())["evaluated"]
    assert len(evaluated) == RECIPE["search"]["evaluations"]
    assert all("error" in one["measured"] and "params" in one["counted"] for one in evaluated)


def test_a_bundle_of_a_row_answers_as_the_row_was_evaluated(whole: Path, tmp_path: Path) -> None:
    """predict.py, where torch cannot be imported, against the probabilities filed with the row, on val and test."""
    row = Store(whole / "leaderboard.db").rows("role=student and scheme=int8-ptq")[-1]
    out = tmp_path / "bundle"
    printed = succeed("bundle", row.key[:10], "--out", out, "--workspace", whole, "--json", "--note", "Made.")
    facts = json.loads(printed)
    assert facts["row"] == row.key
    assert facts["evaluated_difference"] < 1e-6  # the same file, images and threads
    data = {name: value for name, value in RECIPE["data"].items() if name in ("size", "limit")}
    images = load_dataset("phantom", seed=0, cache=whole / "cache", **data)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules.update(torch=None, tutelage=None)\n")
    with np.load(whole / row.details["predictions"]) as filed:
        for split in ("val", "test"):
            np.save(tmp_path / f"{split}.npy", images.images[images.indices(split)])
            command = [sys.executable, str(out / "predict.py"), str(tmp_path / f"{split}.npy")]
            env = {**os.environ, "PYTHONPATH": str(tmp_path)}
            done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
            answers = [json.loads(line) for line in done.stdout.splitlines()]
            probs = filed[f"{split}_probs"]
            np.testing.assert_allclose([one["probabilities"] for one in answers], probs, atol=1e-5)
            called = [[images.class_names[place]] for place in probs.argmax(axis=1)]
            assert [one["labels"] for one in answers] == called
    card = (out / "MODEL_CARD.md").read_text()
    for part in (f"{row.accuracy:.4f} ({row.accuracy_lo:.4f} to ", f"`{row.key}`", "- Made.", "test: 32 images"):
        assert part in card
    assert facts["manifest_id"] in succeed("bundle", "check", out)
    (out / "labels.json").write_text("[]")
    assert_exit(tutelage("bundle", "check", str(out)), 2, "labels.json has SHA-256")


@pytest.mark.long  # the conversion
def test_a_row_is_bundled_with_a_core_ml_program_of_its_network(whole: Path, tmp_path: Path) -> None:
    row = Store(whole / "leaderboard.db").rows("role=student and scheme=int8-ptq")[-1]
    place = tmp_path / "net.mlpackage"
    printed = succeed("bundle", row.key, "--out", tmp_path / "b", "--coreml", place, "--workspace", whole, "--json")
    assert json.loads(printed)["coreml"] == str(place)
    assert (place / "Manifest.json").is_file()
    assert row.params is not None
    assert next(place.rglob("weight.bin")).stat().st_size == pytest.approx(2 * row.params, rel=0.1)


def test_a_finished_run_does_nothing_again(recipe: Path, whole: Path) -> None:
    before = Workspace(whole).journal()
    finish(recipe, whole)
    assert Workspace(whole).journal() == before


@pytest.mark.long
def test_a_row_run_again_gives_the_same_digits(whole: Path, tmp_path: Path) -> None:
    row = next(row for row in Store(whole / "leaderboard.db").rows() if row.role == "student" and row.teacher)
    printed = succeed("reproduce", row.key, "--into", tmp_path, "-w", whole, "--json")
    found = {one["name"]: one for one in json.loads(printed)}
    for name in ("accuracy", "auc", "params", "macs", "size_bytes"):
        assert found[name]["difference"] == "the same", found[name]
    assert found["latency_p50_ms"]["difference"].endswith("%")
    assert figures(tmp_path) == figures(whole)


def test_a_row_says_how_it_was_made(whole: Path) -> None:
    row = Store(whole / "leaderboard.db").rows()[0]
    made = json.loads(succeed("leaderboard", "show", row.key, "--how", "--json", "-w", whole))
    assert (made["recipe"], made["data"]["fold"], made["data"]["image_size"]) == ("tiny", None, 32)
    assert made["data"]["manifest"]
    assert made["versions"]["torch"]
    assert made["device"]["runtime_version"] == version("onnxruntime")
    assert made["device"]["processor"] == processor()
    assert set(made["unknown"]) <= {"power_state"}, "a run left out what it could know"
    said = succeed("leaderboard", "show", row.key, "--how", "-w", whole)
    assert f"manifest {made['data']['manifest'][:8]}, split test, no fold, images of 32 px" in said


@pytest.mark.long
def test_a_run_killed_five_times_ends_with_the_same_rows(recipe: Path, whole: Path, tmp_path: Path) -> None:
    same_device(whole, tmp_path)
    draw = random.Random(2026)
    for _ in range(5):
        _kill_at_some_moment(recipe, tmp_path, draw)
    finish(recipe, tmp_path)
    assert figures(tmp_path) == figures(whole)
    done = [event["key"] for event in Workspace(tmp_path).journal() if event["event"] == "done"]
    assert len(done) == len(set(done)), "a finished stage ran twice"


def _kill_at_some_moment(recipe: Path, workspace: Path, draw: random.Random) -> None:
    """Let the run get on by some stages and some time, then kill it and its children as a power cut would."""
    before = len(Workspace(workspace).journal())
    process = subprocess.Popen(
        command(recipe, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    limit = time.monotonic() + TIMEOUT_S
    wanted = before + draw.randint(1, 5)
    while process.poll() is None and time.monotonic() < limit and len(Workspace(workspace).journal()) < wanted:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 1.5))
    with suppress(ProcessLookupError):  # it may have done all that was left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
