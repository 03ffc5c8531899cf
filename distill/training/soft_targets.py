"""Soft targets: the logits of teachers on a batch, computed once and cached on disk for later students.

`SoftTargets` takes teachers, and batches that name the image and the augmentation seed of each row. Logits are cached,
not probabilities, so that every temperature and every loss uses the same cache.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.accelerator import LAYOUT, autocast
from tutelage.distill.data.loader import resize
from tutelage.records import InputError, content_id

from .soft_target_store import LogitStore

logger = logging.getLogger(__name__)

# Change it when the meaning of a stored record changes: caches of another version are rebuilt.
CACHE_VERSION = 1
Combine = Literal["mean", "confidence", "best"]


class AugmentedBatch(Protocol):
    """What a batch must tell: images `(b, c, r, r)`, and for each row its image index and augmentation seed."""

    @property
    def images(self) -> Tensor: ...
    @property
    def indices(self) -> Any: ...
    @property
    def aug_seeds(self) -> Any: ...


class SoftTargets:
    """Teachers frozen in eval mode, with one append-only cache file each under `cache` (none without it).

    `data_id` names the images and their augmentation (a manifest hash, the recipe's augmentation and normalisation): a
    cache made of other images is not used. `resolution`: the batch is resized to it for teachers.
    `bf16`: on a GPU teachers compute in bfloat16; on a CPU it does nothing, for their logits are cached for good.
    Deterministic on a CPU: cached logits are bit for bit the float32 that the teacher computed. A GPU's outputs may
    depend in the last bits on which rows of a batch are missing.
    """

    def __init__(
        self,
        teachers: nn.Module | Sequence[nn.Module],
        cache: Path | None = None,
        *,
        data_id: str = "",
        resolution: int | None = None,
        multi_label: bool = False,
        bf16: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.teachers = [teachers] if isinstance(teachers, nn.Module) else list(teachers)
        if not self.teachers:
            raise InputError("soft targets need at least one teacher")
        self.resolution = resolution
        self.multi_label = multi_label
        self.bf16 = bf16
        self._cache, self._data_id = cache, data_id
        self.num_computed = 0  # images that went through a teacher, summed over teachers
        for teacher in self.teachers:
            teacher.eval().requires_grad_(False)
        self.ids = tuple(weights_id(teacher) for teacher in self.teachers)
        self._stores: list[LogitStore | None] = []
        self.device = torch.device("cpu")
        self.to(device or self.device)

    def logits(self, batch: AugmentedBatch) -> Tensor:
        """Give every teacher's logits `(teachers, batch, classes)`, float32, on the batch's device."""
        keys = np.stack([_as_int64(batch.indices), _as_int64(batch.aug_seeds)], axis=1)
        rows = [self._one(i, batch.images, keys) for i in range(len(self.teachers))]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise InputError(f"teachers disagree about the classes: {sorted(shape[1] for shape in shapes)} outputs")
        return torch.stack(rows).to(batch.images.device)

    def __call__(self, batch: AugmentedBatch) -> Tensor:
        """Give the mean probabilities `(batch, classes)` of all teachers at temperature 1."""
        logits = self.logits(batch)
        return (logits.sigmoid() if self.multi_label else logits.softmax(2)).mean(0)

    def to(self, device: torch.device) -> SoftTargets:
        """Move the teachers to a device, whose outputs have a cache of their own."""
        kind, self.device = self.device.type, device
        for teacher in self.teachers:
            teacher.to(device)
            teacher.to(memory_format=torch.contiguous_format if device.type == "cpu" else LAYOUT)
        if device.type != kind or not self._stores:
            self._stores = [None if self._cache is None else self._store(name) for name in self.ids]
        return self

    def _store(self, name: str) -> LogitStore:
        """Open the cache of one teacher's outputs, as they are computed on the device."""
        assert self._cache is not None
        inputs = {"version": CACHE_VERSION, "teacher": name, "data": self._data_id, "resolution": self.resolution}
        if self.device.type != "cpu":
            inputs |= {"accelerator": self.device.type, "bf16": self.bf16}
        folder = self._cache / f"{name}-{content_id(inputs)}"
        others = [path.name for path in self._cache.glob(f"{name}-*") if path != folder]
        if others and not folder.exists():
            logger.warning("%s of another data set, version or device is not used: built anew", ", ".join(others))
        return LogitStore(folder, inputs)

    def _one(self, i: int, images: Tensor, keys: np.ndarray) -> Tensor:
        store = self._stores[i]
        if store is None:
            return self._forward(i, images)
        found, values = store.find(keys)
        if found.all():
            return torch.from_numpy(values)
        missing = torch.from_numpy(np.flatnonzero(~found))
        # Teachers in eval mode treat rows apart: the missing rows alone give the very bits that the whole batch would.
        fresh = self._forward(i, images if len(missing) == len(images) else images[missing.to(images.device)]).cpu()
        store.append(keys[missing.numpy()], fresh.numpy())
        if len(missing) == len(images):
            return fresh
        whole = np.empty((len(keys), fresh.shape[1]), np.float32)
        whole[found], whole[~found] = values[found], fresh.numpy()
        return torch.from_numpy(whole)

    @torch.no_grad()
    def _forward(self, i: int, images: Tensor) -> Tensor:
        self.num_computed += len(images)
        if self.resolution is not None:
            images = resize(images, self.resolution)
        # One row alone goes through other kernels (a matrix times a vector) and comes out different in the last bit.
        alone = len(images) == 1
        shown = torch.cat([images, images]) if alone else images
        if self.device.type != "cpu":
            shown = shown.contiguous(memory_format=LAYOUT)
        with autocast(self.device, self.bf16 and self.device.type != "cpu"):
            logits: Tensor = self.teachers[i].eval()(shown).float()
        logits = logits[:1] if alone else logits
        if not bool(torch.isfinite(logits).all()):
            raise InputError(f"teacher {i} ({type(self.teachers[i]).__name__}) gives logits that are not finite")
        return logits


def combine_logits(
    logits: Tensor,
    labels: Tensor,
    temperature: float,
    how: Combine = "mean",
    multi_label: bool = False,
    relative: Sequence[float] = (),
) -> Tensor:
    """Combine logits `(teachers, batch, classes)` into one teacher's `(batch, classes)`; a single one is unchanged.

    The softened probabilities of the result are the mean of theirs (You et al., KDD 2017), their
    mean weighted by 1 - softmax of each one's loss on the hard label (CA-MKD, Zhang et al., ICASSP 2022, eq. 3), or
    those of the teacher with the least loss on that sample. `relative`, one a teacher (none: all 1), multiplies the
    weights of the first two; of the third it says only, by 0, who takes no part.
    """
    if len(logits) == 1:
        return logits[0]
    num = len(logits)
    given = torch.tensor(relative or [1.0] * num, dtype=logits.dtype, device=logits.device)[:, None]
    if how == "mean":
        weights = torch.full(logits.shape[:2], 1 / num, device=logits.device)
    else:
        losses = torch.stack([_sample_loss(one, labels, multi_label) for one in logits])
        if how == "confidence":
            weights = (1 - losses.softmax(0)) / (num - 1)
        elif how == "best":
            losses = losses.masked_fill(given == 0, torch.inf)
            weights = F.one_hot(losses.argmin(0), num).T.to(logits.dtype)
        else:
            raise InputError(f"unknown way to combine teachers {how!r}: give mean, confidence or best")
    if relative and how != "best":
        weights = weights * given
        weights = weights / weights.sum(0)
    weighted = weights[:, :, None].to(logits.dtype)
    if multi_label:
        log_p = torch.logsumexp(F.logsigmoid(logits / temperature) + weighted.log(), dim=0)
        log_q = torch.logsumexp(F.logsigmoid(-logits / temperature) + weighted.log(), dim=0)
        return (log_p - log_q) * temperature
    return torch.logsumexp(F.log_softmax(logits / temperature, dim=2) + weighted.log(), dim=0) * temperature


def _sample_loss(logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    if not multi_label:
        return F.cross_entropy(logits, labels, reduction="none")
    known = ~torch.isnan(labels)
    target = torch.where(known, labels, 0.0)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
    return loss.sum(1) / known.sum(1).clamp(min=1)


def weights_id(net: nn.Module) -> str:
    """Hash a network's class and every tensor of its state: the name of this very teacher."""
    digest = hashlib.sha256(type(net).__qualname__.encode())
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def tensors_id(*tensors: Tensor) -> str:
    """Hash the shapes and every value of some tensors."""
    digest = hashlib.sha256()
    for value in tensors:
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _as_int64(values: Any) -> np.ndarray:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.uint64).view(np.int64) if array.dtype.kind == "u" else array.astype(np.int64)
