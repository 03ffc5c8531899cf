"""Where an inference of a model file spends its time (`bench_layers`), beside the latency model's blocks.

What is found of the very file that rows were measured on is kept for their pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.bench.devices.profiles import find_profile, load_latency_model
from tutelage.bench.layers.profile import Layer, check_profiled, profile_layers
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.files import model_digest, sha256_of, write_json
from tutelage.pipeline.curves import layers_file
from tutelage.pipeline.workspace import Workspace
from tutelage.records import DeviceProfile, InputError
from tutelage.search.costs.counts import block_specs

from .board import open_board
from .single_stage import converted, input_shape, must_exist, read_arch


@dataclass(frozen=True)
class Profiled:
    """The layers of a model on a device, and what the device's latency model takes each block of the network for."""

    device: str
    runtime: str
    layers: tuple[Layer, ...]
    blocks: tuple[tuple[str, float], ...] = ()  # of the architecture: block and ms
    rows: tuple[str, ...] = ()  # of this file on this device, whose pages show the layers from now on


def bench_layers(
    workspace: Workspace, *, model: Path, device: str, resolution: int | None, arch: Path | None = None
) -> Profiled:
    """Profile a model file; an ONNX file is converted where the runtime needs it. `arch`: its architecture, as JSON."""
    must_exist(model)
    profile, folder = find_profile(device, workspace.path)
    check_profiled(profile)
    shape = input_shape(model, resolution, several=".onnx" in find_runtime(profile.runtime).suffixes)
    blocks: list[tuple[str, float]] = []
    if arch is not None:
        found = load_latency_model(profile, folder)
        if not found.blocks:
            raise InputError(f"device {device} has no times of blocks, only of whole networks: leave out --arch")
        named = read_arch(arch)
        specs = block_specs(named, found.num_classes, found.in_channels)
        missing = next((spec for spec in specs if spec.key not in found.blocks), None)
        if missing is not None:
            known = ", ".join(f"{space} at {', '.join(map(str, found.resolutions))} px" for space in found.spaces)
            raise InputError(
                f"device {device} has times of the blocks of {known}, not of {named.space} at {named.r} px"
            )
        blocks = [(spec.key, found.blocks[spec.key]) for spec in specs]
    ready = converted(model, profile, shape, workspace.path / "cache" / "converted")
    layers = tuple(profile_layers(ready, profile, shape))
    rows = _keep(workspace, model, profile, layers) if ready == model else ()
    return Profiled(device, profile.runtime, layers, tuple(blocks), rows)


def _keep(workspace: Workspace, model: Path, profile: DeviceProfile, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Write the layers for each row of this file on this device, and give the rows' ids; none without a leaderboard."""
    if not (workspace.path / "leaderboard.db").is_file():
        return ()
    digests = {sha256_of(model), model_digest(model)}
    rows = [
        row.key
        for row in open_board(workspace.path).rows()
        if row.device == profile.name and (row.details.get("how") or {}).get("file", {}).get("sha256") in digests
    ]
    for key in rows:
        if (file := layers_file(workspace.path, key)) is not None:
            file.parent.mkdir(exist_ok=True)
            write_json(file, [layer.to_dict() for layer in layers])
    return tuple(rows)
