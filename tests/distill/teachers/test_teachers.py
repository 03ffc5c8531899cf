"""Teachers by name: exact parameters, counted MACs, small images, weights files."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tutelage.distill.teachers.weights import load_weights
from tutelage.distill.teachers.zoo import TEACHERS, build_teacher, head_version, small_patch, timm_name
from tutelage.records import InputError

# GMACs as published: papers' tables, or timm's benchmark table for the vision transformers. Counters differ by a few %.
PUBLISHED_GMACS = {
    "DenseNet121": 2.87, "DenseNet161": 7.79, "DenseNet201": 4.34, "ResNet50": 4.11, "EfficientNet-B3": 1.60,
    "VGG16": 15.47, "VGG19": 19.63, "Xception": 8.40, "NASNetMobile": 0.564, "MobileNetV2": 0.301,
    "Visformer-S": 4.88, "AutoFormerV2-T": 4.64, "AutoFormerV2-S": 9.43, "AutoFormerV2-B": 13.69,
    "ViT-Ti": 1.26, "ViT-S": 4.61, "DeiT-Ti": 1.26, "DeiT-S": 4.61, "Swin-T": 4.51,
    "ResNet-20": 0.0406, "ResNet-56": 0.1255,
}  # fmt: skip


# One of each kind; the others are the wide matrix of `make test-slow`.
FAST = ("ResNet-20", "DenseNet121", "NASNetMobile", "AutoFormerV2-T", "ViT-Ti", "MobileNetV2")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.long) for n in TEACHERS])
def test_parameters_and_macs(name: str) -> None:
    teacher = TEACHERS[name]
    with torch.device("meta"):
        net = build_teacher(name, 1000).eval()
        side = teacher.resolution
        with FlopCounterMode(display=False) as flops:
            answer = net(torch.empty(1, 3, side, side))
    assert answer.shape == (1, 1000)
    assert sum(p.numel() for p in net.parameters()) == teacher.params
    macs = flops.get_total_flops() / 2
    assert macs == pytest.approx(teacher.macs, rel=1e-3)
    assert macs / 1e9 == pytest.approx(PUBLISHED_GMACS[name], rel=0.02)


def test_every_teacher_has_a_published_figure() -> None:
    assert PUBLISHED_GMACS.keys() == TEACHERS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DenseNet121", "ResNet50", "Visformer-S", "AutoFormerV2-T", "Xception", "VGG16"])
@pytest.mark.parametrize("side", [32, 64])
def test_small_gray_images_and_other_classes(name: str, side: int) -> None:
    with torch.device("meta"):
        net = build_teacher(name, 3, in_channels=1, resolution=side).eval()
        assert net(torch.empty(2, 1, side, side)).shape == (2, 3)


def test_a_vit_keeps_seven_patches_a_side() -> None:
    assert [small_patch(side) for side in (28, 32, 64, 128, 224)] == [4, 4, 8, 16, 16]
    net = build_teacher("ViT-Ti", 2, 1, 28, depth=1, embed_dim=24, num_heads=3)
    assert net.patch_embed.num_patches == 49  # type: ignore[union-attr]
    assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 2)


@pytest.mark.slow
def test_a_small_image_keeps_its_detail_in_a_cnn() -> None:
    with torch.device("meta"):
        small, native = build_teacher("DenseNet121", 2, 1, 28), build_teacher("DenseNet121", 2, 1, 224)
    assert small.features.conv0.stride == (1, 1)  # type: ignore[union-attr]
    assert native.features.conv0.stride == (2, 2)  # type: ignore[union-attr]


def test_same_seed_same_bits_and_the_global_stream_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build_teacher("mobilenetv3_small_050", 2, 1, seed=3).state_dict()
    assert torch.equal(torch.rand(1), expected)
    again = build_teacher("mobilenetv3_small_050", 2, 1, seed=3).state_dict()
    other = build_teacher("mobilenetv3_small_050", 2, 1, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])


@pytest.mark.parametrize(("name", "version"), [("mobilenetv2_050", 2), ("mobilenetv3_small_050", 2), ("resnet10t", 1)])
def test_a_fresh_classifier_of_few_classes_begins_near_chance(name: str, version: int) -> None:
    """timm draws the heads of EfficientNet's family for a thousand classes: with four, losses began at 2 to 4."""
    assert head_version(name) == version
    net = build_teacher(name, 4, 1, 64)
    head = net.get_classifier()  # type: ignore[operator]
    assert head.weight.abs().max() <= 1 / head.in_features**0.5  # torch's own bound of a linear layer
    images = torch.rand(16, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(net.train()(images), torch.arange(16) % 4)
    assert loss < 1.25 * math.log(4)


def test_a_classifier_of_pretrained_weights_is_as_the_file_has_it(tmp_path: Path) -> None:
    source = build_teacher("mobilenetv3_small_050", 4, 1, seed=1)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    net = build_teacher("mobilenetv3_small_050", 4, 1, weights=tmp_path / "w.safetensors", seed=2)
    assert torch.equal(net.get_classifier().weight, source.get_classifier().weight)  # type: ignore[operator]


def test_names_of_papers_and_of_timm() -> None:
    assert timm_name("AutoFormerV2-T") == "swin_s3_tiny_224"
    assert timm_name("densenet-121") == "densenet121"
    assert timm_name("mobilenetv2_100") == "mobilenetv2_100"
    with pytest.raises(InputError, match="did you mean DenseNet121"):
        timm_name("DenseNet12")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_round_trip(tmp_path: Path, suffix: str) -> None:
    source = build_teacher("mobilenetv3_small_050", 2, 1, seed=1)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in source.state_dict().items()}}, path)
    else:
        save_file(source.state_dict(), path)
    net = build_teacher("mobilenetv3_small_050", 2, 1, seed=9, weights=path).eval()
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(net(images), source.eval()(images))


def test_a_classifier_for_other_classes_starts_fresh_and_rgb_is_summed_for_gray(tmp_path: Path) -> None:
    source = build_teacher("mobilenetv3_small_050", 1000, 3, seed=1)
    path = tmp_path / "imagenet.safetensors"
    save_file(source.state_dict(), path)
    net = build_teacher("mobilenetv3_small_050", 2, 1, seed=1)
    assert load_weights(net, path) == ("classifier.weight", "classifier.bias")
    own, given = net.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"]
    assert torch.allclose(own, given.sum(1, keepdim=True))


def test_position_embeddings_are_resized(tmp_path: Path) -> None:
    shape = {"depth": 1, "embed_dim": 24, "num_heads": 3}
    source = build_teacher("ViT-Ti", 2, 1, 64, seed=1, **shape)
    path = tmp_path / "vit.safetensors"
    save_file(source.state_dict(), path)
    net = build_teacher("ViT-Ti", 2, 1, 128, weights=path, patch_size=8, **shape)
    assert net(torch.zeros(1, 1, 128, 128)).shape == (1, 2)


def test_bad_weights_are_reported_in_one_line(tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x08\x00")
    other = tmp_path / "other.safetensors"
    save_file({"some.weight": torch.zeros(3)}, other)
    for path, message in (
        (tmp_path / "none.pth", "no weights file"),
        (torn, "not a readable"),
        (other, "does not fit"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            build_teacher("mobilenetv3_small_050", 2, 1, weights=path)
        assert "\n" not in str(caught.value)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole_model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(InputError, match="not a readable weights file"):
        build_teacher("mobilenetv3_small_050", 2, 1, weights=path)


@pytest.mark.slow
def test_an_image_too_small_for_the_network() -> None:
    with pytest.raises(InputError, match="visformer_small cannot see images of 28 px"):
        build_teacher("Visformer-S", 2, 1, 28)
    assert build_teacher("mobilenetv3_small_050", 2, 1, 28).training


def test_an_option_the_network_does_not_know() -> None:
    with pytest.raises(InputError, match="cannot build densenet121"):
        build_teacher("densenet121", 2, embed_dimension=3)
