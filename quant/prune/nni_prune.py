"""Prune by NNI (Microsoft, 3.0, no longer developed): its norm pruners choose channels, its speed-up removes them.

`prune_by_nni` gives a smaller network of the same classes. What NNI 3.0 needs to work on a current torch:
- its own tracer fails on functions without a module (torch >= 2.2): `torch.fx` traces the network instead;
- its import registers two of torch's containers anew and warns: the warnings are kept quiet;
- what comes back is a traced graph: its weights are put into a network built again from the original's classes.
Depthwise convolutions have no mask of their own, since two masks on one channel would leave both layers' channels.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tutelage.records import InputError

from .shapes import apply_shapes, pruned_shapes

_TOLERANCE = 1e-4  # between NNI's traced network and the one built again: the same sums


def prune_by_nni(
    model: nn.Module, example: torch.Tensor, ratio: float, pruner: str, heads: Sequence[nn.Module]
) -> nn.Module:
    """Give a copy of `model` without the least important `ratio` of the channels of its convolutions.

    example: (batch, c, h, w). pruner: nni-l1 or nni-l2 (norms of filters, Li et al., ICLR 2017), nni-fpgm (distance to
    their geometric median, He et al., CVPR 2019). heads: layers left alone. Raises InputError for a network that
    cannot be traced or pruned.
    """
    if ratio == 0:
        return copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.utils._pytree's names have changed since
        from nni.compression import pruning
        from nni.compression.speedup import ModelSpeedup
    nni_log = logging.getLogger("nni")  # a line for every layer, to stdout
    nni_log.handlers, nni_log.propagate = [logging.NullHandler()], False
    kinds: dict[str, Any] = {
        "nni-l1": pruning.L1NormPruner,
        "nni-l2": pruning.L2NormPruner,
        "nni-fpgm": pruning.FPGMPruner,
    }
    names = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and not any(layer is head for head in heads)
    ]
    if not names:
        raise InputError(f"{type(model).__name__} has no convolutions to prune")
    network, pruned = copy.deepcopy(model), copy.deepcopy(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints, too
            wrapped = kinds[pruner](network, [{"op_names": names, "sparse_ratio": ratio}])
            _, masks = wrapped.compress()
            wrapped.unwrap_model()
            traced = torch.fx.symbolic_trace(network)
            small = ModelSpeedup(network, example, masks, graph_module=traced).speedup_model().eval()
        apply_shapes(pruned, pruned_shapes(pruned, small)).load_state_dict(small.state_dict())
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{type(model).__name__} cannot be pruned by nni: {reason}; use magnitude") from error
    with torch.no_grad():
        far = float((pruned(example) - small(example)).abs().max())
    if far > _TOLERANCE:
        raise InputError(
            f"outputs of {type(model).__name__} differ by {far:.2g} from those of nni's pruned network; use magnitude"
        )
    return pruned
