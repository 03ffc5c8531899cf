"""Distributions that a test installs for itself: modules and a dist-info with entry points, as pip leaves them."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tutelage import plugins


class Install(Protocol):
    """Install a distribution: entry points by group, the text of modules by name."""

    def __call__(
        self, name: str, version: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]
    ) -> None: ...


def installer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs into `folder`; afterwards nothing of it is known any more."""
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def install(name: str, version: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]) -> None:
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            line
            for group, entries in points.items()
            for line in (f"[tutelage.{group}]", *(f"{key} = {value}" for key, value in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        plugins.forget()

    yield install
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", None)).startswith(str(folder)):
            del sys.modules[module]
    plugins.forget()
