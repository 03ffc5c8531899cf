"""Open the devices of a recipe: a profile is measured at first use, and budgets on it become milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.device import make_profile
from tutelage.bench.latency import LatencyModel
from tutelage.bench.profiles import list_profiles, load_latency_model
from tutelage.progress import Report
from tutelage.quant.export import export_onnx
from tutelage.quantities import milliseconds, share
from tutelage.recipe import DeviceSection
from tutelage.records import Arch, DeviceProfile, InputError
from tutelage.search.counts import BlockSpec
from tutelage.search.space import Space
from tutelage.search.supernet import build_arch, build_block
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
    known = {profile.name: (profile, folder) for profile, folder in list_profiles(workspace.path)}
    if section.name in known:
        profile, folder = known[section.name]
        _check_same(section, profile)
    else:
        folder = workspace.path / "devices"
        profile = profile_host(workspace, section, space, num_classes, channels, report, tolerance=tolerance)
    missing = set(space.resolutions) - set(profile.resolutions)
    if space.name not in profile.spaces or missing:
        raise InputError(
            f"device {section.name} has a latency model for {', '.join(profile.spaces)} at {list(profile.resolutions)} "
            f"px, this run needs {space.name} at {list(space.resolutions)} px: give it another name in the recipe"
        )
    model = load_latency_model(profile, folder)
    return Device(profile, folder, model, budget_ms(section, model, space))


def profile_host(
    workspace: Workspace,
    section: DeviceSection,
    space: Space,
    num_classes: int,
    channels: int,
    report: Report,
    *,
    precision: str = "fp32",
    minutes: float = 3.0,
    tolerance: float = 0.05,
) -> DeviceProfile:
    """Measure blocks and a few whole subnets on this host and fit the latency model."""

    def export(arch: Arch, path: Path) -> None:
        export_onnx(build_arch(arch, num_classes, channels), path, (1, channels, arch.r, arch.r))

    def export_block(spec: BlockSpec, path: Path) -> None:
        export_onnx(build_block(spec), path, (1, spec.in_channels, spec.in_hw, spec.in_hw))

    return make_profile(
        section.name,
        section.runtime,
        threads=section.threads,
        batch=section.batch,
        precision=precision,
        minutes=minutes,
        tolerance=tolerance,
        space=space,
        resolutions=space.resolutions,
        num_classes=num_classes,
        in_channels=channels,
        export=export,
        export_block=export_block,
        folder=workspace.path / "devices",
        progress=lambda text, done, total: report(f"device {section.name}: {text}", done, total),
    )


def budget_ms(section: DeviceSection, model: LatencyModel, space: Space) -> float | None:
    """Read a latency budget: milliseconds, or a share of the way from the smallest to the largest subnet."""
    text = section.max_latency
    if text is None:
        return None
    if not text.strip().endswith("%"):
        return milliseconds(text)
    low, high = model.predict(_extremes(space))[0]
    return float(low + share(text) * (high - low))


def _extremes(space: Space) -> Sequence[Arch]:
    return [space.smallest(), space.largest()]


def _check_same(section: DeviceSection, profile: DeviceProfile) -> None:
    for field in ("runtime", "threads", "batch"):
        asked, has = getattr(section, field), getattr(profile, field)
        if asked != has:
            raise InputError(
                f"device {section.name}: the recipe asks for {field} {asked}, the profile has {has}: use another name"
            )
