"""What a run prints at its end fits a screen and hides nothing without saying so."""

import io
import re
from pathlib import Path

from rich.console import Console

from tutelage.cli.inventory import print_devices
from tutelage.cli.output import MAX_ROWS, _best_words, print_figures, print_rows_of_run, print_run
from tutelage.leaderboard.page.verdicts import decide
from tutelage.pipeline.stages.publish import Published
from tutelage.records import DeviceProfile, Row


def _printed(num_models: int) -> str:
    out = io.StringIO()
    rows = [
        Row(model=f"net{number}", dataset="d", device=device, role="student", accuracy=number / 100)
        for device in ("box", "phone")
        for number in range(num_models)
    ]
    print_rows_of_run(rows, Console(file=out, width=120))
    return out.getvalue()


def test_a_long_run_shows_its_first_device_and_how_to_see_the_others() -> None:
    short, long = _printed(MAX_ROWS // 2), _printed(MAX_ROWS)
    assert f"{MAX_ROWS} rows" in short
    assert "more rows" not in short
    assert f"{MAX_ROWS} rows ·" in long
    assert (long.count(" box "), long.count(" phone ")) == (MAX_ROWS, 0)
    assert f"{MAX_ROWS} more rows on phone: `tutelage leaderboard show --filter 'device=phone'`" in long


def test_a_best_student_no_better_than_guessing_is_said_to_be_one_where_the_run_ends(tmp_path: Path) -> None:
    figures = {"auc": 0.52, "auc_lo": 0.45, "auc_hi": 0.6, "accuracy": 0.5}
    rows = tuple(
        Row(
            model="net", role="student", dataset="d", manifest="m", device=device, size_bytes=9, latency_p50_ms=1.0,
            details={"validation": {"auc": 0.5}, "how": {"file": {"path": "m.onnx"}}}, **figures,
        )
        for device in ("box", "phone")
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    print_run(None, Published(rows, tmp_path, tmp_path, tmp_path, decide(rows)), console)
    said = console.file.getvalue().splitlines()
    assert [line for line in said if line.startswith("warning: ")] == [
        "warning: net fp32 is no better than guessing: test AUC 0.520 [0.450, 0.600] reaches 0.5, that of guessing; "
        "give it more images or epochs"
    ]


def test_a_remedy_with_brackets_is_printed_whole() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_figures({"pruner nni": "absent: pip install 'tutelage[nni]'"}, console)
    assert "pip install 'tutelage[nni]'" in console.file.getvalue()  # not taken for rich's markup


def test_a_figure_without_an_interval_is_printed_alone() -> None:
    row = Row(model="net", dataset="d", device="box", role="student", accuracy=0.5, accuracy_lo=0.25, accuracy_hi=0.75)
    assert "test accuracy 0.500 [0.250, 0.750], AUC undefined" in _best_words(row)
    bare = Row(model="net", dataset="d", device="box", role="student", accuracy=0.5, auc=0.75)
    assert "test accuracy 0.500 (interval undefined), AUC 0.750 (interval undefined)" in _best_words(bare)


def test_the_list_of_devices_breaks_no_word_at_80_columns() -> None:
    """In columns where whole words fit, else in lines."""
    ort = DeviceProfile(name="host-ort-64px", runtime="onnxruntime", runtime_version="1.31.1", resolutions=(28, 64))
    long = ort.model_copy(update={"name": "a-board-with-a-long-name", "host": "somebody@board.example.org"})
    for profiles, headings in (([ort], 1), ([ort, long], 0)):
        console = Console(file=io.StringIO(), width=80)
        print_devices([(one, Path("w/devices")) for one in profiles], console)
        said = console.file.getvalue()
        assert max(map(len, said.splitlines())) <= 80
        assert said.count("Device profiles in w/devices") == 1
        assert len(re.findall("name +host", said)) == headings
        for word in (*(one.name for one in profiles), *(one.host for one in profiles), "onnxruntime", "1.31.1", "fp32"):
            assert word in said, f"{word} is broken:\n{said}"
