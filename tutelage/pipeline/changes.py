"""Change a recipe's plain data: `--set section.key=value` of the command line, and values that a verb's options hold.

YAML guesses a type from how a value looks: `2024` is a number, `yes` a truth, `#1` a comment. A field that the recipe
declares as text or a path therefore takes what was written, as it was written.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from tutelage.records import InputError, parsed_yaml

_TEXT_TAG = "tag:yaml.org,2002:str"
_NULL_TAG = "tag:yaml.org,2002:null"
_QUOTES = ("'", '"')


# Keys that were renamed, for recipe files, `--set` and stored rows: `section.key` as it was, and the key as it is.
FORMER_KEYS: Mapping[str, str] = {
    "data.val_share": "val_fraction",
    "data.test_share": "test_fraction",
    "distill.taught_by": "teacher_mode",
}
# Sections of every recipe that a row recorded, of which one that is written by hand lacks some.
_WHOLE = frozenset(
    ("title", "about", "command", "expect", "seed", "data", "teachers", "students", "supernet", "devices", "search")
) | {"distill", "baselines", "quantize", "measure", "explain"}


def current_key(key: str) -> str:
    """Give today's name of a dotted key; one that was not renamed is given back."""
    section, _, _ = key.rpartition(".")
    return f"{section}.{FORMER_KEYS[key]}" if key in FORMER_KEYS else key


def with_current_keys(data: Any) -> Any:
    """Give a recipe's plain data with today's keys, a copy where one changes; `ValueError` where both names stand."""
    if not isinstance(data, Mapping):
        return data
    renamed = dict(data)
    for former, name in FORMER_KEYS.items():
        section, _, key = former.partition(".")
        values = renamed.get(section)
        if isinstance(values, Mapping) and key in values:
            if name in values:
                raise ValueError(f"{former} is the former name of {section}.{name}: give one of them")
            renamed[section] = {name if each == key else each: value for each, value in values.items()}
    return renamed


def without_unwritten(data: Any) -> Any:
    """Leave out `supernet: null` and `search: null`, and what nobody wrote of a recipe of an earlier version's rows.

    It recorded every section, and neither trained a supernet nor searched where students are named; their sections had
    no `start` then.
    """
    if not isinstance(data, Mapping):
        return data
    data = {name: value for name, value in data.items() if value is not None or name not in ("supernet", "search")}
    if not data.keys() >= _WHOLE:
        return data
    students = data["students"]
    named = isinstance(students, list | tuple) and students and all(isinstance(one, Mapping) for one in students)
    if not named or any("start" in one for one in students):
        return data
    return {name: value for name, value in data.items() if name not in ("supernet", "search")}


def named_twice(changes: Sequence[str]) -> list[str]:
    """Say which changes give one key by its former and by its present name: only one of them could be kept."""
    given = [change.partition("=")[0].strip() for change in changes]
    return [
        f"--set {former} is the former name of {current_key(former)}, which is set, too: give one of them"
        for former in FORMER_KEYS
        if former in given and current_key(former) in given
    ]


def set_text(data: dict[str, Any], model: type[BaseModel], change: str) -> None:
    """Apply `section.key=value` in place; the value is YAML, or plain text where `model` declares text or a path.

    `*` in the place of a list's entry stands for each of them.
    """
    key, sign, text = change.partition("=")
    if not sign:
        raise InputError(f"--set {change!r}: write key=value, e.g. --set distill.epochs=5")
    before, star, after = key.strip().partition(".*.")
    if star:
        entries = _entries(data, before, change)
        for number in range(len(entries)):
            set_text(data, model, f"{before}.{number}.{after}={text}")
        return
    place, last, kind = _find(data, model, key.strip(), change)
    try:
        value = _value(text.strip(), kind)
    except yaml.YAMLError as error:
        raise InputError(f"--set {change!r} is not YAML: {one_line(error)}") from None
    _put(place, last, value, f"--set {change!r}")


def set_value(data: dict[str, Any], model: type[BaseModel], key: str, value: object) -> None:
    """Set one dotted key in place to a value that has its type already."""
    place, last, _ = _find(data, model, key, key)
    _put(place, last, value, key)


def typed_yaml(text: str, kind: Any) -> Any:
    """Parse YAML for a declared type: plain scalars stay text where `kind` wants text; a repeated key is an error."""
    return parsed_yaml(text, lambda node: _mark(node, kind, set()))


def one_line(error: Exception) -> str:
    """Put a parser's message of several lines on one."""
    return " ".join(str(error).split())


def _find(
    data: dict[str, Any], model: type[BaseModel], key: str, change: str
) -> tuple[dict[str, Any] | list[Any], str, Any]:
    """Walk to the place that holds the last part of a dotted key; give that place, the part and its declared type."""
    parts = current_key(key).split(".")
    if not all(parts):
        raise InputError(f"--set {change!r}: write the key as section.key, e.g. distill.epochs")
    place: Any = data
    kind: Any = model
    for number, (part, following) in enumerate(pairwise(parts), 1):
        if isinstance(place, list):
            place = _entry(place, part, change)
        else:
            if place.get(part) is None:  # a list that the recipe leaves out begins with entry 0
                place[part] = [] if following.isdigit() else {}
            place = place[part]
        kind = _inner(kind, part)
        if not isinstance(place, dict | list):
            raise InputError(f"--set {change!r}: {'.'.join(parts[:number])} is {place!r} and has no keys below it")
    return place, parts[-1], _inner(kind, parts[-1])


def _entries(data: dict[str, Any], key: str, change: str) -> list[Any]:
    """Find the list that a dotted key names."""
    found: Any = data
    for part in key.split("."):
        found = _entry(found, part, change) if isinstance(found, list) else found.get(part)
        if not isinstance(found, dict | list):
            break
    if not isinstance(found, list) or not found:
        raise InputError(f"--set {change!r}: {key} is no list with entries that * could stand for")
    return found


def _entry(items: list[Any], part: str, change: str) -> Any:
    """Find a list entry by its place or, for teachers and devices, by its name."""
    if part.isdigit() and int(part) < len(items):
        return items[int(part)]
    for entry in items:
        if isinstance(entry, dict) and entry.get("name") == part:
            return entry
    has = f"give its place (0 to {len(items) - 1}) or its name" if items else "the list is empty"
    raise InputError(f"--set {change!r}: no entry {part!r}; {has}")


def _put(place: dict[str, Any] | list[Any], last: str, value: object, origin: str) -> None:
    if isinstance(place, dict):
        place[last] = value
        return
    if not (last.isdigit() and int(last) <= len(place)):
        raise InputError(
            f"{origin} cannot be applied: {last!r} is no place in the list; the list has {len(place)} entries, from 0 "
            f"on; {len(place)} adds one"
        )
    place[int(last) : int(last) + 1] = [value]


def _value(text: str, kind: Any) -> Any:
    if not _is_text(kind):
        return typed_yaml(text, kind)
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        return parsed_yaml(text)
    if text in ("", "null", "~") and type(None) in _members(kind):
        return None
    return text


def _mark(node: yaml.Node, kind: Any, seen: set[tuple[int, str]]) -> None:
    """Tag the plain scalars below a node as text where the declared type wants text."""
    visit = (id(node), repr(kind))
    if visit in seen:  # an alias
        return
    seen.add(visit)
    if isinstance(node, yaml.ScalarNode):
        is_null = node.tag == _NULL_TAG and type(None) in _members(kind)
        if (_is_text(kind) or _is_named(kind)) and not is_null:
            node.tag = _TEXT_TAG
    elif isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _mark(item, _inner(kind, str(place)), seen)
    elif isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name and name in names:
                raise yaml.YAMLError(f"key {name!r} is given twice (line {key.start_mark.line + 1})")
            names.add(name)
            _mark(value, _inner(kind, name), seen)


def _members(kind: Any) -> tuple[Any, ...]:
    """List the alternatives of a declared type."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for one in get_args(kind) for member in _members(one))
    return (kind,)


def _is_text(kind: Any) -> bool:
    """Say whether a declared type is text, a path or one of several words."""
    known = [member for member in _members(kind) if member is not type(None)]
    return bool(known) and all(
        member in (str, Path)
        or (get_origin(member) is Literal and all(isinstance(word, str) for word in get_args(member)))
        for member in known
    )


def _is_named(kind: Any) -> bool:
    """Say whether a declared type is a section in whose place its name alone may stand."""
    return any(getattr(member, "BY_NAME", False) for member in _members(kind))


def _inner(kind: Any, part: str) -> Any:
    """Give the declared type one step further down; Any where nothing is declared."""
    for member in _members(kind):
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(part)
            return field.annotation if field is not None else Any
        origin, arguments = get_origin(member), get_args(member)
        if origin in (tuple, list, Sequence) and arguments:
            return arguments[0]
        if origin is dict:
            return arguments[1]
    return Any
