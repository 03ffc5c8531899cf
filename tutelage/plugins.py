"""Registries that other installed packages can add to by entry points.

A package of this project declares a `Registry` of its built-in entries. What other distributions declare under
`tutelage.<group>` is discovered when the registry is first read, and an entry's module is imported when that entry is
needed. This module imports none of the packages that declare registries.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Generic, Protocol, TypeVar

from tutelage.inputs import InputError

# What a package may add; the entry-point group is `tutelage.<group>`.
GROUPS = (
    "runtimes",
    "spaces",
    "datasets",
    "teachers",
    "losses",
    "strategies",
    "schemes",
    "columns",
    "augmentations",
    "weights",
)


class Named(Protocol):
    """What an entry of a registry must have."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


@dataclass(frozen=True)
class Origin:
    """The entry point that declares a plug-in: its distribution, version, group, name and `module:attribute`."""

    distribution: str
    version: str
    group: str
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Plugin:
    """What an entry point gives, and where it comes from."""

    entry: Any
    origin: Origin


class PluginError(InputError):
    """A plug-in cannot be used; the message is one line that names its package, its entry point and the reason."""

    def __init__(self, origin: Origin, reason: str) -> None:
        self.origin = origin
        super().__init__(
            f"plug-in {origin}: entry point {origin.name} = {origin.value} of tutelage.{origin.group}: "
            + " ".join(reason.split())
        )


def origin(group: str, name: str) -> Origin | None:
    """Say which distribution, in which version, adds `name` to a group; None where no plug-in does."""
    declared = origins(group).get(name, ())
    return declared[0] if declared else None


@cache
def origins(group: str) -> dict[str, tuple[Origin, ...]]:
    """List what installed packages declare for a group, by name; nothing is imported."""
    if group not in GROUPS:
        raise InputError(f"no plug-in group {group!r}: known are {', '.join(GROUPS)}")
    found: dict[str, tuple[Origin, ...]] = {}
    for point in importlib.metadata.entry_points(group=f"tutelage.{group}"):
        distribution = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
        one = Origin(*distribution, group, point.name, point.value)
        found[point.name] = tuple(dict.fromkeys((*found.get(point.name, ()), one)))
    return dict(sorted(found.items()))


@cache
def _import(group: str, name: str) -> Plugin | PluginError:
    """Import what an entry point names; what goes wrong is kept, so that it is tried and reported once."""
    first, *others = origins(group)[name]
    if others:
        also = ", ".join(str(other) for other in others)
        return PluginError(first, f"{also} adds {name!r} too: uninstall one of them")
    point = importlib.metadata.EntryPoint(name, first.value, f"tutelage.{group}")
    try:
        return Plugin(point.load(), first)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - another author's module: any failure concerns only that plug-in
        return PluginError(first, f"{type(error).__name__}: {error}")


def forget() -> None:
    """Look for plug-ins again when they are next needed, e.g. after an installation into the running interpreter."""
    origins.cache_clear()
    _import.cache_clear()


def modules_of(package: str, kind: type[Entry]) -> Callable[[], list[Entry]]:
    """Give a function that collects the entries of type `kind` that the modules of a package declare.

    An entry is a module's own constant: a new file in the package adds to the registry, without any other change.
    """

    def collect() -> list[Entry]:
        folder = importlib.import_module(package)
        modules = [
            importlib.import_module(f"{package}.{one.name}")
            for one in sorted(pkgutil.iter_modules(folder.__path__), key=lambda one: one.name)
        ]
        entries = [value for module in modules for value in vars(module).values() if isinstance(value, kind)]
        return list({id(entry): entry for entry in entries}.values())  # one that another module imports is one

    return collect


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name: the built-in ones in their order, then those of plug-ins.

    Nothing is looked up before the first read, and a built-in entry is given without importing any plug-in. A plug-in
    that is broken, of another type than `kind`, or named like a built-in entry is left out of iteration; `find`, the
    look-up for names that a user gives, and `registry[name]` say what is wrong with it.
    """

    def __init__(
        self, group: str, noun: str, kind: type[Entry], entries: Iterable[Entry] | Callable[[], Iterable[Entry]]
    ) -> None:
        """Declare a registry. `noun` names one entry in messages, e.g. "data set".

        `entries` are the built-in ones, or a function that gives them when they are first read (see `modules_of`).
        """
        assert group in GROUPS, group
        self.group, self.noun, self.kind = group, noun, kind
        self._entries = entries
        self._listed: tuple[object, Mapping[str, Entry]] | None = None

    @cached_property
    def builtin(self) -> Mapping[str, Entry]:
        """Give the entries that the package itself declares."""
        listed = tuple(self._entries() if callable(self._entries) else self._entries)
        twice = [name for name, times in Counter(entry.name for entry in listed).items() if times > 1]
        assert not twice, twice
        return {entry.name: entry for entry in listed}

    @property
    def listed(self) -> Mapping[str, Entry]:
        """Give all entries, as iteration does, looked up once until `forget`."""
        added = origins(self.group)
        if self._listed is None or self._listed[0] is not added:
            self._listed = added, dict(self.items())
        return self._listed[1]

    def __getitem__(self, name: str) -> Entry:
        """Give an entry; KeyError where there is none, PluginError where a plug-in's cannot be used."""
        if name in self.builtin:
            return self.builtin[name]
        if name not in origins(self.group):
            raise KeyError(name)
        usable = self._usable(name)
        if isinstance(usable, PluginError):
            raise usable
        return usable

    def __contains__(self, name: object) -> bool:
        """Say whether there is an entry of that name that can be used."""
        if name in self.builtin:
            return True
        return isinstance(name, str) and name in origins(self.group) and isinstance(self._usable(name), self.kind)

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        for name in origins(self.group):
            if name not in self.builtin and name in self:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, name: str) -> Entry:
        """Give the entry that a user named. Raises InputError for an unknown name, and for one that is not one's own.

        A name that a plug-in shares with a built-in entry is refused: the user may mean either.
        """
        if name in self.builtin and name in origins(self.group):
            raise self._collision(name)
        try:
            return self[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), self, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self)}"
            raise InputError(f"unknown {self.noun} {name!r}: {hint}") from None

    def declared(self, name: str) -> bool:
        """Say whether a built-in entry or a plug-in, broken or not, has this name."""
        return name in self.builtin or name in origins(self.group)

    def origin(self, name: str) -> Origin | None:
        """Give the plug-in's distribution and version, or None for a built-in entry."""
        return None if name in self.builtin else origin(self.group, name)

    def origin_name(self, name: str) -> str:
        """Give the same as text, for the inputs of stages; empty for a built-in entry."""
        return str(self.origin(name) or "")

    def added(self) -> dict[str, Origin]:
        """Give the names that plug-ins add, each with where it comes from."""
        return {name: one for name in self if (one := self.origin(name)) is not None}

    def broken(self) -> list[PluginError]:
        """List the plug-ins of this registry that cannot be used, each with the reason."""
        tried = [self._collision(name) if name in self.builtin else self._usable(name) for name in origins(self.group)]
        return [one for one in tried if isinstance(one, PluginError)]

    def _usable(self, name: str) -> Entry | PluginError:
        plugin = _import(self.group, name)
        if isinstance(plugin, PluginError):
            return plugin
        if not isinstance(plugin.entry, self.kind):
            found = plugin.entry.__name__ if isinstance(plugin.entry, type) else f"a {type(plugin.entry).__name__}"
            return PluginError(plugin.origin, f"a {self.noun} must be a {self.kind.__name__}, not {found}")
        if plugin.entry.name != name:
            return PluginError(plugin.origin, f"its name is {plugin.entry.name!r}: give both the same name")
        return plugin.entry

    def _collision(self, name: str) -> PluginError:
        (first, *_) = origins(self.group)[name]
        return PluginError(first, f"{self.noun} {name!r} is built into tutelage too: rename the plug-in's")
