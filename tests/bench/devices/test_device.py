"""Profiles: made by real measurements, found in order, refused with the field named; measurements from elsewhere."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.devices import check as check_module
from tutelage.bench.devices import device as device_module
from tutelage.bench.devices import profiles
from tutelage.bench.devices.check import check_profile, reanchor
from tutelage.bench.devices.device import (
    block_table_specs,
    find_profile,
    list_profiles,
    load_latency_model,
    make_profile,
    read_profile,
    remove_profile,
    write_profile,
)
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.devices.profiles import known_profile
from tutelage.bench.devices.table import read_table
from tutelage.bench.latency.calibrate import Calibration
from tutelage.bench.latency.labels import MIN_NETS
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.host import describe_host
from tutelage.bench.protocol.measure import Job, TimedJobs, measure, measure_jobs
from tutelage.bench.protocol.offline import measure_throughput
from tutelage.bench.protocol.worker import launch_local
from tutelage.records import Arch, DeviceProfile, InputError, Measurement
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_block_table_of_the_mobilenet_space_has_93_entries():
    # Five stages, a first and a later kind of block, 3 kernels x 3 expands; stem, first block, head.
    assert len(block_table_specs(SPACE, 4, 1)) == 5 * 2 * 9 + 3


@pytest.mark.slow
def test_make_a_profile_and_check_that_it_holds(tmp_path: Path):
    import torch

    from tutelage.quant.export.onnx_export import export_onnx
    from tutelage.search.supernet import build_arch, build_block

    torch.set_num_threads(1)
    stages: list[str] = []

    def export(arch, path):
        export_onnx(build_arch(arch, 4, 1), path, (1, 1, arch.r, arch.r), check=False)

    def export_block(spec, path):
        export_onnx(build_block(spec), path, (1, spec.in_channels, spec.in_hw, spec.in_hw), check=False)

    folder = tmp_path / "ws" / "devices"
    small = SPACES["mbconv_small_w1.0_stem1"].with_resolutions((28,))
    few = replace(small, kernels=(3,), expands=(2, 4), depths=(0, 1))
    profile = make_profile(
        "here", "onnxruntime", space=few, resolutions=(28,), num_classes=4, in_channels=1, export=export,
        export_block=export_block, folder=folder, minutes=0.05, num_nets=MIN_NETS, tolerance=10.0,
        progress=lambda stage, done, total: stages.append(stage),
    )  # fmt: skip
    assert {"exporting", "loading", "measuring"} <= set(stages)
    assert profile.effective_precision == "fp32"
    assert profile.resolutions == (28,)
    assert (profile, folder) == find_profile("here", tmp_path / "ws")
    model = load_latency_model(profile, folder)
    assert len(model.blocks) == 4 * 2 * 2 + 3
    mean, low, high = model.predict([few.smallest(), few.largest()])
    assert 0 < mean[0] < mean[1]
    assert (low < high).all()
    again = check_profile(profile, folder, space=few, export=export, num_nets=3)
    assert again.error < 1  # a loaded test machine decides how much better
    assert again.changes == ()
    assert profile.system.startswith(platform.system())
    assert model.session is not None
    assert profile.session_noise == pytest.approx(model.session.total, rel=0.01)
    loose = profile.model_copy(update={"model_error": 5.0})  # whatever a loaded machine measures
    anew = reanchor(loose, folder, space=few, export=export)
    assert (anew.correction.num_nets, bool(anew.profile.reanchored)) == (3, True)
    scaled = load_latency_model(anew.profile, folder).predict([few.largest()])[0][0]
    assert scaled == pytest.approx(mean[1] * anew.correction.factor * (1 + (anew.drift or 0.0)))
    assert remove_profile("here", tmp_path / "ws")
    assert not list(folder.iterdir())


def test_a_measured_device_is_transferred_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten nets are asked for and no more; the model keeps the scale of the anchors."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((128, 224))
    rng = np.random.default_rng(0)
    nets = space.decode(space.random(42, rng))
    ms = count(nets).macs / 1e7 + 0.2 * np.array([sum(arch.d) for arch in nets])
    source = LatencyModel.fit(nets[:30], ms[:30])
    asked: dict[str, object] = {}

    def calibrate(profile: DeviceProfile, space: object, **options: object) -> Calibration:
        asked.update(options)
        own = LatencyModel.fit(nets[30:], ms[30:] / 3)
        own.anchor_ms = 1.5
        found = Measurement(
            device="x", runtime="onnxruntime", runtime_version="1", threads=1, batch=1, precision="fp32",
            effective_precision="fp32", samples_ms=(1.0,),
        )  # fmt: skip
        return Calibration(
            own, nets[30:], ms[30:] / 3 * np.exp(0.05 * rng.standard_normal(12)), np.zeros(0), 0.01, 0.02, 2, 1.0,
            TimedJobs({"net": found}, 0.0, 1.5, 1, "a processor"),
        )  # fmt: skip

    monkeypatch.setattr(device_module, "calibrate", calibrate)

    def make(sources: dict[str, LatencyModel], side: int) -> DeviceProfile:
        return make_profile(
            "box", "onnxruntime", space=space, resolutions=(side, 224), num_classes=1000, in_channels=3,
            export=lambda *_: None, export_block=None, folder=tmp_path, num_nets=12, sources=sources,
        )  # fmt: skip

    with pytest.raises(InputError, match=r"no device to transfer from predicts ofa_mbv3_w1.0 at 96, 224 px \(other"):
        make({"other": source}, 96)
    assert not asked  # refused before anything is measured
    model = load_latency_model(make({"other": source}, 128), tmp_path)
    assert asked["max_nets"] == asked["num_nets"] == 12
    assert list(model.sources) == ["other"]
    assert model.anchor_ms == 1.5
    assert len(read_table(tmp_path, "box").archs) == 12


def test_profiles_come_from_the_workspace_then_the_user(tmp_path: Path, own_home: Path):
    user, work = own_home / "devices", tmp_path / "ws" / "devices"
    write_profile(DeviceProfile(name="box", runtime="openvino", threads=2), user)
    assert find_profile("box", tmp_path / "ws")[0].threads == 2
    write_profile(DeviceProfile(name="box", runtime="openvino", threads=1), work)
    assert find_profile("box", tmp_path / "ws") == (DeviceProfile(name="box", runtime="openvino"), work)
    assert find_profile("box", None)[1] == user
    assert [profile.name for profile, _ in list_profiles(tmp_path / "ws")] == ["box"]
    with pytest.raises(InputError, match=r"no device named 'bax'; did you mean box\?"):
        find_profile("bax", tmp_path / "ws")
    with pytest.raises(InputError, match="no latency model"):
        load_latency_model(*find_profile("box", None))


def test_profiles_of_the_package_come_last_and_stay(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch):
    package, work = tmp_path / "package", tmp_path / "ws"
    monkeypatch.setattr(profiles.importlib.resources, "files", lambda name: package)
    for threads, folder in enumerate((package, own_home / "devices", work / "devices"), 1):
        write_profile(DeviceProfile(name="box", runtime="openvino", threads=threads), folder)
    for threads in (3, 2):  # the workspace hides the user's, which hides the package's
        assert find_profile("box", work)[0].threads == threads
        assert [profile.threads for profile, _ in list_profiles(work)] == [threads]
        remove_profile("box", work)
    assert find_profile("box", work) == (DeviceProfile(name="box", runtime="openvino"), package)
    with pytest.raises(InputError, match="comes with the package and cannot be removed"):
        remove_profile("box", work)
    assert (package / "box.yaml").is_file()


def test_a_profile_that_cannot_be_used_is_in_nobody_elses_way(tmp_path: Path, own_home: Path):
    """Its runtime's package was uninstalled: it is left out of the list, refused by name, and can be removed."""
    folder = tmp_path / "devices"
    write_profile(DeviceProfile(name="box", runtime="openvino"), folder)
    (folder / "old.yaml").write_text("name: old\nruntime: gone\n")
    (folder / "old.latency.json").write_text("{}")
    assert [profile.name for profile, _ in list_profiles(tmp_path)] == ["box"]
    assert known_profile("nosuch", tmp_path) is None
    for read in (known_profile, find_profile):  # never taken for absent, and so never written over
        with pytest.raises(InputError, match="unknown runtime 'gone'"):
            read("old", tmp_path)
    assert [path.name for path in remove_profile("old", tmp_path)] == ["old.yaml", "old.latency.json"]


def test_a_written_profile_reads_back_and_says_what_its_fields_are(tmp_path: Path):
    profile = DeviceProfile(name="a-b", runtime="openvino", precision="bf16", steadiness=0.01, spaces=("x", "y"))
    path = write_profile(profile, tmp_path)
    assert read_profile(path) == profile
    assert all("#" in line for line in path.read_text().splitlines())
    board = DeviceProfile(name="board", runtime="litert", host="unreachable", ram_bytes=320 * 1024)
    assert read_profile(write_profile(board, tmp_path)) == board
    assert board.memory_only
    assert not profile.memory_only
    assert not board.model_copy(update={"ram_bytes": None}).memory_only


def test_the_template_is_a_valid_profile():
    import importlib.resources

    path = Path(str(importlib.resources.files("tutelage.bench.devices"))) / "template.yaml"
    assert read_profile(path).runtime == "onnxruntime"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("threads: 0", "threads is 0: .*greater than or equal to 1"),
        ("threads: many", "threads is 'many'"),
        ("thread: 1", "unknown field 'thread'; did you mean threads"),
        ("runtime: onnxruntme", "unknown runtime 'onnxruntme': did you mean 'onnxruntime'"),
        ("precision: fp8", "precision is 'fp8': .*'fp32', 'bf16', 'fp16' or 'int8'"),
        ("precision: bf16", "precision is 'bf16'; onnxruntime runs fp32, int8"),
        ("latency_model: ../x.json", "no folders"),
        ("model_error: 50", "model_error is 50.0: it is a fraction"),
        ("name: other", "make them equal"),
        ("host: me@there\ncommand: docker run {runner}", "not both"),
        ("resolutions: [0]", "1 or more"),
        ("ram_bytes: 0", "ram_bytes is 0: .*greater than 0"),
        ("spaces: [", "is not YAML"),
    ],
)
def test_an_edited_profile_is_refused_with_the_field_named(tmp_path: Path, change: str, message: str):
    lines = {"name": "name: dev", "runtime": "runtime: onnxruntime"}
    lines[change.split(":")[0]] = change
    path = tmp_path / "dev.yaml"
    path.write_text("\n".join(lines.values()))
    with pytest.raises(InputError, match=message) as caught:
        read_profile(path)
    assert "dev.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"threads": 0}, "threads is 0: .*greater than or equal to 1"),
        ({"batch": 0}, "batch is 0: .*greater than or equal to 1"),
        ({"threads": 2000}, "threads is 2000: give the threads of one inference, 1 to 1024"),
        ({"precision": "fp8"}, "'fp8' is not of onnxruntime: it runs fp32, int8"),
        ({"runtime": "onnxruntme"}, "did you mean 'onnxruntime'"),
        ({"ssh": "me@there", "command": "docker run {runner}"}, "not both"),
        ({"command": "nosuchprogram"}, "cannot start the runner: cannot start nosuchprogram: No such file"),
        ({"command": "true"}, "cannot start the runner: the program true ended: exit code 0"),
        ({"command": "docker {model}"}, r"may hold \{runner\}.* not \{model\}; without them it must be a program"),
        ({"ssh": "adb:x", "runtime": "torch"}, "torch has no benchmark program"),
        ({"ssh": "adb:x", "cores": (1, 1)}, r"cores is \[1, 1\]: give each core once"),
        ({"cores": (1,)}, "cores is set: only a device reached by adb"),
        ({"program": "benchmark_model"}, "program is set, which is what a device reached by adb runs"),
        ({"ssh": "-oProxyCommand=x"}, "give USER@HOST"),
        ({"resolutions": (28, 32, 36, 40, 44)}, r"1 to 4 resolutions, got \[28, 32, 36, 40, 44\]"),
    ],
)
def test_a_device_that_cannot_be_is_refused_before_anything_is_exported(
    tmp_path: Path, option: dict[str, object], message: str
):
    def export(*_: object) -> None:
        raise AssertionError("something was exported")

    options = {"runtime": "onnxruntime", "resolutions": (28,), **option}
    with pytest.raises(InputError, match=message):
        make_profile(
            "here", space=SPACE, num_classes=4, in_channels=1, export=export, export_block=export, folder=tmp_path,
            **options,
        )  # fmt: skip


def test_empty_and_binary_files_are_no_profiles(tmp_path: Path):
    for content in (b"", b"- 1\n- 2", b"\xff\xfe\x00"):
        (tmp_path / "dev.yaml").write_bytes(content)
        with pytest.raises(InputError, match=r"dev\.yaml"):
            read_profile(tmp_path / "dev.yaml")


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write measurements of 30 nets at 20 GMAC/s, changed as `option` says."""
    archs = SPACE.decode(SPACE.random(30, np.random.default_rng(0)))
    ms = count(archs).macs / 2e7 + 0.1

    def write(change: Callable[[np.ndarray], np.ndarray] = lambda ms: ms, header: str = "arch,ms") -> Path:
        rows = [
            '"{}",{}'.format(json.dumps(arch.to_dict()).replace('"', '""'), value)
            for arch, value in zip(archs, change(ms.copy()), strict=False)
        ]
        path = tmp_path / "times.csv"
        path.write_text("\n".join([header, *rows]))
        return path

    return write


def _elsewhere(profile: DeviceProfile, folder: Path) -> list[Callable[[], object]]:
    """List every way to measure on a profile."""

    def export(*_: object) -> None:
        raise AssertionError("something was exported for a device out of reach")

    net = folder / "net.onnx"
    net.write_bytes(anchor_onnx(ANCHORS[0]))
    shape = (ANCHORS[0].channels, ANCHORS[0].side, ANCHORS[0].side)
    return [
        lambda: measure({"net": net}, profile, shape),
        lambda: measure({"net": net}, profile, shape, launcher=launch_local),
        lambda: measure_jobs([Job("net", net, (1, *shape))], profile),
        lambda: measure_throughput(net, profile, shape),
        lambda: measure_throughput(net, profile, shape, launcher=launch_local),
        lambda: check_profile(profile, folder, space=SPACE, export=export),
    ]


def test_imported_measurements_make_a_device_out_of_reach_that_nothing_measures_here(
    write_csv: Callable[..., Path], tmp_path: Path
):
    profile = import_profile("phone", write_csv(), runtime="onnxruntime", folder=tmp_path)
    assert not profile.reachable
    assert read_profile(tmp_path / "phone.yaml") == profile
    for attempt in _elsewhere(profile, tmp_path):
        with pytest.raises(InputError, match=r"phone cannot be reached from here \(host: unreachable\)"):
            attempt()


def test_an_old_profile_of_imported_measurements_is_out_of_reach_and_a_measured_one_is_not(tmp_path: Path):
    """As they were written before a profile said so: `host: local`, and nothing that measuring fills in."""
    written = "name: phone\nruntime: litert\nhost: local\nlatency_model: phone.latency.json\nmodel_error: 0.05\n"
    path = tmp_path / "phone.yaml"
    for added, reachable in (
        ("", False),
        ("cpu_model: This one\n", True),
        ("steadiness: 0.0\n", True),
        ("runtime_version: '1.2'\n", True),
    ):
        path.write_text(written + added)
        assert read_profile(path).reachable is reachable
    path.write_text(written.replace("host: local", "host: me@there"))
    assert read_profile(path).host == "me@there"
    path.write_text("name: phone\nruntime: litert\n")  # by hand, without a latency model: measured here
    assert read_profile(path).local


def test_who_imports_says_how_the_device_is_reached(write_csv: Callable[..., Path], tmp_path: Path):
    here = import_profile("here", write_csv(), runtime="onnxruntime", folder=tmp_path, host="local")
    assert here.cpu_model == describe_host()["cpu_model"]
    assert read_profile(tmp_path / "here.yaml").local
    there = import_profile("there", write_csv(), runtime="onnxruntime", folder=tmp_path, host="me@there")
    assert (there.host, read_profile(tmp_path / "there.yaml").reachable) == ("me@there", True)
    box = import_profile("box", write_csv(), runtime="onnxruntime", folder=tmp_path, command="docker run {runner}")
    assert (box.host, box.reachable, box.local) == ("local", True, False)


def test_a_local_profile_of_another_processor_is_refused_before_anything_is_measured(
    write_csv: Callable[..., Path], tmp_path: Path
):
    imported = import_profile("copied", write_csv(), runtime="onnxruntime", folder=tmp_path)
    profile = imported.model_copy(update={"host": "local", "cpu_model": "Another CPU"})
    for attempt in _elsewhere(profile, tmp_path):
        with pytest.raises(InputError, match=r"copied is a 'Another CPU', this machine has a '.*write `host: unreach"):
            attempt()


def measured_now(
    monkeypatch: pytest.MonkeyPatch, model: LatencyModel, factors: list[float], anchor_ms: float, version: str = "1"
) -> None:
    """Let the nets that are measured take these factors times what the model predicts, in turns."""

    def measured(profile: DeviceProfile, archs: list[Arch], **_: object) -> tuple[TimedJobs, np.ndarray]:
        found = Measurement(
            device="x", runtime="onnxruntime", runtime_version=version, threads=1, batch=1, precision="fp32",
            effective_precision="fp32", samples_ms=(1.0,), processor="Card, driver 2",
        )  # fmt: skip
        timed = TimedJobs({"net": found}, 0.0, anchor_ms, 1, "a processor", "Linux 7")
        return timed, model.predict(archs)[0] * np.resize(factors, len(archs))

    monkeypatch.setattr(check_module, "measure_nets", measured)


@pytest.mark.parametrize(("anchor_ms", "drift", "holds"), [(None, None, True), (2.0, 0.05, True), (1.0, 1.1, False)])
def test_a_check_without_anchors_knows_no_drift(
    write_csv: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anchor_ms: float | None,
    drift: float | None,
    holds: bool,
):
    profile = import_profile("box", write_csv(), runtime="onnxruntime", folder=tmp_path, host="local")
    model = load_latency_model(profile, tmp_path)
    model.anchor_ms = anchor_ms
    model.save(tmp_path / profile.latency_model)
    measured_now(monkeypatch, model, [1.0], 2.1)
    found = check_profile(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.drift == (None if drift is None else pytest.approx(drift))
    assert found.holds is holds
    assert found.changes == ()  # an imported profile says nothing of its versions


def anchored(write_csv: Callable[..., Path], folder: Path) -> tuple[DeviceProfile, LatencyModel]:
    """A profile whose model has anchors and whose versions are known."""
    profile = import_profile("box", write_csv(), runtime="onnxruntime", folder=folder, host="local")
    model = load_latency_model(profile, folder)
    model.anchor_ms = 2.0
    versions = {"runtime_version": "1", "system": "Linux 6", "processor": "Card, driver 1"}
    profile = profile.model_copy(update=versions)
    write_profile(profile, folder, model)
    return profile, model


def test_a_check_names_what_changed_and_the_factor_of_all_nets(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [1.2, 1.25, 1.22], 2.0, version="2")
    found = check_profile(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.changes == (
        "onnxruntime was 1, is 2", "system was Linux 6, is Linux 7",
        "processor was Card, driver 1, is Card, driver 2",
    )  # fmt: skip
    assert found.correction.low < 1.22 < found.correction.high
    assert not found.holds
    assert not found.reanchored
    assert load_latency_model(profile, tmp_path).to_dict() == model.to_dict()  # nothing was filed


def test_three_nets_give_a_model_the_scale_and_the_versions_of_now(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Anchors 10 % slower, and all nets 20 % slower than these say: 32 % in all."""
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [1.19, 1.21, 1.2], 2.2, version="2")
    found = reanchor(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert found.drift == pytest.approx(0.1)
    assert found.correction.num_nets == 3
    again = load_latency_model(found.profile, tmp_path)
    archs = SPACE.decode(SPACE.random(5, np.random.default_rng(3)))
    np.testing.assert_allclose(again.predict(archs)[0], 1.32 * model.predict(archs)[0], rtol=0.015)
    assert again.anchor_ms == 2.2
    assert model.session is not None
    assert again.session is not None
    assert again.session.common > 1.2 * model.session.common  # 20 % is far beyond what was expected
    filed = read_profile(tmp_path / "box.yaml")
    assert filed == found.profile
    assert (filed.runtime_version, filed.system, bool(filed.reanchored)) == ("2", "Linux 7", True)
    measured_now(monkeypatch, again, [1.01, 0.99, 1.0], 2.2, version="2")
    after = check_profile(filed, tmp_path, space=SPACE, export=lambda *_: None)
    assert after.holds
    assert after.changes == ()


def test_nets_that_no_factor_brings_together_leave_the_profile_as_it_is(
    write_csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    profile, model = anchored(write_csv, tmp_path)
    measured_now(monkeypatch, model, [0.7, 1.4, 1.0], 2.0)
    with pytest.raises(InputError, match=r"3 networks take 0.70, 1.40, 1.00 times what box predicts.* `tutelage devic"):
        reanchor(profile, tmp_path, space=SPACE, export=lambda *_: None)
    assert load_latency_model(profile, tmp_path).to_dict() == model.to_dict()
    assert read_profile(tmp_path / "box.yaml") == profile


def test_measurements_from_elsewhere_make_a_profile(write_csv: Callable[..., Path], tmp_path: Path):
    profile = import_profile("phone", write_csv(), runtime="onnxruntime", folder=tmp_path)
    assert read_profile(tmp_path / "phone.yaml") == profile
    archs = SPACE.decode(SPACE.random(20, np.random.default_rng(1)))
    mean, _, _ = load_latency_model(profile, tmp_path).predict(archs)
    np.testing.assert_allclose(mean, count(archs).macs / 2e7 + 0.1, rtol=0.03)
    as_json = tmp_path / "times.json"
    as_json.write_text(
        json.dumps([{"arch": arch.to_dict(), "ms": value} for arch, value in zip(archs, mean, strict=True)])
    )
    assert import_profile("tv", as_json, runtime="onnxruntime", folder=tmp_path).spaces == (SPACE.name,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ms: np.where(np.arange(30) == 4, 0, ms), "measurement 5: ms is '0.0'"),
        (lambda ms: np.where(np.arange(30) == 4, np.nan, ms), "measurement 5: ms is 'nan'"),
        (lambda ms: np.where(np.arange(30) == 4, 1000 * ms, ms), "mixed units"),
        (lambda ms: 1000 * ms, "look like microseconds"),
        (lambda ms: ms / 1000, "look like seconds"),
        (lambda ms: ms[:4], "4 measured nets are too few"),
        (lambda ms: 0 * ms + 1, "equal times"),
    ],
)
def test_bad_measurements_are_refused(write_csv: Callable[..., Path], tmp_path: Path, change, message: str):
    with pytest.raises(InputError, match=message):
        import_profile("phone", write_csv(change), runtime="onnxruntime", folder=tmp_path)
    assert not (tmp_path / "phone.yaml").exists()


def test_a_file_without_the_columns_is_refused(write_csv: Callable[..., Path], tmp_path: Path):
    with pytest.raises(InputError, match="must have the columns arch \\(or ks"):
        import_profile("phone", write_csv(header="net,time"), runtime="onnxruntime", folder=tmp_path)
