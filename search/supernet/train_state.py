"""The state of a supernet's training, and its checkpoint on disk, so that a stopped run goes on to the same bits.

One safetensors file holds the tensors; its metadata hold the numbers as JSON, so the two can never disagree.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.files import whole_file
from tutelage.records import Arch, InputError, content_id


@dataclass
class TrainState:
    """Everything that the next step depends on."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None  # exponential moving average of the parameters
    teacher: nn.Module | None = None  # progressive: the full network as its phase left it
    phase: int = 0
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    # Forwards that were compiled, by their subnet and how they run; they are no part of a checkpoint.
    compiled: dict[tuple[Arch, bool, bool], Callable[[Tensor], Tensor]] = field(default_factory=dict)


def start(net: nn.Module, lr: float, weight_decay: float, ema_decay: float | None) -> TrainState:
    """Make the state before the first step: AdamW, without decay of norms, biases and kernel matrices."""
    named = list(net.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and not name.endswith("_matrix")]
    kept = [p for name, p in named if p.ndim <= 1 or name.endswith("_matrix")]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    average = None if ema_decay is None else {name: p.detach().clone() for name, p in named}
    net.train()
    return TrainState(net, torch.optim.AdamW(groups, lr=lr, fused=True), average)


def finish(state: TrainState) -> None:
    """Leave the averaged weights in the network, where there are any."""
    if state.average is not None:
        state.net.load_state_dict({**state.net.state_dict(), **state.average})


def save_checkpoint(path: Path, state: TrainState, signature: dict[str, Any]) -> None:
    """Write the state; `signature` is what decides the training's result."""
    tensors = {f"net/{name}": tensor for name, tensor in state.net.state_dict().items()}
    for name, tensor in (state.average or {}).items():
        tensors[f"average/{name}"] = tensor
    if state.teacher is not None:
        tensors |= {f"teacher/{name}": tensor for name, tensor in state.teacher.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    numbers = {"signature": signature, "step": state.step, "phase": state.phase, "log": state.log}
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    with whole_file(path) as aside:
        save_file(plain, aside, {"state": json.dumps(numbers)})


def fingerprint_of(signature: Mapping[str, Any]) -> str:
    """Hash what decides a training's result, as it was given or as a checkpoint holds it."""
    return content_id(json.loads(json.dumps(signature)))


def filed_fingerprint(path: Path) -> str:
    """Read which training a checkpoint is of, as its `fingerprint_of`; empty where that cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return fingerprint_of(json.loads(file.metadata()["state"])["signature"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        return ""


def load_checkpoint(path: Path, state: TrainState, signature: dict[str, Any]) -> bool:
    """Restore the state where the file exists; say whether it did.

    Raises `InputError` for a damaged file, or one of another training.
    """
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a whole supernet checkpoint ({error}): delete it to start again") from error
    wanted = json.loads(json.dumps(signature))
    different = [key for key in wanted if wanted[key] != numbers["signature"].get(key)]
    if different:
        key = different[0]
        was, now = numbers["signature"].get(key), wanted[key]
        raise InputError(f"{path} was trained with {key} = {was!r}, now it is {now!r}: delete it to start again")
    try:
        _restore(state, tensors)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not hold this training's tensors ({reason}): delete it to start again") from None
    state.step, state.phase, state.log = numbers["step"], numbers["phase"], numbers["log"]
    return True


def _restore(state: TrainState, tensors: dict[str, Tensor]) -> None:
    # Past the `ofa` networks' own load_state_dict, which keeps what it has where a tensor is missing.
    nn.Module.load_state_dict(state.net, _under("net/", tensors))
    if state.average is not None:
        state.average = {name: tensors[f"average/{name}"].to(value.device) for name, value in state.average.items()}
    frozen = _under("teacher/", tensors)
    if frozen:
        state.teacher = copy.deepcopy(state.net)
        nn.Module.load_state_dict(state.teacher, frozen)
        state.teacher.requires_grad_(False)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under("optimizer/", tensors).items():
        index, name = key.split("/")
        moments.setdefault(int(index), {})[name] = tensor
    whole = state.optimizer.state_dict()
    whole["state"] = moments
    state.optimizer.load_state_dict(whole)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
