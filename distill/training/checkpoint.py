"""Checkpoints of a training: one folder an epoch, whole or not there, from which the same bits go on.

A folder holds safetensors, JSON, and a torch file that is read with `weights_only=True`.
"""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from tutelage.files import os_errors, sync, sync_tree
from tutelage.records import InputError

logger = logging.getLogger(__name__)

Weights = Mapping[str, Tensor]
_PREFIX = "epoch-"


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: named weight sets, the optimiser's state and plain values."""

    weights: dict[str, dict[str, Tensor]]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, epoch: int, weights: Mapping[str, Weights], optimizer: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint aside, flush it to disk, rename it, then drop the older ones."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    aside, final = folder / f"{_PREFIX}{epoch:05d}.part", folder / f"{_PREFIX}{epoch:05d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, tensors in weights.items():
        # Cloned: safetensors refuses tensors with common memory, and channels-last ones are not contiguous.
        plain = {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()
        }
        with os_errors(aside):
            save_file(plain, aside / f"{name}.safetensors")
    with os_errors(aside):
        torch.save(_on_cpu(dict(optimizer)), aside / "optimizer.pt")
    (aside / "state.json").write_text(json.dumps(state))
    sync_tree(aside)
    shutil.rmtree(final, ignore_errors=True)
    aside.replace(final)
    sync(folder)
    for old in folder.glob(f"{_PREFIX}*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def _on_cpu(state: Any) -> Any:
    """Give an optimiser's state with its tensors on the CPU: a checkpoint is read where there may be no GPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


def load_checkpoint(folder: Path, fingerprint: str) -> Saved | None:
    """Read the newest whole checkpoint; one of another training (another fingerprint) is not used, and that is said.

    Raises `InputError` for one that cannot be read.
    """
    whole = sorted(path for path in folder.glob(f"{_PREFIX}*") if path.suffix != ".part")
    for path in reversed(whole):
        try:
            saved = _read(path, fingerprint)
        except (OSError, ValueError, LookupError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{path} is no whole checkpoint ({reason}): delete it to start again") from error
        if saved is not None:
            return saved
        logger.warning("%s is a checkpoint of another training (model, schedule, teacher, data or seed): unused", path)
    return None


def fingerprint_of(folder: Path) -> str:
    """Read which training the newest checkpoint in a folder is of; empty where there is none that can be read."""
    whole = sorted(path for path in folder.glob(f"{_PREFIX}*") if path.suffix != ".part")
    try:
        return str(json.loads((whole[-1] / "state.json").read_text())["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _read(path: Path, fingerprint: str) -> Saved | None:
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text())
    if state.get("fingerprint") != fingerprint:
        return None
    weights = {file.stem: dict(load_file(file)) for file in path.glob("*.safetensors")}
    optimizer = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    return Saved(weights, optimizer, state)
