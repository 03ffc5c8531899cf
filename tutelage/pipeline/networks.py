"""Networks on disk: build one from its record, file its weights, count what it costs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tutelage.distill.teachers.weights import load_exactly
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.normalisation import put_in_front
from tutelage.files import os_errors, sha256_of
from tutelage.quant.prune.shapes import apply_shapes
from tutelage.records import Artifact, InputError, Student
from tutelage.search.costs.counts import count
from tutelage.search.supernet import build_arch

from .context import Opened

WEIGHTS = "weights.safetensors"


def build(here: Opened, student: Student, *, seed: int = 0) -> nn.Module:
    """Build the network of a record with fresh weights."""
    if student.arch is not None:
        model = build_arch(student.arch, here.num_classes, here.channels, seed=seed)
    else:
        model = build_teacher(
            student.library_name, here.num_classes, here.channels, resolution=here.size, seed=seed, **student.options
        )
    return model if student.pruned is None else apply_shapes(model, student.pruned.shapes)


def load(here: Opened, student: Student, *, runs_images: bool = False) -> nn.Module:
    """Build the network of a record with the weights it was filed with, in evaluation mode.

    It takes images of its own normalisation; with `runs_images` it takes the run's, whatever its own is.
    """
    if student.weights is None:
        raise InputError(f"{student.model} has no weights filed")
    path = here.workspace.path / student.weights.path
    if not path.is_file() or sha256_of(path) != student.weights.sha256:
        why = "its hash differs" if path.is_file() else "it is not there"
        raise InputError(f"{path} is not the file that was written ({why}): delete its folder and run again")
    model = build(here, student)
    load_exactly(model, load_file(path), str(path))
    if runs_images and student.normalisation is not None:
        put_in_front(model, *student.normalisation.values)
    return model.eval()


def file_weights(here: Opened, model: nn.Module, folder: Path) -> Artifact:
    """Write the weights as safetensors into a stage's folder and give their record."""
    path = folder / WEIGHTS
    with os_errors(path):
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, path)
    return Artifact(
        kind="weights", path=here.workspace.relative(path), sha256=sha256_of(path), size_bytes=path.stat().st_size
    )


def costs(here: Opened, student: Student) -> dict[str, int]:
    """Count parameters and multiply-accumulates (convolutions, linear layers, matmul and attention) at the data's size.

    Architectures of a space are counted from their genes; other networks by torch's FlopCounterMode / 2.
    """
    if student.subnet is not None:
        counted = count([student.subnet], here.num_classes, here.channels)
        return {"params": int(counted.params[0]), "macs": int(counted.macs[0])}
    side = here.resolution(student)
    return count_module(build(here, student), (1, here.channels, side, side))


def count_module(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Count a plain module: parameters, and MACs by torch's FlopCounterMode / 2 on one input of this shape."""
    from torch.utils.flop_counter import FlopCounterMode

    model.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape))
    params = sum(parameter.numel() for parameter in model.parameters())
    return {"params": params, "macs": counter.get_total_flops() // 2}
