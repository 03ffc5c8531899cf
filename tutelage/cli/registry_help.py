"""Help that lists what may be chosen, read from the registries when `--help` is printed, plug-ins included."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperOption

from tutelage.plugins import Registry

# The options whose help ends with the entries of a registry: module and attribute. Importing them costs time that a
# command which prints no help should not spend.
_LISTED: Mapping[str, tuple[str, str]] = {
    "strategy": ("tutelage.search.samplers.strategies", "STRATEGIES"),
    "space": ("tutelage.search.spaces.space", "SPACES"),
}


class RegistryCommand(TyperCommand):
    """A command whose options of a registry list its entries in their help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Complete the options' help, then print it."""
        options = [p for p in self.params if p.name in _LISTED and isinstance(p, TyperOption)]
        short = [option.help for option in options]
        for option in options:
            option.help = f"{option.help} {_entries(*_LISTED[str(option.name)])}"
        try:
            super().format_help(ctx, formatter)
        finally:
            for option, text in zip(options, short, strict=True):
                option.help = text


def _entries(module: str, attribute: str) -> str:
    registry: Registry[Any] = getattr(importlib.import_module(module), attribute)
    parts = []
    for name, entry in registry.items():
        about = getattr(entry, "help", "")
        whose = f" of {registry.origin(name)}" if registry.origin(name) else ""
        parts.append(f"{name}{whose}{f': {about}' if about else ''}")
    return f"One of: {'; '.join(parts)}."
