"""Every tensor of a weights file has its place, or the file is refused in one line that names what has none."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.distill.teachers.weights import load_exactly, load_weights
from tutelage.distill.teachers.zoo import build_teacher, timm_name
from tutelage.records import InputError
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.supernet import build_arch

SMALL_VIT: dict[str, Any] = {"embed_dim": 24, "num_heads": 3}


def filed(net: nn.Module, path: Path, **changes: Tensor | None) -> Path:
    """Save a network's tensors with some replaced, added or (None) left out; `__` in a name stands for a dot."""
    state = dict(net.state_dict())
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    save_file(state, path)
    return path


def mobile(classes: int = 2, channels: int = 1, seed: int = 1) -> nn.Module:
    return build_teacher("mobilenetv3_small_050", classes, channels, seed=seed)


def subnet(seed: int = 0) -> nn.Module:
    return build_arch(PRESETS["EEEA-Net-C1"], 2, 1, seed=seed)


def test_blocks_that_the_network_lacks_are_named(tmp_path: Path) -> None:
    path = filed(build_teacher("ViT-Ti", 2, 1, 32, depth=6, **SMALL_VIT), tmp_path / "six.safetensors")
    with pytest.raises(InputError, match=r"blocks\.2\.\S+ is not of this network.* more; check .*options") as caught:
        build_teacher("ViT-Ti", 2, 1, 32, weights=path, depth=2, **SMALL_VIT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1__weight": None}, "bn1.weight is missing"),
        (
            {"classifier__weight": None, "classifier__bias": None},
            "classifier.weight is missing; classifier.bias is mis",
        ),
        ({"classifier__bias": None}, "classifier.bias is missing"),
        ({"extra__weight": torch.zeros(2)}, "extra.weight is not of this network"),
        ({"head_dist__bias": torch.zeros(2)}, "head_dist.bias is not of this network"),
        ({"bn1__weight": torch.zeros(3)}, r"bn1.weight has shape \(3,\) for \(16,\)"),
        # Of another width, not of other classes; and weights and biases that disagree about the classes.
        ({"classifier__weight": torch.zeros(2, 7)}, r"classifier.weight has shape \(2, 7\)"),
        ({"classifier__bias": torch.zeros(5)}, r"classifier.bias has shape \(5,\)"),
        # A stem of four channels is no RGB stem that could be summed for gray.
        ({"conv_stem__weight": torch.zeros(16, 4, 3, 3)}, r"conv_stem.weight has shape \(16, 4, 3, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = filed(mobile(), tmp_path / "w.safetensors", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(mobile(), path)
    assert "\n" not in str(caught.value)


def test_only_a_classifier_of_other_classes_starts_fresh_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = filed(mobile(classes=5), tmp_path / "five.safetensors")
    net = mobile(classes=2, seed=9)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        assert load_weights(net, path) == ("classifier.weight", "classifier.bias")
    assert "a classifier of 5 classes, this network 2: it starts fresh" in caplog.text
    after, given = net.state_dict(), mobile(classes=5).state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if name.startswith("classifier.") else given[name])
    with pytest.raises(InputError, match="a classifier of 5 classes, these images have 2: with epochs: 0"):
        load_weights(mobile(classes=2), path, fresh_head=False)
    assert load_weights(mobile(classes=5, seed=9), path, fresh_head=False) == ()


def test_files_older_than_the_batch_counter_load(tmp_path: Path) -> None:
    counters = {n.replace(".", "__"): None for n in mobile().state_dict() if n.endswith("num_batches_tracked")}
    assert counters
    assert load_weights(mobile(seed=9), filed(mobile(), tmp_path / "old.safetensors", **counters)) == ()


def test_a_filter_of_timm_that_stumbles_is_one_line(tmp_path: Path) -> None:
    net = build_teacher("ViT-Ti", 2, 1, 32, depth=1, **SMALL_VIT)
    path = filed(net, tmp_path / "odd.safetensors", patch_embed__proj__weight=torch.zeros(24, 5))
    with pytest.raises(InputError, match="does not fit VisionTransformer") as caught:
        load_weights(net, path)
    assert "\n" not in str(caught.value)


def test_position_embeddings_that_are_maps_are_resized(tmp_path: Path) -> None:
    """Visformer's, for which timm has no filter: a constant map stays one, whatever its size."""
    shape: dict[str, Any] = {"embed_dim": 48, "num_heads": 3, "depth": (1, 1, 1)}
    native = build_teacher("Visformer-S", 2, 1, 224, **shape)
    maps = {name: torch.full_like(value, 0.25) for name, value in native.state_dict().items() if "pos_embed" in name}
    assert len(maps) == 3
    path = filed(native, tmp_path / "native.safetensors", **maps)
    small = build_teacher("Visformer-S", 2, 1, 64, weights=path, **shape)
    for name in maps:
        found = small.state_dict()[name]
        assert found.shape[2] < maps[name].shape[2]
        torch.testing.assert_close(found, torch.full_like(found, 0.25))


def test_nasnet_mobile_takes_its_own_weights_and_not_the_large_ones(tmp_path: Path) -> None:
    source = build_teacher("NASNetMobile", 2, 1, 64, seed=1)
    path = filed(source, tmp_path / "mobile.safetensors")
    net = build_teacher("NASNetMobile", 2, 1, 64, seed=2, weights=path)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), source.state_dict().values(), strict=True))
    cell = {"cell_4__conv_1x1__conv__weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"cell_4\.conv_1x1\.conv\.weight is not of this network"):
        load_weights(net, filed(source, tmp_path / "large.safetensors", **cell))
    with pytest.raises(InputError, match=r"cannot build nasnetamobile with \{'depth': 3\}"):
        build_teacher("NASNetMobile", 2, 1, 64, depth=3)


def test_a_subnet_of_once_for_all_loads_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = subnet(seed=1), subnet(seed=2)
    # The official subnets' files call a block's convolution `mobile_inverted_conv`.
    official = {name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name: value
                for name, value in source.state_dict().items()}  # fmt: skip
    assert official.keys() != source.state_dict().keys()
    torch.save({"state_dict": official}, tmp_path / "official.pth")
    load_weights(target, tmp_path / "official.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(target.state_dict().values(), source.state_dict().values(), strict=True)
    )
    # The package's own load_state_dict keeps what it has where a tensor is missing.
    missing = {name: value for name, value in source.state_dict().items() if name != "final_expand_layer.conv.weight"}
    subnet().load_state_dict(missing)
    with pytest.raises(InputError, match=r"final_expand_layer\.conv\.weight is missing"):
        load_exactly(subnet(), missing, "a checkpoint")


def test_a_name_that_promises_weights_is_refused() -> None:
    for name, plain in {
        "densenet121.ra_in1k": "densenet121",
        "vit_base_patch16_224.augreg_in21k": "vit_base_patch16_224",
        "vit_base_patch16_224_in21k": "vit_base_patch16_224",  # timm's alias of a tagged name
    }.items():
        with pytest.raises(InputError, match=f"{name!r} names pretrained weights.* write {plain!r}.*`weights`"):
            timm_name(name)
    with pytest.raises(InputError, match="did you mean DenseNet121"):
        timm_name("DenseNet121.ra_in1k")


@pytest.mark.parametrize("option", ["pretrained", "pretrained_cfg", "checkpoint_path", "in_chans"])
def test_options_that_would_pass_the_checks_by_are_refused(option: str) -> None:
    for name in ("mobilenetv3_small_050", "NASNetMobile"):
        with pytest.raises(InputError, match=f"{name}: {option} is no option"):
            build_teacher(name, 2, 1, **{option: 1})
