"""One training loop for teachers and students: hard labels, softened teachers, best epoch by validation.

It runs where its accelerator says, and on several GPUs or processes by `accelerate launch`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.accelerator import CPU, LAYOUT, Accelerator, drawing, keeps_generators, reseed
from tutelage.allocator import keep_freed_memory
from tutelage.distill.evaluation.evaluate import predict_logits
from tutelage.distill.losses.logits import hard_loss
from tutelage.distill.teachers.weights import load_exactly
from tutelage.ranks import Ranks, synced_statistics
from tutelage.records import InputError, content_id

from .batches import Batches, InMemory, Waiting, epoch_of, num_global
from .checkpoint import load_checkpoint, save_checkpoint
from .mixing import draw_mix
from .parts import FiniteLogits, parts_of, placed
from .schedule import KDConfig, TrainSchedule, build_optimizer, lr_factor, wants_bf16
from .soft_targets import SoftTargets, resize, weights_id
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

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainResult:
    """How a training went; the validation figures are the best epoch's, `val_auc` is `None` where undefined."""

    best_epoch: int
    history: list[
        dict[str, Any]
    ]  # one dict an epoch: epoch, loss, hard, soft (weighted), lr, val_loss, val_accuracy, val_auc, seconds, and
    # of these wait_seconds (for batches) and images, both this process's
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
) -> TrainResult:
    """Train `model` in place and leave it with its best epoch's weights (their moving average, where there is one).

    `val` is read batch by batch in every epoch; images `(n, c, r, r)` and labels in memory do as well. Without
    `teachers`, `kd` is not used: the control is the same call with none. `resolution` resizes batches for the model
    alone, so that students of many sizes share one teacher cache. With `checkpoint` (a folder) a run that was stopped
    goes on after its last whole epoch, to the same bits. `tuning` says what of pretrained weights stays as it is, and
    how gently the rest is trained. Of several processes each reads its own rows; batch norm uses the statistics of all
    of them (`sync_batch_norm=False`: of each process apart), and dropout and mixup draw for each process apart.
    finished: folders of checkpoints of finished trainings by fingerprint. Where they are given, nothing is trained: the
    one of this training is read, a `LookupError` where it is not among them.
    A batch too small for batch norm (one image a process) is left out. Raises `InputError` on logits that are not
    finite, naming epoch and batch.
    """
    group = _process_group(accelerator)
    place, ranks = accelerator.device, Ranks(group.process_index, group.num_processes, sync_batch_norm)
    apart = ", batch norm of each apart" if ranks.num_norms > 1 else ""
    notes = (f"{ranks.num} processes{apart}",) if ranks.num > 1 else ()
    val = InMemory(*val) if isinstance(val, tuple) else val
    bf16 = wants_bf16(schedule, accelerator, model)
    layout = LAYOUT if schedule.channels_last else torch.contiguous_format
    model.to(place)
    model.to(memory_format=layout)
    kd = kd or KDConfig()
    soft_term = None
    if teachers or "mean_teacher" in kd.options:
        example = next(iter(val.epoch(0))).images[:1].to(place)
        own_example = example if resolution is None else resize(example, resolution)
        with drawing(seed, place):  # projectors start from it
            mixing = schedule.mixup > 0 or schedule.cutmix > 0
            num_classes = _num_outputs(model, own_example)
            soft_term = SoftTerm(teachers, kd, model, example, own_example, multi_label, num_classes, mixing)
    projectors = soft_term.projectors if soft_term else nn.ModuleList()
    tuning = tuning or Tuning()
    frozen = Frozen(model, tuning.freeze) if tuning.freeze else None
    scales = None if tuning.layer_decay is None else layer_scales(model, tuning.layer_decay)
    optimizer = build_optimizer([model, projectors], schedule, scales)
    ema = start_average(model, schedule.ema_decay) if schedule.ema_decay else None
    evaluated = ema.module if ema else model
    weights = None if schedule.class_weights is None else torch.tensor(schedule.class_weights, device=place)

    fingerprint = ""
    if checkpoint is not None or finished is not None:
        fingerprint = _fingerprint(
            model, schedule, soft_term, seed, resolution, loader.identity, val, multi_label, tuning, ranks.num_norms
        )
    if finished is not None:
        checkpoint = finished[fingerprint]
    parts = _parts(model, ema.module if ema else None, soft_term)
    run = _resume(checkpoint, fingerprint, parts, optimizer)
    wrapped = model
    if finished is None:  # what is only read takes no part of the others'
        wrapped, optimizer = group.prepare(model, optimizer)
    forward = accelerator.compiled(wrapped)
    finite = FiniteLogits(place)
    num_batches = len(loader)

    for epoch in range(len(run.history), schedule.epochs):
        if _out_of_patience(run, schedule):
            break
        # Dropout and mixup depend on (seed, epoch, process) alone: a resumed epoch draws what the first try drew.
        reseed(int(np.random.SeedSequence([seed, epoch, ranks.rank]).generate_state(1)[0]), place)
        rng = np.random.default_rng([seed, epoch, ranks.rank, 1])
        values = [run.rank(record) for record in run.history]
        wrapped.train()
        if frozen is not None:
            frozen.hold()
        sums, count, began, waiting = _zeros(place), 0, time.monotonic(), Waiting()
        for step, batch in enumerate(waiting.over(epoch_of(loader, epoch, ranks))):
            whole = num_global(batch, ranks)
            if whole < 2 * ranks.num:
                continue
            mine = placed(batch, place)
            lr = schedule.lr * lr_factor(schedule, epoch + step / num_batches, values)
            for param_group in optimizer.param_groups:
                param_group["lr"] = lr * param_group.get("lr_scale", 1.0)  # states of earlier versions hold none
            optimizer.zero_grad(set_to_none=True)
            for part in parts_of(mine, schedule.accumulate, whole // ranks.num):
                mix = draw_mix(len(part.images), schedule.mixup, schedule.cutmix, rng)
                images = part.images if resolution is None else resize(part.images, resolution)
                images = mix.images(images).contiguous(memory_format=layout)
                with torch.autocast(place.type, torch.bfloat16, enabled=bf16), synced_statistics(ranks):
                    logits = forward(images)
                logits = logits.float()
                finite.check(logits, part, epoch, step, lr)
                hard = hard_loss(
                    logits,
                    mix.labels(part.labels, logits.shape[1], multi_label),
                    multi_label=multi_label,
                    label_smoothing=schedule.label_smoothing,
                    class_weights=weights,
                    focal_gamma=schedule.focal_gamma,
                )
                soft = soft_term.soft(logits, part, mix, images) if soft_term else hard.new_zeros(())
                loss = soft_term.kd.alpha * hard + (1 - soft_term.kd.alpha) * soft if soft_term else hard
                weight = len(part.images) * ranks.num / whole  # of the mean over the rows of all parts and processes
                group.backward(loss if weight == 1 else loss * weight)
                # Left on the device until the epoch ends: reading a number waits for all that a GPU has to do.
                sums += len(part.images) * torch.stack([loss, hard, soft]).detach().to(sums)
            if ranks.num > 1:
                for parameter in projectors.parameters():  # outside of the wrapped model: nobody else averages them
                    parameter.grad = group.reduce(parameter.grad, "mean")
            if schedule.clip_norm is not None:
                group.clip_grad_norm_(model.parameters(), schedule.clip_norm)
            optimizer.step()
            ranks.average_statistics(model)
            if soft_term:
                soft_term.follow(model)
            if ema is not None:
                ema.update(model, step=epoch * num_batches + step + 2)
            count += len(mine.images)
            if progress:
                progress("train", epoch * num_batches + step + 1, schedule.epochs * num_batches)
        finite.read()
        if count == 0:
            raise InputError(f"epoch {epoch} has no batch of at least {2 * ranks.num} images: lower the batch size")
        record = dict(zip(("loss", "hard", "soft"), _mean(sums.cpu().double().numpy(), count, group), strict=True))
        record |= {"epoch": epoch, "lr": lr, "seconds": time.monotonic() - began}
        record |= {"wait_seconds": waiting.seconds, "images": count}
        record |= validate(evaluated, val, multi_label, resolution=resolution, ranks=ranks)
        run.history.append(record)
        if run.best_epoch < 0 or run.rank(record) > run.rank(run.history[run.best_epoch]):
            run.best_epoch = epoch
            run.best = {name: value.detach().cpu().clone() for name, value in evaluated.state_dict().items()}
        if checkpoint is not None and group.is_main_process:
            _save(checkpoint, fingerprint, run, parts, optimizer)
        group.wait_for_everyone()

    if soft_term:
        soft_term.close()
    if frozen is not None:
        frozen.release(model)
    model.load_state_dict(_from_main(run.best, group) if finished is None else run.best)
    model.to(memory_format=torch.contiguous_format)
    best = run.history[run.best_epoch]
    return TrainResult(
        best_epoch=run.best_epoch,
        history=run.history,
        val_auc=best["val_auc"],
        val_accuracy=best["val_accuracy"],
        stopped_early=len(run.history) < schedule.epochs,
        seconds=sum(record["seconds"] for record in run.history),
        notes=notes,
    )


def _process_group(accelerator: Accelerator) -> Any:
    """Join the processes that a launcher started; the model is placed by us, so that `cuda:1` is what is used."""
    from accelerate import Accelerator as ProcessGroup
    from accelerate import DistributedDataParallelKwargs

    # Buffers are the same in all processes, see `synced_statistics` and `average_statistics`: none needs the leader's.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return ProcessGroup(cpu=accelerator.on_cpu, device_placement=False, kwargs_handlers=[ddp])


def _zeros(place: torch.device) -> Tensor:
    """Give the sums of an epoch: in double precision where the device has it."""
    return torch.zeros(3, dtype=torch.float32 if place.type == "mps" else torch.float64, device=place)


def _mean(sums: np.ndarray, count: int, group: Any) -> list[float]:
    """Give the mean over the images of all processes: each of them saw its own rows alone."""
    if group.num_processes > 1:
        from accelerate.utils import reduce

        totals = reduce(torch.tensor([*sums, count], dtype=torch.float32, device=group.device), "sum").tolist()
        return [value / totals[-1] for value in totals[:-1]]
    return [float(value) for value in sums / count]


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
) -> str:
    """Name this training, its data included: a checkpoint of any other must not be taken up."""
    names = [name for target in soft_term.targets for name in target.ids] if soft_term else []
    kd = [asdict(soft_term.kd), soft_term.weight, soft_term.temperature, dict(soft_term.numbers)] if soft_term else None
    # Without tuning and parts of batches as before there were any: checkpoints of that time are found by this name.
    images = [data, val.identity, multi_label, *([] if tuning == Tuning() else [asdict(tuning)])]
    images += [num_norms] if num_norms > 1 else []
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
