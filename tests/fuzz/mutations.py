"""Damage to a valid file, drawn by a random generator: of its bytes, its lines and cells, or its tree of values."""

import copy
import json
from random import Random
from typing import Any

import yaml

# What a value is replaced by: wrong types, extremes, and text that other layers read as something.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    "", " ", "\0", "\n", "nan", "inf", "1e999", "-0", "0x10", "1_000", "1,5", "5ms", "3MB", "50%", "null", "~", "=",
    ":", "../..", "/", "/dev/zero", "a" * 5000, "\ud800", "ä́\u202e", "{", "[", "]]", "%s%n",
    "$HOME", "'", '"', "\\", "()",
    [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": {}}}}, [0] * 50, [[1, 2], [3]], ["a", 1, None],
)  # fmt: skip
_CELLS = tuple(str(value) for value in ODD if isinstance(value, str | int | float))
_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\x80",
    b"\n",
    b"\r",
    b'"',
    b",",
    b";",
    b"\x7f" * 4,
    b"\xff" * 8,
    b"\0" * 8,
)


# Of text: what parsers treat apart, other scripts, a character beyond the first plane, an invisible one.
_LETTERS = "aZ09 .,;:=<>!~()[]{}&*|'\"\\/%+-_#@`$^?\t\n\r\0é漢😀\u200b\ufeff"


def _text(rng: Random, most: int) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(0, most)))


def damaged_bytes(rng: Random, seed: bytes) -> bytes:
    """Flip, insert, delete, repeat or truncate bytes at one to four places; the start of a file is hit more often."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        size = len(data)
        bound = rng.choice((16, 64, 512, size))
        at = rng.randint(0, max(0, min(bound, size) - 1))
        what = rng.randint(0, 6)
        if what == 0 and size:
            data[at] ^= 1 << rng.randint(0, 7)
        elif what == 1 and size:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x30, 0x2C))
        elif what == 2:
            data[at:at] = rng.choice(_BYTES)
        elif what == 3:
            del data[at : at + rng.choice((1, 2, 8, 100))]
        elif what == 4:
            length = rng.choice((1, 8, 64))
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif what == 5:
            del data[at:]
        else:
            data[at : at + 4] = rng.randbytes(4)
    return bytes(data)


def damaged_cells(rng: Random, seed: bytes) -> bytes:
    """Replace, remove, repeat or swap cells and rows of a CSV; the head is a row like others."""
    rows = [line.split(",") for line in seed.decode().splitlines()]
    for _ in range(rng.randint(1, 4)):
        row = rows[rng.randint(0, len(rows) - 1)]
        at = rng.randint(0, len(row) - 1) if row else 0
        what = rng.randint(0, 5)
        if what == 0 and row:
            row[at] = rng.choice(_CELLS)
        elif what == 1 and row:
            row[at] = _text(rng, 8)
        elif what == 2 and row:
            del row[at]
        elif what == 3:
            row.insert(at, rng.choice(_CELLS))
        elif what == 4:
            rows.insert(0, list(row))
        elif row:
            row[at] = rows[rng.randint(0, len(rows) - 1)][0:1][0] if rows else ""
        rows = [one for one in rows if one] or [[""]]
    separator = rng.choice((",", ",", ",", ";", "\t"))
    encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    return "\n".join(separator.join(row) for row in rows).encode(encoding, errors="replace")


def damaged_tree(rng: Random, seed: Any) -> Any:
    """Replace, remove, rename or add values of a tree of mappings and lists."""
    tree = copy.deepcopy(seed)
    for _ in range(rng.randint(1, 3)):
        place = tree
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[rng.randint(0, len(keys) - 1)]
            if isinstance(place[key], dict | list) and place[key] and rng.randint(0, 3):
                place = place[key]
                continue
            what = rng.randint(0, 4)
            if what == 0:
                del place[key]
            elif what == 1 and isinstance(place, dict):
                place[rng.choice(("x", "", *keys))] = place[key]
            elif what == 2 and isinstance(place, list):
                place.extend([place[key]] * rng.choice((1, 40)))
            else:
                place[key] = copy.deepcopy(rng.choice(ODD))
            break
    return tree


def damaged_yaml(rng: Random, seed: bytes) -> bytes:
    """Damage the values of a YAML file, or its text."""
    if rng.randint(0, 3) == 0:
        return damaged_bytes(rng, seed)
    tree = damaged_tree(rng, yaml.safe_load(seed))
    return yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace")


def damaged_json(rng: Random, seed: bytes) -> bytes:
    """Damage the values of a JSON file, or its text."""
    if rng.randint(0, 3) == 0:
        return damaged_bytes(rng, seed)
    return json.dumps(damaged_tree(rng, json.loads(seed))).encode(errors="replace")


def damaged_csv(rng: Random, seed: bytes) -> bytes:
    """Damage the cells of a CSV file, or its text."""
    return damaged_bytes(rng, seed) if rng.randint(0, 3) == 0 else damaged_cells(rng, seed)


def damaged_text(rng: Random, seed: bytes) -> bytes:
    """Damage one line that a user types, or write another one."""
    if rng.randint(0, 2) == 0:
        return _text(rng, 30).encode(errors="replace")
    words = seed.decode()
    for _ in range(rng.randint(1, 3)):
        at, far = sorted(rng.randint(0, len(words)) for _ in range(2))
        words = words[:at] + rng.choice((*_CELLS, words, words[far:], ".", "-", "(", "and", "<", "!")) + words[far:]
        words = words[:10_000]
    return words.encode(errors="replace")
