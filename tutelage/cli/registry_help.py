"""The registries that plug-ins may add to, and help that names what is in them when it is printed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperOption

from tutelage.plugins import Registry

# Where each registry lives; its module is imported when it is read.
REGISTRIES: Mapping[str, tuple[str, str]] = {
    "datasets": ("tutelage.distill.data.registry", "DATASETS"),
    "schemes": ("tutelage.quant.int8.schemes.registry", "SCHEMES"),
    "teachers": ("tutelage.distill.teachers.zoo", "TEACHERS"),
    "losses": ("tutelage.distill.losses.methods", "LOSSES"),
    "spaces": ("tutelage.search.spaces.space", "SPACES"),
    "strategies": ("tutelage.search.samplers.strategies", "STRATEGIES"),
    "runtimes": ("tutelage.bench.runtimes.registry", "RUNTIMES"),
    "columns": ("tutelage.leaderboard.columns", "COLUMNS"),
    "augmentations": ("tutelage.distill.data.augmentations", "AUGMENTATIONS"),
    "weights": ("tutelage.pipeline.weights.sources", "WEIGHTS"),
}


def registry_of(group: str) -> Registry[Any]:
    """Give the registry of a plug-in group."""
    module, attribute = REGISTRIES[group]
    found: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return found


def names_of(group: str, *, helped: bool = False) -> str:
    """List a registry's names for a line of help, each plug-in's with its package, and `helped` what each one is."""
    registry = registry_of(group)
    added = registry.added()
    listed = {name: str(getattr(entry, "listed", name)) for name, entry in registry.items()}  # with a caveat, if any
    names = [f"{listed[name]} (from {added[name]})" if name in added else listed[name] for name in registry]
    if not helped:
        return ", ".join(names)
    return "; ".join(f"{name}: {entry.help}" for name, entry in zip(names, registry.values(), strict=True))


class RegistryCommand(TyperCommand):
    """A verb whose help lists entries: `{schemes}` becomes that registry's names, `{schemes:help}` with a line each.

    They are read when the help is printed: importing the registries costs time that no other call should spend.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Complete the options' help, then print it."""
        options = [option for option in self.params if isinstance(option, TyperOption) and option.help]
        short = [option.help for option in options]
        for option in options:
            option.help = _PLACE.sub(lambda found: names_of(found[1], helped=bool(found[2])), option.help or "")
        try:
            super().format_help(ctx, formatter)
        finally:
            for option, text in zip(options, short, strict=True):
                option.help = text


_PLACE = re.compile(rf"\{{({'|'.join(REGISTRIES)})(:help)?\}}")
