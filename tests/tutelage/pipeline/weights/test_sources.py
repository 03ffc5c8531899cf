"""The notation of weights: each source finds its file, loads it as its own library does, and refuses other networks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save
from torch import nn

from tests.served import Served
from tutelage.distill.teachers.shells import pickled_tensors
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.pipeline.preflight import open_checked
from tutelage.pipeline.recipe import Recipe, load_recipe, with_changes
from tutelage.pipeline.stages.train import _loaded
from tutelage.pipeline.stages.training import PretrainedInput
from tutelage.pipeline.weights.entry import Wanted
from tutelage.pipeline.weights.given import check_available, find_weights, given_weights
from tutelage.pipeline.weights.locations import HubFile, WebFile
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import FaultsError, InputError, NotAvailableError, Student
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.supernet import build_supernet, extract

NET = "test_resnet"
TAG = f"{NET}.r160_in1k"
WANTED = Wanted(NET, 3, NET)


def outputs(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.eval()(images)
    return found


@pytest.mark.parametrize("text", ["imagenet", f"timm:{TAG}", f"hf-hub:timm/{TAG}@main"])
def test_a_network_from_the_hub_is_the_one_that_timm_loads(
    text: str, hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    hub.files[f"timm/{TAG}", "model.safetensors"] = save(timm.create_model(NET).state_dict())
    settings = {
        "architecture": NET,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 160, 160]},
    }
    hub.files[f"timm/{TAG}", "config.json"] = json.dumps(settings).encode()
    given = given_weights(text, WANTED, 160)
    assert given.normalisation is not None
    assert given.normalisation.values == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    net = build_teacher(NET, 1000, 3, weights=given.path)
    # timm's own loader, by the same client; the client reads its environment when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    reference = timm.create_model(TAG, pretrained=True, cache_dir=hub_folder())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(outputs(net, images), outputs(reference, images))


def hub_folder() -> str:
    return os.environ["HF_HUB_CACHE"]


def test_a_gray_network_has_the_summed_stem_and_the_mean_of_the_three_channels(hub: Served) -> None:
    source = timm.create_model(NET)
    hub.files[f"timm/{TAG}", "model.safetensors"] = save(source.state_dict())
    given = given_weights("imagenet", Wanted(NET, 1, NET), 160)
    assert given.normalisation is not None
    assert given.normalisation.values == ((0.5,), (0.5,))
    pixels = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    gray = outputs(build_teacher(NET, 1000, 1, weights=given.path), (pixels - 0.5) / 0.5)
    colour = outputs(source, (pixels.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    torch.testing.assert_close(gray, colour, rtol=1e-4, atol=1e-4)


def test_the_network_that_a_package_ships_computes_what_the_packages_own_code_computes() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    wanted = Wanted("tf_efficientnet_lite0", 3, "tf_efficientnet_lite0")
    given = given_weights("package:efficientnet-lite0", wanted, 224)
    net = build_teacher("tf_efficientnet_lite0", 1000, 3, weights=given.path)
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(given.path))
    assert given.normalisation is not None
    mean, std = (torch.tensor(values)[:, None, None] for values in given.normalisation.values)
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ours, expected = outputs(net, (pixels - mean) / std), outputs(theirs, (pixels * 255 - 127) / 128)
    assert expected.abs().max() > 1
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def _make(folder: str) -> None:
    Path(folder).mkdir()


class _Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path, made_by: Any = _make) -> None:
        self.folder, self.made_by = folder, made_by

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made_by, (str(self.folder),)


@pytest.mark.parametrize("old_format", [True, False])
def test_what_a_pickled_network_names_is_never_run(old_format: bool, tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    net.trap = _Trap(tmp_path / "ran")
    torch.save(net, tmp_path / "net.pt", _use_new_zipfile_serialization=not old_format)
    assert pickled_tensors(tmp_path / "net.pt").keys() == {"weight", "bias"}
    for made_by, message in ((_make, "holds no network"), (os.mkdir, "not a readable weights file")):
        trap = _Trap(tmp_path / "ran", made_by)
        torch.save(trap, tmp_path / "bad.pt", _use_new_zipfile_serialization=not old_format)
        with pytest.raises(InputError, match=message):
            pickled_tensors(tmp_path / "bad.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "net.pt").read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable weights file"):
        pickled_tensors(tmp_path / "cut.pt")
    assert not (tmp_path / "ran").exists()


def test_once_for_alls_files_have_several_addresses_and_official_names() -> None:
    def addresses(text: str, wanted: Wanted) -> tuple[str, list[str], str]:
        found = find_weights(text, wanted)
        assert isinstance(found.location, WebFile)
        return found.location.name, list(found.location.urls), found.supernet

    name = "ofa_mbv3_d234_e346_k357_w1.0"
    supernet, c2 = Wanted("s", 3, space="ofa_mbv3_w1.0"), Wanted("EEEA-Net-C2", 3, arch=PRESETS["EEEA-Net-C2"])
    file, urls, of_space = addresses(f"ofa:{name}", supernet)
    assert (file, of_space) == (f"{name}.pth", "")
    assert all(url.endswith(f"/ofa_nets/{name}") for url in urls)
    assert len({url.split("/")[2] for url in urls}) == 3
    assert addresses("imagenet", supernet) == (file, urls, "")
    assert addresses("imagenet", Wanted("s", 3, space="ofa_mbv3_w1.0_stem1"))[0] == file
    assert addresses("imagenet", c2) == (file, urls, "ofa_mbv3_w1.0")  # a subnet that is extracted from it
    best = Wanted("OFA-595", 3, arch=PRESETS["OFA-595"].replace(r=64))
    assert addresses("imagenet", best) == addresses("ofa:flops@595M_top1@80.0_finetune@75", best)
    assert "ofa_specialized/flops-595M_top1-80.0_finetune-75/init" in addresses("imagenet", best)[1][0]
    assert "ofa_specialized/flops@595M_top1@80.0_finetune@75/init" in addresses("imagenet", best)[1][1]


def test_a_student_is_extracted_from_once_for_alls_supernet(hub: Served, tmp_path: Path) -> None:
    """The file is of 1,000 classes and RGB; the student has two, of gray images."""
    name, arch = "ofa_mbv3_d234_e346_k357_w1.0", PRESETS["EEEA-Net-C1"].replace(r=32)
    supernet = build_supernet("ofa_mbv3_w1.0", 1000, 3, seed=5)
    torch.save({"state_dict": supernet.state_dict()}, tmp_path / name)
    hub.plain[f"/mirror/{name}.pth"] = (tmp_path / name).read_bytes()
    student, wanted = Student(model="C1", role="student", arch=arch), Wanted("C1", 1, arch=arch)
    given = given_weights("imagenet", wanted, 32)
    start = PretrainedInput(sha256=given.sha256, path=str(given.path), supernet=bool(given.supernet))
    here: Any = SimpleNamespace(workspace=Workspace(tmp_path / "w"), num_classes=2, channels=1)
    net = _loaded(here, student, start, seed=0, fresh_head=True)
    expected = extract(supernet, arch).state_dict()
    for key, value in net.state_dict().items():
        if key == "first_conv.conv.weight":
            assert torch.equal(value, expected[key].sum(1, keepdim=True))
        elif not key.startswith("classifier."):
            assert torch.equal(value, expected[key]), key
    assert net.state_dict()["classifier.linear.weight"].shape[0] == 2
    with pytest.raises(InputError, match="holds a supernet, and with epochs: 0 its subnet would not be trained"):
        _loaded(here, student, start, seed=0, fresh_head=False)


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("imagenets", WANTED, r"no file and no source of weights 'imagenets': give a file, a tag of timm, or one of"),
        ("weights.pth", WANTED, "'weights.pth' is not there"),
        ("resnet50.a1_in1k", WANTED, "weights resnet50.a1_in1k are of resnet50, test_resnet is another network"),
        ("test_resnet.a9_in1k", WANTED, "timm has no weights test_resnet.a9_in1k: give test_resnet.r160_in1k"),
        ("imagenet", Wanted("NASNetMobile", 3, "nasnetamobile"), "no weights of NASNetMobile are published in timm"),
        ("imagenet", Wanted("s", 3, space="ofa_resnet50"), r"no weights of s \(ofa_resnet50\) are published"),
        ("hf-hub:resnet50", WANTED, "names no repository: write hf-hub:owner/name"),
        ("ofa:ofa_mbv3", Wanted("s", 3, space="ofa_mbv3_w1.0"), "Once for All has no 'ofa_mbv3': give ofa_mbv3_d234"),
        (
            "ofa:ofa_mbv3_d234_e346_k357_w1.2",
            Wanted("s", 3, space="ofa_mbv3_w1.0"),
            "are of the space ofa_mbv3_w1.2, s is another network",
        ),
        ("ofa:ofa_mbv3_d234_e346_k357_w1.2", WANTED, "are of the space ofa_mbv3_w1.2, test_resnet is another"),
        (
            "ofa:flops@595M_top1@80.0_finetune@75",
            Wanted("s", 3, space="ofa_mbv3_w1.2"),
            "are of a subnet, s is another",
        ),
        ("xrv:densenet", Wanted("D", 1, "densenet121"), "torchxrayvision has no 'densenet': give densenet121-res224"),
        ("xrv:densenet121-res224-all", Wanted("R", 1, "resnet50"), "are of densenet121, R is another network"),
        ("xrv:densenet121-res224-all", Wanted("D", 3, "densenet121"), "for gray images: set data.channels=1"),
        ("imagenet:resnet18", WANTED, "write imagenet alone, or timm:resnet18 for a tag of timm"),
        ("package:lite9", WANTED, "no package with weights 'lite9' is known: give efficientnet-lite0"),
        ("package:efficientnet-lite0", WANTED, "are of tf_efficientnet_lite0, test_resnet is another network"),
    ],
)
def test_names_that_do_not_fit_are_refused_in_one_line(text: str, wanted: Wanted, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        given_weights(text, wanted, 64)
    assert "\n" not in str(error.value)


def test_a_repository_of_another_network_is_refused_and_one_without_a_description_is_taken(hub: Served) -> None:
    hub.files["me/net", "model.safetensors"] = save(timm.create_model(NET).state_dict())
    assert given_weights("hf-hub:me/net", WANTED, 64).normalisation is None
    hub.files["me/other", "config.json"] = json.dumps({"architecture": "resnet18"}).encode()
    with pytest.raises(InputError, match="weights hf-hub:me/other are of resnet18, test_resnet is another network"):
        given_weights("hf-hub:me/other", WANTED, 64)


def test_weights_are_not_taken_without_their_description_where_that_cannot_be_had(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["me/net", "model.safetensors"] = save(timm.create_model(NET).state_dict())
    HubFile("me/net", ("model.safetensors",)).fetch(silent)  # a user who copied the weights alone
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotAvailableError, match=r"hf download me/net config\.json model\.safetensors"):
        given_weights("hf-hub:me/net", WANTED, 64)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert given_weights("hf-hub:me/net", WANTED, 64).normalisation is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert given_weights("hf-hub:me/net", WANTED, 64).normalisation is None  # known to have none
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for text in (b"{", b"[]"):
        hub.files[f"me/{len(text)}", "config.json"] = text
        with pytest.raises(InputError, match=r"config\.json (is no JSON|describes no network)"):
            given_weights(f"hf-hub:me/{len(text)}", WANTED, 64)


def test_what_weights_were_trained_on_otherwise_is_noted(hub: Served) -> None:
    hub.files[f"timm/{TAG}", "model.safetensors"] = save(timm.create_model(NET).state_dict())
    assert given_weights("imagenet", WANTED, 64).note == (
        "weights imagenet: images of 160 px, here 64; evaluated on the middle 95%, here on the whole image"
    )


def test_all_weights_of_a_recipe_are_fetched_before_anything_is_trained_or_each_is_a_fault(
    hub: Served, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {"dataset": "phantom", "size": 48, "limit": 160, "channels": 3},
            "teachers": [{"name": NET, "weights": "imagenet"}],
            "students": [{"name": NET, "weights": "hf-hub:me/net", "freeze": 2, "title": "small"}],
            "baselines": ["resnet10t", {"name": NET, "weights": "/nowhere.pth"}],
            "devices": [{"name": "here"}],
            "distill": {"batch_size": 16},
        }
    )
    with pytest.raises(FaultsError) as error:
        open_checked(recipe, Workspace(tmp_path / "w"), silent, 1, "run")
    lines = error.value.lines
    assert [next(word for word in (TAG, "me/net", "nowhere.pth") if word in line) for line in lines] == [
        TAG, "me/net", "nowhere.pth",
    ]  # fmt: skip
    hub.files[f"timm/{TAG}", "model.safetensors"] = save(timm.create_model(NET).state_dict())
    hub.files["me/net", "model.safetensors"] = hub.files[f"timm/{TAG}", "model.safetensors"]
    check_available("hf-hub:me/net", WANTED)
    assert not hub.sent("me/net/resolve/main/model.safetensors")
    there = with_changes(recipe, ["baselines=[resnet10t]"])
    open_checked(there, Workspace(tmp_path / "w"), silent, 1, "run")
    assert len(hub.sent("me/net/resolve/main/model.safetensors")) == 1
    with pytest.raises(InputError, match=r"freeze: 9 leaves no stage of ResNet to train .*: it has 5"):
        open_checked(with_changes(there, ["students.0.freeze=9"]), Workspace(tmp_path / "w"), silent, 1, "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("teachers.0={name: resnet10t, freeze: true}", "freeze: True is for pretrained weights: give `weights`"),
        ("students=[{name: resnet10t, layer_decay: 0.7}]", "layer_decay: 0.7 is for pretrained weights"),
        ("teachers.0={name: resnet10t, weights: imagenet, epochs: 0, freeze: 2}", "has no effect with epochs: 0"),
        ("teachers.0={name: resnet10t, weights: imagenet, layer_decay: 1}", "layer_decay"),
        ("teachers.0.weights=''", "write what to start from"),
    ],
)
def test_what_is_for_pretrained_weights_is_refused_without_them(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("demo", [change])
