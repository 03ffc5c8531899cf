"""Who files rows and for which project (`filed_by`), and what people tag them with (`tag`, `tags_of`)."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert

from tutelage.leaderboard.store import Store, schema
from tutelage.records import InputError, Row, checked_name, utc_now

_TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


def filed_by(project: str = "") -> dict[str, str]:
    """Say who files a row and for which project, as a row's details do; what is not known is left out.

    The user is `TUTELAGE_USER`, which may be empty, else the name of the system's account; a project that is not named
    is `TUTELAGE_PROJECT`.
    """
    user = os.environ.get("TUTELAGE_USER")
    said = {"user": _account() if user is None else _read("TUTELAGE_USER", user)}
    said["project"] = project or _read("TUTELAGE_PROJECT", os.environ.get("TUTELAGE_PROJECT", ""))
    return {name: text for name, text in said.items() if text}


def _read(name: str, text: str) -> str:
    try:
        return checked_name(text)
    except ValueError as error:
        raise InputError(f"{name} is {text[:40]!r}: {error}") from None


def _account() -> str:
    try:
        return checked_name(getpass.getuser())
    except (OSError, KeyError, ValueError, ImportError):  # a container may run an account without a name
        return ""


def tag(store: Store, row_id: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> tuple[Row, list[str]]:
    """Set and take off tags of the row of an id, or of the beginning of one; give it and the tags that it has then.

    The rows themselves stay as they were filed. InputError for what is no tag, and for one to be taken off that is not
    there.
    """
    add, remove = list(dict.fromkeys(add)), list(dict.fromkeys(remove))
    for one in (*add, *remove):
        if not _TAG.fullmatch(one):
            raise InputError(f"{one!r} is no tag: write up to 40 lower-case letters, digits, dots, - and _")
    if both := sorted(set(add) & set(remove)):
        raise InputError(f"tag {both[0]!r} is both set and taken off: give one of +{both[0]} and -{both[0]}")
    row, by = store.row(row_id), filed_by().get("user", "")
    with store.writing() as connection:  # writers take turns: what is read here stays true
        there = tags_of(store, row.key)
        if absent := [one for one in remove if one not in there]:
            named = f"its tags are {' '.join(there)}" if there else "it has none"
            raise InputError(f"row {row.key} has no tag {absent[0]!r}: {named}")
        changes = [(one, True) for one in add if one not in there] + [(one, False) for one in remove]
        if changes:
            said: dict[str, Any] = {"row_id": row.key, "by": by, "created": utc_now()}
            values = [{**said, "tag": one, "is_set": is_set} for one, is_set in changes]
            connection.execute(insert(schema.tags), values)
    return row, tags_of(store, row.key)


def tags_of(store: Store, row_id: str) -> list[str]:
    """Give the tags of the row of a whole id, sorted."""
    (text,) = store.columns(names=("tags",), ids=[row_id], every=True)["tags"] or [""]
    return str(text).split()
