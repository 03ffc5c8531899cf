"""The reference page of the columns (`columns_page`).

`python -m tutelage.leaderboard.reference > docs/columns.md` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from .columns import BUILTIN, Column

_GROUPS = {
    "row": "What the row is of",
    "quality": "Quality",
    "cost": "Cost",
    "gain": "What the teacher was worth",
    "seeds": "Over seeds",
    "explanation": "Explanations",
}
_HEAD = """# Columns of the leaderboard

Every column by the name that `--filter`, `--columns`, `--front` and an export take. *In details* says where in a row's
`details` a column stands; its path is a name for it too. A figure that was not measured is empty, never 0. Filters take
the units of the kind: `latency_p50_ms<5ms`, `size_bytes<8MB`, `auc>95%`. More or less is better where an arrow says so;
rows are compared only where they agree in every column that is marked by =.
This page is generated from `leaderboard/columns.py` (`python -m tutelage.leaderboard.reference`).
"""


def columns_page(columns: Iterable[Column]) -> str:
    """Write the page of some columns, one table a group."""
    parts = [_HEAD]
    every = tuple(columns)
    for group, title in _GROUPS.items():
        rows = [_line(one) for one in every if one.group == group]
        if rows:
            head = "| column | kind | unit | | meaning | in details |\n|---|---|---|---|---|---|\n"
            parts.append(f"## {title}\n\n{head}{''.join(rows)}")
    return "\n".join(parts)


def _line(one: Column) -> str:
    arrow = {"max": "↑", "min": "↓", None: "=" if one.is_key else ""}[one.better]
    kind = f"{one.kind}, whole" if one.is_whole else one.kind
    names = ", ".join(f"`{name}`" for name in (one.name, *one.former))
    places = ", ".join(f"`{place}`" for place in one.at)
    return f"| {names} | {kind} | {one.stored_unit} | {arrow} | {one.help.replace('|', chr(92) + '|')} | {places} |\n"


if __name__ == "__main__":
    print(columns_page(BUILTIN), end="")
