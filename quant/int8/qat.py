"""Quantization-aware training (QAT): a network whose activations and weights are rounded while it is trained.

`prepare_qat` gives the network to train with any loop (distillation too), `export_learnt` (`qat_export.py`) its
float graph and learnt activation ranges, which `quantize_onnx` and `quantize_openvino` put into their files.

Rounding is torch's fake quantization, at the places where the runtimes quantize: weights per channel and symmetric,
activations per tensor where a layer, a gate, a pooling or a squeeze-excite block reads them. BN is folded first: with
statistics that go on moving under rounded weights, training collapses.

Why not NNCF's or torchao's own QAT: both place fake quantization for another backend. NNCF gives a convolution in front
of a hard-swish no quantized output, so ONNX Runtime runs it in float, and compiles a C++ extension at the first step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tutelage.quant.export.normalise import TOLERANCE, SqueezeExcite, normalise
from tutelage.ranks import extremes
from tutelage.records import InputError

from .calibration import checked_calibration
from .gates import LEAST_HIGH, LEVELS, gate_range
from .placement import MAX_FLOAT_STEM_PRODUCTS
from .saturation import WEIGHT_STEPS, weight_bits

# A range follows the batches it sees: fast enough to follow the weights, slow enough not to follow one odd batch.
RANGE_MOMENTUM = 0.02
_BATCH = 32
_BLOCKS = (SqueezeExcite, nn.AdaptiveAvgPool2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid, nn.LeakyReLU)


class Rounding(nn.Module):
    """Round a tensor to 256 levels between its lowest and highest value, straight through for the gradient.

    `gate`: (start, width) of the slope of a hard-sigmoid that alone reads the tensor; the range then starts where the
    slope does, on a whole zero point, as gates.py wants it.
    """

    def __init__(self, gate: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.register_buffer("range", torch.tensor([0.0, 0.0]))
        self.register_buffer("seen", torch.tensor(False))
        self.range: Tensor
        self.seen: Tensor
        self._has_seen = False

    def forward(self, x: Tensor) -> Tensor:
        # `seen` is read once, and the grid never: reading a number waits for all that a GPU has to do.
        self._has_seen = self._has_seen or bool(self.seen)
        if self.training or not self._has_seen:
            with torch.no_grad():
                found = extremes(x).clamp(-1e6, 1e6)
                self.range.copy_(torch.where(self.seen, torch.lerp(self.range, found, RANGE_MOMENTUM), found))
                self.seen.fill_(True)
        scale: Any
        zero: Any
        scale, zero = self.grid() if x.device.type == "cpu" else self.grid_on_device()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)

    def grid(self) -> tuple[float, int]:
        """Give the scale and the zero point, as the runtimes' quantizers compute them from the range."""
        low, high = min(float(self.range[0]), 0.0), max(float(self.range[1]), 0.0)
        if self.gate is not None:
            low, high = gate_range(*self.gate, high)
        scale = max((high - low) / LEVELS, 1e-8)
        return scale, round(-low / scale)

    def grid_on_device(self) -> tuple[Tensor, Tensor]:
        """Give the scale and the zero point of `grid` as tensors () on the range's device, without reading it."""
        exact = torch.float32 if self.range.device.type == "mps" else torch.float64
        low, high = self.range[0].to(exact).clamp(max=0), self.range[1].to(exact).clamp(min=0)
        if self.gate is not None:  # as `gate_range`
            start, width = self.gate
            high = high.clamp(max=width - start).clamp(min=LEAST_HIGH)
            level = torch.floor(LEVELS * start / (high + start)).clamp(min=1)
            low, high = torch.full_like(high, -start), start * (LEVELS - level) / level
        scale = ((high - low) / LEVELS).clamp(min=1e-8)
        return scale.float(), torch.round(-low / scale).int()


class RoundedLayer(nn.Module):
    """A convolution or linear layer with rounded input and weights, and rounded output where nothing else rounds it."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, is_bare: bool) -> None:
        super().__init__()
        self.layer = layer
        self.rounding = Rounding()
        self.after = Rounding() if is_bare else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # An exported graph holds the weights as they are: the runtime's quantizer rounds them in the same way.
        weight = self.layer.weight if torch.onnx.is_in_onnx_export() else rounded_weight(self.layer.weight)
        x = self.rounding(x)
        if isinstance(self.layer, nn.Linear):
            x = F.linear(x, weight, self.layer.bias)
        else:
            x = self.layer._conv_forward(x, weight, self.layer.bias)
        result: Tensor = self.after(x)
        return result


class RoundedInput(nn.Module):
    """A gate, a pooling or a squeeze-excite block that reads a rounded tensor."""

    def __init__(self, block: nn.Module, gate: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.block = block
        self.rounding = Rounding(gate)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(self.rounding(x))
        return result


def rounded_weight(weight: Tensor) -> Tensor:
    """Round weights (out, ...) to whole steps of each output channel's own largest value, as the int8 file does."""
    scale = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8) / WEIGHT_STEPS[weight_bits()]
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)


def prepare_qat(model: nn.Module, calibration: npt.ArrayLike) -> nn.Module:
    """Give a trainable copy of `model` with BN folded and fake quantization inserted; `model` is unchanged.

    calibration: normalised float32 images (n, c, h, w), which set the first ranges. Raises InputError for no images.
    """
    images = torch.from_numpy(checked_calibration(calibration))
    network = fold_batch_norm(normalise(model), images[:2])
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    # What another block takes is rounded there or after it; the network's own output is not rounded at all.
    takers = (*_ACTIVATIONS, *_BLOCKS)
    covered = {layer for layer, _ in _readers(network, images[:2], takers)} | _last_layers(network, images[:2])
    _replace(network, lambda module: _rounded(module, first, covered))
    if not any(isinstance(module, RoundedLayer) for module in network.modules()):
        raise InputError(f"{type(model).__name__} has no convolution and no linear layer: nothing to quantize")
    with torch.no_grad():
        for module in network.modules():
            module.train(isinstance(module, Rounding))  # ranges follow, nothing else does
        for batch in torch.split(images, _BATCH):
            network(batch)
    return network.eval()


def finish_qat(network: nn.Module) -> nn.Module:
    """Give a copy without fake quantization: the plain network with the learnt weights, in eval mode."""
    network = copy.deepcopy(network)
    while any(isinstance(module, RoundedLayer | RoundedInput) for module in network.modules()):
        _replace(network, lambda module: {RoundedLayer: "layer", RoundedInput: "block"}.get(type(module)))
    return network.eval()


@torch.no_grad()
def fold_batch_norm(network: nn.Module, images: Tensor) -> nn.Module:
    """Fold each BN that reads a convolution's output into it, in place; outputs on `images` must stay as they were."""
    expected = network(images)
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in _readers(network, images, (nn.BatchNorm2d,)):
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue  # it knows nothing but the batch: there is nothing to fold
        folded = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = folded
        # timm's BatchNormAct2d also holds what follows it.
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
        _put(network, names[norm], nn.Sequential(*rest) if rest else nn.Identity())
    difference = float((network(images) - expected).abs().max())
    if difference > 100 * TOLERANCE * max(1.0, float(expected.abs().max())):
        raise InputError(
            f"folding BN changes {type(network).__name__} by {difference:.2g}: it cannot be trained in int8"
        )
    return network


@torch.no_grad()
def _readers(
    network: nn.Module, images: Tensor, kinds: tuple[type[nn.Module], ...]
) -> list[tuple[nn.Module, nn.Module]]:
    """List the pairs (layer, module of `kinds` that reads the layer's output), by running the network."""
    makers: dict[int, nn.Module] = {}
    alive: list[Tensor] = []  # an id names a tensor only as long as it lives
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def made(module: nn.Module, _: Any, output: Tensor) -> None:
        makers[id(output)] = module
        alive.append(output)

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if (maker := makers.get(id(inputs[0]))) is not None:
            pairs.append((maker, module))

    handles = [m.register_forward_hook(made) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles += [m.register_forward_pre_hook(read) for m in network.modules() if isinstance(m, kinds)]
    network(images)
    for handle in handles:
        handle.remove()
    return pairs


@torch.no_grad()
def _last_layers(network: nn.Module, images: Tensor) -> set[nn.Module]:
    """Name the layer whose output is the network's."""
    ends = nn.Identity()
    found = _readers(nn.Sequential(network, ends), images, (nn.Identity,))
    return {layer for layer, reader in found if reader is ends}


def _rounded(module: nn.Module, first: nn.Module | None, covered: set[nn.Module]) -> nn.Module | None:
    if isinstance(module, nn.Hardswish):
        return RoundedInput(module, gate=(3.0, math.inf))  # x itself is needed above the gate's slope, too
    if isinstance(module, nn.Hardsigmoid):
        return RoundedInput(module, gate=(3.0, 6.0))
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return RoundedInput(module)
    if isinstance(module, SqueezeExcite):
        gate = module.gate
        inner = nn.Sequential(gate)
        _replace(inner, lambda part: _rounded(part, first, covered))
        module.gate = inner[0]
        return RoundedInput(module)  # the pooling reads what the block rounds
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return None
    if module is first and module.weight[0].numel() <= MAX_FLOAT_STEM_PRODUCTS:
        return None  # as float_stem: the image's convolution stays in float where that is faster
    return RoundedLayer(module, is_bare=module not in covered)


def _replace(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | str | None]) -> None:
    """Replace submodules by what `replacement` gives, or by their own child where it gives its name."""
    for name, child in list(module.named_children()):
        found = replacement(child)
        if found is None:
            _replace(child, replacement)
        else:
            setattr(module, name, child.get_submodule(found) if isinstance(found, str) else found)


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
