"""Measure every file on every device of the recipe, all files of a device interleaved in one session.

A device that cannot be reached from here has no measurements: its rows show predictions, in columns of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tutelage.bench.protocol.measure import measure
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.files import write_json
from tutelage.pipeline.context import Context, Resources, run_stage
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import FileInput, Part, StageInputs, versions_of
from tutelage.records import DeviceProfile, Measurement

from .compress import Variant


class DeviceInput(Part):
    """A device, as far as it changes what is measured on it."""

    name: str
    runtime: str
    runtime_version: str  # where the profile was made; that of this machine is among the versions
    threads: int
    batch: int
    precision: str
    cpu_model: str
    host: str
    command: str
    cores: Annotated[tuple[int, ...], Former(())]
    anchor_ms: float | None
    profile: DeviceProfile = Field(exclude=True)

    @classmethod
    def of(cls, device: Device) -> DeviceInput:
        """Take from an opened device what its measurements depend on."""
        profile = device.profile
        names = [name for name in cls.model_fields if name not in ("anchor_ms", "profile")]
        values = {name: getattr(profile, name) for name in names}
        return cls(**values, anchor_ms=device.anchor_ms, profile=profile)


class MeasureInputs(StageInputs):
    """The latency of some files on one device, all interleaved in one session a resolution."""

    STAGE: ClassVar[str] = "measure"

    device: DeviceInput
    files: dict[str, tuple[FileInput, ...]]  # by resolution in pixels
    channels: int
    samples: int
    tolerance: float

    @property
    def places(self) -> dict[str, str]:
        own = {name: f"measure.{name}" for name in ("samples", "tolerance")}
        return {**own, "device": f"devices.{self.device.name}", "files": "the set of files"}


def measure_all(ctx: Context, device: Device, variants: Sequence[Variant]) -> dict[str, Measurement]:
    """Give the measurement of each variant of the device's runtime, by the variant's file hash; none out of reach."""
    if not device.reachable:
        ctx.report(f"{device.name} cannot be reached from here: predicted, not measured", 1, 1)
        return {}
    files: dict[str, dict[str, FileInput]] = {}
    for variant in variants:
        if variant.runtime == device.profile.runtime:
            file = FileInput.of(variant.file)
            files.setdefault(str(ctx.resolution(variant.student)), {})[file.sha256] = file
    inputs = MeasureInputs(
        title=f"measure on {device.name}",
        versions=device_versions(device),
        device=DeviceInput.of(device),
        files={side: tuple(some[sha] for sha in sorted(some)) for side, some in files.items()},
        channels=ctx.channels,
        samples=ctx.recipe.measure.samples,
        tolerance=ctx.recipe.measure.tolerance,
    )
    stage = run_stage(ctx, inputs, _measure)
    return {sha: Measurement.from_dict(value) for sha, value in stage.result.items()}


def device_versions(device: Device) -> dict[str, str]:
    """Give the version of the runtime that measures; another host's is known from its profile only."""
    return versions_of([find_runtime(device.profile.runtime).distribution]) if device.profile.local else {}


def _measure(inputs: MeasureInputs, here: Resources, folder: Path) -> dict[str, Any]:
    found: dict[str, Measurement] = {}
    for side, files in sorted(inputs.files.items(), key=lambda item: int(item[0])):
        found |= measure(
            {file.sha256: here.workspace.path / file.path for file in files},
            inputs.device.profile,
            (inputs.channels, int(side), int(side)),
            samples=inputs.samples,
            tolerance=inputs.tolerance,
            anchor_ms=inputs.device.anchor_ms,
            progress=lambda text, done, total: here.report(inputs.title, done, total),
        )
    write_json(folder / "measurements.json", {sha: value.to_dict() for sha, value in found.items()})
    return {sha: value.to_dict() for sha, value in found.items()}
