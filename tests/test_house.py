"""The house's own rules, read from the source: who may import whom, no cycles, sizes, and what the wheel holds."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("search", "distill", "quant", "bench", "leaderboard")
# What every room may use: the types that cross rooms, quantities with units, files that are whole or absent, the
# registries that plug-ins add to, what the C library does with freed memory, where networks are computed and by which
# processes, the hub that files are fetched from, how test images are corrupted. None of them knows the package.
LEAVES = tuple(
    f"tutelage.{name}"
    for name in (
        *("records", "quantities", "files", "plugins", "tensors", "allocator", "accelerator", "ranks", "hub"),
        *("dominance", "corruptions", "in_file"),
    )
)
# Rooms know these and themselves alone, but for this: latency features are counts of blocks, tables without torch.
ALLOWED = {"bench": {"tutelage.search.spaces.space", "tutelage.search.costs.counts", "tutelage.search.costs.numbered"}}
MOST_LINES = 400
MOST_BODY_LINES = 70
MOST_MODULES = 12
# Folders that hold more than MOST_MODULES, each with the reason.
WIDE_FOLDERS: dict[str, str] = {
    "bench/runtimes": "one file a runtime, and what runs them on a device",
    "search": "what a search is made of, and the import paths that stay",
    "tutelage": "what every room may use, one file an idea",
    "tutelage/cli/verbs": "one file a verb or verb group",
    "tutelage/pipeline/operations": "one file an operation that the command line and the pipeline offer",
    "tutelage/pipeline/stages": "one file a stage, and what several of them compute with",
}


def sources() -> list[Path]:
    """List the package's own Python files."""
    return [path for top in ("tutelage", *ROOMS) for path in sorted((ROOT / top).rglob("*.py"))]


def module_of(path: Path) -> str:
    """Give the dotted name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "tutelage" else ("tutelage", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> list[str]:
    """Give the dotted parts of the package that a file's relative imports start from."""
    parts = module_of(path).split(".")
    return parts if path.name == "__init__.py" else parts[:-1]


def imports_of(path: Path, *, deferred: bool = True) -> Iterator[str]:
    """Yield the absolute dotted names a file imports; without `deferred`, only those of its import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if deferred else _at_import(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in MODULES)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: not function bodies, not `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


MODULES = {module_of(path): path for path in sources()}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_know_the_leaves_and_themselves_only(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for name in imports_of(path):
            if name.split(".")[0] != "tutelage" or name in LEAVES or f"{name}.".startswith(f"tutelage.{room}."):
                continue
            assert name in ALLOWED.get(room, set()), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_nobody(leaf: str) -> None:
    parts = {f"tutelage.{name}" for name in ("arch", "comparison", "inputs", "measured", "record")}  # of `records`
    known = {name for name in imports_of(MODULES[leaf]) if name.startswith("tutelage")}
    assert known <= parts


def test_the_front_door_is_entered_from_the_command_line_only() -> None:
    """`cli` knows `pipeline`, and `pipeline` does not know `cli`."""
    for path in (ROOT / "tutelage" / "pipeline").rglob("*.py"):
        assert not [name for name in imports_of(path) if f"{name}.".startswith("tutelage.cli.")], path


# Each takes a tenth of a second to two; a command starts without those that it does not use.
LATE = {"scipy", "timm", "ofa", "sklearn", "pandas", "matplotlib", "pymoo", "onnx", "onnxruntime", "openvino", "nncf"}
SCRIPTS = {"tutelage.bench.converters.litert_script"}  # run in an environment of their own


def test_slow_libraries_are_imported_by_the_function_that_uses_them() -> None:
    for name in MODULES.keys() - SCRIPTS:
        found = LATE & {one.split(".")[0] for one in imports_of(MODULES[name], deferred=False)}
        assert not found, f"{name} imports {', '.join(sorted(found))}"


def test_no_import_cycles() -> None:
    """No module waits, while it is imported, for one that waits for it; a package's door may name its own modules."""
    graph = {
        name: {other for other in imports_of(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done or name not in graph:
            return
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize(
    "room",
    [
        "leaderboard",
        pytest.param("search", marks=pytest.mark.long),
        pytest.param("distill", marks=pytest.mark.long),
        pytest.param("quant", marks=pytest.mark.long),
        pytest.param("bench", marks=pytest.mark.long),
        pytest.param("pipeline", marks=pytest.mark.long),
    ],
)
def test_any_module_may_be_imported_first(room: str) -> None:
    """A cycle through a package's `__init__` shows only where one of its modules is imported before it."""
    program = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.split(".")[0] == "tutelage"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""
    names = [name for name in sorted(MODULES) if f"{name}.".startswith(f"tutelage.{room}.")]
    done = subprocess.run([sys.executable, "-c", program, *names], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_no_module_is_imported_by_a_generic_top_level_name() -> None:
    for path in sources():
        for name in imports_of(path):
            assert name.split(".")[0] not in ROOMS, f"{path.relative_to(ROOT)} imports {name}: write tutelage.{name}"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("tutelage.leaderboard.store", "torch"),
        ("tutelage.search.counts", "torch"),
        ("tutelage.search.space", "torch"),
        ("tutelage.cli", "torch"),
        ("tutelage.leaderboard.store.rows", "alembic"),
        ("tutelage.cli.show, tutelage.pipeline.operations.board, tutelage.pipeline.operations.paired", "torch"),
    ],
)
def test_light_modules_stay_light(module: str, unwanted: str) -> None:
    code = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules or bool({set(ROOMS)!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd="/", check=False).returncode == 0


LIGHT_COMMANDS = """
import contextlib, io, sys
from tutelage.cli.app import main

workspace, *lines = sys.argv[1:]
for line in lines:
    sys.argv = ["tutelage", *line.split(), *([] if "-" in line else ["-w", workspace])]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, line
    assert said.getvalue(), line
    print(line, *sorted({*sys.modules, *(one.split(".")[0] for one in sys.modules)}))
"""


def test_commands_that_only_show_import_no_slow_library(tmp_path: Path) -> None:
    from tutelage.leaderboard.store import Store
    from tutelage.records import Row

    row = Row(model="m", role="student", dataset="d", device="x", auc=0.9, latency_p50_ms=1.0, size_bytes=10)
    Store(tmp_path / "leaderboard.db").add([row])
    lines = ["--help", "leaderboard --help", "leaderboard show", "device list", "device catalogue --json"]
    command = [sys.executable, "-c", LIGHT_COMMANDS, str(tmp_path), *lines]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, found in zip(lines, done.stdout.splitlines(), strict=True):
        assert found.startswith(line)
        unused = {"torch", "alembic", "ray", "pyarrow", "huggingface_hub", "fsspec"}
        unused |= {"tutelage.cli.output"} if line in lines[:3] else set()  # progress, logging and tables of runs
        unused |= {"sqlalchemy", "numpy", "tutelage.leaderboard.columns"} if line in lines[:2] else set()
        slow = (LATE | unused) & set(found.split())
        assert not slow, f"tutelage {line} imports {', '.join(sorted(slow))}"


def test_files_functions_and_folders_stay_readable() -> None:
    for path in sources():
        text = path.read_text()
        where = path.relative_to(ROOT)
        assert text.count("\n") <= MOST_LINES, f"{where} is past {MOST_LINES} lines: split it by idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
                assert length <= MOST_BODY_LINES, f"{where}: the body of {node.name} has {length} lines"
    for folder in sorted({path.parent for path in sources()}):
        modules = [path for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
        name = str(folder.relative_to(ROOT))
        assert len(modules) <= MOST_MODULES or name in WIDE_FOLDERS, f"{name} holds {len(modules)} modules"


def test_no_console_reads_brackets_in_names_as_markup() -> None:
    calls = [
        (path.name, node.lineno, {word.arg for word in node.keywords})
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Console", "TextColumn")
        if not (node.args and isinstance(node.args[0], ast.Constant) and str(node.args[0].value).isalpha())
    ]
    assert len(calls) > 20
    assert [call for call in calls if "markup" not in call[2]] == []


def test_the_wheel_holds_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert packages - {"tutelage.bench.devices"} <= set(listed)
    assert {name for name in listed if name not in packages} <= {"tutelage.bench.devices"}


# Distributions whose module has another name; and those that no module of ours imports, each with who needs it.
MODULES_OF = {"scikit-learn": "sklearn", "grad-cam": "pytorch_grad_cam", "pillow": "PIL", "pyyaml": "yaml"}
NEEDED_BY_OTHERS = {
    "onnxscript": "torch.onnx exports through it",
    "torchvision": "timm and ofa import it, and its version goes with torch's",
    "pyarrow": "pandas writes Parquet with it",
}


def test_every_dependency_is_imported() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    imported = {name.split(".")[0] for path in sources() for name in imports_of(path)}
    for requirement in listed:
        name = re.split(r"[<>=!~\[ ]", requirement)[0]
        module = MODULES_OF.get(name, name.lower().replace("-", "_"))
        known = {found.lower() for found in imported} | imported
        assert module in known or name in NEEDED_BY_OTHERS, f"{name}: nothing imports {module}"
    assert set(NEEDED_BY_OTHERS) <= {re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in listed}
