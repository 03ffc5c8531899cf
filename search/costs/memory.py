"""What a network takes of a microcontroller's memories, by blocks: RAM beside its activations, flash. No torch.

RAM is TFLite Micro's arena. It holds the activations that are alive at once (`Layer.live`, of which `counts.py` takes
the largest: a convolution's input and output, and the map that is kept for an addition), 4 bytes an element at fp32 and
1 at int8; and what persists for each tensor, operator and channel, which is added up here. Flash is the int8 file.

Both are counted of the file that `tutelage.bench.micro` makes: norms and activations in the convolutions, no padding
operators, weights once, no names. `make bench-memory` compares with the files and with TFLite Micro's own report.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.search.spaces.blocks import BlockSpec, Layer

# What persists in the arena: a structure a tensor and an operator, and the kernel's own, on a 64-bit host.
_TENSOR, _OPERATOR, _INTERPRETER = 24, 64, 840
_CONV, _ADD, _MEAN, _RESHAPE, _LINEAR, _ACTIVATION, _MUL, _TRANSPOSE, _POOL = 108, 68, 52, 36, 104, 20, 48, 8, 64
_A_CHANNEL = 8  # a multiplier and a shift
# Bytes of the int8 file: of an output channel its bias, scales and zero points of weights and bias, 8 bytes each zero
# point; of a layer with weights its three tensors and operator; of another operator; of the rest.
FILE_CHANNEL, FILE_LAYER, FILE_OPERATOR, FILE_REST = 28, 344, 180, 700
# A mean at int8 adds up in int32.
_INT8_MORE = 72


@dataclass(frozen=True)
class Memory:
    """Bytes of one block: what persists in the arena at fp32 and at int8, and its part of the int8 file."""

    persistent: int
    int8_persistent: int
    int8_file: int


def memory_of(spec: BlockSpec) -> Memory:
    """Count one block."""
    persistent, more, file = 0, 0, 0
    for layer in spec.layers:
        persistent += _layer(layer)
        if layer.kind == "linear":
            more += _A_CHANNEL * layer.out_channels
        file += _file_bytes(spec, layer)
    others = _others(spec)
    persistent += sum(_OPERATOR + own + _TENSOR * tensors for own, tensors in others)
    file += FILE_OPERATOR * len(others)
    if spec.kind == "stem":
        persistent, more, file = persistent + _INTERPRETER + _TENSOR, more + _INT8_MORE, file + FILE_REST
    return Memory(persistent, persistent + more, file)


def _layer(layer: Layer) -> int:
    """Count a layer with weights (its operator and three tensors), or a pooling."""
    if layer.kind == "pool":
        return _OPERATOR + _POOL + _TENSOR
    own = _LINEAR if layer.kind == "linear" else _CONV + _A_CHANNEL * layer.out_channels
    return _OPERATOR + own + 3 * _TENSOR


def _file_bytes(spec: BlockSpec, layer: Layer) -> int:
    if layer.kind == "pool":
        return FILE_OPERATOR
    weights = layer.num_weights
    if layer.kind == "conv" and layer.out_hw < layer.in_hw and layer.in_hw % 2 == 0 and layer.kernel % 2:
        # A row and a column of zeros in place of a padding operator.
        weights = weights // layer.kernel**2 * (layer.kernel + 1) ** 2
    return weights + FILE_CHANNEL * layer.out_channels + FILE_LAYER


def _others(spec: BlockSpec) -> list[tuple[int, int]]:
    """List operators without weights: the bytes of each one's kernel, and its tensors that are its own."""
    found: list[tuple[int, int]] = []
    convs = sum(layer.kind == "conv" for layer in spec.layers)
    if spec.act == "h_swish" and spec.style == "basic" and spec.kind == "block":
        found += [(_ACTIVATION, 1)] * 2  # between the convolutions and after the addition
    elif spec.act == "h_swish":  # not after the last convolution of a block, which is linear
        linear = spec.kind in ("first", "block")
        found += [(_ACTIVATION, 1)] * (convs - linear - (2 if spec.se else 0))
    if spec.se:  # in the converter's files maps are transposed around the gate
        found += [(_TRANSPOSE, 2)] * 2 + [(_MEAN, 2)] + [(_RESHAPE, 2)] * 2 + [(_ADD, 1)] + [(_MUL, 1)] * 2
    if spec.kind == "head":
        found += [(_MEAN, 2), (_RESHAPE, 2)]
    elif spec.style != "mbconv":
        found += [(_ADD, 1)] if spec.kind == "block" or spec.shortcut else []
    elif spec.shortcut:
        found.append((_ADD, 1))
    return found
