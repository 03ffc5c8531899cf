"""Nothing that is loaded can run code, leave its folder or fill the memory: one test for each kind of file."""

import ast
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from tutelage.bench.devices.imported import read_measurements
from tutelage.bench.devices.profiles import read_profile
from tutelage.bench.latency.model import LatencyModel
from tutelage.leaderboard.store.importing import read_file
from tutelage.pipeline.recipe import load_recipe
from tutelage.records import MAX_TEXT_BYTES, FaultsError, InputError, bounded_text, npz_arrays, parsed_json, parsed_yaml
from tutelage.search.result import SearchResult

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for room in ("tutelage", "search", "distill", "quant", "bench", "leaderboard", "tests")
    for path in (ROOT / room).rglob("*.py")
)
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Nine aliases of nine aliases ...: a kilobyte that unfolds to 9^10 values.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """List a file's syntax nodes, parsed once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def _calls(path: Path) -> list[ast.Call]:
    return [node for node in _nodes(path) if isinstance(node, ast.Call)]


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def test_nobody_unpickles() -> None:
    for path in SOURCES:
        names = [node.module or "" for node in _nodes(path) if isinstance(node, ast.ImportFrom)]
        found = UNPICKLERS & {name.split(".")[0] for name in names}
        assert not found, f"{path.relative_to(ROOT)} imports from {found}"
        used = [
            ast.unparse(node)
            for node in _nodes(path)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in UNPICKLERS
        ]
        # The error of torch's own restricted reader is named, to be reported in one line.
        assert set(used) <= {"pickle.UnpicklingError"}, f"{path.relative_to(ROOT)} uses {used}"


def test_loaders_are_the_safe_ones() -> None:
    for path in SOURCES:
        for call in _calls(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            loads_programs = _name(call) == "torch.export.load"
            assert not loads_programs or path.name == "pytorch.py", f"{where}: pytorch.load_program unpickles nothing"
            if _name(call) in ("torch.load",):
                assert given.get("weights_only") == "True", f"{where}: torch.load without weights_only=True"
            if _name(call) in ("np.load", "numpy.load"):
                assert given.get("allow_pickle", "False") == "False", f"{where}: np.load unpickles"
            assert _name(call) not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), f"{where}: use safe_load"
            assert _name(call) not in ("eval", "exec"), f"{where}: runs text as code"


class _Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_weights_and_arrays_is_refused_and_not_run(tmp_path: Path) -> None:
    import torch

    from tutelage.distill.teachers.zoo import build_teacher

    torch.save({"weight": _Trap(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth"):
        build_teacher("resnet10t", 2, 3, weights=tmp_path / "w.pth")
    np.save(tmp_path / "odd.npy", np.array([_Trap(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "odd.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["sample_inputs/model.pt", "constants/opaque_obj_0"])
def test_a_pickle_in_a_program_is_refused_and_not_run(place: str, tmp_path: Path) -> None:
    """`torch.export.load` alone would run both."""
    import io
    import zipfile

    import torch
    from torch import nn

    from tutelage.bench.runtimes.registry import find_runtime
    from tutelage.pipeline.operations.single_stage import input_shape
    from tutelage.quant.export.programs import export_pt2

    trap = io.BytesIO()
    torch.save((_Trap(tmp_path / "ran"),), trap)
    whole, bad = export_pt2(nn.Linear(4, 2), tmp_path / "net.pt2", (1, 4)), tmp_path / "bad.pt2"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bad, "w") as target:
        names = source.namelist()
        for name in names:
            target.writestr(name, trap.getvalue() if name.endswith(place) else source.read(name))
        if not any(name.endswith(place) for name in names):
            target.writestr(f"{names[0].split('/')[0]}/data/{place}", trap.getvalue())
    for read in (lambda path: input_shape(path, None), lambda path: find_runtime("torch").load(path, 1, "fp32")):
        with pytest.raises(InputError, match=r"bad\.pt2"):
            read(bad)
    assert not (tmp_path / "ran").exists()
    assert find_runtime("torch").load(whole, 1, "fp32").run(np.zeros((1, 4), np.float32)).shape == (1, 2)


def _huge(path: Path, head: str = "") -> Path:
    """Make a sparse file past the bound: it takes no space."""
    with path.open("wb") as file:
        file.write(head.encode())
        file.truncate(MAX_TEXT_BYTES + 1)
    return path


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("search.json", SearchResult.from_json),
        ("model.latency.json", LatencyModel.load),
        ("measurements.json", read_measurements),
        ("measurements.csv", read_measurements),
        ("rows.json", read_file),
        ("rows.csv", read_file),
        ("box.yaml", read_profile),
        ("recipe.yaml", lambda path: load_recipe(str(path))),
    ],
)
def test_files_past_their_bound_are_refused_unread(name: str, read, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"more than|larger than"):
        read(_huge(tmp_path / name))


@pytest.mark.parametrize(
    "read",
    [SearchResult.from_json, LatencyModel.load, read_measurements, read_file],
    ids=lambda read: read.__qualname__,
)
def test_deep_json_is_bad_input(read, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read(tmp_path / "deep.json")


@pytest.mark.parametrize("text", [BOMB, "[" * 5_000 + "]" * 5_000], ids=["aliases", "depth"])
def test_yaml_that_unfolds_or_nests_without_end_is_bad_input(text: str, tmp_path: Path) -> None:
    assert len(text) < 11_000
    for name, read in (("box.yaml", read_profile), ("recipe.yaml", lambda path: load_recipe(str(path)))):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"is not YAML.*(unfolds|nested)"):
            read(tmp_path / name)


def test_yaml_makes_no_objects() -> None:
    with pytest.raises(yaml.YAMLError):
        parsed_yaml("!!python/object/apply:os.mkdir [ran]")
    assert parsed_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}  # a few aliases are fine


def test_what_fits_is_read(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text('{"a": [1]}')
    assert parsed_json(bounded_text(tmp_path / "small.json")) == {"a": [1]}
    with pytest.raises(json.JSONDecodeError):
        parsed_json("[" * 100_000)


def test_a_message_with_what_a_file_holds_stays_one_line_and_steers_no_terminal() -> None:
    said = str(InputError("column 'a\n  b' \x1b[2J\x00\ud800 \u202e of päth  x.csv"))
    assert said == "column 'a b' \\x1b[2J\\x00\\ud800 \\u202e of päth  x.csv"
    assert str(InputError("two  blanks")) == "two  blanks"
    assert FaultsError(["a\nb", "c", "a\nb"]).lines == ("a b", "c")


@pytest.mark.parametrize("text", ["1" + "0" * 400, "[" + "9" * 301 + "]"])
def test_numbers_beyond_every_float_are_bad_input(text: str) -> None:
    with pytest.raises(json.JSONDecodeError, match="digits"):
        parsed_json(text)
    with pytest.raises(yaml.YAMLError, match="digits"):
        parsed_yaml(text)
    assert parsed_json("9" * 300) == parsed_yaml("9" * 300) == int("9" * 300)


def test_an_archive_that_claims_more_than_its_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, ks=np.zeros(10_000_000, np.uint8), d=np.zeros(3))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"ks\.npy has 10000128 bytes, more than 1000000"):
        npz_arrays(path, 1_000_000)
    assert list(npz_arrays(path, 1_000_000, ["d"])) == ["d"]
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="one array and no npz archive"):
        npz_arrays(tmp_path / "one.npy", 1_000_000)
