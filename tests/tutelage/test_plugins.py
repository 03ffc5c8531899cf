"""Registries with plug-ins: what other distributions add, and what is said of those that cannot be used."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tutelage import plugins
from tutelage.plugins import Origin, PluginError, Registry
from tutelage.records import InputError

from .command import tutelage


@dataclass(frozen=True)
class Colour:
    name: str
    hue: float = 0.0


def colours() -> Registry[Colour]:
    return Registry("losses", "colour", Colour, [Colour("red"), Colour("blue", 240.0)])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a function that installs a distribution, as pip leaves it: modules and a dist-info with entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name: str, version: str, points: dict[str, dict[str, str]], modules: dict[str, str]) -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            line
            for group, entries in points.items()
            for line in (f"[tutelage.{group}]", *(f"{key} = {value}" for key, value in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        plugins.forget()

    yield install
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(sys.modules[module].__file__):
            del sys.modules[module]
    plugins.forget()


GREEN = f"from {__name__} import Colour\ngreen = Colour('green', 120.0)\n"


def test_what_a_distribution_adds_is_loaded_with_its_name_and_version(installed: Any) -> None:
    installed("paints", "1.2", {"losses": {"green": "paints:green"}}, {"paints": GREEN})
    registry = colours()
    assert list(registry) == ["red", "blue", "green"]
    assert registry.find("green").hue == 120.0
    assert plugins.load("losses") == {"green": registry["green"]}
    assert registry.added() == {"green": Origin("paints", "1.2", "losses", "green", "paints:green")}
    assert registry.origin("red") is None
    assert str(plugins.origin("losses", "green")) == "paints 1.2"
    assert not registry.broken()
    assert plugins.load("columns") == {}


def test_a_module_is_imported_when_its_entry_is_needed_and_once(installed: Any, tmp_path: Path) -> None:
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
def test_a_broken_plugin_is_one_line_when_it_is_asked_for_and_harms_nobody_else(installed: Any, kind: str) -> None:
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


def test_a_name_that_is_built_in_is_refused_where_a_user_gives_it(installed: Any) -> None:
    text = f"from {__name__} import Colour\nred = Colour('red', 5.0)\n"
    installed("paints", "1.2", {"losses": {"red": "other_reds:red"}}, {"other_reds": text})
    registry = colours()
    assert [entry.hue for entry in registry.values()] == [0.0, 240.0]
    with pytest.raises(InputError, match=r"paints 1\.2.*colour 'red' is built into tutelage too"):
        registry.find("red")
    assert len(registry.broken()) == 1
    assert not registry.added()
    assert registry.find("blue").hue == 240.0


def test_two_distributions_with_one_name_are_both_named(installed: Any) -> None:
    installed("paints", "1.2", {"losses": {"green": "paints_a:green"}}, {"paints_a": GREEN})
    installed("dyes", "3.0", {"losses": {"green": "paints_b:green"}}, {"paints_b": GREEN})
    registry = colours()
    assert "green" not in registry
    with pytest.raises(InputError, match="uninstall one of them") as refused:
        registry.find("green")
    assert "paints 1.2" in str(refused.value)
    assert "dyes 3.0" in str(refused.value)
    assert len(plugins.broken("losses")) == 1


def test_an_unknown_name_is_one_line_with_what_is_near_plugins_included(installed: Any) -> None:
    installed("paints", "1.2", {"losses": {"green": "near_paints:green"}}, {"near_paints": GREEN})
    with pytest.raises(InputError, match="unknown colour 'greem': did you mean 'green'"):
        colours().find("greem")
    with pytest.raises(InputError, match="known are red, blue, green"):
        colours().find("xyz")
    with pytest.raises(InputError, match="no plug-in group 'colours'"):
        plugins.load("colours")
    with pytest.raises(KeyError):
        colours()["xyz"]


def test_doctor_lists_plugins_and_warns_of_broken_ones(installed: Any) -> None:
    points = {"columns": {"broken": "no_such_module_here:x"}}
    installed("paints", "1.2", points, {})
    done = tutelage("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["plug-in columns broken"].startswith("warning: plug-in paints 1.2: entry point broken")
    assert "No module named" in facts["plug-in columns broken"]


def test_importing_the_package_looks_for_no_plugins() -> None:
    code = (
        "import importlib.metadata as m; real = m.entry_points\n"
        "def seen(**k): assert not str(k.get('group')).startswith('tutelage.'), k; return real(**k)\n"
        "m.entry_points = seen\n"
        "import tutelage.plugins, tutelage.cli, tutelage.leaderboard.store, tutelage.search.space"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
