"""Measure every file on every device of the recipe, all files of a device interleaved in one session.

A device that cannot be reached from here has no measurements: its rows show predictions, in columns of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tutelage.bench.protocol.lines import ModelRefusedError
from tutelage.bench.protocol.measure import measure
from tutelage.bench.protocol.remote import one_way_to
from tutelage.bench.protocol.worker import Reached
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.files import write_json
from tutelage.pipeline.context import Context, Refused, Resources, run_stage
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import FileInput, Part, StageInputs, versions_of
from tutelage.records import DeviceProfile, Measurement

from .compress import Variant, left_out


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
    """Give the measurement of each variant of the device's runtime, by the variant's file hash; none out of reach.

    Files that the runtime refuses there are reported, and have none.
    """
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
    for variant in variants:
        found = stage.result.get(variant.file.sha256, {}) if variant.runtime == device.profile.runtime else {}
        if "left_out" in found:
            left_out(ctx, f"{variant.title} was not measured on {device.name}: {found['left_out']}")
            student, scheme, runtime = variant.student, variant.scheme, variant.runtime
            reason, sha256 = str(found["left_out"]), variant.file.sha256
            ctx.refused(Refused(student, scheme, runtime, reason, device.name, sha256))
    return {sha: Measurement.from_dict(value) for sha, value in stage.result.items() if "left_out" not in value}


def device_versions(device: Device) -> dict[str, str]:
    """Give the version of the runtime that measures; another host's is known from its profile only."""
    return versions_of([find_runtime(device.profile.runtime).distribution]) if device.profile.local else {}


def _measure(inputs: MeasureInputs, here: Resources, folder: Path) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    with one_way_to(inputs.device.profile) as launcher:
        for side, files in sorted(inputs.files.items(), key=lambda item: int(item[0])):
            wanted = {file.sha256: here.workspace.path / file.path for file in files}
            found |= _measure_at(int(side), wanted, inputs, here, launcher)
    write_json(folder / "measurements.json", found)
    return found


def _measure_at(
    side: int, wanted: dict[str, Path], inputs: MeasureInputs, here: Resources, launcher: Reached | None
) -> dict[str, dict[str, Any]]:
    """Measure files of one resolution together, without those that the runtime refuses."""
    refused: dict[str, dict[str, Any]] = {}
    while wanted:
        try:
            some = measure(
                wanted,
                inputs.device.profile,
                (inputs.channels, side, side),
                samples=inputs.samples,
                tolerance=inputs.tolerance,
                anchor_ms=inputs.device.anchor_ms,
                progress=lambda text, done, total: here.report(inputs.title, done, total),
                launcher=launcher,
            )
        except ModelRefusedError as error:
            if error.model not in wanted:  # an anchor: the device is not as it was
                raise
            del wanted[error.model]
            refused[error.model] = {"left_out": error.reason}
            continue
        return refused | {sha: value.to_dict() for sha, value in some.items()}
    return refused
