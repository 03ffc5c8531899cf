"""The entry of a distillation method: its loss, its paper's weight and options, and what it compares and needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Numbers = Mapping[str, float]
# (student logits, teacher logits, labels, temperature, the method's own numbers) -> scalar
LogitsLoss = Callable[[Tensor, Tensor, Tensor, float, Numbers], Tensor]
# (student embeddings (b, f), teacher embeddings (b, g), labels, the method's own numbers) -> scalar
EmbeddingLoss = Callable[[Tensor, Tensor, Tensor, Numbers], Tensor]
# (student maps (b, c, h, w), teacher maps (b, d, h', w'), the method's own numbers) -> scalar, of one pair of layers
MapLoss = Callable[[Tensor, Tensor, Numbers], Tensor]

LAYER_OPTIONS = ("student_layers", "teacher_layers")


@dataclass(frozen=True)
class Loss:
    """A distillation method of the registry.

    It compares one thing: logits (`soft`, and `multi_label` where labels are not exclusive), embeddings before the
    classifier (`embeddings`), or feature maps of paired layers (`maps`, summed over pairs).
    `weight` multiplies the soft term where cross-entropy has weight 1 (`weight_source` says whose it is).
    `temperature` is the default, `None` where the method reads none. `numbers` are options of its own with defaults.
    """

    name: str
    source: str
    soft: LogitsLoss | None = None
    multi_label: LogitsLoss | None = None
    embeddings: EmbeddingLoss | None = None
    maps: MapLoss | None = None
    pairs: Literal["stages", "last"] = "stages"  # maps: of which layers, where no option names them
    # The student's tensors pass a projector that is trained with it: embeddings where sizes differ, maps always.
    project: bool = False
    weight: float = 1.0
    weight_source: str = "ours"
    temperature: float | None = None
    numbers: Numbers = field(default_factory=dict)
    min_classes: int = 2  # with fewer the loss has no gradient, and `reason` says why
    reason: str = ""
    needs_labels: bool = False  # one true class an image: not with mixup

    def __post_init__(self) -> None:
        if sum(form is not None for form in (self.soft, self.embeddings, self.maps)) != 1:
            raise ValueError(f"distillation method {self.name}: give one of soft, embeddings and maps")

    @property
    def features(self) -> bool:
        """Say whether it reads the inside of a live teacher: cached soft targets are not enough."""
        return self.soft is None

    @property
    def layers(self) -> bool:
        """Say whether it compares maps of layers, which student_layers and teacher_layers may name."""
        return self.maps is not None

    @property
    def options(self) -> tuple[str, ...]:
        """Name the keys of `KDConfig.options` that this method reads when there is a teacher."""
        more = (*(LAYER_OPTIONS if self.layers else ()), *(("logits_weight", "mean_teacher") if self.features else ()))
        return (*self.numbers, *more)
