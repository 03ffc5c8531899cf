"""The sections of a recipe, one class each, with their defaults; an unknown key is an error."""

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

from tutelage.quantities import fraction_of, latency_budget, number, size_in_bytes
from tutelage.records import DEFAULT_MARGIN, Arch, InputError

from .keys.former import Former


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
        return value


# What `build_teacher` takes from the recipe's other keys.
_NOT_OPTIONS = ("name", "num_classes", "in_channels", "resolution", "weights", "seed")


def _of_the_network(options: dict[str, Any]) -> dict[str, Any]:
    for name in _NOT_OPTIONS:
        if name in options:
            raise ValueError(f"{name} is no option of a network: a key of the recipe, or the data, decides it")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_of_the_network)]


class DataSection(Section):
    """Which images, at which size, split how."""

    dataset: str = "phantom"
    path: Path | None = None
    size: int = Field(64, ge=16, le=1024)
    channels: Literal[1, 3] = 1
    limit: int | None = Field(None, gt=0)  # at most so many images (phantom: exactly so many)
    whole_test: bool = False  # `limit` is of the other images: the data set's own test split stays whole
    val_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    fold: int | None = Field(None, ge=0)
    folds: int = Field(5, ge=2)
    leaky: bool = False
    skip_bad: bool = False
    # Threads that decode picture files, once, and prepare batches (0: the training's own thread does). By default as
    # many as cores decode, and one less, at most 4, prepare batches. The images are the same with any number.
    workers: int | None = Field(None, ge=0, le=256)
    augment: str = "light"  # a name of distill/data/augmentations.py, or a plug-in's
    # Variants of an image, so that the outputs of teachers are cached; 0: other ones each epoch, and no cache.
    augment_variants: int = Field(4, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)  # of the data set: `tutelage data list` names them

    @model_validator(mode="before")
    @classmethod
    def _of_the_hub(cls, values: Any) -> Any:
        from tutelage.distill.data.registry import split_hub_name

        if not isinstance(values, dict) or not isinstance(values.get("dataset"), str):
            return values
        name, path = split_hub_name(values["dataset"], values.get("path"))
        return {**values, "dataset": name, "path": path}

    @field_validator("dataset")
    @classmethod
    def _a_dataset(cls, value: str) -> str:
        from tutelage.distill.data.registry import DATASETS

        DATASETS.find(value)
        return value

    @field_validator("augment")
    @classmethod
    def _an_augmentation(cls, value: str) -> str:
        from tutelage.distill.data.augmentations import AUGMENTATIONS

        AUGMENTATIONS.find(value)
        return value

    @model_validator(mode="after")
    def _has_an_effect(self) -> DataSection:
        from tutelage.distill.data.registry import DATASETS

        DATASETS.find(self.dataset).check_request(self.path, self.options)
        if self.whole_test and self.limit is None:
            raise ValueError("whole_test: true has no effect without a limit: give limit, or leave whole_test out")
        if self.fold is None and self.folds != type(self).model_fields["folds"].default:
            raise ValueError(f"folds: {self.folds} has no effect without a fold: give fold, or leave folds out")
        if self.fold is not None and self.test_fraction != type(self).model_fields["test_fraction"].default:
            raise ValueError(
                f"test_fraction: {self.test_fraction} has no effect beside fold: {self.fold}: leave one out"
            )
        return self


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


class SupernetSection(Section):
    space: str = "ofa_mbv3_w1.0"
    resolutions: tuple[int, ...] = ()  # default: the data's size
    method: Literal["sandwich", "random", "progressive"] = "sandwich"
    epochs: int = Field(8, ge=1)
    lr: float = Field(1e-3, gt=0)
    batch_size: int = Field(64, ge=2)
    accumulate: int = Field(1, ge=1)  # parts that a batch is computed in, one after another, where memory is short
    num_random: int | None = Field(None, ge=0)  # sandwich, random: default 2; progressive: its phases say how many
    teachers: tuple[str, ...] = ()  # names of the recipe's teachers that also distil the supernet
    weights: WeightsName | None = None  # official or own supernet weights to start from
    bf16: bool | None = None  # default: where the CPU or GPU computes it fast
    ema_decay: float | None = Field(None, ge=0, lt=1)  # of an average of the weights, which is the result
    warmup_epochs: float = Field(0.5, ge=0)
    clip_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _parts_of_two_images(self) -> Self:
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate = {self.accumulate} leaves parts of {self.batch_size // self.accumulate} images of "
                f"batches of {self.batch_size}, and batch norm needs two: give at most {self.batch_size // 2}"
            )
        return self

    @model_validator(mode="after")
    def _num_random_has_an_effect(self) -> Self:
        if self.num_random is not None and self.method == "progressive":
            raise ValueError(f"num_random = {self.num_random} has no effect under method progressive: set it to null")
        if self.num_random == 0 and self.method == "random":
            raise ValueError("num_random = 0 under method random leaves no subnet to train: give at least 1")
        return self


class DeviceSection(Section):
    name: str
    runtime: str = "onnxruntime"
    threads: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    # "5ms", or "35%" of the range from the smallest to the largest subnet; "1ms,2ms,4ms": a winner for each budget.
    max_latency: str | None = None
    # Probability that a subnet predicted to be within the budget is not: latency is the upper end of the model's
    # interval of coverage 1 - 2 risk (.05: the 90 % interval).
    risk: float = Field(0.05, gt=0, lt=0.5)
    minutes: float = Field(3.0, gt=0)  # how long it may be measured where it is not known yet

    @field_validator("max_latency")
    @classmethod
    def _a_budget(cls, value: str | None) -> str | None:
        for part in (value or "").split(",") if value is not None else ():
            latency_budget(part)
        return value

    @property
    def budgets(self) -> tuple[str, ...]:
        """Give each of the latency budgets, in the order of the recipe."""
        return tuple(part.strip() for part in self.max_latency.split(",")) if self.max_latency is not None else ()


class SearchSection(Section):
    strategy: str = "default"  # a name of search/samplers/strategies.py, or a plug-in's
    evaluations: int = Field(120, ge=1)
    max_macs: str | None = None
    max_params: str | None = None
    max_size: str | None = None
    # What is weighed, by name: one of error, error@int8, loss and auc (which is maximised), latency_ms@DEVICE or
    # latency_ms@DEVICE:int8, and counts such as size_bytes or int8_bytes. Default: error, the latency on every device,
    # size_bytes.
    objectives: tuple[str, ...] = ()
    winners: int | None = Field(None, ge=1)  # default: one for each latency budget where there are several, else 2
    calibration_batches: int = Field(4, ge=1)
    # Validation images an evaluation; default: all of them. Where the split has more, contenders are evaluated again on
    # others, each time as one of `evaluations`.
    images: int | None = Field(None, ge=1)

    @field_validator("strategy")
    @classmethod
    def _a_strategy(cls, value: str) -> str:
        from tutelage.search.samplers.strategies import STRATEGIES

        STRATEGIES.find(value)
        return value

    @field_validator("max_macs", "max_params")
    @classmethod
    def _a_count(cls, value: str | None) -> str | None:
        if value is not None:
            number(value)
        return value

    @field_validator("max_size")
    @classmethod
    def _a_size(cls, value: str | None) -> str | None:
        if value is not None:
            size_in_bytes(value)
        return value


class DistillSection(TrainSection):
    alpha: float = Field(0.5, ge=0, le=1)  # weight of the hard labels
    method: str = "kd"
    temperature: float | None = Field(None, gt=0)  # None: the method's own; refused where it reads none
    soft_weight: float | None = Field(None, gt=0)  # of the soft term, on top of 1 - alpha; None: the method's paper's
    combine: Literal["mean", "confidence", "best"] = "mean"  # how several teachers become one
    teacher_mode: Literal["each", "together", "both"] = "both"  # each teacher, all as one, or both; always a control
    # How much a teacher counts in the soft term: 1, or as validation says of it beside the student's control.
    teacher_weight: Literal["fixed", "validation"] = "fixed"
    teachers: Literal["all", "best"] = "all"  # best: without those that are surely weaker than the student's control
    self_teacher: bool = False  # the student's own control distils it too, in a row with the teacher `self`
    # The largest subnet of the trained supernet distils the students, too, in rows whose teacher is the space's name.
    supernet_teacher: bool = False
    options: dict[str, Any] = Field(default_factory=dict)  # of the method, see docs/distillation.md


class QuantizeSection(Section):
    """How networks become int8: after training, and for students also by QAT (int8-qat rows)."""

    # A scheme of quant/int8/schemes or a plug-in's; auto: the one whose logits are nearest to fp32's on validation
    # images, for ONNX Runtime.
    method: str = "auto"
    calibration_images: int = Field(128, ge=1)
    # Points of accuracy (multi-label: of AUC) that int8 may lose on validation; then layers go back to float.
    max_drop: float | None = Field(None, ge=0, le=100)
    qat_epochs: int = Field(0, ge=0)  # 0: no rows of scheme int8-qat; else with the student's teachers
    # A hundredth of a student's: of three rates the one that kept nearest to fp32 on validation, see docs/measuring.md.
    qat_lr: float = Field(1e-5, gt=0)

    @field_validator("method")
    @classmethod
    def _a_scheme(cls, value: str) -> str:
        from tutelage.quant.int8.schemes.registry import SCHEMES

        if value != "auto":
            SCHEMES.find(value)
        return value


class ExplainSection(Section):
    """Saliency maps on validation images; the maps and their figures are in the rows' details."""

    images: int = Field(0, ge=0)  # 0: no maps
    method: Literal["gradcam", "hirescam", "eigencam", "scorecam"] = "gradcam"


class BundleSection(Section):
    """Which students a run ends with as folders to deploy, in the workspace's `bundles/`."""

    # front: every student that the leaderboard marks, each by its best file on the device; best: one of them all
    rows: Literal["none", "best", "front"] = "none"


class MeasureSection(Section):
    samples: int = Field(100, ge=100)
    tolerance: float = Field(0.1, gt=0, lt=1)  # how far two halves of a measurement may differ before it is refused
    bootstrap: int = Field(1000, ge=100)
    # Two files whose AUC (or accuracy) differs by less, with its whole 95 % interval, are called equivalent.
    margin: float = Field(DEFAULT_MARGIN, gt=0, lt=1)
