"""A package that adds to Tutelage from outside (tests/plugin_package), used by the command line; and its page."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.measure import measure
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.cli.registry_help import REGISTRIES, registry_of
from tutelage.leaderboard.store import Store
from tutelage.pipeline import runtime_files
from tutelage.plugins import GROUPS
from tutelage.records import DeviceProfile, Row
from tutelage.search.counts import count
from tutelage.search.evolve import Objective, search
from tutelage.search.space import SPACES
from tutelage.search.spaces.space import find_space
from tutelage.search.supernet import build_supernet, extract

from .command import tutelage
from .installed import installer

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
ADDED = {group.removeprefix("tutelage."): points for group, points in PROJECT["entry-points"].items()}
RECIPE = PACKAGE / "example.yaml"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the package known as an installation does, without one."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    for install in installer(tmp_path / "site", monkeypatch):
        (tmp_path / "site").mkdir()
        install(PROJECT["name"], PROJECT["version"], ADDED, {})
        yield


def test_the_package_adds_one_of_each_registry() -> None:
    assert set(ADDED) <= set(REGISTRIES) == set(GROUPS)
    for group in REGISTRIES:
        assert registry_of(group).group == group


def check_what_is_shown(doctor: str, data_list: str, helps: str) -> None:
    """Expect every entry in `doctor`, and by name where the command line lists its kind."""
    facts = json.loads(doctor)
    whose = f"{PROJECT['name']} {PROJECT['version']}"
    for group, points in ADDED.items():
        for name in points:
            assert facts[f"plug-in {group} {name}"] == whose
    assert json.loads(data_list)["rings"]["plugin"] == whose
    plain = re.sub(r"[^\w().-]+", " ", helps)
    for name in ("rings", "cosine", "per_tensor", "smallest", "mcu"):
        assert f"{name} (from {whose})" in plain, plain


@pytest.mark.usefixtures("package")
def test_the_command_line_shows_what_the_package_adds() -> None:
    helps = " ".join(tutelage(verb, "--help").stdout for verb in ("search", "distill", "quantize"))
    check_what_is_shown(tutelage("doctor", "--json").stdout, tutelage("data", "list", "--json").stdout, helps)


@pytest.mark.usefixtures("package")
def test_its_strategy_searches() -> None:
    space = SPACES["ofa_mbv3_w1.0"]
    depth = Objective("depth", fn=lambda archs: np.array([sum(arch.d) for arch in archs], float), cheap=False)
    found, drawn = (
        search(space, [depth, Objective("macs")], strategy=strategy, evaluations=16, seed=0)
        for strategy in ("smallest", "random")
    )
    sizes = [float(np.mean(count([row.arch for row in one.evaluated]).macs)) for one in (found, drawn)]
    assert sizes[0] < sizes[1]


@pytest.mark.usefixtures("package")
def test_its_weights_are_found_and_fetched_as_built_in_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.served import Served, serving
    from tutelage.pipeline.weights.entry import Wanted
    from tutelage.pipeline.weights.given import given_weights
    from tutelage.records import InputError

    wanted = Wanted("resnet10t", 3, "resnet10t")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with serving(Served(plain={"/chest_v2.safetensors": b"weights"})) as served:
        monkeypatch.setenv("TUTELAGE_WEIGHTS_MIRROR", served.url)
        given = given_weights("shelf:chest_v2", wanted, 224)
    assert given.path.read_bytes() == b"weights"
    assert given.normalisation is not None
    assert given.normalisation.values == ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError, match="shelf:a/b: a name on the shelf"):
        given_weights("shelf:a/b", wanted, 224)


@pytest.mark.usefixtures("package")
def test_its_space_is_counted_built_and_searched() -> None:
    space = find_space("mcu")
    deep = Objective("depth", "max", fn=lambda archs: np.array([sum(arch.d) for arch in archs], float), cheap=False)
    result = search(space, [deep, Objective("macs")], {"macs": 2e6}, strategy="nsga2", evaluations=24, seed=0)
    assert len(result.front) > 1
    supernet = build_supernet("mcu", num_classes=3, in_channels=1)
    for row in (result.evaluated[i] for i in result.front):
        subnet = extract(supernet, row.arch)
        counted = count([row.arch], 3, 1)
        assert counted.params[0] == sum(weight.numel() for weight in subnet.parameters())
        assert subnet.eval()(torch.zeros(2, 1, row.arch.r, row.arch.r)).shape == (2, 3)


@pytest.mark.usefixtures("package")
def test_its_runtime_computes_and_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against ONNX Runtime here, and by the measuring protocol in a process of its own."""
    anchor = ANCHORS[0]
    model, shape = tmp_path / "net.onnx", (1, anchor.channels, anchor.side, anchor.side)
    model.write_bytes(anchor_onnx(anchor))
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    one, two = (find_runtime(name).load(model).run(images) for name in ("onnx-reference", "onnxruntime"))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    # What a row says of a runtime is what that runtime computes, whoever else loads the format.
    monkeypatch.setattr(runtime_files, "run_onnx", None)
    assert (runtime_files.answers("onnx-reference", model, images, 1) == one).all()
    device = DeviceProfile(name="here", runtime="onnx-reference")
    assert measure({"net": model}, device, shape[1:])["net"].p50_ms > 0


@pytest.mark.usefixtures("package")
def test_its_column_is_filtered_and_exported(tmp_path: Path) -> None:
    rows = [
        Row(model=name, role="student", dataset="d", details={"quantization": {"size_ratio": ratio}})
        for name, ratio in (("small", 0.25), ("large", 0.5))
    ]
    Store(tmp_path / "leaderboard.db").add(rows)
    kept = tutelage("leaderboard", "export", "--filter", "int8_size_ratio<0.3", "--format", "csv", "-w", str(tmp_path))
    assert kept.returncode == 0, kept.stderr
    head, *lines = kept.stdout.strip().splitlines()
    assert "int8_size_ratio" in head.split(",")
    assert [line.split(",")[1] for line in lines] == ["small"]


def check_rows(printed: str) -> None:
    rows = json.loads(printed)
    assert {row["dataset"] for row in rows} == {"rings"}
    assert {row["scheme"] for row in rows} == {"fp32", "int8-per-tensor"}
    assert {row["role"] for row in rows} == {"teacher", "student"}
    # It has no int8, and computes fp32 files as ONNX Runtime does.
    assert {row["scheme"] for row in rows if row["runtime"] == "onnx-reference"} == {"fp32"}
    floats = [row for row in rows if row["scheme"] == "fp32" and row["role"] == "student"]
    both = {(row["model"], row["teacher"], row["runtime"]): row for row in floats}
    for (model, teacher, runtime), row in both.items():
        assert row["accuracy"] == both[model, teacher, "onnxruntime"]["accuracy"], runtime
    for row in rows:
        if row["scheme"] != "fp32":
            assert row["details"]["quantization"]["method"] == "per_tensor"
            assert row["details"]["quantization"]["per_channel"] is False


@pytest.mark.slow
@pytest.mark.usefixtures("package")
def test_a_run_uses_the_packages_data_set_augmentation_loss_and_scheme(tmp_path: Path) -> None:
    done = tutelage("run", str(RECIPE), "--workspace", str(tmp_path / "w"), "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    check_rows(done.stdout)


@pytest.mark.long
@pytest.mark.usefixtures("package")
def test_a_run_searches_the_packages_space_by_its_strategy(tmp_path: Path) -> None:
    done = tutelage("run", str(PACKAGE / "search.yaml"), "--workspace", str(tmp_path / "w"), "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    students = [row for row in json.loads(done.stdout) if row["role"] == "student"]
    assert {row["arch"]["space"] for row in students} == {"mcu"}
    assert {row["scheme"] for row in students} == {"fp32", "int8-per-tensor"}


def test_a_recipe_names_what_only_the_package_adds(tmp_path: Path) -> None:
    done = tutelage("run", str(RECIPE), "--workspace", str(tmp_path / "w"))
    assert done.returncode == 2
    assert "unknown data set 'rings'" in done.stderr


@pytest.mark.long
def test_the_package_installed_in_a_folder_of_its_own_is_used_by_other_processes(tmp_path: Path) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    shutil.copytree(PACKAGE, source)  # a build leaves files behind
    uv = Path(sys.executable).with_name("uv")
    pip = (
        [str(uv), "pip", "install", "--python", sys.executable]
        if uv.exists()
        else [sys.executable, "-m", "pip", "install"]
    )
    command = [*pip, "--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "tutelage", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    helps = " ".join(run(verb, "--help") for verb in ("search", "distill", "quantize"))
    check_what_is_shown(run("doctor", "--json"), run("data", "list", "--json"), helps)
    check_rows(run("run", str(RECIPE), "--workspace", "w", "--json"))


def test_the_page_is_the_package() -> None:
    """Every file of the package stands in docs/extending.md as it is."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n(.*?)^```$", page, re.M | re.S)
    files = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".toml", ".yaml")]
    assert len(files) >= 6
    for path in files:
        if path.name == "__init__.py":
            continue
        assert path.read_text(encoding="utf-8") in blocks, f"docs/extending.md does not show {path.name} as it is"
