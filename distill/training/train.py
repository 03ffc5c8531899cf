"""One training loop for teachers and students: hard labels, softened teachers, best epoch by validation.

It runs where its accelerator says, and on several GPUs or processes by `accelerate launch`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.accelerator import CPU, LAYOUT, Accelerator, drawing, keeps_generators
from tutelage.allocator import keep_freed_memory
from tutelage.distill.data.loader import resize
from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.distill.teachers.weights import load_exactly
from tutelage.ranks import Ranks
from tutelage.records import content_id

from .batches import Batches, InMemory
from .checkpoint import load_checkpoint, save_checkpoint
from .epoch import Progress, Setup, run_epoch
from .normalisation import InitialStatistics
from .schedule import KDConfig, TrainSchedule, build_optimizer, wants_bf16
from .soft_targets import SoftTargets, weights_id
from .soft_term import LabelledBatch, SoftTerm
from .tuning import Frozen, Tuning, layer_scales
from .validation import validate

__all__ = [
    "Batches",
    "KDConfig",
    "LabelledBatch",
    "TrainResult",
    "TrainSchedule",
    "predict_logits",
    "train",
    "validate",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """How a training went; the validation figures are the best epoch's, `val_auc` is `None` where undefined."""

    best_epoch: int
    # One dict an epoch: epoch, loss, hard, soft (weighted), lr, val_loss, val_accuracy, val_auc, seconds, and of these
    # wait_seconds (for batches) and images, both this process's.
    history: list[dict[str, Any]]
    val_auc: float | None
    val_accuracy: float
    stopped_early: bool = False
    seconds: float = 0.0  # of all epochs' training, those before a stop too; validation is left out
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Run:
    """The state of a training between epochs: all that a checkpoint must hold."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = -1

    def rank(self, record: dict[str, Any]) -> tuple[float, float, float]:
        """Order epochs by AUC, then accuracy, then loss."""
        auc = record["val_auc"]
        return (-1.0 if auc is None else auc, record["val_accuracy"], -record["val_loss"])

    def add(self, record: dict[str, Any], evaluated: nn.Module) -> None:
        """Take up an epoch, and its weights where it is the best so far."""
        self.history.append(record)
        if self.best_epoch < 0 or self.rank(record) > self.rank(self.history[self.best_epoch]):
            self.best_epoch = len(self.history) - 1
            self.best = {name: value.detach().cpu().clone() for name, value in evaluated.state_dict().items()}

    def result(self, schedule: TrainSchedule, ranks: Ranks) -> TrainResult:
        """Give the result of a training that has ended."""
        best = self.history[self.best_epoch]
        apart = ", batch norm of each apart" if ranks.num_norms > 1 else ""
        return TrainResult(
            best_epoch=self.best_epoch,
            history=self.history,
            val_auc=best["val_auc"],
            val_accuracy=best["val_accuracy"],
            stopped_early=len(self.history) < schedule.epochs,
            seconds=sum(record["seconds"] for record in self.history),
            notes=(f"{ranks.num} processes{apart}",) if ranks.num > 1 else (),
        )


# The global streams are seeded inside (dropout reads them) and put back after.
@keeps_generators
@keep_freed_memory()
def train(
    model: nn.Module,
    loader: Batches,
    val: Batches | tuple[Tensor, Tensor],
    schedule: TrainSchedule,
    *,
    teachers: Sequence[SoftTargets | nn.Module] = (),
    kd: KDConfig | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    finished: Mapping[str, Path] | None = None,
    multi_label: bool = False,
    progress: Progress | None = None,
    resolution: int | None = None,
    accelerator: Accelerator = CPU,
    tuning: Tuning | None = None,
    sync_batch_norm: bool = True,
    fresh_statistics: bool = False,
) -> TrainResult:
    """Train `model` in place and leave it with its best epoch's weights (their moving average, where there is one).

    `val` is read batch by batch in every epoch; images `(n, c, r, r)` and labels in memory do as well. Without
    `teachers`, `kd` is not used: the control is the same call with none. `resolution` resizes batches for the model
    alone, so that students of many sizes share one teacher cache. With `checkpoint` (a folder) a run that was stopped
    goes on after its last whole epoch, to the same bits. `tuning` says what of pretrained weights stays as it is, and
    how gently the rest is trained. fresh_statistics: batch norm's running statistics are not of this network (fresh
    weights, a subnet of a supernet), and the first epochs replace them. Of several processes each reads its own rows;
    batch norm uses the statistics of all of them (`sync_batch_norm=False`: of each process apart), and dropout and
    mixup draw for each process apart.
    finished: folders of checkpoints of finished trainings by fingerprint. Where they are given, nothing is trained: the
    one of this training is read, a `LookupError` where it is not among them.
    A batch too small for batch norm (one image a process) is left out. Raises `InputError` on logits that are not
    finite, naming epoch and batch.
    """
    group = _process_group(accelerator)
    place, ranks = accelerator.device, Ranks(group.process_index, group.num_processes, sync_batch_norm)
    val = InMemory(*val) if isinstance(val, tuple) else val
    tuning = tuning or Tuning()
    bf16 = wants_bf16(schedule, accelerator, model)
    layout = LAYOUT if schedule.channels_last else torch.contiguous_format
    model.to(place)
    model.to(memory_format=layout)
    soft_term = _soft_term(model, val, teachers, kd or KDConfig(), schedule, seed, place, resolution, multi_label)
    frozen = Frozen(model, tuning.freeze) if tuning.freeze else None
    scales = None if tuning.layer_decay is None else layer_scales(model, tuning.layer_decay)
    optimizer = build_optimizer([model, *([soft_term.projectors] if soft_term else [])], schedule, scales)
    ema = start_average(model, schedule.ema_decay) if schedule.ema_decay else None
    evaluated = ema.module if ema else model
    weights = None if schedule.class_weights is None else torch.tensor(schedule.class_weights, device=place)

    fingerprint = ""
    if checkpoint is not None or finished is not None:
        fingerprint = _fingerprint(
            model, schedule, soft_term, seed, resolution, loader.identity, val, multi_label, tuning, ranks.num_norms,
            fresh_statistics,
        )  # fmt: skip
    if finished is not None:
        checkpoint = finished[fingerprint]
    initial = InitialStatistics(model) if fresh_statistics else None  # before a checkpoint is loaded over them
    parts = _parts(model, ema.module if ema else None, soft_term)
    run = _resume(checkpoint, fingerprint, parts, optimizer)
    wrapped = model
    if finished is None:  # what is only read takes no part of the others'
        wrapped, optimizer = group.prepare(model, optimizer)
    setup = Setup(
        model=model, wrapped=wrapped, forward=accelerator.compiled(wrapped), optimizer=optimizer, schedule=schedule,
        soft_term=soft_term, ema=ema, frozen=frozen, initial=initial, class_weights=weights, group=group, ranks=ranks,
        place=place, layout=layout, bf16=bf16, multi_label=multi_label, resolution=resolution, seed=seed,
    )  # fmt: skip

    for epoch in range(len(run.history), schedule.epochs):
        if _out_of_patience(run, schedule):
            break
        record = run_epoch(setup, loader, epoch, [run.rank(record) for record in run.history], progress)
        record |= validate(evaluated, val, multi_label, resolution=resolution, ranks=ranks)
        run.add(record, evaluated)
        if checkpoint is not None and group.is_main_process:
            _save(checkpoint, fingerprint, run, parts, optimizer)
        group.wait_for_everyone()

    if soft_term:
        soft_term.close()
    if frozen is not None:
        frozen.release(model)
    model.load_state_dict(_from_main(run.best, group) if finished is None else run.best)
    model.to(memory_format=torch.contiguous_format)
    return run.result(schedule, ranks)


def _soft_term(
    model: nn.Module,
    val: Batches,
    teachers: Sequence[SoftTargets | nn.Module],
    kd: KDConfig,
    schedule: TrainSchedule,
    seed: int,
    place: torch.device,
    resolution: int | None,
    multi_label: bool,
) -> SoftTerm | None:
    """Make the soft term of a distillation; None for a training without any teacher."""
    if not teachers and "mean_teacher" not in kd.options:
        return None
    example = next(iter(val.epoch(0))).images[:1].to(place)
    own_example = example if resolution is None else resize(example, resolution)
    mixing = schedule.mixup > 0 or schedule.cutmix > 0
    with drawing(seed, place):  # projectors start from it
        num_classes = _num_outputs(model, own_example)
        return SoftTerm(teachers, kd, model, example, own_example, multi_label, num_classes, mixing)


def _process_group(accelerator: Accelerator) -> Any:
    """Join the processes that a launcher started; the model is placed by us, so that `cuda:1` is what is used."""
    from accelerate import Accelerator as ProcessGroup
    from accelerate import DistributedDataParallelKwargs

    # Buffers are the same in all processes, see `synced_statistics` and `average_statistics`: none needs the leader's.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return ProcessGroup(cpu=accelerator.on_cpu, device_placement=False, kwargs_handlers=[ddp])


def _from_main(weights: dict[str, Tensor], accelerator: Any) -> dict[str, Tensor]:
    if accelerator.num_processes == 1:
        return weights
    from accelerate.utils import broadcast

    return {name: broadcast(value.to(accelerator.device)) for name, value in weights.items()}


def start_average(model: nn.Module, decay: float) -> Any:
    """Copy the model for its moving average (timm's `ModelEmaV3`); `update(model, step=t + 1)` makes update t = 1, 2...

    Young averages forget faster, since the first weights are noise: decay t / (t + 9) at most, as TensorFlow's.
    """
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay, use_warmup=True, warmup_gamma=9, warmup_power=1).requires_grad_(False)


@torch.no_grad()
def _num_outputs(model: nn.Module, example: Tensor) -> int:
    was_training = model.training
    outputs: Tensor = model.eval()(example)
    model.train(was_training)
    return outputs.shape[1]


def _out_of_patience(run: _Run, schedule: TrainSchedule) -> bool:
    return schedule.patience is not None and len(run.history) - 1 - run.best_epoch >= schedule.patience > 0


def _fingerprint(
    model: nn.Module,
    schedule: TrainSchedule,
    soft_term: SoftTerm | None,
    seed: int,
    resolution: int | None,
    data: str,
    val: Batches,
    multi_label: bool,
    tuning: Tuning,
    num_norms: int,
    fresh_statistics: bool,
) -> str:
    """Name this training, its data included: a checkpoint of any other must not be taken up."""
    names = [name for target in soft_term.targets for name in target.ids] if soft_term else []
    kd = None
    if soft_term is not None:
        said = {name: value for name, value in asdict(soft_term.kd).items() if name != "teacher_weights" or value}
        kd = [said, soft_term.weight, soft_term.temperature, dict(soft_term.numbers)]
    # Without tuning and parts of batches as before there were any: checkpoints of that time are found by this name.
    images = [data, val.identity, multi_label, *([] if tuning == Tuning() else [asdict(tuning)])]
    images += [num_norms] if num_norms > 1 else []
    images += ["fresh statistics"] if fresh_statistics else []
    how = {name: value for name, value in asdict(schedule).items() if name != "accumulate" or value > 1}
    return content_id([weights_id(model), how, kd, names, seed, resolution, images])


def _parts(model: nn.Module, ema: nn.Module | None, soft_term: SoftTerm | None) -> dict[str, nn.Module]:
    """Name the modules whose weights a checkpoint must hold."""
    parts: dict[str, nn.Module] = {"model": model}
    if ema is not None:
        parts["ema"] = ema
    if soft_term is not None and soft_term.mean_teacher is not None:
        parts["mean_teacher"] = soft_term.mean_teacher.module
    if soft_term is not None and len(list(soft_term.projectors.parameters())):
        parts["projectors"] = soft_term.projectors
    return parts


def _save(
    folder: Path, fingerprint: str, run: _Run, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    weights = {name: module.state_dict() for name, module in parts.items()}
    state = {"fingerprint": fingerprint, "history": run.history, "best_epoch": run.best_epoch}
    save_checkpoint(folder, len(run.history), {**weights, "best": run.best}, optimizer.state_dict(), state)


def _resume(
    folder: Path | None, fingerprint: str, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> _Run:
    saved = load_checkpoint(folder, fingerprint) if folder is not None else None
    if saved is None:
        return _Run()
    for name, module in parts.items():
        load_exactly(module, saved.weights.get(name, {}), f"{folder}/{name}")
    optimizer.load_state_dict(saved.optimizer)
    logger.info("%s: going on after epoch %d", folder, len(saved.state["history"]))
    return _Run(saved.state["history"], saved.weights["best"], int(saved.state["best_epoch"]))
