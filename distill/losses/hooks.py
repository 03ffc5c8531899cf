"""Read feature maps and embeddings of a network by forward hooks.

Works for any image classifier (timm CNN, ViT, Swin, an extracted subnet) and an example image: maps of its stages are
`(b, c, h, w)`, embeddings before its classifier are `(b, features)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.records import InputError


@dataclass(frozen=True)
class Layer:
    """A module whose output is a feature map: its channels and grid for the example it was traced with."""

    name: str
    channels: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class Trace:
    """What ran, in order: the layers that give maps, and the last linear layer (its input is the embedding)."""

    layers: tuple[Layer, ...]
    classifier: str
    embedding_size: int


def as_map(output: Any, num_prefix: int = 1) -> Tensor | None:
    """Read a module's output as `(b, c, h, w)`, or `None` where it is no feature map.

    NCHW stays; NHWC (Swin) is permuted; tokens `(b, n, c)` become a square grid without their prefix (class and
    distillation tokens: `num_prefix`, or whatever is left over from the largest square).
    """
    if not isinstance(output, Tensor):
        return None
    if output.ndim == 4:
        height_last = output.shape[1] == output.shape[2] != output.shape[3]
        return output.permute(0, 3, 1, 2) if height_last else output
    if output.ndim == 3:
        for prefix in (num_prefix, 0, 1, 2):
            side = math.isqrt(max(output.shape[1] - prefix, 0))
            if side > 0 and side * side == output.shape[1] - prefix:
                tokens = output[:, prefix:]
                return tokens.transpose(1, 2).reshape(len(output), -1, side, side)
    return None


class Taps:
    """Hooks on named modules of a network; after a forward, `maps` and `embedding` hold what passed through.

    Use as a context manager, or `remove()` the hooks in the end.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str] = (), classifier: str = "") -> None:
        self.outputs: dict[str, Tensor] = {}
        self.embedding: Tensor | None = None
        self._num_prefix = int(getattr(net, "num_prefix_tokens", 1) or 0)
        modules = dict(net.named_modules())
        missing = [name for name in (*layers, *([classifier] if classifier else [])) if name not in modules]
        if missing:
            raise InputError(
                f"{type(net).__name__} has no layer {missing[0]!r}; it has {', '.join(list(modules)[1:8])}, ..."
            )
        self._hooks = [modules[name].register_forward_hook(self._keeper(name)) for name in layers]
        if classifier:
            self._hooks.append(modules[classifier].register_forward_pre_hook(self._keep_embedding))

    @property
    def maps(self) -> dict[str, Tensor]:
        """Give the maps `(b, c, h, w)` by layer name."""
        maps = {name: as_map(output, self._num_prefix) for name, output in self.outputs.items()}
        return {name: value for name, value in maps.items() if value is not None}

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.outputs[name] = output

        return keep

    def _keep_embedding(self, _module: nn.Module, inputs: Any) -> None:
        self.embedding = inputs[0].flatten(1)


@dataclass
class _Seen:
    layers: list[Layer] = field(default_factory=list)
    classifier: tuple[str, int] | None = None


@torch.no_grad()
def trace(net: nn.Module, example: Tensor) -> Trace:
    """Run one image `(1, c, r, r)` through the network in eval mode and note what gives maps, in order of execution."""
    seen, was_training = _Seen(), net.training
    num_prefix = int(getattr(net, "num_prefix_tokens", 1) or 0)
    hooks = [
        module.register_forward_hook(_noter(seen, name, module, num_prefix))
        for name, module in net.named_modules()
        if name
    ]
    try:
        net.eval()(example)
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    if seen.classifier is None:
        raise InputError(f"{type(net).__name__} ends in no linear layer: feature methods cannot find its embedding")
    return Trace(_whole(net, seen.layers), *seen.classifier)


def _whole(net: nn.Module, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Leave out what lies inside a block that changes the grid: halfway through it nothing is finished.

    Plain `Sequential` chains are no blocks: their parts are. What leads to a vector (a head) is left out too.
    """
    grids = {layer.name: layer.grid for layer in layers}
    modules = dict(net.named_modules())

    def finished(layer: Layer) -> bool:
        parts = layer.name.split(".")
        above = [".".join(parts[:i]) for i in range(1, len(parts))]
        blocks = [name for name in above if type(modules[name]) not in (nn.Sequential, nn.ModuleList)]
        return all(grids.get(name) == layer.grid for name in blocks)

    return tuple(layer for layer in layers if finished(layer))


def _noter(seen: _Seen, name: str, module: nn.Module, num_prefix: int) -> Any:
    def note(_module: nn.Module, inputs: Any, output: Any) -> None:
        value = as_map(output, num_prefix)
        if value is not None:
            seen.layers.append(Layer(name, value.shape[1], (value.shape[2], value.shape[3])))
        elif isinstance(module, nn.Linear) and isinstance(output, Tensor) and output.ndim == 2:
            seen.classifier = (name, module.in_features)

    return note


def stage_layers(traced: Trace, num: int = 4) -> tuple[Layer, ...]:
    """Choose at most `num` layers that end a stage: the last one of each grid, the coarsest grids first to be kept.

    A network of one grid (a plain ViT) gives evenly spaced blocks. Pooled 1 x 1 outputs are no maps, unless
    nothing larger is there.
    """
    # A whole stage and its last block give the same tensor; the outer one finishes last and is taken.
    large = [layer for layer in traced.layers if layer.grid != (1, 1)] or list(traced.layers)
    by_grid: dict[tuple[int, int], Layer] = {}
    for layer in large:
        by_grid[layer.grid] = layer
    if len(by_grid) == 1 or _is_plain_vit(large):
        blocks = [layer for layer in large if _is_block(layer.name)]
        if len(blocks) >= num:
            return tuple(blocks[round((i + 1) * len(blocks) / num) - 1] for i in range(num))
    chosen = sorted(by_grid.values(), key=lambda layer: -layer.grid[0] * layer.grid[1])
    return tuple(chosen[-num:])


def last_layer(traced: Trace) -> Layer:
    """Give the last layer with the coarsest map before pooling."""
    return stage_layers(traced, 1)[-1]


def _is_block(name: str) -> bool:
    parts = name.split(".")
    return len(parts) >= 2 and parts[-1].isdigit() and parts[-2] in ("blocks", "layers", "stages", "resblocks")


def _is_plain_vit(layers: Sequence[Layer]) -> bool:
    blocks = [layer for layer in layers if _is_block(layer.name)]
    return len(blocks) > 1 and len({(layer.grid, layer.channels) for layer in blocks}) == 1
