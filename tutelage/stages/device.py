"""Open the devices of a recipe: a profile is measured at first use, and budgets on it become milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.latency import LatencyModel
from tutelage.bench.profiles import list_profiles, load_latency_model
from tutelage.devices import DeviceRequest, measure_device
from tutelage.progress import Report
from tutelage.quantities import milliseconds, share
from tutelage.recipe import DeviceSection
from tutelage.records import Arch, DeviceProfile, InputError
from tutelage.search.space import Space
from tutelage.workspace import Workspace


@dataclass(frozen=True)
class Device:
    """A profile with its latency model and, where the recipe sets one, the budget in ms."""

    profile: DeviceProfile
    folder: Path
    model: LatencyModel
    max_latency_ms: float | None = None

    @property
    def name(self) -> str:
        return self.profile.name


def open_device(
    workspace: Workspace,
    section: DeviceSection,
    space: Space,
    num_classes: int,
    channels: int,
    report: Report,
    *,
    tolerance: float = 0.05,
) -> Device:
    """Find the device's profile, or measure it now; then read the recipe's latency budget on it."""
    if section.max_latency is not None:
        read_budget(section.max_latency)  # a budget that cannot be read is told before anything is measured
    known = {profile.name: (profile, folder) for profile, folder in list_profiles(workspace.path)}
    if section.name in known:
        profile, folder = known[section.name]
        _check_same(section, profile)
    else:
        folder = workspace.path / "devices"
        request = DeviceRequest(
            section.name,
            section.runtime,
            space,
            num_classes,
            channels,
            threads=section.threads,
            batch=section.batch,
            tolerance=tolerance,
        )
        profile = measure_device(workspace, report, request)
    missing = set(space.resolutions) - set(profile.resolutions)
    if space.name not in profile.spaces or missing:
        raise InputError(
            f"device {section.name} has a latency model for {', '.join(profile.spaces)} at {list(profile.resolutions)} "
            f"px, this run needs {space.name} at {list(space.resolutions)} px: give it another name in the recipe"
        )
    model = load_latency_model(profile, folder)
    return Device(profile, folder, model, budget_ms(section, model, space))


def budget_ms(section: DeviceSection, model: LatencyModel, space: Space) -> float | None:
    """Read a latency budget: milliseconds, or a share of the way from the smallest to the largest subnet."""
    if section.max_latency is None:
        return None
    amount, relative = read_budget(section.max_latency)
    if not relative:
        return amount
    low, high = model.predict(_extremes(space))[0]
    return float(low + amount * (high - low))


def read_budget(text: str) -> tuple[float, bool]:
    """Read a latency budget: milliseconds and False, or a share and True."""
    if text.strip().endswith("%"):
        return share(text), True
    return milliseconds(text), False


def _extremes(space: Space) -> Sequence[Arch]:
    return [space.smallest(), space.largest()]


def _check_same(section: DeviceSection, profile: DeviceProfile) -> None:
    for field in ("runtime", "threads", "batch"):
        asked, has = getattr(section, field), getattr(profile, field)
        if asked != has:
            raise InputError(
                f"device {section.name}: the recipe asks for {field} {asked}, the profile has {has}: use another name"
            )
