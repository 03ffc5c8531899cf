"""The sections of a recipe that are of one network: what it is, what it starts from, how it is trained.

`Section` is what all sections of a recipe have in common.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tutelage.pipeline.keys.former import Former
from tutelage.quantities import fraction_of
from tutelage.records import Arch, InputError


class Section(BaseModel):
    """A part of a recipe: frozen; an unknown key, an infinite number, or yes in place of a number is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not bool and bool not in get_args(kind):
            raise ValueError("yes, no, true and false are no value here")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a text must not hold a NUL character")
        if value == "" and Path in (kind, *get_args(kind)):
            raise ValueError("an empty path would be the current folder: name a file or folder, or leave it out")
        return value


# What `build_teacher` takes from the recipe's other keys.
_NOT_OPTIONS = ("name", "num_classes", "in_channels", "resolution", "weights", "seed")


def _of_the_network(options: dict[str, Any]) -> dict[str, Any]:
    for name in _NOT_OPTIONS:
        if name in options:
            raise ValueError(f"{name} is no option of a network: a key of the recipe, or the data, decides it")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_of_the_network)]


class TrainSection(Section):
    """A training schedule; the loop itself is `distill/training/train.py`."""

    epochs: int = Field(10, ge=1)
    lr: float = Field(1e-3, gt=0)
    batch_size: int = Field(64, ge=2)
    # Parts that a batch is computed in, one after another, where memory is short.
    accumulate: Annotated[int, Field(ge=1), Former(1)] = 1
    weight_decay: float = Field(0.01, ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    decay: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    focal_gamma: float = Field(0.0, ge=0)
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    class_weights: Literal["none", "balanced"] = "none"  # balanced: n / (classes x count); multi-label: neg / pos
    patience: int | None = Field(None, ge=1)
    bf16: bool | None = None  # None: where the hardware multiplies bf16 and the network gains by it


def _named_weights(value: Any) -> Any:
    text = str(value) if isinstance(value, Path) else value
    if text == "":
        raise ValueError("write what to start from (imagenet, a tag of timm, a file, ...), or leave weights out")
    return text


# What a training starts from, in the one notation of docs/recipes.md: a file, or a name such as `imagenet`.
WeightsName = Annotated[str, BeforeValidator(_named_weights)]


class StartSection(Section):
    """What a network starts from, and how gently its pretrained weights are trained on."""

    name: str
    weights: WeightsName | None = None  # pretrained weights, by name or a file; None: fresh ones
    # true: the classifier alone is trained (a linear probe); a number: so many stages from the input stay as they are
    freeze: bool | Annotated[int, Field(ge=1)] = False
    layer_decay: float | None = Field(None, gt=0, lt=1)  # a layer's learning rate over that of the layer behind it

    @model_validator(mode="after")
    def _has_pretrained_weights(self) -> Self:
        for name in ("freeze", "layer_decay"):
            value = getattr(self, name)
            if value not in (False, None) and self.weights is None:
                raise ValueError(f"{name}: {value} is for pretrained weights: give `weights`, or leave it out")
            if value not in (False, None) and getattr(self, "epochs", None) == 0:
                raise ValueError(f"{name}: {value} has no effect with epochs: 0, which trains nothing: leave one out")
        return self


class TeacherSection(TrainSection, StartSection):
    """A teacher: what it starts from, and its training."""

    epochs: int = Field(10, ge=0)  # 0: the weights are used as they are
    options: Options = Field(default_factory=dict)  # passed to timm's create_model

    @model_validator(mode="after")
    def _as_it_is(self) -> TeacherSection:
        if self.epochs == 0 and self.weights is None:
            raise ValueError("epochs: 0 uses trained weights as they are: give `weights`, or epochs of at least 1")
        return self


class NamedSection(StartSection):
    """A network that a recipe names, trained on the schedule of `distill`: a preset of `search/spaces`, or timm's."""

    title: str = ""  # its name in rows, where options make it another network than the name says
    # supernet: extracted from that which this run trains; auto: so, where it holds it and no `weights` are named
    start: Literal["auto", "supernet", "fresh"] = "auto"
    # None: those of `distill`, with the supernet's for one that starts fresh beside it; 0: the weights as they are
    epochs: int | None = Field(None, ge=0)
    options: Options = Field(default_factory=dict)  # passed to timm's create_model, e.g. drop_rate; stem_stride: 1 or 2

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.epochs == 0 and self.weights is None:
            raise ValueError("epochs: 0 uses trained weights as they are: give `weights`, or leave epochs out")
        if self.start != "auto" and self.weights is not None:
            raise ValueError(f"start: {self.start} and weights: {self.weights} are two starts: leave one out")
        return self


class StudentSection(NamedSection):
    """A student that is named, not searched; it may be a subnet that is given by its genes."""

    arch: Arch | None = None  # given genes, e.g. of a row of the leaderboard; data.size replaces its r


class BaselineSection(NamedSection):
    """A baseline: its name alone, or a mapping as that of a student."""

    BY_NAME: ClassVar[bool] = True  # a plain text in its place is its name

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class PrunedSection(Section):
    """A student made from a network of this run by structured pruning, then fine-tuned on the students' schedule."""

    of: str  # a baseline or student by its title, trained on labels only; `winners`: each winner of the search
    keep: str = "50%"  # of its multiply-accumulates
    importance: Literal["magnitude", "taylor", "nni-l1", "nni-l2", "nni-fpgm"] = "magnitude"

    @property
    def keep_fraction(self) -> float:
        """Give `keep` as a number between 0 and 1."""
        return fraction_of(self.keep)

    @field_validator("keep")
    @classmethod
    def _fraction(cls, value: str) -> str:
        try:
            part = fraction_of(value)
        except InputError:
            part = 0.0
        if not 0 < part < 1:
            raise ValueError("write a percentage of the multiply-accumulates, e.g. 50%")
        return value
