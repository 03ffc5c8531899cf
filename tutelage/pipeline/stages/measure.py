"""Measure every file on every device of the recipe, all files of a device interleaved in one session.

A device that cannot be reached from here has no measurements: its rows show predictions, in columns of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.bench.protocol.measure import measure
from tutelage.files import write_json
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device
from tutelage.records import Measurement

from .compress import Variant


def measure_all(ctx: Context, device: Device, variants: Sequence[Variant]) -> dict[str, Measurement]:
    """Give the measurement of each variant of the device's runtime, by the variant's file hash; none out of reach."""
    if not device.reachable:
        ctx.report(f"{device.name} cannot be reached from here: predicted, not measured", 1, 1)
        return {}
    mine = [variant for variant in variants if variant.runtime == device.profile.runtime]
    inputs = {
        "device": device.profile.to_dict(),
        "files": sorted({variant.file.sha256 for variant in mine}),
        "sides": sorted({ctx.resolution(variant.student) for variant in mine}),
        "channels": ctx.channels,
        "samples": ctx.recipe.measure.samples,
        "anchor_ms": device.anchor_ms,
    }

    def work(folder: Path) -> dict[str, Any]:
        found: dict[str, Measurement] = {}
        for side in sorted({ctx.resolution(variant.student) for variant in mine}):
            found |= measure(
                {
                    variant.file.sha256: ctx.workspace.path / variant.file.path
                    for variant in mine
                    if ctx.resolution(variant.student) == side
                },
                device.profile,
                (ctx.channels, side, side),
                samples=ctx.recipe.measure.samples,
                tolerance=ctx.recipe.measure.tolerance,
                anchor_ms=device.anchor_ms,
                progress=lambda text, done, total: ctx.report(f"measure on {device.name}", done, total),
            )
        write_json(folder / "measurements.json", {sha: value.to_dict() for sha, value in found.items()})
        return {sha: value.to_dict() for sha, value in found.items()}

    stage = ctx.workspace.stage(f"measure on {device.name}", inputs, work)
    return {sha: Measurement.from_dict(value) for sha, value in stage.result.items()}
