"""A second torch device without a GPU: values are computed on the CPU, and an operator that mixes both devices raises.

`torch` lets Python be the backend of its spare device type (PrivateUse1). Every tensor on the device `second` wraps one
on the CPU; `second_device` makes it known to torch and says what it saw. As on a GPU, a tensor there has no `.numpy()`,
and a number of it that Python reads (`.item()`, `float()`, `bool()`) is a wait that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "second"
# What copies between devices, and index tensors, which torch lets lie on the CPU.
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize"}
_INDEXING = {"aten::index.Tensor", "aten::index", "aten::index_put_", "aten::index_put"}
_READS = {"aten::_local_scalar_dense", "aten::nonzero"}
_CASTS = ("conv2d", "linear", "matmul", "mm", "bmm", "addmm")
_handles: list[Any] = []


class _OnCpu(torch.Generator):
    def __new__(cls, device: object = None) -> Any:
        return super().__new__(cls)


class MixedDevicesError(RuntimeError):
    """An operator got tensors of both devices."""


class Seen:
    """What went over the device: operators that ran on it, and numbers that Python waited for."""

    def __init__(self) -> None:
        self.operators: set[str] = set()
        self.low_precision: set[str] = set()  # operators with bfloat16 inputs
        self.reads: list[str] = []


SEEN = Seen()


class OnSecond(torch.Tensor):
    """A tensor of the device; `raw` holds its values."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnSecond:
        made: OnSecond = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        return made

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw

    def __repr__(self, **_: Any) -> str:
        return f"second({self.raw})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["raw"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> OnSecond:
        return OnSecond(inner["raw"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    here = [one for one in given if isinstance(one, OnSecond)]
    away = [one for one in given if not isinstance(one, OnSecond) and one.ndim > 0]
    if here and away and name not in _COPIES | _INDEXING:
        raise MixedDevicesError(f"{func} takes tensors of the CPU beside {NAME}'s: {[one.shape for one in away]}")
    SEEN.operators.add(name)
    SEEN.low_precision |= {name} if any(one.dtype == torch.bfloat16 for one in here) else set()
    SEEN.reads += [name] if name in _READS else []
    target = torch.device(NAME, 0)
    if kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu")}

    def raw(one: Any) -> Any:
        return one.raw if isinstance(one, OnSecond) else one

    known = {id(raw(one)): one for one in given}
    found = func(*tree_map(raw, args), **tree_map(raw, kwargs))
    if name == "aten::copy_":
        return args[0]
    if target.type == "cpu":
        return found

    def wrapped(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or isinstance(one, OnSecond):
            return one
        return known[id(one)] if id(one) in known else OnSecond(one)  # an operator in place gives its input back

    return tree_map(wrapped, found)


class _Module(backend_registration._DummyBackendModule):
    """What torch asks `torch.second` for: one generator of its own, which nothing draws from."""

    state = torch.zeros(1, dtype=torch.uint8)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed(self, seed: int) -> None:
        self.state = torch.full((1,), seed % 256, dtype=torch.uint8)

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return self.state.clone()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self.state = state


def _in_bfloat16(operator: Any) -> Any:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        def cast(one: Any) -> Any:
            return one.to(torch.bfloat16) if isinstance(one, OnSecond) and one.dtype == torch.float32 else one

        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run


@cache
def _install() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for name in _CASTS:
        aten.impl(name, _in_bfloat16(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    _handles.extend([everything, aten])


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Give the device. It stays known to this process; what torch cannot do with a Python backend is lent inside."""
    _install()
    on_cpu = torch.tensor

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = on_cpu(data, **kwargs)
        return made if device is None else made.to(device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch, "Generator", _OnCpu)  # timm's average makes one
        patch.setattr(torch, "inference_mode", torch.no_grad)  # views of a wrapped tensor have no version in it
        yield torch.device(NAME, 0)
