"""Open the devices of a recipe: a profile is measured at first use, and budgets on it become milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.devices.profiles import (
    find_profile,
    known_profile,
    load_latency_model,
    target_profile,
    write_profile,
)
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.protocol.host import check_threads
from tutelage.bench.protocol.remote import check_reachable, missing_meter
from tutelage.bench.runtimes.energy import NoMeter, find_meter
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.bench.runtimes.runner import processor
from tutelage.pipeline.operations.devices import DeviceRequest, measure_device
from tutelage.progress import Report
from tutelage.quantities import latency_budgets
from tutelage.records import Arch, DeviceProfile, InputError, NotAvailableError, utc_now
from tutelage.search.spaces.space import Space

from .sections import DeviceSection
from .workspace import Workspace


@dataclass(frozen=True)
class Device:
    """A profile with its latency model (none where nothing is predicted) and, where the recipe sets one, the budget."""

    profile: DeviceProfile
    folder: Path
    latency: LatencyModel | None
    max_latency_ms: float | None = None  # the largest, where there are several
    risk: float = 0.05  # odds that a latency is above the end of the interval that it is weighed by
    budgets_ms: tuple[float, ...] = ()  # all of them, ascending

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def reachable(self) -> bool:
        """Say whether files are measured on it; what cannot be reached from here is predicted."""
        return self.profile.reachable

    @property
    def anchor_ms(self) -> float | None:
        """Give what the anchor nets took when the latency model was made; None: the drift since then is unknown."""
        return self.latency.anchor_ms if self.latency is not None else None

    @property
    def model(self) -> LatencyModel:
        """Give the latency model; a device that was only named has none."""
        if self.latency is None:
            raise InputError(f"device {self.name} has no latency model: `tutelage device add` measures one")
        return self.latency

    def predicted_ms(self, arch: Arch) -> tuple[float, float, float] | None:
        """Give low, mean and high in ms; None where nothing is predicted: no model, or one of other spaces or sizes."""
        if self.latency is None or not self.latency.covers(arch):
            return None
        mean, low, high = self.latency.predict([arch])
        return float(low[0]), float(mean[0]), float(high[0])


def open_device(
    workspace: Workspace,
    section: DeviceSection,
    space: Space,
    num_classes: int,
    channels: int,
    report: Report,
    *,
    tolerance: float = 0.05,
    precision: str = "fp32",
    sibling: DeviceProfile | None = None,
) -> Device:
    """Find the device's profile, or measure it now; then read the recipe's latency budget on it.

    precision: of the networks that a new profile's latency model is made of; at int8 they are quantized.
    sibling: another profile of the same device, which says where it is.
    """
    known = known_device(workspace.path, section, space)
    if known is not None:
        return known
    if sibling is not None and not sibling.reachable:
        raise InputError(
            f"device {sibling.name} cannot be reached from here, so {section.name} cannot be measured: import it "
            f"by `tutelage device add {section.name} --precision {precision} --from-measurements FILE`"
        )
    request = DeviceRequest(
        section.name,
        section.runtime,
        space,
        num_classes,
        channels,
        threads=section.threads,
        batch=section.batch,
        precision=precision,
        minutes=section.minutes,
        tolerance=tolerance,
        ssh=sibling.host if sibling is not None and sibling.host != "local" else "",
        command=sibling.command if sibling is not None else "",
        program=sibling.program if sibling is not None else "",
        cores=sibling.cores if sibling is not None else (),
    )
    return _predicting(section, measure_device(workspace, report, request), workspace.path / "devices", space)


def known_device(workspace: Path, section: DeviceSection, space: Space) -> Device | None:
    """Open a device whose profile is there, with its latency model and budget; None for one that is not measured yet.

    Raises InputError for a profile of another device than the recipe's, or without a latency model of `space`.
    """
    known = known_profile(section.name, workspace)
    if known is None:
        return None
    _check_same(section, known[0])
    return _predicting(section, *known, space)


def _predicting(section: DeviceSection, profile: DeviceProfile, folder: Path, space: Space) -> Device:
    """Give a device with the latency model and the budget that a search needs."""
    if profile.memory_only:
        raise InputError(
            f"device {section.name} is known by its memories alone, and nothing is timed on it: leave it out of "
            f"devices, and set search.target: {section.name}"
        )
    if not profile.latency_model:
        raise InputError(
            f"device {section.name} was measured without a latency model, which a search needs: `tutelage device "
            f"remove {section.name}` and search again, or name another device"
        )
    missing = set(space.resolutions) - set(profile.resolutions)
    if space.name not in profile.spaces or missing:
        raise InputError(
            f"device {section.name} has a latency model for {', '.join(profile.spaces)} at {list(profile.resolutions)} "
            f"px, this run needs {space.name} at {list(space.resolutions)} px: set supernet.space and "
            "supernet.resolutions to the profile's, or measure a device of another name"
        )
    model = load_latency_model(profile, folder)
    budgets = budgets_ms(section, model, space)
    return Device(profile, folder, model, budgets[-1] if budgets else None, section.risk, budgets)


def memory_target(workspace: Path, name: str) -> DeviceProfile:
    """Find the profile of a device that is known by its memories alone. Raises InputError for another one."""
    profile = target_profile(name, workspace)
    if profile is None:
        find_profile(name, workspace)  # says which there are where it is not known at all
        raise InputError(
            f"search.target {name} is a device that is measured or predicted: name it in devices, its RAM and flash by "
            "search.max_ram and search.max_flash"
        )
    return profile


def check_target(workspace: Path, name: str) -> DeviceProfile:
    """Give the profile of a target; refuse it where its files, which finalists are held to, cannot be made here."""
    target = memory_target(workspace, name)
    try:
        find_runtime("litert").check("int8")
    except NotAvailableError as missing:
        raise NotAvailableError(f"search.target {name}: its files are made by LiteRT, and {missing}") from None
    return target


def check_rows(workspace: Path, section: DeviceSection) -> None:
    """Refuse a device that a run makes no files for."""
    known = known_profile(section.name, workspace)
    runtime = find_runtime(known[0].runtime if known else section.runtime)
    if not runtime.files_rows:
        filing = ", ".join(one.listed for one in RUNTIMES.values() if one.files_rows)
        raise InputError(
            f"device {section.name} runs {runtime.name}: a run files rows of {filing} only; "
            "`tutelage search` holds a budget on it, `tutelage bench MODEL` measures a file on it"
        )
    if runtime.one_image and section.batch > 1:
        raise InputError(
            f"device {section.name} runs {runtime.name} at batch {section.batch}: a run makes its files for one "
            "image; set batch: 1, or use onnxruntime or openvino"
        )


def check_energy(workspace: Path, sections: Sequence[DeviceSection], max_energy: str | None) -> None:
    """Refuse an energy budget where no device has a counter that says whether a network keeps it."""
    if max_energy is None:
        return
    if not sections:
        raise InputError(
            f"max_energy {max_energy} is checked on measured finalists, and no device is named that is timed"
        )
    for section in sections:
        known = known_profile(section.name, workspace)
        runtime = known[0].runtime if known is not None else section.runtime
        if known is not None and not known[0].reachable:
            raise InputError(
                f"max_energy {max_energy}: device {section.name} cannot be reached from here, and energy is measured: "
                "leave the budget out"
            )
        if known is not None and not known[0].local:
            reason = missing_meter(known[0])
        else:
            meter = find_meter(runtime)
            reason = meter.reason if isinstance(meter, NoMeter) else ""
        if reason:
            raise InputError(
                f"max_energy {max_energy}: device {section.name} has no energy counter that this user may read; "
                f"{reason}; or leave the budget out"
            )


def check_runtime(workspace: Path, section: DeviceSection) -> None:
    """Refuse a device of this machine whose runtime is unknown or not installed, or a new one of too many threads."""
    known = known_profile(section.name, workspace)
    profile = known[0] if known else None
    if profile is None or profile.local:
        find_runtime(profile.runtime if profile else section.runtime).check(profile.precision if profile else "fp32")
    if profile is None:
        check_threads(section.threads, device=section.name)


def name_device(workspace: Workspace, section: DeviceSection, *, write: bool = True) -> Device:
    """Open a device that rows are measured on: a new one is only written down, and not even that unless `write`.

    Nothing is predicted for it, unless it cannot be reached: then its latency model says what it covers.
    """
    known = named_profile(workspace.path, section)
    if known is not None:
        profile, folder = known
        return Device(profile, folder, None if profile.reachable else load_latency_model(profile, folder))
    runtime = find_runtime(section.runtime)
    runtime.check("fp32")
    folder = workspace.path / "devices"
    profile = DeviceProfile(
        name=section.name,
        runtime=section.runtime,
        runtime_version=runtime.version(),
        threads=section.threads,
        batch=section.batch,
        cpu_model=processor(),
        created=utc_now(),
    )
    if write:
        write_profile(profile, folder)
    return Device(profile, folder, None)


def named_profile(workspace: Path, section: DeviceSection) -> tuple[DeviceProfile, Path] | None:
    """Give the profile of a device that rows are measured on and its folder; None for a device that has none yet."""
    if section.max_latency is not None:
        raise InputError(f"device {section.name}: max_latency bounds a search, and this recipe names its students")
    known = known_profile(section.name, workspace)
    if known is not None:
        _check_same(section, known[0])
    return known


def budgets_ms(section: DeviceSection, model: LatencyModel, space: Space) -> tuple[float, ...]:
    """Read the latency budgets, ascending: milliseconds, or fractions of the range from smallest to largest subnet."""
    read = latency_budgets(section.max_latency) if section.max_latency is not None else ()
    low, high = model.predict(_extremes(space))[0] if any(relative for _, relative in read) else (0.0, 0.0)
    found = [float(low + amount * (high - low)) if relative else amount for amount, relative in read]
    if found != sorted(set(found)):
        raise InputError(
            f"device {section.name}: max_latency {section.max_latency} is "
            f"{', '.join(f'{ms:.3g} ms' for ms in found)}: give the budgets in ascending order, each once"
        )
    return tuple(found)


def _extremes(space: Space) -> Sequence[Arch]:
    return [space.smallest(), space.largest()]


def _check_same(section: DeviceSection, profile: DeviceProfile) -> None:
    """Refuse a profile of another device than the recipe's, and one that says `local` but is of another machine."""
    if profile.reachable:
        check_reachable(profile)
    for field in ("runtime", "threads", "batch"):
        wanted, has = getattr(section, field), getattr(profile, field)
        if wanted != has:
            raise InputError(
                f"device {section.name}: the recipe asks for {field} {wanted}, the profile has {has}: use another name"
            )
