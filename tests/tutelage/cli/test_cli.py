"""The command line as a user meets it: wrong input is one line with a remedy and the right exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli import app as cli_app

from ..command import Done, assert_exit, image_folder, tutelage


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "--version"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("tutelage 0.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.long)],
)
def test_ctrl_c_and_kill_are_one_line_and_leave_nothing_behind(
    sent: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", "run", "demo", "--set", "data.limit=60", "-w", str(tmp_path / "w")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        # A shell's background job ignores Ctrl-C, and so would this child of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 500
    while not list(scratch.glob("tutelage-*")) and time.monotonic() < limit:
        time.sleep(0.05)
    assert list(scratch.glob("tutelage-*")), "nothing was there to be removed"
    process.send_signal(sent)
    _, err = process.communicate(timeout=300)
    assert_exit(Done(process.returncode, "", err), code, word, "goes on where it was")
    assert not list(scratch.glob("tutelage-*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "demo"], "terminated; the same command goes on where it was"),
        (["run", "demo", "--fresh"], "terminated; the same command without --fresh goes on where it was"),
        (["leaderboard", "serve"], "terminated"),
        (["device", "add", "here"], "terminated"),
    ],
)
def test_only_a_command_of_stages_is_said_to_go_on(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object) -> None:
        raise SystemExit(cli_app.EXIT_TERMINATED)

    monkeypatch.setattr(cli_app, "_carry_out", stopped)
    monkeypatch.setattr(cli_app, "_tidy_when_terminated", lambda: None)
    monkeypatch.setattr(sys, "argv", ["tutelage", *words])
    with pytest.raises(SystemExit) as ended:
        cli_app.main()
    assert ended.value.code == cli_app.EXIT_TERMINATED
    assert capsys.readouterr().err == f"tutelage: {said}\n"


def test_every_verb_has_help_with_an_example() -> None:
    verbs = ["init", "run", "search", "distill", "quantize", "bench", "explain", "reproduce", "doctor"]
    groups = {
        "device": "add list show check remove",
        "leaderboard": "show build export import compare serve",
        "data": "list check",
        "bundle": "make check",
    }
    for verb in [[name] for name in verbs] + [[group, name] for group in groups for name in groups[group].split()]:
        done = tutelage(*verb, "--help")
        assert done.returncode == 0
        assert "Example" in done.stdout, verb


def test_unknown_recipe_key() -> None:
    assert_exit(tutelage("run", "demo", "--set", "distill.epoch=3"), 2, "distill.epoch", "epochs")


def test_unknown_recipe() -> None:
    assert_exit(tutelage("run", "nothing-like-it"), 2, "nothing-like-it", "demo")


def test_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_exit(tutelage("run", "demo", "-w", str(tmp_path / "file" / "ws")), 2, "file is a file", "give a folder")


def test_workspace_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"layout": 99}))
    assert_exit(tutelage("run", "demo", "-w", str(tmp_path)), 2, "layout 99")


def test_a_leaderboard_that_is_not_there(tmp_path: Path) -> None:
    assert_exit(tutelage("leaderboard", "show", "-w", str(tmp_path)), 2, "no leaderboard", "tutelage run demo")


def test_unknown_device(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert_exit(
        tutelage("bench", str(tmp_path / "m.onnx"), "--device", "nothing", "-w", str(tmp_path / "w")), 2, "nothing"
    )


def test_a_budget_without_a_unit(tmp_path: Path) -> None:
    done = tutelage("search", "--device", "host-ort-64px", "--max-latency", "5", "-w", str(tmp_path))
    assert_exit(done, 2, "'5'", "5ms")
    assert not (tmp_path / "devices").exists(), "the device was measured for a budget that cannot be read"


def test_the_strategy_is_ours_unless_named_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    from tutelage.pipeline.sections import SearchSection

    assert SearchSection().strategy == "default"
    assert_exit(tutelage("search", "--strategy", "nsgaa", "-w", str(tmp_path)), 2, "'nsgaa'", "did you mean 'nsga2'")
    assert {file.name for file in tmp_path.iterdir()} <= {"workspace.json"}, "a stage ran"


def test_a_budget_nothing_meets_is_reported_before_any_training(tmp_path: Path) -> None:
    assert_exit(tutelage("search", "--max-params", "10k", "--set", "data.limit=60", "-w", str(tmp_path)), 3, "params")
    assert not list(tmp_path.glob("artifacts/*"))
    assert not (tmp_path / "devices").exists(), "a device was measured for a budget that its size alone rules out"


def test_a_truncated_image_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    broken = root / "a" / "a3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (root / "b" / "b0.png").write_bytes(b"")
    arguments = ["search", "--dataset", "folder", "--path", str(root), "--set", "devices=[]", "-w", str(tmp_path / "w")]
    assert_exit(tutelage(*arguments), 2, "a3.png")
    # With the two skipped, what is refused is what is found in the images that are left.
    skipping = tutelage(*arguments, "--set", "data.skip_bad=true")
    assert skipping.returncode == 2
    assert "the train split holds 12 images" in skipping.stderr
    for more in ([], ["--json"]):
        check = tutelage("data", "check", str(root), *more)
        assert check.returncode == 2, "a script takes data with a problem for good"
        assert "a3.png" in check.stdout
        assert "b0.png" in check.stdout
    shutil.copy(root / "a" / "a1.png", broken)
    (root / "b" / "b0.png").unlink()
    noted = tutelage("data", "check", str(root))
    assert "note: 2 copies of one file" in noted.stdout
    assert noted.returncode == 0


def test_a_class_without_an_image_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    (root / "c").mkdir()
    done = tutelage(
        "search", "--dataset", "folder", "--path", str(root), "--set", "devices=[]", "-w", str(tmp_path / "w")
    )
    assert_exit(done, 2, "class c at", "holds no image")


@pytest.mark.parametrize("argument", ["--format=yaml"])
def test_unknown_export_format(tmp_path: Path, argument: str) -> None:
    from tutelage.leaderboard.store import Store
    from tutelage.records import Row

    Store(tmp_path / "leaderboard.db").add([Row(model="m", role="student", dataset="d")])
    assert_exit(tutelage("leaderboard", "export", argument, "-w", str(tmp_path)), 2, "yaml", "csv")


def test_one_row_says_which_rows_beat_it(tmp_path: Path) -> None:
    from tutelage.leaderboard.store import Store
    from tutelage.records import Row

    common = {"dataset": "d", "device": "box", "batch": 1, "threads": 1}
    good = Row(model="good", role="student", auc=0.9, latency_p50_ms=1, size_bytes=10, **common)  # type: ignore[arg-type]
    poor = Row(model="poor", role="student", auc=0.8, latency_p50_ms=2, size_bytes=20, **common)  # type: ignore[arg-type]
    Store(tmp_path / "leaderboard.db").add([good, poor])
    beaten = tutelage("leaderboard", "show", poor.key, "-w", str(tmp_path)).stdout
    assert f"{good.key[:8]}      good  +0.100" in beaten
    # A value that no row has is said where nothing is shown or exported, beside what there is.
    for words in (["show"], ["show", "--json"], ["export"]):
        done = tutelage("leaderboard", *words, "--filter", "device=bxo and role=student", "-w", str(tmp_path))
        assert done.stderr == "note: no row has device 'bxo': the nearest is 'box'\n"
        assert done.returncode == 0
    assert "No row dominates it" in tutelage("leaderboard", "show", good.key, "-w", str(tmp_path)).stdout
    board = tutelage("leaderboard", "show", "--front", "latency_p50_ms,auc", "--ties", "0.01", "-w", str(tmp_path))
    assert "* sure" in board.stdout
    assert_exit(tutelage("leaderboard", "show", "--ties", "0.01", "-w", str(tmp_path)), 2, "--front")


def test_rows_as_json_keep_the_limit_and_say_who_is_on_the_front(tmp_path: Path) -> None:
    from tutelage.leaderboard.store import Store
    from tutelage.records import Row

    common = {"role": "student", "dataset": "d", "device": "box", "batch": 1, "threads": 1}
    undefined = {"details": {"ece": float("nan")}}
    figures = {"poor": (0.7, 9, 30), "good": (0.9, 2, 10), "quick": (0.8, 1, 20)}
    rows = [
        Row.model_validate({"model": name, "auc": auc, "latency_p50_ms": ms, "size_bytes": size, **common, **undefined})
        for name, (auc, ms, size) in figures.items()
    ]
    Store(tmp_path / "leaderboard.db").add(rows)

    def shown(*options: str) -> dict[str, tuple[bool, str | None]]:
        out = tutelage("leaderboard", "show", "--json", *options, "-w", str(tmp_path)).stdout
        printed = json.loads(out, parse_constant=pytest.fail)
        assert {row["row_id"]: row["model"] for row in printed}.items() <= {row.key: row.model for row in rows}.items()
        return {row["model"]: (row["on_front"], row.get("front")) for row in printed}

    assert {name: on_front for name, (on_front, _) in shown().items()} == {"good": True, "quick": True, "poor": False}
    assert list(shown("--limit", "2")) == ["good", "quick"]  # best first, as in the table
    assert shown("--front", "latency_p50_ms", "--limit", "3") == {
        "good": (False, None),
        "quick": (True, "sure"),
        "poor": (False, None),
    }
    assert list(shown("--filter", "latency_p50_ms>1 ms", "--limit", "1")) == ["good"]
    one = tutelage("leaderboard", "show", rows[0].key, "--json", "-w", str(tmp_path)).stdout
    assert json.loads(one, parse_constant=pytest.fail)["details"]["ece"] is None


def test_a_front_or_a_filter_on_a_figure_that_no_row_has_says_so(tmp_path: Path) -> None:
    from tutelage.leaderboard.store import Store
    from tutelage.records import Row

    Store(tmp_path / "leaderboard.db").add([Row(model="m", role="student", dataset="d", auc=0.9, latency_p50_ms=1.0)])
    for front, lacks in (
        ("latency_p50_ms,auc@b", "auc@b"),
        ("energy_mj:min,auc", "energy_mj"),
        ("latency_p50_ms:min,auc:max", ""),
    ):
        said = tutelage("leaderboard", "show", "--front", front, "-w", str(tmp_path)).stdout
        assert (f"no row has {lacks}: nothing is on that front." in said) == bool(lacks)
        assert said.count("no row has") == bool(lacks)
    for verb, words in (("show", "holds no such row"), ("export", "row_id")):
        done = tutelage("leaderboard", verb, "--filter", "auc@b>0 and auc>0", "-w", str(tmp_path))
        assert done.returncode == 0
        assert words in done.stdout
        assert "note: no row has auc@b\n" in done.stderr
        assert "no row has auc\n" not in done.stderr


def test_a_device_that_is_added_without_options_fits_a_search_without_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.pipeline.recipe import load_recipe

    class ReachedError(Exception):
        """The verb went as far as the test looks."""

    asked: list[Any] = []

    def stop(workspace: Any, report: Any, request: Any, measurements: Any) -> None:
        asked.append(request)
        raise ReachedError

    monkeypatch.setattr("tutelage.pipeline.operations.devices.add_device", stop)
    for options in ([], ["--from-measurements", "times.csv"]):
        with pytest.raises(ReachedError):
            tutelage("device", "add", "box", *options, "-w", str(tmp_path))
    demo = load_recipe("demo")
    measured, imported = asked
    assert (measured.space.name, measured.space.resolutions) == (demo.supernet.space, (demo.data.size,))
    assert (measured.channels, measured.num_classes) == (demo.data.channels, 4)
    assert imported.space.name == "ofa_mbv3_w1.0"


def test_a_budget_without_a_device_says_whose_it_is(tmp_path: Path) -> None:
    from tutelage.pipeline.recipe import load_recipe

    name = load_recipe("demo").devices[0].name
    arguments = ["search", "--max-latency", "5ms", "--supernet-weights", "absent.pth", "-w", str(tmp_path)]
    done = tutelage(*arguments)
    assert done.returncode == 2
    assert f"--max-latency 5ms holds on the recipe's devices: {name}" in done.stderr
    assert "holds on" not in tutelage(*arguments, "--device", name).stderr


def test_an_architecture_is_trained_with_every_seed_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.pipeline.context import TeacherSet
    from tutelage.pipeline.operations import single_stage as alone
    from tutelage.pipeline.recipe import load_recipe
    from tutelage.pipeline.stages import students
    from tutelage.pipeline.workspace import Workspace
    from tutelage.search.spaces.space import SPACES

    (tmp_path / "arch.json").write_text(
        json.dumps(SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)).smallest().to_dict())
    )
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(alone, "train_teacher", lambda ctx, section: None)
    monkeypatch.setattr(students, "decided", lambda ctx, student, controls, wanted: [(TeacherSet((student,)),) * 3])
    monkeypatch.setattr(students, "note_chosen", lambda ctx, name, trained: None)

    def train_student(*given: Any) -> Any:
        asked.append((len(given[3].teachers), given[4]))
        return given[1]

    monkeypatch.setattr(students, "train_student", train_student)
    recipe = load_recipe("demo", ["seeds=3", "data.limit=60"])
    alone.distil_arch(recipe, Workspace(tmp_path / "w"), lambda *_: None, 1, path=tmp_path / "arch.json")
    assert asked == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
