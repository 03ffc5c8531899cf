"""The bounds of a search as its recipe, target and devices give them: `budget_of`, `bounds_of`, `check_counted`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.devices.profiles import known_profile
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device, memory_target
from tutelage.pipeline.objectives import deploys_int8, latency_name
from tutelage.pipeline.recipe import Recipe
from tutelage.quantities import millijoules, number, size_in_bytes
from tutelage.records import Arch, Budget
from tutelage.search.objectives import Objective, Problem
from tutelage.search.spaces.space import Space

_PROFILE = "profile of "


def budget_of(ctx: Context, devices: Sequence[Device]) -> Budget:
    """Read the recipe's bounds: milliseconds on each device that has one, MACs, parameters, memories, energy.

    Bytes of the file and RAM are those of the precision that is deployed.
    """
    section = ctx.recipe.search
    names = ("int8_file_bytes", "int8_ram_bytes") if deploys_int8(ctx.recipe) else ("size_bytes", "ram_bytes")
    return Budget(
        latency_ms={device.name: device.max_latency_ms for device in devices if device.max_latency_ms is not None},
        macs=number(section.max_macs) if section.max_macs else None,
        params=number(section.max_params) if section.max_params else None,
        energy_mj=millijoules(section.max_energy) if section.max_energy else None,
        **dict(zip(names, memories_of(ctx), strict=True)),
    )


@dataclass(frozen=True)
class MemoryBound:
    """A bound on flash or RAM: bytes, how it was written, and who says it: a recipe's key, or a profile."""

    size: float
    text: str
    source: str

    @property
    def by_profile(self) -> bool:
        return self.source.startswith(_PROFILE)


def memory_bounds(recipe: Recipe, workspace: Path) -> tuple[MemoryBound | None, MemoryBound | None]:
    """Give the bounds on the flash and RAM that a network may take, None for no bound.

    The recipe's own bounds come first, then the target's memories; without a target the least of the devices whose
    profiles say theirs.
    """
    section = recipe.search
    if section.target is not None:
        profiles = [memory_target(workspace, section.target)]
    else:
        known = [known_profile(device.name, workspace) for device in recipe.devices]
        profiles = [found[0] for found in known if found is not None]
    flash = _bound("search.max_size", section.max_size, {one.name: one.flash_bytes for one in profiles})
    return flash, _bound("search.max_ram", section.max_ram, {one.name: one.ram_bytes for one in profiles})


def held_bounds(recipe: Recipe, workspace: Path) -> tuple[MemoryBound | None, MemoryBound | None]:
    """Give the bounds on flash and RAM that a run keeps; where nothing is searched for no target, flash alone.

    RAM is counted of what is searched, and read of the files for a target.
    """
    flash, ram = memory_bounds(recipe, workspace)
    return flash, ram if recipe.searches or recipe.search.target is not None else None


def _bound(key: str, own: str | None, memories: Mapping[str, int | None]) -> MemoryBound | None:
    if own is not None:
        return MemoryBound(size_in_bytes(own), own, key)
    least = min(((size, name) for name, size in memories.items() if size is not None), default=None)
    return None if least is None else MemoryBound(least[0], f"{least[0]:,} bytes", f"{_PROFILE}{least[1]}")


def memories_of(ctx: Context) -> tuple[float | None, float | None]:
    """Give the bytes of flash and RAM that a network may take, None for no bound."""
    flash, ram = memory_bounds(ctx.recipe, ctx.workspace.path)
    return None if flash is None else flash.size, None if ram is None else ram.size


def bounds_in_words(ctx: Context) -> dict[str, str]:
    """Give the bounds besides latency that finalists are held to, as measured or by their files, by their keys."""
    section, (flash, ram) = ctx.recipe.search, memory_bounds(ctx.recipe, ctx.workspace.path)
    said = {"max_energy": section.max_energy or "", "max_size": _in_words(flash)}
    if section.target is not None:
        said["max_ram"] = _in_words(ram)
    return {name: text for name, text in said.items() if text}


def _in_words(bound: MemoryBound | None) -> str:
    if bound is None:
        return ""
    return f"{bound.text} of the {bound.source}" if bound.by_profile else bound.text


def binding_memories(recipe: Recipe, workspace: Path, given: Collection[str] = ()) -> str:
    """Say in a line the memory limits of a run and where they come from; empty where there are none.

    given: keys of the recipe that the command line sets.
    """
    said = []
    for what, bound in zip(("flash", "RAM"), held_bounds(recipe, workspace), strict=True):
        if bound is not None:
            where = bound.source if bound.by_profile else "command line" if bound.source in given else "recipe"
            said.append(f"{what} {bound.text} ({where})")
    if not said:
        return ""
    if not recipe.searches and recipe.search.target is None:  # each row's own file is compared
        return f"memory limits: {', '.join(said)}"
    precision = "int8" if deploys_int8(recipe) else "fp32"
    return f"memory limits, at {precision}: {', '.join(said)}"


def bounds_of(ctx: Context, devices: Sequence[Device]) -> dict[str, float]:
    """Give the budget as upper bounds by objective name."""
    names = {device.name: latency_name(device) for device in devices}
    budget = budget_of(ctx, devices)
    return {**budget.counted, **{names[name]: bound for name, bound in budget.latency_ms.items()}}


def check_counted(ctx: Context, space: Space) -> None:
    """Refuse bounds on MACs, parameters or bytes that no architecture meets, before a device is measured for them."""
    unscored = (Objective("error", "min", not_scored, cheap=False),)
    Problem(space, unscored, dict(budget_of(ctx, ()).counted), ctx.num_classes, ctx.channels).check_bounds()


def not_scored(archs: Sequence[Arch]) -> NDArray[np.float64]:
    """Stand for what is scored where only bounds are checked."""
    raise AssertionError("checking bounds scores nothing")
