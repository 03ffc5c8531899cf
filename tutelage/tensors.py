"""What two sets of named tensors differ in, for errors about weights files. No torch: shapes are all that is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 3  # how many tensors that do not fit are named


def describe_misfit(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Name the first tensors of `given` that are missing, surplus or of another shape than `own`; "" where all fit."""
    misfit = [f"{name} is missing" for name in own if name not in given]
    misfit += [f"{name} is not of this network" for name in given if name not in own]
    misfit += [
        f"{name} has shape {tuple(given[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    more = f" and {len(misfit) - _SHOWN} more" if len(misfit) > _SHOWN else ""
    return "; ".join(misfit[:_SHOWN]) + more
