"""Once for All's latency tables (`latency_table@note10/224_lookup_table.yaml`): times of blocks, not of networks.

A table maps a block's key, e.g. `expanded_conv-input:112x112x16-output:56x56x24-expand:48-kernel:3-stride:2-idskip:0-
se:0-hs:0`, to its `mean` in ms; a network takes the sum (`ofa.nas.efficiency_predictor.latency_lookup_table`). The
sums of subnets that the table covers stand for measurements.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tutelage.records import Arch, InputError, parsed_yaml
from tutelage.search.costs.counts import BlockSpec, block_specs
from tutelage.search.spaces.space import SPACES, Space, find_space

log = logging.getLogger(__name__)

NUM_SUBNETS = 60
_STEM = "Conv-input:"
CLASSES, CHANNELS = 1000, 3  # what OFA's tables were made for


def is_ofa_table(text: str) -> bool:
    """Tell a table of blocks by its first key."""
    return text.lstrip().startswith(
        (_STEM, "expanded_conv-input:", "AvgPool2D-input:", "Conv_1-input:", "Logits-input")
    )


def read_ofa_table(path: Path, text: str, name: str) -> tuple[list[Arch], list[float]]:
    """Give subnets of the space `name` at the table's resolution and the sums of their blocks' times in ms.

    Raises InputError for a file that is no such table, and for a table of another space, naming the missing block.
    """
    try:
        data = parsed_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not all(isinstance(value, dict) and "mean" in value for value in data.values()):
        raise InputError(f"{path} is not one of Once for All's latency tables: each block's key maps to its mean in ms")
    resolutions = {key.removeprefix(_STEM).split("x")[0] for key in map(str, data) if key.startswith(_STEM)}
    if len(resolutions) != 1 or not all(re.fullmatch("[0-9]{1,5}", one) for one in resolutions):
        raise InputError(f"{path}: it has no first convolution ({_STEM}...), or several: give one resolution's table")
    space = _space(path, data, int(resolutions.pop()), name)
    archs = [space.smallest(), space.largest()]
    archs += space.decode(space.random(NUM_SUBNETS - 2, np.random.default_rng(0)))
    return archs, [_sum(path, data, arch) for arch in archs]


def _space(path: Path, table: dict[str, Any], side: int, name: str) -> Space:
    """Give the space that was named, or the first other one all of whose blocks at this resolution are in the table."""
    names = [*([name] if name else []), *(other for other in SPACES if other.startswith(("ofa_mbv3", "ofa_proxyless")))]
    refused: InputError | None = None
    for each in dict.fromkeys(names):
        space = find_space(each).with_resolutions((side,))
        try:
            for arch in (space.smallest(), space.largest()):
                _sum(path, table, arch)
        except InputError as error:
            if refused is None or _STEM in str(refused):  # one with this first convolution tells more
                refused = error
            continue
        if each != name:
            log.warning("%s is a table of %s at %d px", path.name, each, side)
        return space
    assert refused is not None
    raise refused


def _sum(path: Path, table: dict[str, Any], arch: Arch) -> float:
    total = 0.0
    for spec in block_specs(arch, CLASSES, CHANNELS):
        for key in block_keys(spec):
            if key not in table:
                raise InputError(
                    f"{path} has no block {key}, which subnets of {arch.space} have, and fits no space"
                    " here: give another table"
                )
            total += _mean(path, key, table[key]["mean"])
    return total


def _mean(path: Path, key: str, given: Any) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):  # a whole number of 400 digits
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise InputError(f"{path}: block {key} takes {given!r}: give its milliseconds, or make the table again")
    return value


def block_keys(spec: BlockSpec) -> tuple[str, ...]:
    """Give the keys under which a table holds a block: the head of MobileNetV3 has four, that of ProxylessNAS two."""
    side, out_side = spec.in_hw, (spec.in_hw - 1) // spec.stride + 1
    if spec.kind == "stem":
        return (_key("Conv", (side, side, spec.in_channels), (out_side, out_side, spec.out_channels)),)
    if spec.kind == "head":
        mid, out = spec.mid_channels, spec.out_channels
        if spec.family != "mbv3":
            return (
                _key("Conv_1", (side, side, spec.in_channels), (side, side, out)),
                _key("Logits", (side, side, out), (spec.num_classes,)),
            )
        return (
            _key("Conv_1", (side, side, spec.in_channels), (side, side, mid)),
            _key("AvgPool2D", (side, side, mid), (1, 1, mid)),
            _key("Conv_2", (1, 1, mid), (1, 1, out)),
            _key("Logits", (1, 1, out), (spec.num_classes,)),
        )
    block = _key("expanded_conv", (side, side, spec.in_channels), (out_side, out_side, spec.out_channels))
    skip = int(spec.shortcut)
    expand = spec.mid_channels if spec.family == "mbv3" else spec.mid_channels // spec.in_channels
    block += f"-expand:{expand}-kernel:{spec.kernel}-stride:{spec.stride}-idskip:{skip}"
    return (block + (f"-se:{int(spec.se)}-hs:{int(spec.act == 'h_swish')}" if spec.family == "mbv3" else ""),)


def _key(kind: str, shape: tuple[int, ...], out: tuple[int, ...]) -> str:
    return f"{kind}-input:{'x'.join(map(str, shape))}-output:{'x'.join(map(str, out))}"
