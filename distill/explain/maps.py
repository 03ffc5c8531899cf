"""Explain a teacher, a student or its int8 file by class activation maps.

`explain` gives maps `(n, h, w)` in 0..1 for a network, normalised images and the class to explain; `compare` adds
metrics of several models' maps and images of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.accelerator import device_of
from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.distill.losses.hooks import as_map, stage_layers, trace
from tutelage.records import InputError, Record

from .faithfulness import agreement, energy_in_mask, insertion_deletion, pointing_game, randomised, road

Predict = Callable[[Tensor], Tensor]  # images (n, c, r, r) -> logits (n, classes)

METHODS = ("scorecam", "gradcam", "hirescam", "eigencam")
# Score-CAM costs one forward a channel; the strongest channels carry the map.
MAX_CHANNELS = 64
# Feature maps of so few masked images stay in a core's cache: 64 at once take twice as long.
_MASKS_AT_A_TIME = 8
# A map of fewer cells in height or width cannot localise: on small images an earlier layer is read.
_MIN_GRID = 4


@dataclass(frozen=True)
class Explained:
    """A model to explain. An int8 file gives its own outputs through `predict`; `net` is the network it was exported
    from, whose activations are the masks that `predict` is evaluated on (Score-CAM only)."""

    net: nn.Module
    predict: Predict | None = None


class ExplanationFigures(Record):
    """Means over images of one model's maps; `None` where undefined or not requested."""

    method: str
    num_images: int
    insertion_auc: float | None = None  # higher is better
    deletion_auc: float | None = None  # lower is better
    road: float | None = None  # higher is better
    agreement_spearman: float | None = None  # with the reference model's maps
    agreement_iou: float | None = None  # of the top tenth of the pixels
    sanity_spearman: float | None = None  # with maps of the same network with shuffled weights: should be near 0
    pointing: float | None = None  # fraction of maps whose maximum lies in the lesion
    energy: float | None = None  # fraction of the map's sum that lies in the lesion
    mask_fraction: float | None = None  # fraction of pixels in the lesion: the energy of a flat map


def explain(
    net: nn.Module,
    images: Tensor,
    classes: Sequence[int] | Tensor | None = None,
    *,
    method: str = "scorecam",
    layer: str | None = None,
    predict: Predict | None = None,
    max_channels: int = MAX_CHANNELS,
    batch_size: int = 32,
) -> np.ndarray:
    """Give one map a normalised image `(n, c, r, r)`: float32 `(n, r, r)`, each scaled to 0..1.

    `classes` are the classes to explain (default: the predicted ones); `layer` names the module to read (default: see
    `cam_layer`). The network is left as it was. With `predict` (Score-CAM only) the scores are its outputs.
    """
    if method not in METHODS:
        raise InputError(f"unknown explanation {method!r}: give one of {', '.join(METHODS)}")
    if predict is not None and method != "scorecam":
        raise InputError(f"{method} reads gradients or activations of a file that has none: use scorecam")
    if classes is None:
        classes = (predict or (lambda x: predict_logits(net, x)))(images).argmax(1)
    chosen = [int(value) for value in classes]
    was_training, wanted = net.training, [p.requires_grad for p in net.parameters()]
    images = images.to(device_of(net))
    name = layer or cam_layer(net, images[:1])
    try:
        net.eval().requires_grad_(False)
        maps = [
            _maps(net, name, part, chosen[start : start + len(part)], method, predict, max_channels)
            for start, part in zip(range(0, len(images), batch_size), torch.split(images, batch_size), strict=True)
        ]
    finally:
        net.train(was_training)
        for parameter, value in zip(net.parameters(), wanted, strict=True):
            parameter.requires_grad_(value)
    return np.concatenate(maps)


def cam_layer(net: nn.Module, example: Tensor) -> str:
    """Name the layer whose activations are mapped.

    ViT: the first norm of the last block (the block itself gives zeros: only the class token reaches the head). Swin:
    the second norm of the last block. A CNN: the deepest layer with a grid of at least 4 x 4.
    """
    modules = dict(net.named_modules())
    blocks = [name for name, module in modules.items() if hasattr(module, "norm1") and hasattr(module, "attn")]
    if blocks and hasattr(net, "pos_embed") and not hasattr(net, "stages") and "stage" not in blocks[-1]:
        return f"{blocks[-1]}.norm1"
    if blocks and hasattr(net, "layers") and isinstance(getattr(modules[blocks[-1]], "norm2", None), nn.LayerNorm):
        return f"{blocks[-1]}.norm2"
    layers = stage_layers(trace(net, example), num=8)
    fine = [layer for layer in layers if min(layer.grid) >= _MIN_GRID]
    return (fine or list(layers))[-1].name


def compare(
    models: Mapping[str, Explained | nn.Module],
    images: Tensor,
    classes: Sequence[int] | Tensor,
    *,
    method: str = "scorecam",
    masks: np.ndarray | None = None,
    reference: str | None = None,
    pictures: Path | None = None,
    faithful: bool = True,
    sanity: bool = True,
    multi_label: bool = False,
    maps: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, ExplanationFigures]:
    """Explain the same images and classes by several models and measure how faithful and how similar the maps are.

    `masks` `(n, h, w)` are lesions (nonzero inside; empty ones are left out); `reference` is the model that the others
    are compared with (default: the first). With `pictures` one PNG an image is written there, one column a model.
    `maps` are those of `explain`, where they were made before.
    """
    explained = {name: one if isinstance(one, Explained) else Explained(one) for name, one in models.items()}
    reference = reference or next(iter(explained))
    if reference not in explained:
        raise InputError(f"no model {reference!r} to compare with: give one of {', '.join(explained)}")
    if maps is None:
        maps = {
            name: explain(one.net, images, classes, method=method, predict=one.predict)
            for name, one in explained.items()
        }
    figures = {}
    for name, one in explained.items():
        predict = one.predict or _predictions(one.net)
        values: dict[str, Any] = {}
        if faithful:
            insertion, deletion = insertion_deletion(
                predict, images, maps[name], classes, seed=seed, multi_label=multi_label
            )
            values |= {"insertion_auc": insertion, "deletion_auc": deletion}
            values["road"] = road(predict, images, maps[name], classes, seed=seed, multi_label=multi_label)
        if name != reference:
            values["agreement_spearman"], values["agreement_iou"] = agreement(maps[name], maps[reference])
        if sanity and one.predict is None:
            shuffled = explain(randomised(one.net, seed), images, classes, method=method)
            values["sanity_spearman"] = agreement(maps[name], shuffled)[0]
        if masks is not None:
            values["pointing"] = pointing_game(maps[name], masks)
            values["energy"], values["mask_fraction"] = energy_in_mask(maps[name], masks)
        figures[name] = ExplanationFigures(method=method, num_images=len(images), **values)
    if pictures is not None:
        from .pictures import save_pictures

        save_pictures(pictures, images, maps, masks)
    return figures


def _predictions(net: nn.Module) -> Predict:
    return lambda images: predict_logits(net, images)


def _maps(
    net: nn.Module,
    name: str,
    images: Tensor,
    classes: Sequence[int],
    method: str,
    predict: Predict | None,
    max_channels: int,
) -> np.ndarray:
    from pytorch_grad_cam import EigenCAM, GradCAM, HiResCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    num_prefix = int(getattr(net, "num_prefix_tokens", 1) or 0)

    def reshape(output: Tensor) -> Tensor:
        value = as_map(output, num_prefix)
        if value is None:
            raise InputError(f"layer {name!r} gives no feature map (shape {tuple(output.shape)}): name another one")
        return value

    layers, targets = [net.get_submodule(name)], [ClassifierOutputTarget(value) for value in classes]
    if method == "scorecam":
        cam = _capped_score_cam()(net, layers, reshape, max_channels, predict)
    else:
        kind = {"gradcam": GradCAM, "hirescam": HiResCAM, "eigencam": EigenCAM}[method]
        cam = kind(model=net, target_layers=layers, reshape_transform=reshape)
    # Frozen parameters leave no graph, so the images themselves require a gradient.
    inputs = images.detach().clone().requires_grad_(method != "scorecam")
    try:
        found: np.ndarray = cam(input_tensor=inputs, targets=targets)
    finally:
        cam.activations_and_grads.release()
    return np.nan_to_num(found.astype(np.float32)).clip(0, 1)


def _capped_score_cam() -> Any:
    """Give grad-cam's Score-CAM (Wang et al., CVPRW 2020) with a limit on channels and outputs from `predict`."""
    from pytorch_grad_cam import ScoreCAM

    class CappedScoreCAM(ScoreCAM):  # type: ignore[misc]
        """Evaluates only the channels of the greatest mean activation; the others have weight 0."""

        def __init__(
            self, net: nn.Module, layers: list[nn.Module], reshape: Any, max_channels: int, predict: Predict | None
        ) -> None:
            super().__init__(net, layers, reshape)
            self.max_channels = max_channels
            self.predict = predict

        def get_cam_image(
            self, input_tensor: Tensor, target_layer: Any, targets: Any, activations: np.ndarray, *rest: Any
        ) -> np.ndarray:
            """Give the weighted sum `(n, h, w)`; channels that go below 0 are lifted to it.

            The weights are positive, so a layer before its activation function (dense blocks, tokens) would sum to
            less than nothing everywhere. After a ReLU nothing is lifted: the paper's map.
            """
            lifted = activations - np.minimum(activations.min((2, 3), keepdims=True), 0)
            image: np.ndarray = super().get_cam_image(input_tensor, target_layer, targets, lifted, *rest)
            return image

        @torch.no_grad()
        def get_cam_weights(
            self, input_tensor: Tensor, target_layer: Any, targets: Any, activations: np.ndarray, grads: Any
        ) -> np.ndarray:
            """Give weights `(n, channels)`: the softmax over channels of the class score under each mask."""
            maps = torch.from_numpy(activations).to(input_tensor.device)
            strongest = maps.flatten(2).abs().mean(2).topk(min(self.max_channels, maps.shape[1]), dim=1).indices
            weights = torch.zeros(maps.shape[:2])
            kept = len(self.activations_and_grads.activations)
            for i, (image, target) in enumerate(zip(input_tensor, targets, strict=True)):
                heat = maps[i, strongest[i]][:, None]
                masks = nn.functional.interpolate(heat, image.shape[-2:], mode="bilinear", align_corners=True)
                low, high = masks.amin((1, 2, 3), keepdim=True), masks.amax((1, 2, 3), keepdim=True)
                shown = image * (masks - low) / (high - low + 1e-8)
                ask = self.predict or self.model
                logits = torch.cat([ask(part) for part in shown.split(_MASKS_AT_A_TIME)])
                scores = torch.stack([target(row) for row in logits.float().cpu()])
                weights[i, strongest[i].cpu()] = scores.softmax(0)
                del self.activations_and_grads.activations[kept:]  # its hook keeps every forward's
            return weights.numpy()

    return CappedScoreCAM
