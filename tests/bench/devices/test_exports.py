"""The cache of exports: each network once for all devices and workspaces, bounded, and safe among processes."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.converters import exports
from tutelage.bench.converters.exports import ExportCache, export_cache
from tutelage.bench.devices import device as device_module
from tutelage.bench.devices.profiles import find_profile
from tutelage.bench.latency.calibrate import Calibration
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.protocol.measure import TimedJobs
from tutelage.pipeline.operations import devices
from tutelage.records import Arch, DeviceProfile, Measurement
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import Space


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    return tmp_path / "cache" / "tutelage" / "exports"


def _calibrate(profile: DeviceProfile, space: Space, **options: object) -> Calibration:
    """Export what a calibration exports, and time it by its MACs: a device without noise."""
    export, export_block = options["export"], options["export_block"]
    folder = options["kept"].parent  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    nets: list[Arch] = space.decode(space.random(8, np.random.default_rng(0)))
    specs = device_module.block_table_specs(space, 4, 1)[:3]
    for number, arch in enumerate(nets[:2]):
        export(arch, folder / f"net{number}.onnx")  # type: ignore[operator]
    for number, spec in enumerate(specs):
        export_block(spec, folder / f"block{number}.onnx")  # type: ignore[operator]
    ms = count(nets, 4, 1).macs / 1e7 + 0.1
    one = Measurement(
        device="x", runtime="onnxruntime", runtime_version="1", threads=1, batch=1, precision="fp32",
        effective_precision="fp32", samples_ms=(1.0,),
    )  # fmt: skip
    model = LatencyModel.fit(nets, ms, num_classes=4, in_channels=1)
    return Calibration(model, nets, ms, np.zeros(0), 0.01, 0.02, 2, 1.0, TimedJobs({"net": one}, 0.0, 1.0, 1, "a cpu"))


def test_a_second_device_of_another_workspace_exports_nothing(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., int]
) -> None:
    made: list[str] = []
    export = devices.export_network

    def counted(network: object, path: Path, shape: tuple[int, int, int, int]) -> None:
        made.append(path.name)
        export(network, path, shape)  # type: ignore[arg-type]

    monkeypatch.setattr(devices, "export_network", counted)
    monkeypatch.setattr(device_module, "calibrate", _calibrate)

    def add(name: str, workspace: str, *more: str) -> int:
        made.clear()
        words = ["device", "add", name, "--resolution", "32", "-w", str(tmp_path / workspace), *more]
        assert command(*words) == 0
        return len(made)

    assert add("one", "a") == 5
    first = {path.name: path.read_bytes() for path in cache_home.glob("*.onnx")}
    assert len(first) == 5
    assert add("two", "a", "--runtime", "openvino") == 0  # another device of the same files
    assert add("three", "b") == 0
    assert add("four", "b", "--no-cache") == 5
    assert {path.name: path.read_bytes() for path in cache_home.glob("*.onnx")} == first
    assert add("five", "b", "--classes", "5") == 2  # other networks; the three blocks are the same
    assert find_profile("three", tmp_path / "b")[0].model_error == find_profile("one", tmp_path / "a")[0].model_error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "mine", "--like", "titan-rtx", "--no-cache"], "no effect on a copy"),
        (["add", "mine", "--from-measurements", "t.csv", "--no-cache"], "no effect on times that were measured before"),
        (["check", "mine", "--publish", "--no-cache"], "no effect with --publish"),
    ],
)
def test_the_option_is_refused_where_nothing_is_exported(
    words: list[str], message: str, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("device", *words, "-w", str(tmp_path)) == 2
    assert message in capsys.readouterr().err


def test_other_versions_of_what_writes_a_file_are_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, made = ExportCache(tmp_path / "c"), []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"net")

    for _ in range(2):
        cache.fetch("net", tmp_path / "a.onnx", make)
    assert len(made) == 1
    cache.fetch("net", tmp_path / "a.pt2", make)  # another format
    cache.fetch("other", tmp_path / "a.onnx", make)
    monkeypatch.setattr(exports, "_versions", lambda: ["torch 99"])
    cache.fetch("net", tmp_path / "a.onnx", make)
    assert len(made) == 4


def test_what_was_not_used_for_longest_goes_first_and_a_model_goes_whole(tmp_path: Path) -> None:
    cache = ExportCache(tmp_path, max_bytes=250)
    now = time.time()
    for name, hours in (("a.onnx", 9), ("b.param", 8), ("b.bin", 8), ("c.onnx", 7), ("new.onnx", 0), ("now.onnx", 0)):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (now - hours * 3600,) * 2)
    cache.fetch("used", tmp_path / "out.txt", lambda path: path.write_bytes(b""))
    assert cache.prune() == 4
    assert sorted(path.name for path in tmp_path.glob("*.[opb]*")) == ["new.onnx", "now.onnx"]
    for name in ("p.onnx", "q.onnx"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert cache.prune() == 0  # another process may read what was used an hour ago


def test_what_another_process_removed_is_made_again(tmp_path: Path) -> None:
    cache = ExportCache(tmp_path / "c")
    cache.fetch("net", tmp_path / "a.onnx", lambda path: path.write_bytes(b"1"))
    next((tmp_path / "c").glob("*.onnx")).unlink()
    cache.fetch("net", tmp_path / "a.onnx", lambda path: path.write_bytes(b"2"))
    assert (tmp_path / "a.onnx").read_bytes() == b"2"


def _fill(folder: Path, own: Path) -> None:
    cache = ExportCache(folder, max_bytes=1)
    for turn in range(40):
        for key in range(5):
            content = str(key).encode() * 5000
            cache.fetch(f"net {key}", own, lambda path, content=content: path.write_bytes(content))
            assert own.read_bytes() == content
        if turn % 5 == 0:
            for path in folder.glob("*.onnx"):
                path.unlink(missing_ok=True)  # as `rm` or another process's prune would


def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path / "c", tmp_path / f"{n}.onnx")) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not [path for path in (tmp_path / "c").iterdir() if path.name.startswith(".")]


def test_a_cache_for_this_once_leaves_nothing_and_a_user_without_a_home_has_the_workspaces(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with export_cache(tmp_path / "w", kept=False) as once:
        once.fetch("net", tmp_path / "a.onnx", lambda path: path.write_bytes(b"1"))
        assert list(once.folder.iterdir())
    assert not once.folder.exists()
    assert not cache_home.exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("tutelage.bench.converters.litert.home_folder", lambda: None)
    with export_cache(tmp_path / "w") as own:
        assert own.folder == tmp_path / "w" / "cache" / "exports"
