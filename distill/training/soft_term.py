"""The soft term of a training: teachers, how they are combined, and the method that compares student with teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tutelage.distill.data.loader import resize
from tutelage.distill.losses.entry import Loss, Numbers
from tutelage.distill.losses.hooks import Layer, Taps, Trace, last_layer, stage_layers, trace
from tutelage.distill.losses.logits import multi_label_kd, soft_kd
from tutelage.distill.losses.methods import LOGITS_TEMPERATURE, check_distillation
from tutelage.records import InputError

from .mixing import Mix
from .schedule import KDConfig
from .soft_targets import SoftTargets, combine_logits


class LabelledBatch(Protocol):
    """One batch: images float32 `(b, c, r, r)`, labels, and for each row its image index and augmentation seed."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def indices(self) -> Any: ...
    @property
    def aug_seeds(self) -> Any: ...


class SoftTerm:
    """Everything between a student's logits and the soft loss."""

    def __init__(
        self,
        teachers: Sequence[SoftTargets | nn.Module],
        kd: KDConfig,
        student: nn.Module,
        example: Tensor,
        student_example: Tensor,
        multi_label: bool,
        num_classes: int,
        mixing: bool = False,
    ) -> None:
        """Prepare: `example` and `student_example` are one image `(1, c, r, r)` as teachers and student see it.

        `num_classes` is the student's number of outputs. `mixing`: batches are mixed (mixup, cutmix).
        """
        given = [teachers] if isinstance(teachers, SoftTargets | nn.Module) else list(teachers)
        self.targets = [
            one if isinstance(one, SoftTargets) else SoftTargets(one, multi_label=multi_label) for one in given
        ]
        for target in self.targets:
            target.to(example.device)
        num_teachers = sum(len(target.teachers) for target in self.targets)
        if len(kd.teacher_weights) not in (0, num_teachers):
            raise InputError(
                f"{len(kd.teacher_weights)} teacher_weights for {num_teachers} teachers: give one for each"
            )
        self.loss = check_distillation(kd, num_classes, multi_label, num_teachers=num_teachers, mixing=mixing)
        self.kd = kd
        self.weight = self.loss.weight if kd.weight is None else kd.weight
        self.temperature = kd.temperature or self.loss.temperature or LOGITS_TEMPERATURE
        self.numbers: Numbers = {name: kd.options.get(name, default) for name, default in self.loss.numbers.items()}
        self.logits_weight = float(kd.options.get("logits_weight", 0.0))
        self.multi_label = multi_label
        self.mean_teacher: Any = None
        if "mean_teacher" in kd.options:
            from timm.utils import ModelEmaV3

            self.mean_teacher = ModelEmaV3(student, float(kd.options["mean_teacher"])).requires_grad_(False)
        self.inside: FeatureMethod | None = None
        if self.loss.features:
            live = self._live(example, student_example)
            self.inside = FeatureMethod(self.loss, kd, self.numbers, student, live, student_example)

    @property
    def projectors(self) -> nn.ModuleList:
        """Give the modules that learn along with the student; none for methods of logits."""
        return self.inside.projectors if self.inside else nn.ModuleList()

    def soft(self, student: Tensor, batch: LabelledBatch, mix: Mix, student_images: Tensor) -> Tensor:
        """Give the soft term of one batch of student logits `(batch, classes)`, times its weight; it is a scalar.

        Call it right after the forward. The logits that a feature method compares too have the weight `logits_weight`.
        """
        if self.inside is not None:
            features = self.weight * self.inside.loss(mix.images(batch.images), student_images, batch.labels)
            if self.logits_weight == 0:
                return features
            form: Any = multi_label_kd if self.multi_label else soft_kd
            again: Tensor = form(student, self._teacher(batch, mix, student_images, student.shape[1]), self.temperature)
            return features + self.logits_weight * again
        method = self.loss.multi_label if self.multi_label else self.loss.soft
        assert method is not None, "check_distillation refuses methods without this form"
        teacher = self._teacher(batch, mix, student_images, student.shape[1])
        return self.weight * method(student, teacher, batch.labels, self.temperature, self.numbers)

    def close(self) -> None:
        """Take the hooks of a feature method off."""
        if self.inside is not None:
            self.inside.close()

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Move the mean teacher towards the student (Tarvainen and Valpola, NeurIPS 2017)."""
        if self.mean_teacher is not None:
            self.mean_teacher.update(student)

    def _teacher(self, batch: LabelledBatch, mix: Mix, student_images: Tensor, classes: int) -> Tensor:
        """Give one teacher's logits `(batch, classes)` for the batch as it was mixed."""
        parts = [target.logits(batch) for target in self.targets]
        if any(part.shape[2] != classes for part in parts):
            knows = next(part.shape[2] for part in parts if part.shape[2] != classes)
            raise InputError(
                f"the teacher knows {knows} classes and the student {classes}: train a teacher on this data"
            )
        if parts:
            all_logits = torch.cat(parts)
            combined = combine_logits(
                all_logits, batch.labels, self.temperature, self.kd.combine, self.multi_label, self.kd.teacher_weights
            )
            return mix.logits(combined, self.temperature, self.multi_label)
        assert self.mean_teacher is not None, "a student without teachers is not distilled"
        with torch.no_grad():
            logits: Tensor = self.mean_teacher.module.eval()(student_images).float()
        return logits

    def _live(self, example: Tensor, student_example: Tensor) -> list[tuple[nn.Module, Tensor, int | None, bool]]:
        """List what a feature method looks into: (network, its example, its resolution, sees the student's images)."""
        found: list[tuple[nn.Module, Tensor, int | None, bool]] = []
        for target in self.targets:
            seen = example if target.resolution is None else resize(example, target.resolution)
            found += [(teacher, seen, target.resolution, False) for teacher in target.teachers]
        if self.mean_teacher is not None:
            found.append((self.mean_teacher.module, student_example, None, True))
        return found


class FeatureMethod:
    """A method that looks inside: taps on the student and on live teachers, projectors where channels differ.

    Layers are chosen automatically (the ends of stages, see `stage_layers`) unless `student_layers` and
    `teacher_layers` name them. Teachers run anew for every batch: their features are not cached.
    """

    def __init__(
        self,
        loss: Loss,
        kd: KDConfig,
        numbers: Numbers,
        student: nn.Module,
        teachers: Sequence[tuple[nn.Module, Tensor, int | None, bool]],
        example: Tensor,
    ) -> None:
        self._method = loss
        self.kd = kd
        self._numbers = numbers
        self.projectors = nn.ModuleList()
        self._teachers = teachers
        own = trace(student, example)
        self._pairs: list[tuple[tuple[Layer, Layer], ...]] = []
        self._taps: list[Taps] = []
        student_layers: set[str] = set()
        for net, seen, _, _ in teachers:
            theirs = trace(net, seen)
            pairs = self._pair(own, theirs)
            self._pairs.append(pairs)
            self._taps.append(Taps(net, [layer.name for _, layer in pairs], theirs.classifier))
            student_layers |= {layer.name for layer, _ in pairs}
            self.projectors.append(self._projector(own, theirs, pairs).to(example.device))
        self._student = Taps(student, sorted(student_layers), own.classifier)

    def loss(self, images: Tensor, student_images: Tensor, labels: Tensor) -> Tensor:
        """Give the mean over teachers by their weights; the student has just run, its taps are full."""
        losses = []
        for (net, _, side, sees_student), taps, pairs, projectors in zip(
            self._teachers, self._taps, self._pairs, self.projectors, strict=True
        ):
            shown = student_images if sees_student else (images if side is None else resize(images, side))
            with torch.no_grad():
                net.eval()(shown)
            losses.append(self._compare(taps, pairs, projectors, labels))
        if not self.kd.teacher_weights:
            return torch.stack(losses).mean()
        # The mean teacher, the last where there is one, counts as a teacher of full weight.
        relative = [*self.kd.teacher_weights, *[1.0] * (len(losses) - len(self.kd.teacher_weights))]
        weights = torch.tensor(relative, device=losses[0].device)
        return (weights * torch.stack(losses)).sum() / weights.sum()

    def close(self) -> None:
        """Take all hooks off."""
        for taps in (self._student, *self._taps):
            taps.remove()

    def _compare(self, taps: Taps, pairs: Sequence[tuple[Layer, Layer]], projectors: Any, labels: Tensor) -> Tensor:
        assert self._student.embedding is not None
        assert taps.embedding is not None
        if self._method.embeddings is not None:
            ours = projectors[0](self._student.embedding.float())
            return self._method.embeddings(ours, taps.embedding.float(), labels, self._numbers)
        assert self._method.maps is not None, "a feature method compares embeddings or maps"
        mine, given = self._student.maps, taps.maps
        values = [
            self._method.maps(project(mine[own.name].float()), given[other.name].float(), self._numbers)
            for project, (own, other) in zip(projectors, pairs, strict=True)
        ]
        return torch.stack(values).sum()

    def _pair(self, own: Trace, theirs: Trace) -> tuple[tuple[Layer, Layer], ...]:
        named = (self.kd.options.get("student_layers"), self.kd.options.get("teacher_layers"))
        if not self._method.layers:
            return ()
        if self._method.pairs == "last" and named == (None, None):
            return ((last_layer(own), last_layer(theirs)),)
        ours, others = (_named_layers(names, traced) for names, traced in zip(named, (own, theirs), strict=True))
        if named == (None, None):
            num = min(len(ours), len(others))
            ours, others = ours[-num:], others[-num:]
        if len(ours) != len(others):
            raise InputError(f"{len(ours)} student layers against {len(others)} teacher layers: name as many of each")
        return tuple(zip(ours, others, strict=True))

    def _projector(self, own: Trace, theirs: Trace, pairs: Sequence[tuple[Layer, Layer]]) -> nn.ModuleList:
        if self._method.layers:
            return nn.ModuleList(
                nn.Conv2d(a.channels, b.channels, 1, bias=False) if self._method.project else nn.Identity()
                for a, b in pairs
            )
        if not self._method.project or own.embedding_size == theirs.embedding_size:
            return nn.ModuleList([nn.Identity()])
        return nn.ModuleList([nn.Linear(own.embedding_size, theirs.embedding_size)])


def _named_layers(names: Sequence[str] | None, traced: Trace) -> tuple[Layer, ...]:
    if names is None:
        return stage_layers(traced)
    known = {layer.name: layer for layer in traced.layers}
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"no layer {missing[0]!r} gives a feature map; some that do: {', '.join(list(known)[-6:])}")
    return tuple(known[name] for name in names)
