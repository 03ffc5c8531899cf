"""Metrics of explanation maps: faithfulness, agreement between two models, and overlap with the lesion.

Maps are `(n, h, w)` in 0..1 and the model is a callable from images to logits. Every metric is a mean over images, or
`None` where it is undefined.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.accelerator import drawing

Predict = Callable[[Tensor], Tensor]
_STEPS = 20
_ROAD_PERCENTILES = (20, 40, 60, 80)


def insertion_deletion(
    predict: Predict,
    images: Tensor,
    maps: np.ndarray,
    classes: Sequence[int] | Tensor,
    *,
    steps: int = _STEPS,
    seed: int = 0,
    multi_label: bool = False,
) -> tuple[float, float]:
    """Give the mean areas under the class probability while marked pixels are put in or taken out (RISE, BMVC 2018).

    Insertion starts from the blurred image (high is good), deletion ends on the image's mean (low is good). Pixels of
    equal mark are taken in random order, not from the top left.
    """
    rng = np.random.default_rng(seed)
    insertion, deletion = [], []
    for image, marks, label in zip(images, maps, classes, strict=True):
        masks = torch.from_numpy(_top_masks(marks, steps, rng)).to(image)[:, None]
        flat = image.mean((1, 2), keepdim=True).expand_as(image)
        both = torch.cat([image * masks + _blur(image) * (1 - masks), flat * masks + image * (1 - masks)])
        logits = predict(both)
        probs = logits.sigmoid() if multi_label else logits.softmax(1)
        probability = probs[:, int(label)].cpu().numpy()
        insertion.append(_area(probability[: steps + 1]))
        deletion.append(_area(probability[steps + 1 :]))
    return float(np.mean(insertion)), float(np.mean(deletion))


def _top_masks(marks: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Give masks `(steps + 1, h, w)` of the 0, 1/steps, ..., all most marked pixels."""
    place = np.empty(marks.size)
    place[np.lexsort((rng.random(marks.size), -marks.ravel()))] = np.arange(marks.size)
    shares = np.linspace(0, marks.size, steps + 1)
    return np.asarray(place[None] < shares[:, None], np.float32).reshape(steps + 1, *marks.shape)


def _blur(image: Tensor) -> Tensor:
    """Blur by a Gaussian of a sixteenth of the image size, which removes any lesion."""
    sigma = max(image.shape[-1] / 16, 1.0)
    reach = int(2 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    rows = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(rows, kernel[..., None, :])
    return F.conv2d(rows, kernel[..., None])[:, 0]


def _area(values: np.ndarray) -> float:
    return float(np.trapezoid(values, dx=1 / (len(values) - 1)))


def road(
    predict: Predict,
    images: Tensor,
    maps: np.ndarray,
    classes: Sequence[int] | Tensor,
    *,
    seed: int = 0,
    multi_label: bool = False,
) -> float:
    """Give ROAD (Rong et al., ICML 2022) by grad-cam: (confidence without the least - without the most marked) / 2.

    Removed pixels are imputed from their neighbours, so that the mask's shape tells the model nothing.
    """
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    def sigmoid_of(label: int) -> Callable[[Tensor], Tensor]:
        return lambda logits: logits.sigmoid()[..., label]

    of_class = sigmoid_of if multi_label else ClassifierOutputSoftmaxTarget
    metric = ROADCombined(percentiles=list(_ROAD_PERCENTILES))
    # Ties: percentiles threshold by value, and a flat map has no top fifth without a little noise.
    marks = maps + np.random.default_rng(seed).random(maps.shape).astype(np.float32) * 1e-6
    with drawing(seed):  # the imputer adds noise from the global stream
        scores = metric(images.cpu(), marks, [of_class(int(k)) for k in classes], predict)
    return float(np.mean(scores))


def agreement(first: np.ndarray, second: np.ndarray, fraction: float = 0.1) -> tuple[float | None, float | None]:
    """Give the mean Spearman correlation of two sets of maps, and the mean IoU of their most marked pixels.

    A flat map has no ranks: that image is left out; `None` when none is left.
    """
    from scipy.stats import rankdata

    correlations, overlaps = [], []
    for a, b in zip(first.reshape(len(first), -1), second.reshape(len(second), -1), strict=True):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            continue
        correlations.append(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
        top = max(1, round(fraction * a.size))
        mine, theirs = set(np.argsort(-a, kind="stable")[:top]), set(np.argsort(-b, kind="stable")[:top])
        overlaps.append(len(mine & theirs) / len(mine | theirs))
    if not correlations:
        return None, None
    return float(np.mean(correlations)), float(np.mean(overlaps))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a network with the entries of every parameter tensor shuffled (sanity check of Adebayo et al., 2018)."""
    other = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.reshape(-1)[order].view_as(parameter))
    return other


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> float | None:
    """Give the fraction of maps whose maximum lies in the lesion (Zhang et al., ECCV 2016); images without one are out.

    Equal maxima count by the fraction of them that lies inside.
    """
    hits = [float(inside[marks == marks.max()].mean()) for marks, inside in _with_lesion(maps, masks)]
    return float(np.mean(hits)) if hits else None


def energy_in_mask(maps: np.ndarray, masks: np.ndarray) -> tuple[float | None, float | None]:
    """Give the mean fraction of the map's sum inside the lesion, and the lesion's mean fraction of pixels."""
    pairs = [(marks, inside) for marks, inside in _with_lesion(maps, masks) if marks.sum() > 0]
    if not pairs:
        return None, None
    energy = [float(marks[inside].sum() / marks.sum()) for marks, inside in pairs]
    return float(np.mean(energy)), float(np.mean([inside.mean() for _, inside in pairs]))


def _with_lesion(maps: np.ndarray, masks: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pair maps with their masks, resized to the maps by nearest pixels; empty masks are dropped."""
    inside = torch.from_numpy((masks > 0).astype(np.float32))[:, None]
    if inside.shape[2:] != maps.shape[1:]:
        inside = F.interpolate(inside, size=tuple(maps.shape[1:]), mode="nearest-exact")
    flags = inside[:, 0].numpy() > 0.5
    return [(marks, flag) for marks, flag in zip(maps, flags, strict=True) if flag.any()]
