"""Where networks are computed: names and their refusal, parts of a batch, compiled networks, the meter's card."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tutelage.accelerator import CPU, Accelerator, drawing, find_accelerator
from tutelage.bench.runtimes.energy import first_visible
from tutelage.cli.app import app
from tutelage.distill.training.epoch import BatchPart, FiniteLogits, parts_of
from tutelage.distill.training.schedule import TrainSchedule, wants_bf16
from tutelage.pipeline.context import open_context
from tutelage.pipeline.keys.stage_inputs import AcceleratorInput
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import InputError

NONE_HERE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@NONE_HERE
def test_auto_is_the_cpu_without_a_gpu_and_what_is_named_is_refused() -> None:
    assert find_accelerator() == find_accelerator("cpu") == CPU
    assert AcceleratorInput.of(find_accelerator()) == AcceleratorInput.of(CPU)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=rf"accelerator {name}: torch .* finds no CUDA device here"):
            find_accelerator(name)
    with pytest.raises(InputError, match="give auto, cpu, cuda, cuda:N or mps"):
        find_accelerator("gpu")
    with pytest.raises(InputError, match="accelerator = 'tpu'"):
        load_recipe("demo", ["accelerator=tpu"])


@NONE_HERE
def test_it_is_refused_before_images_are_read(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["accelerator=cuda"])
    with pytest.raises(InputError, match="accelerator cuda: torch") as refused:
        open_context(recipe, Workspace(tmp_path), silent, 1)
    assert "\n" not in str(refused.value)


@NONE_HERE
@pytest.mark.long
def test_the_command_line_refuses_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "demo", "--accelerator", "cuda", "--workspace", f"{tmp_path}/w"])
    assert isinstance(done.exception, InputError)
    assert "accelerator cuda" in str(done.exception)


def test_a_card_and_a_rank_are_chosen_and_older_cards_do_not_emulate_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if device.index == 0 else (7, 5))
    new, old = find_accelerator("auto"), find_accelerator("cuda:1")
    assert str(new) == "cuda:0 (Card 0), bf16, TF32 for float32"
    assert str(old) == "cuda:1 (Card 1)"
    schedule = TrainSchedule(bf16=None)
    assert wants_bf16(schedule, new, nn.Conv2d(4, 4, 1))
    assert not wants_bf16(schedule, old, nn.Conv2d(4, 4, 1))
    assert AcceleratorInput.of(new) != AcceleratorInput.of(old)
    assert AcceleratorInput.of(new) in AcceleratorInput.of(CPU).others
    with pytest.raises(InputError, match="there are 2 CUDA devices here, cuda:0 to cuda:1"):
        find_accelerator("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_accelerator("cuda").device.index == 1
    with pytest.raises(InputError, match="would share one device"):
        find_accelerator("cuda:0")


@pytest.mark.parametrize(("rows", "number", "sizes"), [(8, 1, [8]), (8, 3, [2, 3, 3]), (5, 4, [2, 3]), (3, 2, [3])])
def test_parts_cover_a_batch_once_and_hold_two_images(rows: int, number: int, sizes: list[int]) -> None:
    whole = torch.arange(rows)
    parts = list(parts_of(BatchPart(whole, whole, whole, whole), number, rows))
    assert [len(part.images) for part in parts] == sizes
    assert torch.equal(torch.cat([part.indices for part in parts]), whole)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(InputError, match="accumulate: 5 leaves parts of 1 images of batches of 8"):
        TrainSchedule(batch_size=8, accumulate=5)
    with pytest.raises(InputError, match="supernet: accumulate = 5 leaves parts of 1 images of batches of 8"):
        load_recipe("demo", ["supernet.batch_size=8", "supernet.accumulate=5"])


def test_a_gpus_logits_are_read_after_some_steps_and_the_first_bad_batch_is_named() -> None:
    """The device is never touched here: that of the tensors does not matter to the check."""
    check = FiniteLogits(torch.device("meta"))
    batch = BatchPart(torch.zeros(2), torch.zeros(2), [0, 1], [0, 0])
    for step in range(5):
        check.check(torch.full((2, 2), float("nan") if step >= 3 else 0.0), batch, 7, step, 0.1)
    with pytest.raises(InputError, match="not finite at epoch 7, batch 3"):
        check.read()


@pytest.mark.long
def test_a_compiled_network_has_its_outputs() -> None:
    """`aot_eager` traces as a compiler does, and needs none."""
    compiling = replace(Accelerator(), compile="aot_eager")
    with drawing(0):
        net, images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(compiling.compiled(net)(images), net(images))
    assert CPU.compiled(net) is net


@pytest.mark.parametrize(
    ("said", "card"), [("", 0), ("3,1", 3), ("GPU-8f3a,GPU-1", "GPU-8f3a"), ("MIG-1", "MIG-1"), ("none", 0)]
)
def test_energy_is_that_of_the_first_visible_card(said: str, card: int | str) -> None:
    assert first_visible({"CUDA_VISIBLE_DEVICES": said}) == card
