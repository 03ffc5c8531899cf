"""Load supernet weights from a file: the official ones of Once for All, or our own.

Nothing is unpickled: `.pt`-like files are read with `weights_only=True`, `.safetensors` files by their own library.
"""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tutelage.records import InputError
from tutelage.tensors import describe_misfit

log = logging.getLogger(__name__)


def load_weights(net: nn.Module, path: Path) -> None:
    """Fill the supernet from a weights file.

    A file of another class count keeps the head as it was drawn (a warning says so). A file of three input channels
    serves one channel by summing the stem's kernels over them, so a gray image counts as one with three equal channels.
    Raises `InputError` naming the first keys that differ when the file is of another network.
    """
    loaded = _current_names(_read(path), net)
    own = net.state_dict()
    stem = next(name for name, tensor in own.items() if tensor.ndim == 4)
    head = [name for name in own if name.startswith("classifier.")]
    if stem in loaded and loaded[stem].ndim == 4 and loaded[stem].shape[1] == 3 and own[stem].shape[1] == 1:
        loaded[stem] = loaded[stem].sum(1, keepdim=True)
    heads = [name for name in head if name in loaded and loaded[name].shape != own[name].shape]
    if heads and all(loaded[name].shape[1:] == own[name].shape[1:] for name in heads):
        theirs, ours = len(loaded[heads[0]]), len(own[heads[0]])
        log.warning("%s has %d classes, this network %d: the classifier starts from scratch", path, theirs, ours)
        for name in head:
            loaded[name] = own[name]
    if misfit := describe_misfit(own, loaded):
        raise InputError(f"{path} does not fit this supernet: {misfit}")
    net.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in loaded.items()})


def _read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name; a `{"state_dict": ...}` wrapping is taken off."""
    if not path.is_file():
        raise InputError(f"no weights file at {path}: give the path of an official OFA file or a .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, LookupError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as weights ({reason}): is it whole, and a state dict?") from error
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise InputError(f"{path} holds no state dict: save model.state_dict(), bare or under the key 'state_dict'")
    return {str(name).removeprefix("module."): tensor for name, tensor in data.items()}


def _current_names(loaded: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Rename as the package does: old files say `mobile_inverted_conv`, elastic layers wrap their tensors once more."""
    own = set(net.state_dict())
    renamed = {}
    for name, tensor in loaded.items():
        new = name.replace(".mobile_inverted_conv.", ".conv.")
        candidates = [
            new,
            re.sub(r"\.bn\.bn\.", ".bn.", new),
            re.sub(r"\.conv\.conv\.weight$", ".conv.weight", new),
            re.sub(r"\.linear\.linear\.", ".linear.", new),
            re.sub(r"\.linear\.", ".linear.linear.", new),
            re.sub(r"bn\.", "bn.bn.", new),
            re.sub(r"conv\.weight$", "conv.conv.weight", new),
        ]
        current = next((candidate for candidate in candidates if candidate in own), new)
        # Two of the file's names for one tensor: the second stays as it is, to be refused as surplus.
        renamed[name if current in renamed else current] = tensor
    return renamed
