"""The house's own rules, read from the source: who may import whom, file sizes, and no room as a top-level name."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("search", "distill", "quant", "bench", "leaderboard")
# What every room may use: the types that cross rooms, quantities with units, and files that are whole or absent. None
# of them knows the package.
LEAVES = ("tutelage.records", "tutelage.quantities", "tutelage.files")
# Rooms know these alone, but for this: latency features are counts of blocks, a table without torch.
ALLOWED = {"bench": {"tutelage.search.space", "tutelage.search.counts"}}
# The one training loop reads top to bottom, and is longer for it.
TRAINING_LOOP = 135


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_know_the_leaves_and_themselves_only(room: str) -> None:
    for path in (ROOT / room).glob("**/*.py"):
        for name in imports_of(path):
            if name.split(".")[0] != "tutelage" or name in LEAVES:
                continue
            assert name in ALLOWED.get(room, set()), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_nobody(leaf: str) -> None:
    path = ROOT.joinpath(*leaf.split(".")).with_suffix(".py")
    assert not [name for name in imports_of(path) if name.startswith("tutelage")]
    relative = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert {node.module for node in relative} <= {"comparison", "inputs", "record"}  # parts of `records`


def test_no_module_is_imported_by_a_generic_top_level_name() -> None:
    for path in [*ROOT.glob("tutelage/**/*.py"), *(file for room in ROOMS for file in (ROOT / room).glob("**/*.py"))]:
        for name in imports_of(path):
            assert name.split(".")[0] not in ROOMS, f"{path.relative_to(ROOT)} imports {name}: write tutelage.{name}"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("tutelage.leaderboard.store", "torch"), ("tutelage.search.counts", "torch"), ("tutelage.cli", "torch")],
)
def test_light_modules_stay_light(module: str, unwanted: str) -> None:
    code = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules or bool({set(ROOMS)!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd="/", check=False).returncode == 0


def test_files_and_functions_stay_readable() -> None:
    for path in [*ROOT.glob("tutelage/**/*.py"), *(file for room in ROOMS for file in (ROOT / room).glob("**/*.py"))]:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path.relative_to(ROOT)} is past 400 lines: split it by idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                limit = TRAINING_LOOP if (path.name, node.name) == ("train.py", "train") else 70
                assert length <= limit, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"
