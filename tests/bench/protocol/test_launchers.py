"""Launcher templates and hosts: what starts a runner, what is refused, and another processor than was named."""

import sys
from pathlib import Path

import pytest

from tutelage.bench.protocol import worker
from tutelage.bench.protocol.host import describe_host
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.offline import measure_throughput
from tutelage.bench.protocol.remote import check_template, open_launcher
from tutelage.bench.protocol.worker import WorkerError
from tutelage.records import DeviceProfile, InputError

SHAPE = (32, 20, 20)
BOX = DeviceProfile(name="box", runtime="onnxruntime", command=f"{sys.executable} {{runner}}")
SHORT = {"rounds": 8, "samples": 40, "min_seconds": 0.0, "tolerance": 10.0}


def test_another_processor_than_the_profiles_is_refused(models: dict[str, Path]):
    other = BOX.model_copy(update={"cpu_model": "Another CPU"})
    message = f"box is a 'Another CPU', the machine reached for it has a '{describe_host()['cpu_model']}'"
    for attempt in (
        lambda: measure(models, other, SHAPE, **SHORT),
        lambda: measure_throughput(models["net"], other, SHAPE, batches=(1,)),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert message in str(caught.value)


@pytest.mark.slow
def test_a_command_template_starts_the_runner(models: dict[str, Path]):
    device = DeviceProfile(name="box", runtime="onnxruntime", command=f"env X={{folder}} {sys.executable} {{runner}}")
    result = measure(models, device, SHAPE, **SHORT)["net"]
    assert len(result.samples_ms) >= 40


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("python3 {folder}", "may hold {runner}, and {folder} with it"),
        ("python3 {runner} {model}", "not {model}"),
        ("python3 '{runner}", "quote it"),
        ("", "may hold {runner}"),
    ],
)
def test_bad_templates_are_refused(template: str, message: str):
    with pytest.raises(InputError, match=message):
        check_template(template)


def test_hosts_that_are_options_are_refused():
    bad = DeviceProfile(name="far", runtime="onnxruntime", host="-oProxyCommand=touch /tmp/x")
    with pytest.raises(InputError, match="USER@HOST"), open_launcher(bad):
        pass


@pytest.mark.parametrize(("cores", "expected"), [(1, 2), (5, 5)])
def test_here_as_many_runners_start_together_as_there_are_cores(
    cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    started: list[int] = []

    class Waiting:
        """Counts the runners that were started before the first one was waited for."""

        def __init__(self, *_: object, **__: object) -> None:
            started.append(len(started))

        def greet(self) -> None:
            raise WorkerError("seen enough")

        def dismiss(self) -> None:
            pass

        stop = dismiss

    monkeypatch.setattr(worker, "Worker", Waiting)
    monkeypatch.setattr(worker, "available_cores", lambda: cores)
    with pytest.raises(InputError, match="seen enough"):
        worker.start_workers([("anchor", [])] * 8, threads=1, precision="fp32")
    assert len(started) == expected
