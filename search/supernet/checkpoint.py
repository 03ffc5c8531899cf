"""Keep supernet training on disk, so that a stopped run goes on to the same bits.

Enters and leaves: a `TrainState`. One safetensors file holds the tensors; its metadata hold the numbers as JSON, so the
two can never disagree. Written aside, synced, renamed.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.files import whole_file
from tutelage.records import InputError

from .step import TrainState


def save_checkpoint(path: Path, state: TrainState, signature: dict[str, Any]) -> None:
    """Write the state; `signature` is what the training was asked to do."""
    tensors = {f"net/{name}": tensor for name, tensor in state.net.state_dict().items()}
    for name, tensor in (state.average or {}).items():
        tensors[f"average/{name}"] = tensor
    if state.teacher is not None:
        tensors |= {f"teacher/{name}": tensor for name, tensor in state.teacher.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    numbers = {"signature": signature, "step": state.step, "phase": state.phase, "log": state.log}
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {k: t.detach().contiguous().clone() for k, t in tensors.items()}
    with whole_file(path) as aside:
        save_file(plain, aside, {"state": json.dumps(numbers)})


def load_checkpoint(path: Path, state: TrainState, signature: dict[str, Any]) -> bool:
    """Restore the state where the file exists; say whether it did.

    Raises `InputError` for a damaged file, or one of a training that was asked something else.
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
        state.average = {name: tensors[f"average/{name}"] for name in state.average}
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
