"""The sections of a recipe that are of a step of its run: images, supernet, devices, search, distillation and so on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tutelage.corruptions import CORRUPTIONS, MOST_SHIFT_SETS, SEVERITIES, SHIFT_SET, USUAL_SEVERITIES
from tutelage.quantities import latency_budgets, millijoules, number, size_in_bytes
from tutelage.records import DEFAULT_MARGIN

from .networks import Section, TrainSection, WeightsName


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


class SupernetSection(Section):
    """The supernet that is trained: its space, how its subnets are drawn, and its schedule."""

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
    """A device that the run measures on, and its latency budgets; one that is not known yet is measured first."""

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
        if value is not None:
            latency_budgets(value)
        return value

    @property
    def budgets(self) -> tuple[str, ...]:
        """Give each of the latency budgets, in the order of the recipe."""
        return tuple(part.strip() for part in self.max_latency.split(",")) if self.max_latency is not None else ()


class SearchSection(Section):
    """The search of the supernet: its strategy, its bounds, what is weighed and how many winners there are."""

    strategy: str = "default"  # a name of search/samplers/strategies.py, or a plug-in's
    evaluations: int = Field(120, ge=1)
    max_macs: str | None = None
    max_params: str | None = None
    max_size: str | None = None  # bytes of the file that is deployed, `max_flash` is the same
    max_ram: str | None = None  # TFLite Micro's arena: activations, scratch and what persists
    max_energy: str | None = None  # an inference, of what is measured on the devices
    # A device that is known by its memories alone, by the name of its profile: networks are deployed to it at int8, and
    # its flash and RAM are the budgets where `max_size` and `max_ram` give no others.
    target: str | None = None
    # What is weighed, by name: one of error, error@int8, loss and auc (which is maximised), latency_ms@DEVICE or
    # latency_ms@DEVICE:int8, and counts such as size_bytes or int8_bytes. Default: error, the latency on every device,
    # size_bytes.
    objectives: tuple[str, ...] = ()
    winners: int | None = Field(None, ge=1)  # default: one for each latency budget where there are several, else 2
    calibration_batches: int = Field(4, ge=1)
    # Validation images an evaluation; default: all of them. Where the split has more, contenders are evaluated again on
    # others, each time as one of `evaluations`.
    images: int | None = Field(None, ge=1)
    # Evaluations that go on at once, on workers where there are some: the strategy proposes from what is known by then,
    # and no batch is waited for. Default: batches.
    parallel: int = Field(1, ge=1)
    # The search.json of an earlier search with the same `parallel`, whose order of replies is taken: the result is that
    # search's, on any machine. Default: replies are taken as they come.
    replay: str | None = None

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

    @field_validator("max_size", "max_ram")
    @classmethod
    def _a_size(cls, value: str | None) -> str | None:
        if value is not None:
            size_in_bytes(value)
        return value

    @field_validator("max_energy")
    @classmethod
    def _an_energy(cls, value: str | None) -> str | None:
        if value is not None:
            millijoules(value)
        return value

    @model_validator(mode="after")
    def _scores_what_wins(self) -> Self:
        if self.winners is not None and self.winners > self.evaluations:
            raise ValueError(
                f"{self.winners} winners of {self.evaluations} evaluations: give as many evaluations or more"
            )
        return self

    @model_validator(mode="after")
    def _replays_an_order(self) -> Self:
        if self.replay is not None and self.parallel == 1:
            raise ValueError("replay is of a search with several evaluations at once: give its parallel, too")
        return self

    @model_validator(mode="before")
    @classmethod
    def _flash_is_size(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "max_flash" not in values:
            return values
        if values.get("max_size") is not None:
            raise ValueError("max_flash is another name of max_size: give one of both")
        rest = {key: value for key, value in values.items() if key != "max_flash"}
        return {**rest, "max_size": values["max_flash"]}


class DistillSection(TrainSection):
    """How students, baselines and pruned networks are trained, and how teachers distil them."""

    alpha: float = Field(0.5, ge=0, le=1)  # weight of the hard labels
    method: str = "kd"
    temperature: float | None = Field(None, gt=0)  # None: the method's own; refused where it reads none
    soft_weight: float | None = Field(None, gt=0)  # of the soft term, on top of 1 - alpha; None: the method's paper's
    combine: Literal["mean", "confidence", "best"] = "mean"  # how several teachers become one
    teacher_mode: Literal["each", "together", "both"] = "both"  # each teacher, all as one, or both; always a control
    # How much a teacher counts in the soft term: 1, or as validation says of it beside the student's control.
    teacher_weight: Literal["fixed", "validation"] = "fixed"
    teachers: Literal["all", "best"] = "all"  # best: without those that are surely weaker than the student's control
    # What the winners of a search begin with: their weights in the supernet, or fresh ones; then they are trained for
    # the supernet's epochs as well, as fresh baselines are.
    start: Literal["supernet", "fresh"] = "supernet"
    self_teacher: bool = False  # the student's own control distils it too, in a row with the teacher `self`
    # The largest subnet of the trained supernet distils the students, too, in rows whose teacher is the space's name.
    supernet_teacher: bool = False
    baselines: bool = True  # all teachers together distil the baselines, too; false: they learn from labels alone
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
    """How latency is measured, and how figures are bounded and compared."""

    samples: int = Field(100, ge=100)
    tolerance: float = Field(0.1, gt=0, lt=1)  # how far two halves of a measurement may differ before it is refused
    bootstrap: int = Field(1000, ge=100)
    # Two files whose AUC (or accuracy) differs by less, with its whole 95 % interval, are called equivalent.
    margin: float = Field(DEFAULT_MARGIN, gt=0, lt=1)
    # Of the test images, under which each file is evaluated, too: names of `tutelage.corruptions`, or `all`.
    corruptions: tuple[str, ...] = ()
    severities: tuple[Annotated[int, Field(ge=SEVERITIES[0], le=SEVERITIES[-1])], ...] = USUAL_SEVERITIES
    # Further test sets by name, read as `data` is, at other paths: the test split, or all images where there is none.
    shift_sets: dict[str, Path] = Field(default_factory=dict, max_length=MOST_SHIFT_SETS)

    @field_validator("corruptions", "severities", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        """Take one name or number for a list of it, and `all` for every corruption."""
        values = [value] if isinstance(value, str | int) else value
        return tuple(CORRUPTIONS) if values in (["all"], ("all",)) else values

    @field_validator("shift_sets", mode="before")
    @classmethod
    def _named_places(cls, value: Any) -> Any:
        for name, path in value.items() if isinstance(value, dict) else ():
            if not (isinstance(name, str) and re.fullmatch(SHIFT_SET, name)):
                raise ValueError(f"{name!r} is no name of a test set: use letters, digits and -, e.g. hospital-b")
            if path == "":
                raise ValueError(f"the path of {name} is empty: name a file or folder")
        return value

    @field_validator("corruptions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CORRUPTIONS:
                raise ValueError(f"no corruption {name!r}: choose among {', '.join(CORRUPTIONS)}, or write all")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _severities_have_an_effect(self) -> Self:
        given = list(self.severities)
        if not given or len(set(given)) != len(given):
            raise ValueError(f"severities {given}: give some of {', '.join(map(str, SEVERITIES))}, each once")
        if not self.corruptions and self.severities != type(self).model_fields["severities"].default:
            raise ValueError(f"severities {given} have no effect without corruptions: name some, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is not asked for: ids of rows are hashes of their recipe."""
        values: dict[str, Any] = dump(self)
        later = [] if self.shift_sets else ["shift_sets"]
        later += [] if self.corruptions else ["corruptions", "severities"]
        return {name: value for name, value in values.items() if name not in later}
