"""The stem at stride 1: every map of a network of timm twice as high and wide, and a ResNet's pool gone."""

import pytest
import torch
from torch import nn

from tutelage.distill.teachers.stem import set_stem_stride
from tutelage.distill.teachers.weights import first_conv_name
from tutelage.distill.teachers.zoo import build_teacher, native_stem_stride
from tutelage.pipeline.keys.stage_inputs import NetworkInput
from tutelage.records import InputError, Student

SIDE = 32
# Name -> how many times finer its last maps are: a ResNet's stem halves twice.
NETS = {
    "mobilenetv2_050": 2,
    "mobilenetv3_small_050": 2,
    "mobilenetv3_large_100": 2,
    "efficientnet_lite0": 2,
    "tf_efficientnet_lite0": 2,
    "ghostnet_100": 2,
    "resnet18": 4,
    "resnet10t": 4,
    "repvgg_a0": 2,
}


def net(name: str, **options: object) -> nn.Module:
    return build_teacher(name, 3, 1, **options).eval()


# One of each kind of stem; the others are for `make test-slow`.
FAST = ("mobilenetv3_small_050", "tf_efficientnet_lite0", "resnet10t")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_a_stem_of_stride_1_makes_every_map_finer(name: str) -> None:
    assert native_stem_stride(name) == 2
    usual, fine = net(name), net(name, stem_stride=1)
    image = torch.zeros(1, 1, SIDE, SIDE)
    with torch.inference_mode():
        small, large = (one.forward_features(image).shape[-1] for one in (usual, fine))  # type: ignore[operator]
        assert fine(image).shape == (1, 3)
    assert large == NETS[name] * small
    # The same tensors: weights of one are weights of the other.
    assert {key: value.shape for key, value in usual.state_dict().items()} == {
        key: value.shape for key, value in fine.state_dict().items()
    }


def test_stride_2_is_as_timm_has_it_and_keeps_the_pool() -> None:
    kept = net("resnet10t", stem_stride=2)
    assert isinstance(kept.maxpool, nn.MaxPool2d)
    assert kept.get_submodule(first_conv_name(kept)).stride == (2, 2)  # type: ignore[union-attr]
    small = build_teacher("resnet10t", 3, 1, resolution=SIDE)  # by itself a small image's: its pool stays
    assert small.get_submodule(first_conv_name(small)).stride == (1, 1)  # type: ignore[union-attr]
    assert isinstance(small.maxpool, nn.MaxPool2d)


def test_a_pool_behind_another_halving_is_not_of_the_stem() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.down = nn.Conv2d(1, 2, 3, 2), nn.Conv2d(2, 2, 3, 2)
            self.pool = nn.MaxPool2d(2)

    late = Late()
    set_stem_stride(late, 1, "late")
    assert (late.conv.stride, late.down.stride) == ((1, 1), (2, 2))
    assert isinstance(late.pool, nn.MaxPool2d)


def test_a_pool_with_weights_keeps_them() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 2, 3, 2)
            self.maxpool = nn.Sequential(nn.Conv2d(2, 2, 3, 2), nn.BatchNorm2d(2))

    pooled = Pooled()
    set_stem_stride(pooled, 1, "pooled")
    assert pooled.maxpool[0].stride == (1, 1)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("vit_tiny_patch16_224", 1, "no stem convolution whose stride could be 1"),
        ("mobilenetv2_050", 3, "stem_stride is 3: give 1 or 2"),
        ("mobilenetv2_050", True, "stem_stride is True"),
    ],
)
def test_a_stem_that_cannot_be_is_refused(name: str, stride: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        net(name, stem_stride=stride)
    assert native_stem_stride("vit_tiny_patch16_224") is None


def test_only_networks_whose_stem_is_built_in_another_way_have_another_key() -> None:
    def key(**options: object) -> dict[str, object]:
        part = NetworkInput.of(Student(model="a", role="student", library_name="resnet18", options=options))
        return {"stem": part.stem}

    assert [key()["stem"], key(stem_stride=2)["stem"], key(stem_stride=1)["stem"]] == [1, 1, 2]
