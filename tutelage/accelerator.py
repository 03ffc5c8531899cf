"""Where networks are trained, scored and explained: `find_accelerator` decides it, and an `Accelerator` is passed on.

An accelerator is where we compute; a device profile is the target that files are measured on. Nothing here runs when it
is imported, and nothing falls back to the CPU: what was named and is not there is an `InputError`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from tutelage.inputs import ACCELERATOR, ACCELERATORS, InputError

log = logging.getLogger(__name__)

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
# What a network is moved to for training and inference: the fast layout of convolutions on CPUs and GPUs.
LAYOUT = torch.channels_last


@dataclass(frozen=True)
class Accelerator:
    """The device that computes, and how it multiplies.

    bf16: its multipliers take bfloat16, not by emulation; networks then compute in it unless their schedule says no.
    tf32: float32 convolutions and matrix products are multiplied in TensorFloat-32 (10 bits of mantissa).
    compile: the backend that `torch.compile` is called with; empty: nothing is compiled.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bf16: bool = False
    tf32: bool = False
    compile: str = ""
    card: str = ""  # what the driver calls it; empty for a CPU

    @property
    def kind(self) -> str:
        """Give the type of the device: cpu, cuda or mps. Results of two types differ in bits."""
        return self.device.type

    @property
    def on_cpu(self) -> bool:
        return self.kind == "cpu"

    def __str__(self) -> str:
        """Say it as logs and rows do: `cuda:0 (NVIDIA H100), bf16, TF32 for float32, compiled by inductor`."""
        parts = [f"{self.device} ({self.card})" if self.card else str(self.device)]
        parts += ["bf16"] if self.bf16 else []
        parts += ["TF32 for float32"] if self.tf32 else []
        parts += [f"compiled by {self.compile}"] if self.compile else []
        return ", ".join(parts)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a network to the device, in place, and give it back."""
        return module.to(self.device)

    def compiled(self, function: Callable[_Args, _Result], *, dynamic: bool | None = None) -> Callable[_Args, _Result]:
        """Wrap a function or a network by `torch.compile` where this accelerator compiles, else give it back."""
        if not self.compile:
            return function
        wrapped: Callable[_Args, _Result] = torch.compile(function, backend=self.compile, dynamic=dynamic)
        return wrapped


CPU = Accelerator()


def find_accelerator(name: str = "auto", *, compiles: bool = False) -> Accelerator:
    """Resolve auto, cpu, cuda, cuda:N or mps on this machine; `auto` is CUDA's first device, else the CPU.

    Of several processes (`LOCAL_RANK` is set by their launcher) each takes its own CUDA device. Raises `InputError` for
    an unknown name and for a device that is not here.
    """
    if not ACCELERATOR.fullmatch(name):
        raise InputError(f"accelerator {name!r}: give {ACCELERATORS}")
    backend = "inductor" if compiles else ""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return Accelerator(compile=backend)
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("accelerator mps: torch finds no Metal device here: give cpu or auto")
        return Accelerator(torch.device("mps"), compile=backend, card="Apple Metal")
    return _cuda(name, backend)


def _cuda(name: str, backend: str) -> Accelerator:
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or count == 0:
        raise InputError(f"accelerator {name}: torch {torch.__version__} finds no CUDA device here: give cpu or auto")
    ranks, given = int(os.environ.get("WORLD_SIZE", "1")), name.partition(":")[2]
    if given and ranks > 1:
        raise InputError(f"accelerator {name}: {ranks} processes would share one device: give cuda, each takes its own")
    index = int(given or (os.environ.get("LOCAL_RANK", "0") if ranks > 1 else "0"))
    if index >= count:
        raise InputError(f"accelerator cuda:{index}: there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}")
    device = torch.device("cuda", index)
    major, _ = torch.cuda.get_device_capability(device)
    # From Ampere (8.0) on both are in hardware; torch says yes to bf16 on older cards, too, and emulates it.
    return Accelerator(device, major >= 8, major >= 8, backend, torch.cuda.get_device_name(device))


def use(accelerator: Accelerator) -> None:
    """Make torch compute as the accelerator says, in this process, and log what that is; on the CPU it does nothing."""
    if accelerator.on_cpu:
        return
    if accelerator.kind == "cuda":
        torch.cuda.set_device(accelerator.device)
        precision = "tf32" if accelerator.tf32 else "ieee"
        backends: Any = torch.backends
        backends.cuda.matmul.fp32_precision = precision
        backends.cudnn.conv.fp32_precision = precision
    log.info("computing on %s", accelerator)


def cpu_multiplies_bf16() -> bool:
    """Say whether this processor has instructions that multiply bfloat16: AVX-512 BF16 or AMX.

    Whether they gain depends on the network, for depthwise convolutions have no fast kernel: who trains one decides.
    """
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def device_of(module: nn.Module) -> torch.device:
    """Give the device that a network's parameters are on; the CPU for one without any."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def autocast(device: torch.device, bf16: bool) -> Iterator[None]:
    """Compute in bfloat16 inside where `bf16` says so, or in float32 although the code around it casts."""
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        yield


@contextmanager
def drawing(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from `seed` inside, on the CPU and on `device`; leave the generators of both as they were."""
    with generators_kept(device):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's global generator of the CPU and that of `device`, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device is None or device.type == "cpu":
        return
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        getattr(torch, device.type).manual_seed(seed)


@contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """Leave torch's global generators of the CPU and of `device` as they were."""
    states = _states(device)
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            if states is not None and device is not None:
                module, state = states
                module.set_rng_state(state, device) if device.type != "mps" else module.set_rng_state(state)


def _states(device: torch.device | None) -> tuple[Any, Tensor] | None:
    if device is None or device.type == "cpu":
        return None
    module: Any = getattr(torch, device.type)
    return module, module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)


def keeps_generators(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Wrap a function with an `accelerator` among its keyword arguments: it leaves the generators as they were."""

    @functools.wraps(function)
    def wrapped(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        accelerator = kwargs.get("accelerator")
        with generators_kept(accelerator.device if isinstance(accelerator, Accelerator) else None):
            return function(*args, **kwargs)

    return wrapped
