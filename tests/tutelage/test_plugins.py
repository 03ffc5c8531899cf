"""Registries with plug-ins: what other distributions add, and what is said of those that cannot be used."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage import plugins
from tutelage.distill.data.dataset import DatasetEntry
from tutelage.distill.data.loader import LoadedBatch, Loader, images_id
from tutelage.distill.data.registry import load_dataset, phantom
from tutelage.distill.losses.entry import Loss
from tutelage.distill.losses.methods import check_distillation
from tutelage.distill.training.mixing import Mix
from tutelage.distill.training.schedule import KDConfig
from tutelage.distill.training.soft_term import SoftTerm
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages.quantization import scheme_for
from tutelage.plugins import Origin, PluginError, Registry
from tutelage.quant.int8.schemes.clipping import minmax
from tutelage.quant.int8.schemes.entry import Histogram, Scheme
from tutelage.quant.int8.schemes.registry import automatic, find_ranges
from tutelage.records import InputError

from .command import tutelage
from .installed import Install, installer


@dataclass(frozen=True)
class Colour:
    name: str
    hue: float = 0.0


def colours() -> Registry[Colour]:
    return Registry("losses", "colour", Colour, [Colour("red"), Colour("blue", 240.0)])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    yield from installer(tmp_path, monkeypatch)


GREEN = f"from {__name__} import Colour\ngreen = Colour('green', 120.0)\n"


def test_what_a_distribution_adds_is_loaded_with_its_name_and_version(installed: Install) -> None:
    installed("paints", "1.2", {"losses": {"green": "paints:green"}}, {"paints": GREEN})
    registry = colours()
    assert list(registry) == ["red", "blue", "green"]
    assert registry.find("green").hue == 120.0
    assert registry.added() == {"green": Origin("paints", "1.2", "losses", "green", "paints:green")}
    assert registry.origin("red") is None
    assert str(plugins.origin("losses", "green")) == "paints 1.2"
    assert not registry.broken()
    assert plugins.origins("columns") == {}


def test_a_module_is_imported_when_its_entry_is_needed_and_once(installed: Install, tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')\n"
    installed("paints", "1.2", {"losses": {"green": "lazy_paints:green"}}, {"lazy_paints": count + GREEN})
    registry = colours()
    assert registry.find("blue").hue == 240.0
    assert registry["red"].hue == 0.0
    assert "lazy_paints" not in sys.modules
    for _ in range(2):
        assert list(registry)[-1] == "green"
        assert registry.find("green") is registry["green"]
    assert (tmp_path / "count").read_text() == "x"


BROKEN = {
    "an error while it is imported": ("raise RuntimeError('no\\nlicence')", "RuntimeError: no licence"),
    "an exit while it is imported": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "a missing module": ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
    "no such attribute": ("x = 1", "AttributeError"),
    "another type": ("green = {'hue': 120}", "a colour must be a Colour, not a dict"),
    "a class": (f"from {__name__} import Colour as green", "a colour must be a Colour, not Colour"),
    "another name": (f"from {__name__} import Colour\ngreen = Colour('lime')", "its name is 'lime'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_one_line_when_it_is_asked_for_and_harms_nobody_else(installed: Install, kind: str) -> None:
    text, reason = BROKEN[kind]
    module = f"broken_paints_{list(BROKEN).index(kind)}"
    installed("badpaints", "0.1", {"losses": {"green": f"{module}:green"}}, {module: text})
    registry = colours()
    assert list(registry) == ["red", "blue"]
    assert registry.find("red").name == "red"
    assert "green" not in registry
    assert not registry.added()
    with pytest.raises(InputError, match="badpaints") as refused:
        registry.find("green")
    assert f"green = {module}:green of tutelage.losses" in str(refused.value)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(PluginError):
        registry["green"]
    assert [str(error) for error in registry.broken()] == [str(refused.value)]


def test_a_name_that_is_built_in_is_refused_where_a_user_gives_it(installed: Install) -> None:
    text = f"from {__name__} import Colour\nred = Colour('red', 5.0)\n"
    installed("paints", "1.2", {"losses": {"red": "other_reds:red"}}, {"other_reds": text})
    registry = colours()
    assert [entry.hue for entry in registry.values()] == [0.0, 240.0]
    with pytest.raises(InputError, match=r"paints 1\.2.*colour 'red' is built into tutelage too"):
        registry.find("red")
    assert len(registry.broken()) == 1
    assert not registry.added()
    assert registry.find("blue").hue == 240.0


def test_two_distributions_with_one_name_are_both_named(installed: Install) -> None:
    installed("paints", "1.2", {"losses": {"green": "paints_a:green"}}, {"paints_a": GREEN})
    installed("dyes", "3.0", {"losses": {"green": "paints_b:green"}}, {"paints_b": GREEN})
    registry = colours()
    assert "green" not in registry
    with pytest.raises(InputError, match="uninstall one of them") as refused:
        registry.find("green")
    assert "paints 1.2" in str(refused.value)
    assert "dyes 3.0" in str(refused.value)
    assert len(registry.broken()) == 1


def test_an_unknown_name_is_one_line_with_what_is_near_plugins_included(installed: Install) -> None:
    installed("paints", "1.2", {"losses": {"green": "near_paints:green"}}, {"near_paints": GREEN})
    with pytest.raises(InputError, match="unknown colour 'greem': did you mean 'green'"):
        colours().find("greem")
    with pytest.raises(InputError, match="known are red, blue, green"):
        colours().find("xyz")
    with pytest.raises(InputError, match="no plug-in group 'colours'"):
        plugins.origins("colours")
    with pytest.raises(KeyError):
        colours()["xyz"]


FROST = """
from tutelage.distill.data.augmentations import Augmentation

def brighten(images, draws):
    return images + draws[:, :1, None, None]

frost = Augmentation("frost", "white noise of winter", change=brighten)
"""


def test_doctor_lists_plugins_and_warns_of_broken_ones(installed: Install) -> None:
    points = {"columns": {"broken": "no_such_module_here:x"}, "augmentations": {"frost": "winter:frost"}}
    installed("paints", "1.2", points, {"winter": FROST})
    done = tutelage("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["plug-in columns broken"].startswith("warning: plug-in paints 1.2: entry point broken")
    assert "No module named" in facts["plug-in columns broken"]
    assert facts["plug-in augmentations frost"] == "paints 1.2"


def test_an_augmentation_of_a_plugin_changes_images_one_by_one_and_names_the_cache(installed: Install) -> None:
    data = phantom(24, 16)
    before = images_id(data, "light")
    installed("paints", "1.2", {"augmentations": {"frost": "frost_a:frost"}}, {"frost_a": FROST})
    together = Loader(data, "train", 8, augment="frost").batch(np.arange(8), 3)
    alone = Loader(data, "train", 1, augment="frost").batch(np.array([5]), 3)
    assert torch.equal(together.images[5:6], alone.images)
    assert not torch.equal(together.images, Loader(data, "train", 8).batch(np.arange(8), 3).images)
    first = images_id(data, "frost")
    assert first != images_id(data, "none")
    assert images_id(data, "light") == before
    shutil.rmtree(Path(sys.modules["frost_a"].__file__ or "").parent / "paints-1.2.dist-info")
    installed("paints", "1.3", {"augmentations": {"frost": "frost_a:frost"}}, {})
    assert images_id(data, "frost") != first  # another version may change images in another way


SHAPES = """
import numpy as np
from tutelage.distill.data.dataset import Dataset, DatasetEntry
from tutelage.distill.data.splits import make_splits

def load(request):
    n = request.option("num", 30)
    labels = np.arange(n) % 2
    names = np.array([f"p{i}" for i in range(n)])
    images = np.repeat(labels, request.size**2).reshape(n, request.size, request.size, 1).astype(np.uint8) * 200
    return Dataset("shapes", images, labels, ("a", "b"), names, make_splits(labels, names, np.full(n, ""), request),
                   names=names)

shapes = DatasetEntry("shapes", "Two plain shapes.", load_arrays=load, options={"num": "how many"}, path="unused")
"""


def test_a_data_set_of_a_plugin_is_listed_checked_and_read_by_a_recipe(installed: Install) -> None:
    installed("shaped", "0.3", {"datasets": {"shapes": "shaped:shapes"}}, {"shaped": SHAPES})
    listed = json.loads(tutelage("data", "list", "--json").stdout)
    assert listed["shapes"] == {
        "help": "Two plain shapes.", "path": "unused", "options": {"num": "how many"}, "plugin": "shaped 0.3",
    }  # fmt: skip
    assert listed["phantom"]["plugin"] is None
    assert "(from shaped 0.3)" in tutelage("data", "list").stdout
    recipe = load_recipe("demo", ["data.dataset=shapes", "data.limit=null", "data.options.num=12"])
    assert recipe.data.options == {"num": 12}
    assert len(load_dataset("shapes", size=8, options={"num": 12}).images) == 12
    for change, message in (
        ("data.options.nm=3", "data set shapes has no option 'nm'; it takes num"),
        ("data.path=x", "data set shapes is drawn, not read"),
        ("data.dataset=shaps", "unknown data set 'shaps': did you mean 'shapes'"),
        ("data.augment=lite", "unknown augmentation 'lite': did you mean 'light'"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            load_recipe("demo", ["data.dataset=shapes", "data.limit=null", change])
        assert "\n" not in str(refused.value)


CLOSER = """
from tutelage.distill.losses.entry import Loss

def compare(student, teacher, labels, numbers):
    return numbers["far"] * (student - teacher).abs().mean()

closer = Loss("closer", "ours", embeddings=compare, project=True, numbers={"far": 2.0})
"""


def test_a_loss_of_a_plugin_distils_and_is_checked_as_others_are(installed: Install) -> None:
    installed("closer", "0.1", {"losses": {"closer": "closer_loss:closer"}}, {"closer_loss": CLOSER})
    with pytest.raises(
        InputError, match="unknown distillation option 'near': method 'closer' reads far, logits_weight"
    ):
        check_distillation(KDConfig(method="closer", options={"near": 1.0}), 3, False)

    def network(width: int) -> nn.Module:
        torch.manual_seed(width)
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))

    student, teacher, images = network(4), network(6), torch.rand(5, 1, 8, 8)
    kd = KDConfig(method="closer", options={"far": 3.0})
    term = SoftTerm([teacher], kd, student, images[:1], images[:1], False, 3)
    (projector,) = term.projectors[0]
    logits = student(images)
    soft = term.soft(
        logits, LoadedBatch(images, torch.zeros(5).long(), torch.arange(5), torch.zeros(5), 5), Mix(), images
    )
    expected = 3 * (projector(student[:3](images)) - teacher[:3](images)).abs().mean()
    assert torch.allclose(soft, expected)
    term.close()


HALVES = """
from tutelage.quant.int8.schemes.entry import Scheme

halves = Scheme("halves", "half of the extremes", (".onnx",), ranges=lambda held: (held.low / 2, held.high / 2))
"""


def test_a_scheme_of_a_plugin_gives_its_ranges_and_stands_in_the_help(installed: Install) -> None:
    installed("halved", "0.2", {"schemes": {"halves": "halved:halves"}}, {"halved": HALVES})
    assert find_ranges("halves")(Histogram(-2.0, 6.0, np.ones(4, np.int64))) == (-1.0, 3.0)
    assert automatic() == ("minmax", "percentile", "entropy")  # it does not ask to be tried
    assert load_recipe("demo", ["quantize.method=halves"]).quantize.method == "halves"
    with pytest.raises(InputError, match="unknown int8 method 'halvs': did you mean 'halves'"):
        load_recipe("demo", ["quantize.method=halvs"])
    with pytest.raises(InputError, match=r"halves makes \.onnx files, openvino loads \.xml: give auto or minmax"):
        scheme_for("halves", "openvino", ".xml")
    assert scheme_for("auto", "openvino", ".xml") is None
    for verb, name in (
        ("quantize", "halves (from halved 0.2)"),
        ("search", "phantom"),
        ("distill", "category_relation"),
    ):
        done = tutelage(verb, "--help")
        text = re.sub(r"[^a-z0-9_().]+", " ", done.stdout)
        assert done.returncode == 0
        assert name in text, text
        assert not re.search(r"\{(schemes|datasets|losses)", done.stdout)


def test_entries_that_say_nothing_or_too_much_are_refused() -> None:
    for wrong in ({}, {"ranges": minmax, "quantize": lambda a, b, c: None}):
        with pytest.raises(ValueError, match="either ranges or quantize"):
            Scheme("empty", "nothing", (".onnx",), **wrong)
    with pytest.raises(ValueError, match=r"ranges go into \.onnx files alone"):
        Scheme("wide", "nothing", (".onnx", ".xml"), ranges=minmax)
    with pytest.raises(ValueError, match="only ranges can be automatic"):
        Scheme("own", "nothing", (".onnx",), quantize=lambda a, b, c: None, automatic=True)
    with pytest.raises(ValueError, match="either list_files or load_arrays"):
        DatasetEntry("empty", "nothing")
    with pytest.raises(ValueError, match="one of soft, embeddings and maps"):
        Loss("empty", "ours")
    with pytest.raises(ValueError, match="one of soft, embeddings and maps"):
        Loss("both", "ours", lambda s, t, y, T, n: s.sum(), maps=lambda s, t, n: s.sum())


def test_importing_the_package_looks_for_no_plugins() -> None:
    code = (
        "import importlib.metadata as m; real = m.entry_points\n"
        "def seen(**k): assert not str(k.get('group')).startswith('tutelage.'), k; return real(**k)\n"
        "m.entry_points = seen\n"
        "import tutelage.plugins, tutelage.cli, tutelage.leaderboard.store, tutelage.search.space"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
