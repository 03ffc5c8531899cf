"""Feature methods find their tensors in CNNs, transformers and OFA subnets, and teach any student."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.distill.losses.hooks import Taps, as_map, last_layer, stage_layers, trace
from tutelage.distill.losses.methods import LOSSES
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.mixing import Mix
from tutelage.distill.training.schedule import KDConfig, TrainSchedule
from tutelage.distill.training.soft_term import SoftTerm
from tutelage.distill.training.train import start_average, train
from tutelage.records import InputError

FEATURE_METHODS = [name for name, loss in LOSSES.items() if loss.features]


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor


class Noise:
    """Eight images in two batches, of three classes."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self.images, self.labels = torch.randn(8, 1, 32, 32, generator=g), torch.arange(8) % 3

    @property
    def identity(self) -> str:
        return "eight images of noise"

    def __len__(self) -> int:
        return 2

    def epoch(self, k: int) -> Iterator[Batch]:
        for rows in torch.arange(8).split(4):
            yield Batch(self.images[rows], self.labels[rows], rows, torch.zeros_like(rows))


def small_vit() -> nn.Module:
    return build_teacher("ViT-Ti", 3, 1, 32, depth=4, embed_dim=24, num_heads=3)


def small_cnn() -> nn.Module:
    return build_teacher("mobilenetv3_small_050", 3, 1)


def small_swin() -> nn.Module:
    shape: dict[str, Any] = {"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 12, "window_size": 4}
    return build_teacher("swin_tiny_patch4_window7_224", 3, 1, 32, **shape)


def ofa_subnet() -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    net = OFAMobileNetV3(n_classes=3, width_mult=1.0, ks_list=[3], expand_ratio_list=[3], depth_list=[2])
    net.set_active_subnet(ks=3, e=3, d=2)
    subnet: nn.Module = net.get_active_subnet()
    first: Any = subnet.first_conv.conv  # type: ignore[union-attr]
    subnet.first_conv.conv = nn.Conv2d(1, first.out_channels, 3, 2, 1, bias=False)  # type: ignore[union-attr]
    return subnet


def test_outputs_read_as_maps() -> None:
    assert as_map(torch.zeros(2, 8, 5, 5)).shape == (2, 8, 5, 5)  # type: ignore[union-attr]
    assert as_map(torch.zeros(2, 5, 5, 8)).shape == (2, 8, 5, 5)  # type: ignore[union-attr]
    tokens = torch.arange(17.0).view(1, 17, 1)
    grid = as_map(tokens)
    assert grid is not None
    assert torch.equal(grid[0, 0], torch.arange(1.0, 17).view(4, 4))  # the class token is left out
    assert as_map(torch.zeros(2, 16, 3), num_prefix=0).shape == (2, 3, 4, 4)  # type: ignore[union-attr]
    assert as_map(torch.zeros(2, 7)) is None
    assert as_map((1, 2)) is None


@pytest.mark.parametrize(
    ("build", "channels", "grids", "embedding"),
    [
        (lambda: build_teacher("densenet121", 3, 1, 64), [64, 128, 256, 1024], [16, 8, 4, 2], 1024),
        (small_vit, [24, 24, 24, 24], [8, 8, 8, 8], 24),
        (small_swin, [12, 24], [8, 4], 24),
        (ofa_subnet, None, None, 1280),
    ],
)
def test_stages_are_found(build: Any, channels: Any, grids: Any, embedding: int) -> None:
    net, side = build(), 64 if embedding == 1024 else 32
    traced = trace(net, torch.zeros(1, 1, side, side))
    layers = stage_layers(traced)
    assert traced.embedding_size == embedding
    if grids is not None:
        assert [layer.grid[0] for layer in layers][-2:] == grids[-2:]
        assert layers[-1].channels == channels[-1]
    with Taps(net, [layer.name for layer in layers], traced.classifier) as taps:
        net.eval()(torch.randn(2, 1, side, side))
        assert [taps.maps[layer.name].shape[1:] for layer in layers] == [(x.channels, *x.grid) for x in layers]
        assert taps.embedding is not None
        assert taps.embedding.shape == (2, embedding)
    assert last_layer(traced) == layers[-1]
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.slow
@pytest.mark.parametrize("method", FEATURE_METHODS)
@pytest.mark.parametrize("teacher", [small_vit, small_swin, small_cnn])
def test_every_method_teaches_an_ofa_subnet(method: str, teacher: Any) -> None:
    data, student = Noise(), ofa_subnet()
    before = student.first_conv.conv.weight.detach().clone()  # type: ignore[union-attr]
    kd = KDConfig(alpha=0.0, method=method, options={"logits_weight": 0.0})
    result = train(student, data, (data.images, data.labels), TrainSchedule(epochs=1), teachers=[teacher()], kd=kd)
    assert result.history[0]["soft"] > 0
    assert result.history[0]["loss"] == pytest.approx(result.history[0]["soft"])
    assert not torch.equal(before, student.first_conv.conv.weight)  # type: ignore[union-attr]
    assert not any(module._forward_hooks for module in student.modules())


def test_hints_train_their_projector_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    data = Noise()
    kd = KDConfig(method="fitnet", options={"logits_weight": 1.0})

    def run(epochs_seen: int | None, folder: Path | None) -> dict[str, Tensor]:
        student = small_cnn()
        schedule = TrainSchedule(epochs=3, warmup_epochs=0)
        loader: Any = data
        if epochs_seen is not None:
            loader = Breaking(epochs_seen)
        try:
            train(
                student, loader, (data.images, data.labels), schedule, teachers=[small_vit()], kd=kd, checkpoint=folder
            )
        except KeyboardInterrupt:
            return {}
        return student.state_dict()

    whole = run(None, None)
    assert run(2, tmp_path) == {}
    resumed = run(None, tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class Breaking(Noise):
    """Noise that breaks off at an epoch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def epoch(self, k: int) -> Iterator[Batch]:
        if k == self.at:
            raise KeyboardInterrupt
        yield from super().epoch(k)


def test_a_student_is_distilled_from_its_own_average() -> None:
    data, student = Noise(), small_cnn()
    kd = KDConfig(method="category_relation", options={"mean_teacher": 0.9, "logits_weight": 1.0})
    result = train(student, data, (data.images, data.labels), TrainSchedule(epochs=2), kd=kd)
    assert result.history[-1]["soft"] > 0


def test_named_layers_and_their_errors() -> None:
    data = Noise()

    def run(method: str = "at", **options: Any) -> None:
        kd = KDConfig(method=method, options=options)
        schedule = TrainSchedule(epochs=1)
        train(small_cnn(), data, (data.images, data.labels), schedule, teachers=[small_vit()], kd=kd)

    run(student_layers=["blocks.1"], teacher_layers=["blocks.3"])
    with pytest.raises(InputError, match=r"no layer 'blocks\.99' gives a feature map"):
        run(student_layers=["blocks.99"], teacher_layers=["blocks.3"])
    with pytest.raises(InputError, match="name as many of each"):
        run(student_layers=["blocks.1", "blocks.2"], teacher_layers=["blocks.3"])
    with pytest.raises(InputError, match="unknown distillation option 'layers'"):
        run(layers=["blocks.1"])


def test_the_average_of_the_weights_by_hand() -> None:
    """Decay t / (t + 9) until it reaches its end; a counter of batches is copied, not averaged."""
    net = nn.BatchNorm1d(1)
    wanted, average = float(net.bias.detach()), start_average(net, 0.4)
    for t in range(1, 12):
        net.bias.data.fill_(t)
        net(torch.ones(2, 1))
        decay = min(0.4, t / (t + 9))
        wanted = decay * wanted + (1 - decay) * t
        average.update(net, step=t + 1)
        assert float(average.module.bias) == pytest.approx(wanted, rel=1e-5)
        assert int(average.module.num_batches_tracked) == t


@pytest.mark.parametrize("method", ["kd", "at"])
def test_teachers_share_the_soft_term_by_their_weights(method: str) -> None:
    student, *teachers = (build_teacher("mobilenetv3_small_050", 3, 1, seed=seed).eval() for seed in range(3))
    for net in (student, *teachers):  # far enough apart that losses are no rounding
        net.classifier.weight.data *= 30
    batch = next(iter(Noise().epoch(0)))

    def soft(teachers: list[nn.Module], weights: tuple[float, ...] = ()) -> float:
        kd = KDConfig(method=method, temperature=1.0 if method == "kd" else None, teacher_weights=weights)
        term = SoftTerm(teachers, kd, student, batch.images[:1], batch.images[:1], False, 3)
        value = float(term.soft(student(batch.images), batch, Mix(), batch.images).detach())
        term.close()
        return value

    first, second = (soft([teacher]) for teacher in teachers)
    assert first != pytest.approx(second, rel=1e-3)
    assert soft(teachers, (1.0, 0.0)) == pytest.approx(first, rel=1e-4)
    if method == "at":  # linear in the teachers
        assert soft(teachers, (0.5, 1.0)) == pytest.approx((0.5 * first + second) / 1.5, rel=1e-4)
    with pytest.raises(InputError, match="1 teacher_weights for 2 teachers"):
        soft(teachers, (1.0,))
