"""Weights files of teachers and students: read without unpickling, checked tensor by tensor, then loaded.

`load_weights` reads a file that may be of another class count, `load_exactly` takes tensors that must all fit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.records import InputError
from tutelage.tensors import describe_misfit

from .naming import in_own_names

logger = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file, or from a torch file with `weights_only=True`: nothing is unpickled."""
    if not path.is_file():
        raise InputError(f"no weights file at {path}: give a .safetensors or a torch state-dict file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is not a readable weights file ({first_line}): save a plain state dict") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict: save model.state_dict()")
    tensors = {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors: save model.state_dict()")
    return tensors


def load_weights(net: nn.Module, path: Path, *, fresh_head: bool = True) -> tuple[str, ...]:
    """Load a weights file and return the names that kept their fresh values: the classifier's, where classes differ.

    Position embeddings are resized by timm's own filter; a first convolution of three channels is summed for gray.
    Any other tensor that is missing, surplus or of another shape is an error that names it. `fresh_head=False` refuses
    a classifier for another number of classes too: for a network that is used as it is.
    """
    fitted = fitted_weights(net, path, fresh_head=fresh_head)
    if fitted.fresh:
        logger.warning(
            "%s has a classifier of %d classes, this network %d: it starts fresh (%s)",
            path, fitted.num_classes, len(fitted.state[fitted.fresh[0]]), ", ".join(fitted.fresh),
        )  # fmt: skip
    nn.Module.load_state_dict(net, fitted.state)
    return fitted.fresh


@dataclass(frozen=True)
class Fitted:
    """The tensors of a file as a network takes them; `fresh` are the network's own, where the file's classes differ."""

    state: dict[str, Tensor]
    fresh: tuple[str, ...]
    num_classes: int  # of the file's classifier, where it is left out; else 0


def fitted_weights(net: nn.Module, path: Path, *, fresh_head: bool = True) -> Fitted:
    """Read a file for `load_weights`, with its errors: nothing is loaded yet."""
    state = _in_timms_form(net, in_own_names(net, read_weights(path)), path)
    own = net.state_dict()
    state = _on_own_grid(own, state)
    first = first_conv_name(net) + ".weight"
    if first in state and first in own:
        state[first] = _for_channels(state[first], own[first])
    fresh = _other_classes(net, own, state)
    theirs = len(state[fresh[0]]) if fresh else 0
    if fresh and not fresh_head:
        ours = len(own[fresh[0]])
        raise InputError(
            f"{path} has a classifier of {theirs} classes, these images have {ours}: with epochs: 0 it would stay "
            "random; train it (epochs of at least 1), or give weights trained on these classes"
        )
    state |= {name: own[name] for name in fresh}
    # Files older than the counter lack it, and nothing that is evaluated reads it.
    state |= {name: own[name] for name in own.keys() - state.keys() if name.endswith("num_batches_tracked")}
    _refuse_misfit(net, state, str(path), "check the network's name, size and options")
    return Fitted(state, fresh, theirs)


def load_exactly(net: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fill a network from tensors that must be its own: one that is missing, surplus or misshapen is an `InputError`.

    Networks of the `ofa` package bring a `load_state_dict` that fills what is missing with what they have: it is
    passed by.
    """
    _refuse_misfit(net, state, origin, "delete it and it is made again")
    nn.Module.load_state_dict(net, state)


def first_conv_name(net: nn.Module) -> str:
    """Name the convolution that sees the image."""
    named = getattr(net, "default_cfg", {}).get("first_conv")
    if isinstance(named, str):
        return named
    return str(next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)))


def classifier_prefixes(net: nn.Module) -> tuple[str, ...]:
    """Give what the names of the classifier's tensors begin with."""
    named = getattr(net, "default_cfg", {}).get("classifier", ())
    names = (named,) if isinstance(named, str) else tuple(named or ())
    return tuple(f"{name}." for name in names) or ("classifier.",)


def _refuse_misfit(net: nn.Module, state: Mapping[str, Tensor], origin: str, remedy: str) -> None:
    if misfit := describe_misfit(net.state_dict(), state):
        raise InputError(f"{origin} does not fit {type(net).__name__}: {misfit}; {remedy}")


def _in_timms_form(net: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Let timm's filter for this family rename and resize what its published files hold."""
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(state, net))
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} does not fit {type(net).__name__} ({reason}); check the network's name, size and options"
        ) from error


def _on_own_grid(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Resize position embeddings that are maps (1, channels, height, width): timm has no filter for Visformer's."""
    for name, value in state.items():
        grid = own.get(name, value)
        if name.startswith("pos_embed") and value.ndim == grid.ndim == 4 and value.shape[:2] == grid.shape[:2]:
            state[name] = F.interpolate(value, grid.shape[2:], mode="bicubic", antialias=True)
    return state


def _for_channels(given: Tensor, own: Tensor) -> Tensor:
    """Adapt a first convolution of RGB to the channels wanted (timm's rule); anything else is left to be refused."""
    if given.ndim != 4 or given.shape[1] != 3 or own.shape[1] == 3:
        return given
    from timm.models import adapt_input_conv

    adapted: Tensor = adapt_input_conv(own.shape[1], given)
    return adapted


def _other_classes(net: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the classifier's tensors where the file's differ from the network's in the number of classes alone."""
    head = tuple(name for name in own if name.startswith(classifier_prefixes(net)))
    if not head or any(name not in state or state[name].shape[1:] != own[name].shape[1:] for name in head):
        return ()
    counts = {(len(state[name]), len(own[name])) for name in head}
    theirs, ours = next(iter(counts))
    return head if len(counts) == 1 and theirs != ours else ()
