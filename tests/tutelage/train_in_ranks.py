"""Train a distilled student and a supernet, alone or as one of several processes: what `test_ranks.py` compares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.distill.training.batches import InMemory
from tutelage.distill.training.schedule import TrainSchedule
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import train
from tutelage.quant.int8.qat import prepare_qat
from tutelage.ranks import joined
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, training

torch.set_num_threads(1)
SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((16, 20))
NUM_STEPS = 1


def images(num: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw noise that is brighter for class 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (num,), generator=generator)
    return torch.randn(num, 1, side, side, generator=generator) + 0.5 * labels[:, None, None, None], labels


class Shuffled(InMemory):
    """Batches in an order of each epoch's own; counts the images that it gave out."""

    num_read = 0

    def epoch(self, k: int, rank: int = 0, num_ranks: int = 1) -> Iterator[Any]:
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(k))
        for batch in super().epoch(k, rank, num_ranks):
            rows = order[batch.indices]
            Shuffled.num_read += len(rows)
            yield type(batch)(self.images[rows], self.labels[rows], rows, batch.aug_seeds, batch.num_global)


def student(seed: int) -> nn.Module:
    """Build a small network with batch norm. A bias before it would have a gradient of rounding errors alone."""
    torch.manual_seed(seed)
    body = (nn.Conv2d(1, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(100, 2))


def trained(cache: Path) -> dict[str, Any]:
    """Train both; give what the processes of a training must agree on."""
    # 14 rows of a batch do not divide among 4 processes, and 9 of validation not among 2.
    targets = SoftTargets(student(5), cache)
    net = student(0)
    result = train(
        net,
        Shuffled(*images(96, 12, 0), batch_size=14),
        InMemory(*images(40, 12, 1), batch_size=9),
        TrainSchedule(epochs=3, lr=3e-3, warmup_epochs=0.0, ema_decay=0.5, bf16=False),
        teachers=[targets],
    )
    num_read = Shuffled.num_read
    apart = student(0)
    schedule = TrainSchedule(epochs=1, warmup_epochs=0.0, bf16=False)
    one, few = Shuffled(*images(28, 12, 0), batch_size=14), InMemory(*images(4, 12, 1), batch_size=4)
    noted = train(apart, one, few, schedule, sync_batch_norm=False).notes
    rounded = prepare_qat(student(0).eval(), images(4, 12, 3)[0].numpy())
    train(rounded, one, few, schedule)
    untold = ("seconds", "wait_seconds", "images")
    history = [{key: value for key, value in record.items() if key not in untold} for record in result.history]
    ranks = joined()
    supernet, archs = build_supernet(SPACE, 2, 1), []
    chosen = training.choose_archs
    training.choose_archs = lambda *given: archs.append(chosen(*given)) or archs[-1]
    shown, labels = images(10 * NUM_STEPS, 20, 2)
    mine = slice(ranks.rank, None, ranks.num)

    def batches(epoch: int) -> Iterator[training.Batch]:
        for number in range(NUM_STEPS):
            rows = slice(10 * number, 10 * number + 10)
            yield shown[rows][mine], labels[rows][mine], None

    options = training.SupernetSchedule(epochs=2, num_random=1, bf16=False, lr=2e-4)
    log = training.train_supernet(supernet, SPACE, batches, NUM_STEPS, options, ranks=ranks)
    return {
        "rank": [ranks.rank, ranks.num],
        "notes": result.notes,
        "history": history,
        "student": flat(net),
        "apart": [flat(apart), *noted],
        "rounded": flat(rounded),
        "num_computed": targets.num_computed,
        "num_read": num_read,
        "archs": [[arch.id for arch in step] for step in archs],
        "losses": [entry["loss"] for entry in log.epochs],
        "supernet": [float(value.double().sum()) for value in supernet.state_dict().values()],
    }


def flat(net: nn.Module) -> list[float]:
    """Give all weights and statistics as one list."""
    return torch.cat([value.double().flatten() for value in net.state_dict().values()]).tolist()
