"""Build a network by its paper's or its timm name, for any class count, channels and image size: `build_teacher`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.accelerator import drawing
from tutelage.plugins import Registry
from tutelage.records import InputError

from .nasnet import build_nasnet_mobile
from .resnet_cifar import cifar_resnet
from .stem import set_stem_stride, stem_stride_of, takes_image_size
from .weights import first_conv_name, load_weights

# Fewer patches per row or column leave attention too few tokens: at 64 px a patch of 16 gives 4 x 4 tokens.
_MIN_PATCHES = 7
# Below this a CNN made for 224 px (five halvings) ends on less than 2 x 2 cells: its stem keeps stride 1.
_SMALL_IMAGE = 48
# What timm would take among the options, past everything that checks weights, classes and channels.
_WEIGHTS = "give pretrained weights as `weights`"
_NOT_OPTIONS = {
    "pretrained": _WEIGHTS,
    "pretrained_cfg": _WEIGHTS,
    "pretrained_cfg_overlay": _WEIGHTS,
    "checkpoint_path": _WEIGHTS,
    "cache_dir": _WEIGHTS,
    "in_chans": "`data.channels` says how many channels there are",
}
# Networks made for 224 px manage half of that; smaller sizes are tried once.
_CHECKED_BELOW = 112


@dataclass(frozen=True)
class Teacher:
    """A network as its paper calls it: one of timm's, or what `build` makes."""

    name: str  # in recipes, as the paper writes it
    timm_name: str = ""  # finds it too; empty: timm lacks it
    params: int | None = None  # at 1,000 classes
    macs: float | None = None  # of convolutions, linear layers and attention, for one image of `resolution`
    resolution: int = 224  # height and width in pixels that it was published for
    # Called as build(num_classes=, in_chans=, **options) with the recipe's options; None: timm builds it.
    build: Callable[..., nn.Module] | None = None

    def __post_init__(self) -> None:
        if not self.timm_name and self.build is None:
            raise ValueError(f"teacher {self.name}: give timm's name or a function that builds it")

    @property
    def library_name(self) -> str:
        """Give the name that `build_teacher` builds it by."""
        return self.timm_name or self.name


# Parameters are exact (timm 1.0.31); MACs are torch's FlopCounterMode / 2 at the native resolution, checked in the
# tests. Counters that add batch norm and pooling read 1-3 % more (NASNetMobile 573 M instead of the paper's 564 M).
_TEACHERS = (  # name, timm's name, params, macs, resolution
    Teacher("DenseNet121", "densenet121", 7_978_856, 2.834e9),
    Teacher("DenseNet161", "densenet161", 28_681_000, 7.728e9),
    Teacher("DenseNet201", "densenet201", 20_013_928, 4.291e9),
    Teacher("ResNet50", "resnet50", 25_557_032, 4.089e9),
    Teacher("EfficientNet-B3", "efficientnet_b3", 12_233_232, 1.589e9, 288),
    Teacher("VGG16", "vgg16", 138_357_544, 15.470e9),
    Teacher("VGG19", "vgg19", 143_667_240, 19.632e9),
    Teacher("Xception", "legacy_xception", 22_855_952, 8.357e9, 299),
    Teacher("NASNetMobile", "nasnetamobile", 5_289_978, 0.564e9, build=build_nasnet_mobile),
    Teacher("MobileNetV2", "mobilenetv2_100", 3_504_872, 0.301e9),
    Teacher("Visformer-S", "visformer_small", 40_219_592, 4.879e9),
    Teacher("AutoFormerV2-T", "swin_s3_tiny_224", 28_328_674, 4.623e9),
    Teacher("AutoFormerV2-S", "swin_s3_small_224", 49_737_298, 9.405e9),
    Teacher("AutoFormerV2-B", "swin_s3_base_224", 71_125_762, 13.655e9),
    Teacher("ViT-Ti", "vit_tiny_patch16_224", 5_717_416, 1.254e9),
    Teacher("ViT-S", "vit_small_patch16_224", 22_050_664, 4.599e9),
    Teacher("DeiT-Ti", "deit_tiny_patch16_224", 5_717_416, 1.254e9),
    Teacher("DeiT-S", "deit_small_patch16_224", 22_050_664, 4.599e9),
    Teacher("Swin-T", "swin_tiny_patch4_window7_224", 28_288_354, 4.491e9),
    Teacher("ResNet-20", params=334_072, macs=0.0406e9, resolution=32, build=cifar_resnet(20)),
    Teacher("ResNet-56", params=917_368, macs=0.1255e9, resolution=32, build=cifar_resnet(56)),
)
TEACHERS = Registry("teachers", "teacher", Teacher, _TEACHERS)


def timm_name(name: str) -> str:
    """Translate a paper's name to timm's; a timm name passes through, an unknown one is refused with the nearest.

    A tag (`densenet121.ra_in1k`) names pretrained weights, as some of timm's older names do (`..._in21k`): a name says
    which network, so such a name is refused, since it would stand for random weights.
    """
    import timm

    plain = _without_weights(name)
    if plain != name:
        raise InputError(
            f"{name!r} names pretrained weights: write {plain!r} as the name, and the tag as `weights` (imagenet: the "
            "network's default tag)"
        )
    if TEACHERS.declared(name):
        return TEACHERS.find(name).library_name
    papers = {key.lower().replace("-", ""): teacher.library_name for key, teacher in TEACHERS.items()}
    found = papers.get(name.lower().replace("-", ""), name)
    if _builder(found) is not None or timm.is_model(found):
        return found
    near = difflib.get_close_matches(name, [*TEACHERS, *timm.list_models()], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"unknown teacher {name!r}: give a paper's name ({', '.join(TEACHERS)}) or a timm name{hint}")


def _builder(library_name: str) -> Callable[..., nn.Module] | None:
    """Give the function that builds a network which timm lacks."""
    return next((one.build for one in TEACHERS.values() if one.build and one.library_name == library_name), None)


def _without_weights(name: str) -> str:
    """Give the architecture's name of a timm name that promises weights: by its tag, or as timm's alias of a tag."""
    import timm
    from timm.models import get_deprecated_models

    base, dot, _ = (get_deprecated_models().get(name) or name).partition(".")
    return base if dot and timm.is_model(base) else name


def build_teacher(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    resolution: int | None = None,
    weights: Path | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Build a network by its paper's or its timm name, from a seed or from a weights file; nothing is downloaded.

    `resolution` adapts it to small images unless `options` say otherwise: a ViT gets `img_size` and the largest
    `patch_size` that leaves 7 x 7 patches, a CNN below 48 px gets a stem of stride 1 (`stem_stride=2` keeps it).
    `stem_stride=1` removes the max-pool of a ResNet's stem, too. Other `options` go to timm as they are
    (`drop_rate=.1`, `depth=6`, `embed_dim=192`, ...), but for those that this function decides or that would load
    weights unchecked.
    """
    found = timm_name(name)
    for option, remedy in _NOT_OPTIONS.items():
        if option in options:
            raise InputError(f"{name}: {option} is no option of a network here: {remedy}")
    stem_stride = options.pop("stem_stride", None)
    with drawing(seed):
        net: nn.Module = _build(found, num_classes, in_channels, resolution, options)
    if stem_stride is not None:
        set_stem_stride(net, stem_stride, name)
    elif resolution is not None and resolution < _SMALL_IMAGE and not takes_image_size(net):
        first: Any = net.get_submodule(first_conv_name(net))
        first.stride = (1, 1)
    if _builder(found) is None and _draws_wide_heads(net):
        _narrow_head(net)
    if resolution is not None and resolution < _CHECKED_BELOW:
        _check_size(net, found, in_channels, resolution)
    if weights is not None:
        load_weights(net, weights)
    return net


@lru_cache(maxsize=64)
def native_stem_stride(name: str) -> int | None:
    """Give the stride of a network's first convolution as timm has it; None where it divides its image into patches."""
    found = timm_name(name)
    return stem_stride_of(_build(found, 2, 1, None, {}) if _builder(found) is not None else _outlined(found))


@lru_cache(maxsize=64)
def head_version(name: str) -> int:
    """Give the version of the code that draws a fresh classifier of a network; 2 where `_narrow_head` scales it."""
    found = timm_name(name)
    return 2 if _builder(found) is None and _draws_wide_heads(_outlined(found)) else 1


def _outlined(timm_name: str) -> nn.Module:
    """Build a network of timm without memory for its tensors."""
    with torch.device("meta"):
        net: nn.Module = _build(timm_name, 2, 1, None, {})
    return net


def _draws_wide_heads(net: nn.Module) -> bool:
    """Tell the families that timm initialises as TensorFlow's EfficientNet was, for a thousand classes."""
    return type(net).__module__.removeprefix("timm.models.") in ("efficientnet", "mobilenetv3", "mobilenetv5")


@torch.no_grad()
def _narrow_head(net: nn.Module) -> None:
    """Scale a fresh linear classifier from U(+-1 / sqrt(classes)) to torch's own U(+-1 / sqrt(inputs)).

    With few classes the former gives logits of tens: the loss begins at several times ln(classes), and much of a short
    training goes into taking them back.
    """
    head = net.get_classifier()  # type: ignore[operator]
    if isinstance(head, nn.Linear) and head.out_features < head.in_features:
        head.weight.mul_((head.out_features / head.in_features) ** 0.5)


@torch.no_grad()
def _check_size(net: nn.Module, name: str, in_channels: int, resolution: int) -> None:
    """Show it one empty image: networks made for 224 px may shrink a small one to nothing."""
    try:
        net.eval()(torch.zeros(1, in_channels, resolution, resolution))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} cannot see images of {resolution} px ({reason}): give it 32 px or more") from error
    finally:
        net.train()


def _build(name: str, num_classes: int, in_channels: int, resolution: int | None, options: dict[str, Any]) -> Any:
    import timm

    build = _builder(name)
    if build is None and resolution is not None and "img_size" not in options:
        with torch.device("meta"):
            shape = timm.create_model(name, pretrained=False)
        if takes_image_size(shape):
            options = {"img_size": resolution, **options}
            if "vision_transformer" in type(shape).__module__ and "patch_size" not in options:
                options["patch_size"] = small_patch(resolution, shape.patch_embed.patch_size[0])
    try:
        if build is not None:
            return build(num_classes=num_classes, in_chans=in_channels, **options)
        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        who = "timm cannot" if build is None else "cannot"
        raise InputError(f"{who} build {name} with {options}: {error}; change the teacher's options") from error


def small_patch(resolution: int, native: int = 16) -> int:
    """Give the largest patch size that divides the image and leaves 7 x 7 patches: 28 -> 4, 64 -> 8, 224 -> 16."""
    fits = [side for side in range(1, native + 1) if resolution % side == 0 and resolution // side >= _MIN_PATCHES]
    return max(fits, default=1)
