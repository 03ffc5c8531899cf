"""Profiles: made by real measurements, transferred, found in order, refused with the field named."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
from tutelage.bench.devices.profiles import known_profile
from tutelage.bench.devices.table import read_table
from tutelage.bench.latency.calibrate import Calibration
from tutelage.bench.latency.labels import MIN_NETS
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.protocol.measure import TimedJobs
from tutelage.records import DeviceProfile, InputError, Measurement
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))


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
    assert (mean > 0).all()  # a loaded test machine decides how long each takes
    assert (low < high).all()
    again = check_profile(profile, folder, space=few, export=export, num_nets=3)
    assert 0 < again.error < np.inf
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
        ({"cores": (1,)}, r"cores is \[1\]: only a device reached by adb"),
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
