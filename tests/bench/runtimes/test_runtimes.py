"""The runtimes agree with each other on one net, say what they are, and refuse what they cannot do."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.host import available_cores, busy_warning, describe_host, thread_budget
from tutelage.bench.protocol.remote import launcher_of
from tutelage.bench.protocol.worker import ModelFile, Worker
from tutelage.bench.runtimes.entry import NEVER_ON_GPU, Runtime
from tutelage.bench.runtimes.ort import Onnxruntime
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.cli.inventory import print_doctor
from tutelage.cli.reference import runtimes_table
from tutelage.cli.registry_help import names_of
from tutelage.plugins import Registry
from tutelage.records import DeviceProfile, InputError, NotAvailableError


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(anchor_onnx(ANCHORS[0]))
    return path


def images() -> np.ndarray:
    anchor = ANCHORS[0]
    return np.random.default_rng(0).standard_normal((1, anchor.channels, anchor.side, anchor.side), dtype=np.float32)


def test_openvino_pinned_to_f32_equals_onnxruntime(net: Path):
    sessions = [RUNTIMES[name].load(net, 1, "fp32", images().shape) for name in ("onnxruntime", "openvino")]
    assert [session.effective_precision for session in sessions] == ["fp32", "fp32"]
    one, two = (session.run(images()) for session in sessions)
    assert one.shape == (1, ANCHORS[0].channels, 1, 1)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)  # bf16 would differ by some 1e-2


@pytest.mark.slow
def test_torch_runs_an_exported_program(tmp_path: Path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (x,)), path)
    session = RUNTIMES["torch"].load(path)
    np.testing.assert_allclose(session.run(x.numpy()), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_torch_compiled_with_frozen_weights_answers_as_the_network(tmp_path: Path):
    import shutil

    import torch

    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler on this machine: torch compiles its kernels with one")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.Hardswish(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 4),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 8, 8)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (x,)), path)
    session = RUNTIMES["torch-compiled"].load(path)
    assert session.effective_precision == "fp32"
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(2):
        np.testing.assert_allclose(session.run(x.numpy()), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1  # it is compiled, and once


def test_ncnn_runs_a_net_written_by_hand(tmp_path: Path):
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    # One image in, ReLU, out: ncnn's text format counts layers and blobs on its second line.
    (tmp_path / "net.param").write_text("7767517\n2 2\nInput in 0 1 x 0=4 1=4 2=2\nReLU relu 1 1 x y\n")
    (tmp_path / "net.bin").write_bytes(b"")
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4), dtype=np.float32)
    session = RUNTIMES["ncnn"].load(tmp_path / "net.param", shape=x.shape)
    np.testing.assert_array_equal(session.run(x), np.maximum(x, 0))


def test_what_is_installed_is_reported_and_the_rest_has_a_remedy():
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        if runtime.installed():
            assert runtime.version()
        else:
            with pytest.raises(InputError, match="pip install"):
                runtime.check("fp32")
    assert RUNTIMES["onnxruntime"].installed()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_torch_on_cuda_is_refused_in_one_line_where_there_is_none(net: Path, tmp_path: Path) -> None:
    for name in ("torch-cuda", "torch-compiled-cuda"):
        driverless = replace(RUNTIMES[name], driver="no-such-driver.so")
        with pytest.raises(NotAvailableError, match=r"is not installed: it needs a GPU and its driver \(no-such"):
            driverless.check("fp32")
        path = tmp_path / "net.pt2"
        path.write_bytes(b"")
        with pytest.raises(InputError, match="finds no CUDA device here: runtime torch takes the CPU") as error:
            replace(RUNTIMES[name], driver="").load(path)  # a driver, and a torch without CUDA
        assert "\n" not in str(error.value)


def test_onnxruntime_keeps_images_and_outputs_on_the_device_while_it_is_timed(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By IOBinding on the CPU provider: another device is another name in the same calls."""
    adapter = Onnxruntime(bound="cpu")
    adapter.prepare()
    one = images()
    many = np.repeat(one, 64, axis=0) * np.arange(64, dtype=np.float32)[:, None, None, None]
    model = onnx.load(net)
    for value in (*model.graph.input, *model.graph.output):  # of any batch
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "free.onnx"
    onnx.save(model, path)
    plain, (run, effective) = RUNTIMES["onnxruntime"].load(path), adapter.load(str(path), None, 1, "fp32")
    assert effective == "fp32"
    placed, original = [], onnxruntime.OrtValue.ortvalue_from_numpy

    def place(value: np.ndarray, device: str, number: int) -> Any:
        placed.append((value.shape, device, number))
        return original(value, device, number)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", place)
    for batch in (one, many):
        np.testing.assert_array_equal(run(batch), plain.run(batch))
        assert all(ms > 0 for repeats in (1, 5) for ms in run.times(batch, repeats))
        assert len(run.times(batch, 3)) == 3
        np.testing.assert_array_equal(run.outputs()[0], plain.run(batch))
    # Images that come again are there already: only the first of them are copied, outside of what is timed.
    assert placed == [(one.shape, "cpu", 0), (many.shape, "cpu", 0)]


def test_onnxruntime_on_cuda_is_refused_where_it_is_not_and_never_falls_back_unsaid(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime-cuda", "onnxruntime-cuda-copies"):
        runtime = RUNTIMES[name]
        if runtime.version():
            pytest.skip("onnxruntime-gpu is installed here")
        remedy = "pip uninstall -y onnxruntime, then pip install onnxruntime-gpu"
        with pytest.raises(NotAvailableError, match=f"runtime {name} is not installed: {remedy}"):
            runtime.load(net)
        # The distribution for the CPU brings a module of the same name.
        here = replace(runtime, ambiguous_module=False)
        with pytest.raises(InputError, match=rf"this onnxruntime has no CUDAExecutionProvider: {remedy}$"):
            here.load(net)
    # A build that has the provider, on a host where it does not start: ONNX Runtime goes on on the CPU.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.raises(InputError, match="CUDAExecutionProvider does not start here: is there a CUDA device"):
        here.load(net)


def test_a_runtime_that_was_never_run_on_its_hardware_says_so_wherever_it_is_listed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {name for name, runtime in RUNTIMES.items() if runtime.caveat}
    assert said == {name for name, runtime in RUNTIMES.items() if runtime.on_gpu}, "no GPU or Mac has run them yet"
    listed = names_of("runtimes")
    print_doctor(Console(width=300))
    lines = capsys.readouterr().out.splitlines()
    for name in said:
        caveat = RUNTIMES[name].caveat
        words = f"({caveat})"
        assert f"{name} {words}" in listed
        (line,) = (line for line in lines if line.startswith(f"runtime {name} "))
        assert line.endswith(words)
        assert f"| `{name}` |" in next(row for row in runtimes_table().splitlines() if f"`{name}`" in row)
        assert caveat in next(row for row in runtimes_table().splitlines() if f"`{name}`" in row)
    assert NEVER_ON_GPU not in next(row for row in runtimes_table().splitlines() if "`onnxruntime`" in row)


def test_bad_requests_are_named(net: Path, tmp_path: Path):
    with pytest.raises(InputError, match=re.escape(f"known are {', '.join(RUNTIMES)}")):
        find_runtime("tensorflow")
    with pytest.raises(InputError, match=r"precision 'fp8' is not of openvino: it runs fp32, bf16, fp16, int8"):
        RUNTIMES["openvino"].load(net, 1, "fp8")
    with pytest.raises(InputError, match=r"loads \.pt2 files"):
        RUNTIMES["torch"].load(net)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(net.read_bytes()[:200])
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(InputError, match=f"{name} cannot load .*broken"):
            RUNTIMES[name].load(broken)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16])
def test_images_are_fed_in_the_declared_type_and_other_inputs_are_zeros(
    name: str, kind: int, net: Path, tmp_path: Path
):
    """`images + 0 x age`, cast from what is declared: with ones for the zeros the outputs would be others."""
    model, path = onnx.load(net), tmp_path / "cast.onnx"
    entry, helper = model.graph.input[0], onnx.helper
    first = entry.name
    model.graph.node.insert(0, helper.make_node("Add", ["cast", "age"], [first]))
    model.graph.node.insert(0, helper.make_node("Cast", ["picture"], ["cast"], to=onnx.TensorProto.FLOAT))
    entry.name, entry.type.tensor_type.elem_type = "picture", kind
    model.graph.input.append(helper.make_tensor_value_info("age", onnx.TensorProto.FLOAT, ["n", 1, 1, 1]))
    onnx.save_model(model, path)
    shape = tuple(one.dim_value or 1 for one in entry.type.tensor_type.shape.dim)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    fed = images.astype(np.float16).astype(np.float32) if kind == onnx.TensorProto.FLOAT16 else (
        (images * 64 + 128).clip(0, 255).astype(np.uint8).astype(np.float32)
    )  # fmt: skip
    session = RUNTIMES[name].load(path, 1, "fp32", shape)
    expected = RUNTIMES[name].load(net, 1, "fp32", shape).run(fed)
    np.testing.assert_allclose(session.run(images), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(session.run(images), session.run(images))


def test_threads_never_exceed_the_cores():
    assert thread_budget(1, cores=8) == 8
    assert thread_budget(3, cores=8) == 2
    assert thread_budget(99, cores=8) == 1
    assert thread_budget() == available_cores()
    host = describe_host()
    assert host["cores"] >= 1
    assert host["cpu_model"]
    warning = busy_warning(0.05)
    assert warning is None or "busy" in warning


TOY = '''"""A runtime of another package: it multiplies by the number in its file."""

import numpy as np

try:
    from tutelage.bench.runtimes.entry import Runtime
except ImportError:  # on a device, beside the runner
    from entry import Runtime


class Toy:
    def prepare(self):
        return "7"

    def load(self, path, shape, threads, precision):
        factor = float(open(path).read())
        return lambda images: (images * factor).reshape(len(images), -1)[:, :4], precision


TOY = Runtime("toy", "numpy", "numpy", ("fp32",), (".toy",), Toy, __file__)
'''


def test_a_runtime_is_one_file_here_and_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loaded here, by a runner here, and by a runner that has nothing but the copied files beside it."""
    (tmp_path / "toy_runtime.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = importlib.import_module("toy_runtime").TOY
    added = Registry("runtimes", "runtime", Runtime, [*RUNTIMES.builtin.values(), entry])
    monkeypatch.setattr("tutelage.bench.runtimes.registry.RUNTIMES", added)
    model = tmp_path / "net.toy"
    model.write_text("3")
    images = np.ones((1, 1, 2, 2), np.float32)
    assert find_runtime("toy").load(model).run(images).tolist() == [[3.0] * 4]
    local = DeviceProfile(name="here", runtime="toy", runtime_version="7", cpu_model="")
    far = local.model_copy(update={"name": "far", "host": "far", "command": f"{sys.executable} -I {{runner}}"})
    for device in (local, far):
        with launcher_of(device, tmp_path) as launcher:
            argv, files = launcher([ModelFile(str(model), (1, 1, 2, 2))])
            with Worker("toy", files, threads=1, precision="fp32", argv=argv) as worker:
                worker.greet()
                assert worker.version == "7"
                worker.ask({"do": "load", "model": 0})
                assert len(worker.ask({"do": "time", "model": 0, "repeats": 2})["ms"]) == 2
