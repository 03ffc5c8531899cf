"""Write a first recipe as YAML whose comments say why each choice was made: `document`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_WIDTH = 110


@dataclass
class Document:
    """Lines of a recipe: keys with the comments above them."""

    lines: list[str] = field(default_factory=list)

    def comment(self, *sentences: str, indent: int = 0) -> None:
        """Add a comment of whole sentences, wrapped."""
        text = " ".join(f"{one[:1].upper()}{one[1:].rstrip('.')}." for one in sentences if one)
        lead = " " * indent + "# "
        self.lines += textwrap.wrap(
            text, _WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False, break_on_hyphens=False
        )

    def key(self, name: str, value: Any, *, indent: int = 0) -> None:
        """Add a key with its value on the same line."""
        self.lines.append(f"{' ' * indent}{name}: {flow(value)}")

    def entries(self, name: str, values: Sequence[Mapping[str, Any] | str]) -> None:
        """Add a key with a list, one entry a line."""
        if not values:
            self.key(name, [])
            return
        self.lines += [f"{name}:", *(f"  - {flow(one)}" for one in values)]

    def section(self, name: str) -> None:
        """Begin a mapping whose keys follow, indented."""
        self.lines.append(f"{name}:")

    def text(self) -> str:
        """Give the whole file."""
        return "\n".join(self.lines) + "\n"


def flow(value: Any) -> str:
    """Write a value on one line, quoted where YAML would read it otherwise."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...").rstrip()
