"""Architectures against devices: what is folded into a line, and why a cell holds no figure."""

import csv
import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tutelage.cli.app import app
from tutelage.leaderboard.columns import column
from tutelage.leaderboard.comparisons.matrix import Matrix, as_records, matrices, matrices_of, to_csv
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.terminal.matrix import show_matrix
from tutelage.records import Arch, InputError, Row

GENES = Arch(space="ofa_mbv3_w1.0_stem1", ks=[3] * 10, e=[3] * 10, d=[2] * 5, r=28)


def row(model: str, device: str, ms: float | None, **more) -> Row:
    facts = {
        "dataset": "chest",
        "manifest": "1",
        "runtime": "onnxruntime",
        "runtime_version": "1.25",
        "role": "student",
    }
    return Row(**{**facts, "model": model, "device": device, "latency_p50_ms": ms, "accuracy": 0.9, **more})


def board() -> list[Row]:
    return [
        row("ofa-1", "host", 2.0, arch=GENES),
        row("ofa-1", "host", 1.0, arch=GENES, scheme="int8", parent="ofa-1"),
        row("ofa-1", "host", 1.5, arch=GENES, teacher="net"),
        row("renamed", "host", 1.2, arch=GENES, seed=2),
        row("ofa-1", "phone", None, arch=GENES, details={"failed": "the runtime refuses Erf"}),
        row("net", "host", 0.5, source="imported"),
        row("net int8", "host", 0.9, parent="net", scheme="int8"),
        row("net", "phone", None, details={"latency": "predicted, not measured", "predicted_ms": [1.0, 1.23, 2.0]}),
        row("late", "host", None, details={"state": "evaluated"}),
        row("theirs", "host", None, source="imported"),
    ]


def built(figure: str = "latency_p50_ms", *, is_open: bool = False) -> Matrix:
    rows = board()
    columns = {name: [column(name).of(one) for one in rows] for name in NAMES}
    columns["arch"] = ["" if one.arch is None else one.arch.model_dump_json() for one in rows]
    texts = {one.key: json.dumps(one.details) for one in rows}
    (matrix,) = matrices_of(columns, column(figure), lambda ids: {key: texts[key] for key in ids}, is_open=is_open)
    return matrix


NAMES = (
    *(
        "row_id",
        "model",
        "teacher",
        "scheme",
        "role",
        "seed",
        "recipe",
        "parent",
        "dataset",
        "manifest",
        "split",
        "fold",
    ),
    *(
        "image_size",
        "device",
        "processor",
        "runtime",
        "runtime_version",
        "threads",
        "batch",
        "precision",
        "power_state",
    ),
    *("source", "latency_p50_ms", "latency_p50_ms_lo", "latency_p50_ms_hi", "accuracy", "accuracy_lo", "accuracy_hi"),
    *("energy_mj", "size_bytes"),
)


def test_a_line_folds_what_is_of_one_architecture_and_a_cell_says_why_it_is_empty():
    matrix = built()
    assert [runtime for _, runtime in matrix.devices] == ["onnxruntime 1.25"] * len(matrix.devices)
    lines = {line.name: line for line in matrix.lines}
    assert list(lines) == ["net", "ofa-1", "late", "theirs"]  # best figure first, the measured of net is .9
    assert lines["ofa-1"].num_files == 4
    at = {name.split(" ")[0]: n for n, (name, _) in enumerate(matrix.devices)}
    host = at["host"]
    said = {name: [(cell.state, cell.value) for cell in line.cells] for name, line in lines.items()}
    assert said["ofa-1"][host] == ("measured", 1.0)
    assert said["net"][host] == ("measured", 0.9)  # the imported .5 is better and was not measured here
    assert said["ofa-1"][at["phone"]] == ("failed", None)
    assert lines["ofa-1"].cells[at["phone"]].reason == "the runtime refuses Erf"
    assert lines["net"].cells[at["phone"]].reason == "1.23 ms predicted, not measured"
    assert said["late"][host] == ("pending", None)
    assert said["late"][at["phone"]] == ("never", None)
    assert "imported file" in " ".join(cell.reason for cell in lines["theirs"].cells)


def test_files_are_listed_and_told_apart():
    lines = built(is_open=True).lines
    inside = [line.name for line in lines if line.of == "ofa-1"]
    assert sorted(inside) == ["ofa-1 int8 · seed 0", "ofa-1 · seed 0", "ofa-1 ← net · seed 0", "renamed · seed 2"]
    assert inside[0] == "ofa-1 int8 · seed 0"  # the best first
    assert not [line for line in lines if line.of == "late"]  # a single file is its architecture's line


def test_that_a_latency_is_predicted_is_no_reason_to_lack_another_figure():
    assert "predicted" in {cell.state for line in built("energy_mj").lines for cell in line.cells}
    states = {cell.state for line in built("size_bytes").lines for cell in line.cells}
    assert states == {"failed", "pending", "absent", "never"}


def test_a_terminal_shows_what_fits_and_names_the_rest():
    matrix = built()
    console = Console(width=46, file=io.StringIO(), record=True, color_system=None)
    show_matrix(matrix, console)
    text = console.export_text()
    assert "devices do not fit" in text
    console = Console(width=160, file=io.StringIO(), record=True, color_system=None)
    show_matrix(matrix, console)
    wide = console.export_text()
    assert "do not fit" not in wide
    assert "the runtime refuses Erf" in wide
    assert "~1.23" in wide
    assert "not run" in wide


def test_csv_and_json_hold_every_cell(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    store.add(board())
    found = matrices(store, "latency_p50_ms", is_open=True)
    head, *lines = csv.reader(io.StringIO(to_csv(found)))
    assert head[:4] == ["dataset", "architecture", "file", "files"]
    assert any("latency_p50_ms [ms]" in name for name in head)
    assert {len(line) for line in lines} == {len(head)}
    assert "failed: the runtime refuses Erf" in {cell for line in lines for cell in line}
    assert sum(one["state"] == "failed" for one in as_records(found)) == 2  # folded, and its file
    assert store.count("failed!=empty") == 1
    with pytest.raises(InputError, match="no quality and no cost"):
        matrices(store, "seed")


def test_the_verb_prints_and_writes(tmp_path):
    Store(tmp_path / "leaderboard.db").add(board())
    run = CliRunner().invoke
    assert "architecture" in run(app, ["leaderboard", "matrix", "-w", str(tmp_path)]).output
    out = tmp_path / "m.csv"
    assert run(app, ["leaderboard", "matrix", "accuracy", "-w", str(tmp_path), "--out", str(out)]).exit_code == 0
    assert out.read_text().startswith("dataset,architecture,file,files,")
    refused = run(app, ["leaderboard", "matrix", "-w", str(tmp_path), "--filter", "model=nett"])
    assert "holds no row" in f"{refused.output}{refused.exception}"
