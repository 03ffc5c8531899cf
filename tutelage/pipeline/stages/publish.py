"""Make rows of evaluated and measured variants, file them during the run, and write the page, plot and table."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tutelage.bench.protocol.cgroup import cpu_quota
from tutelage.bench.protocol.spread import latency_bounds
from tutelage.leaderboard.best import OVER_BUDGET, guessing
from tutelage.leaderboard.export import export
from tutelage.leaderboard.page.build import build_page
from tutelage.leaderboard.page.verdicts import Verdicts
from tutelage.leaderboard.plots.curves import arrows_plot, predicted_plot
from tutelage.leaderboard.plots.front import pareto_plot
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.team.people import filed_by
from tutelage.leaderboard.team.place import open_place
from tutelage.pipeline.context import Context, Refused
from tutelage.pipeline.curves import details_of_rows, with_curves
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.operations.paired import page_verdicts
from tutelage.pipeline.recipe import Recipe, built_in_recipes
from tutelage.pipeline.sharing.named import share, with_hashes
from tutelage.pipeline.workspace import Workspace
from tutelage.records import DeviceProfile, Measurement, Row, Student, utc_now
from tutelage.search.costs.counts import count

from .bundle import MadeBundle
from .evaluate import Evaluated
from .gains import Details, details_of
from .search import RESULT, Found


@dataclass(frozen=True)
class Published:
    """Where a run's results lie."""

    rows: tuple[Row, ...]
    report: Path
    plot: Path
    table: Path
    verdicts: Verdicts  # the best students, and the paired tests
    bundles: tuple[MadeBundle, ...] = ()  # those that the recipe asks for
    notes: tuple[str, ...] = ()  # what the run said of its teachers
    refused: tuple[str, ...] = ()  # what runtimes refused to make or to run, and why
    over: tuple[str, ...] = ()  # students whose files are above the memory limits


def file_rows(
    ctx: Context,
    store: Store,
    devices: Sequence[Device],
    evaluated: Sequence[Evaluated],
    measured: Mapping[str, Mapping[str, Measurement]],
    worth: Details,
    *,
    state: str,
    found: Found | None = None,
    explained: Mapping[str, dict[str, Any]] | None = None,
    refused: Sequence[Refused] = (),
) -> list[Row]:
    """File a row for every variant of the first seed on every device of its runtime; `evaluated` holds all their seeds.

    state: how far the rows are (`records.STATES`); a later state supersedes an earlier one of the same row. `found` is
    None where nothing was searched; `worth` is what `gains` gave; `explained` holds details by the hash of a file;
    `refused` says of which files a device has no measurement, and why.
    Where the team shares its files, those of the rows are copied there first.
    """
    rows, measurements = [], []
    failed = {(one.device, one.sha256): one.reason for one in refused}
    shown = [one for one in evaluated if one.variant.student.seed == ctx.recipe.seed]
    for device in devices:
        for one in shown:
            if one.variant.runtime != device.profile.runtime:
                continue
            measurement = measured.get(device.name, {}).get(one.variant.file.sha256)
            if measurement is not None:
                measurements.append(measurement)
            more = {"state": state, **details_of(worth, one), **(explained or {}).get(one.variant.file.sha256, {})}
            if (reason := failed.get((device.name, one.variant.file.sha256))) is not None:
                more["failed"] = reason
            row = _row(ctx, device, one, _control_of(one, shown), measurement, found, more)
            rows.append(with_hashes(row, ctx.workspace.path))
    if (place := open_place()) is not None:  # before a colleague can see the rows
        share(rows, ctx.workspace.path, place)
    store.add(rows, measurements)
    return rows


def file_refused(
    ctx: Context, store: Store, devices: Sequence[Device], refused: Sequence[Refused], *, state: str
) -> None:
    """File a row without figures, and with the reason, of what has no file: for every device of the runtime.

    Only of networks of the first seed, as all rows are. A later run that succeeds supersedes it.
    """
    found = [one for one in refused if not one.sha256 and one.student.seed == ctx.recipe.seed]
    rows = [
        Row(
            model=one.student.model,
            role=one.student.role,
            arch=one.student.subnet,
            teacher=one.student.teacher,
            recipe=ctx.recipe.name,
            scheme=one.scheme,
            **_data_facts(ctx),
            **_device_facts(device.profile, None),
            params=one.student.params,
            macs=one.student.macs,
            seed=ctx.recipe.seed,
            created=utc_now(),
            parent=one.student.model if one.scheme != "fp32" else "",
            details={
                "failed": one.reason,
                "state": state,
                "manifest": ctx.dataset.manifest,
                **_reader(ctx),
                "how": {
                    "command": command_of(ctx.recipe),
                    "recipe": ctx.recipe.model_dump(mode="json"),
                    "settings": settings_of(ctx.recipe, one.student, one.scheme),
                    "network": one.student.to_dict(),
                },
                **filed_by(ctx.recipe.project),
            },
        )
        for device in devices
        for one in found
        if one.runtime == device.profile.runtime
    ]
    if rows:
        store.add(rows)


def publish(ctx: Context, rows: Sequence[Row], found: Found | None) -> Published:
    """Draw what the rows of a run show: the page, the plots and the table."""
    folder = ctx.workspace.path / "runs" / ctx.recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    title = ctx.recipe.title or ctx.recipe.name
    report, plot, table = folder / "report.html", folder / "pareto.png", folder / "leaderboard.csv"
    _draw_curves(rows, found, folder)
    verdicts = page_verdicts(rows, ctx.workspace.path)
    curves = with_curves(details_of_rows(rows), ctx.workspace.path)
    build_page(rows, report, title, verdicts=verdicts, details=curves)
    pareto_plot(rows, plot, title=title)
    export(rows, table, "csv")
    return Published(tuple(rows), report, plot, table, verdicts)


def _draw_curves(rows: Sequence[Row], found: Found | None, folder: Path) -> None:
    """Draw what the search, the latency model and the teachers did, beside the plot of the fronts."""
    if found is not None:
        found.draw(folder)
    guessed = [row.details for row in rows if {"predicted_ms", "anchored_ms"} <= set(row.details)]
    if guessed:
        predicted = [details["predicted_ms"][1] for details in guessed]
        predicted_plot(predicted, [details["anchored_ms"] for details in guessed], folder / "latency-predicted.png")
    if any(row.control for row in rows):
        arrows_plot(rows, folder / "distillation-and-int8.png")


def _row(
    ctx: Context,
    device: Device,
    one: Evaluated,
    control: Evaluated | None,
    measurement: Measurement | None,
    found: Found | None,
    more: Mapping[str, Any],
) -> Row:
    student = one.variant.student
    row = Row(
        model=student.model,
        role=student.role,
        arch=student.subnet,
        teacher=student.teacher,
        recipe=ctx.recipe.name,
        scheme=one.variant.scheme,
        **_data_facts(ctx),
        **_device_facts(device.profile, measurement),
        **_figures(one, more),
        params=student.params,
        macs=student.macs,
        size_bytes=one.variant.file.size_bytes,
        latency_p50_ms=measurement.p50_ms if measurement else None,
        latency_p90_ms=measurement.p90_ms if measurement else None,
        latency_p99_ms=measurement.p99_ms if measurement else None,
        peak_rss_bytes=measurement.peak_rss_bytes if measurement else None,
        energy_mj=measurement.energy_mj if measurement else None,
        seed=ctx.recipe.seed,
        created=utc_now(),
        measurement=measurement.id if measurement else "",
        control=control.variant.student.model if control else "",
        parent=student.model if one.variant.scheme != "fp32" else "",
        details={
            **_details(ctx, device, one, student, found),
            **_latency_details(device, one, measurement),
            **latency_bounds(measurement),
            **_memory(ctx, one),
            **more,
        },
    )
    said = [*filter(None, [guessing(row)]), *(f"does not fit: {text}" for text in more.get(OVER_BUDGET, ()))]
    return row.model_copy(update={"details": {**row.details, "notes": [*student.notes, *said]}}) if said else row


def _memory(ctx: Context, one: Evaluated) -> dict[str, int]:
    """Give the RAM of a subnet on a microcontroller, as a search bounds it; nothing of a network of another kind."""
    arch = one.variant.student.subnet
    if arch is None:
        return {}
    counts = count([arch], ctx.num_classes, ctx.channels)
    ram = counts.ram_bytes if one.variant.scheme == "fp32" else counts.int8_ram_bytes
    return {"ram_estimated_bytes": int(ram[0])}


def _data_facts(ctx: Context) -> dict[str, Any]:
    """Say what a run evaluates on, as fields of a row."""
    dataset = ctx.dataset
    return {
        "dataset": dataset.called,
        "manifest": dataset.manifest,
        "split": "test (leaky split)" if dataset.leaky else "test",
        "fold": ctx.recipe.data.fold,
        "image_size": ctx.size,
    }


def _reader(ctx: Context) -> dict[str, str]:
    """Say by which name of the registry a set is read that has a name of its own; rows are identified by it."""
    return {} if ctx.dataset.called == ctx.dataset.name else {"data_reader": ctx.dataset.name}


def _device_facts(profile: DeviceProfile, measurement: Measurement | None) -> dict[str, Any]:
    """Say what a file runs on, as fields of a row: as the measurement found it, before that as the profile says."""
    return {
        "device": profile.name,
        "runtime": profile.runtime,
        "runtime_version": measurement.runtime_version if measurement else profile.runtime_version,
        "processor": (measurement.processor if measurement else "") or profile.cpu_model,
        "precision": profile.precision,
        "power_state": measurement.power_state if measurement else "",
        "batch": profile.batch,
        "threads": profile.threads,
    }


def command_of(recipe: Recipe) -> str:
    """Give the command that runs a recipe again; one that was read from a file is not found by its name."""
    if recipe.command:
        return recipe.command
    if recipe.name in built_in_recipes():
        return f"tutelage run {recipe.name}"
    return f"tutelage run FILE, the recipe file that is named {recipe.name}"


def _figures(one: Evaluated, more: Mapping[str, Any]) -> dict[str, float | None]:
    """Give accuracy and AUC with their intervals: over seeds where there are several, else those of the file."""
    names = [f"{name}{end}" for name in ("accuracy", "auc") for end in ("", "_lo", "_hi")]
    if "seeds" not in more:
        return {name: getattr(one.evaluation, name) for name in names}
    seeds = more["seeds"]
    return {name: seeds[name if name.endswith(("_lo", "_hi")) else f"{name}_mean"] for name in names}


def _details(ctx: Context, device: Device, one: Evaluated, student: Student, found: Found | None) -> dict[str, Any]:
    result = one.evaluation
    details: dict[str, Any] = {
        "validation": {"accuracy": one.validation.accuracy, "auc": one.validation.auc},
        "threshold": one.threshold,
        **({"quantization": one.variant.quantization} if one.variant.quantization else {}),
        "predictions": one.predictions,
        "test_images": len(one.labels),
        "per_class": dict(
            zip(ctx.dataset.class_names, [figures.to_dict() for figures in result.per_class], strict=True)
        ),
        "balanced_accuracy": result.balanced_accuracy,
        "f1": result.f1,
        "brier": result.brier,
        "ece": result.ece,
        "confusion": result.confusion,
        "manifest": ctx.dataset.manifest,
        **_reader(ctx),
        "data_notes": list(ctx.dataset.notes),
        "how": {
            "command": command_of(ctx.recipe),
            "recipe": ctx.recipe.model_dump(mode="json"),
            "settings": settings_of(ctx.recipe, student, one.variant.scheme),
            "network": student.to_dict(),
            "file": one.variant.file.to_dict(),
        },
        "side_px": ctx.resolution(student),
        "mac_counter": "conv + linear" if student.subnet is not None else "torch FlopCounterMode / 2",
        "start": student.start,
        "epochs": student.epochs,
        **({"notes": list(student.notes)} if student.notes else {}),
        **filed_by(ctx.recipe.project),
        **made_by(ctx.workspace, one),
        **({"commit": commit} if (commit := checkout_commit()) else {}),
        "accelerator": trained_on(ctx.workspace, one),
        "cpu": device.profile.cpu_model,
        "cpu_quota": cpu_quota() if device.profile.local else None,  # cores, where a container limits them
    }
    if one.second is not None:
        details["second_test"] = one.second.to_dict()
    if one.shift_details:
        details["shift"] = one.shift_details
    if student.pruned is not None:
        details["pruned"] = student.pruned.model_dump(mode="json", exclude={"shapes"})
    if found is not None and _origin(student) in {winner.name for winner in found.winners}:
        file = ctx.workspace.relative(found.folder / RESULT)
        details["search"] = {"finalists": found.finalists, "broke_budget": found.broke, "file": file}
        if found.result.importances:
            scored = next(name for name, cheap in found.result.cheap.items() if not cheap)
            details["search"] |= {"scored": scored, "importances": dict(found.result.importances)}
        if device.max_latency_ms is not None:
            details["budget_ms"] = round(device.max_latency_ms, 4)
    return details


@lru_cache(maxsize=1)
def checkout_commit() -> str:
    """Give the commit of the checkout that this runs from, `-dirty` with changes; empty where it is installed."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _origin(student: Student) -> str:
    """Name the network of the run that a student is, or that it was pruned from."""
    return student.pruned.parent if student.pruned is not None else student.model


def made_by(workspace: Workspace, one: Evaluated) -> dict[str, Any]:
    """Say which versions computed a row's weights, file and predictions, from the stages that did.

    Where the stages were done by several versions of one thing, all are named, the one of the weights first.
    """
    weights = one.variant.student.weights
    trained = [] if weights is None else [Path(weights.path).parent.name]
    versions: dict[str, list[str]] = {}
    for key in dict.fromkeys([*trained, *one.variant.stages, one.stage]):
        for name, value in workspace.versions(key).items():
            known = versions.setdefault(name, [])
            if value and value not in known:
                known.append(value)
    said = {name: ", ".join(values) for name, values in sorted(versions.items()) if values}
    return {"python": said.pop("python", ""), "versions": said}


def trained_on(workspace: Workspace, one: Evaluated) -> str:
    """Say what trained a row's network, and its QAT where it has one; empty for stages that do not say."""
    weights = one.variant.student.weights
    keys = [*([] if weights is None else [Path(weights.path).parent.name]), *one.variant.stages]
    return "; ".join(dict.fromkeys(filter(None, map(workspace.accelerator, keys))))


def _latency_details(device: Device, one: Evaluated, measurement: Measurement | None) -> dict[str, Any]:
    """Say what is predicted (low, mean, high) and, beside the raw percentiles, measured on the prediction's scale.

    A latency model is valid for the precision it was fitted on: an fp32 profile predicts only fp32 files.
    """
    details: dict[str, Any] = {}
    student, integer = one.variant.student, one.variant.scheme != "fp32"
    same = (device.profile.precision == "int8") == integer
    if same and student.subnet is not None and (predicted := device.predicted_ms(student.subnet)) is not None:
        details["predicted_ms"] = [round(value, 4) for value in predicted]
    if measurement is not None and measurement.anchored_ms is not None:
        details["anchored_ms"] = round(measurement.anchored_ms, 4)
        if measurement.energy_method:
            details["energy_method"] = measurement.energy_method
        details["drift"] = "unknown" if measurement.drift is None else round(measurement.drift, 4)
    if not device.reachable:
        details["latency"] = "predicted, not measured: the device cannot be reached from here"
    return details


def _control_of(one: Evaluated, evaluated: Sequence[Evaluated]) -> Evaluated | None:
    """Find the same network trained without a teacher, in the same scheme and runtime."""
    student, variant = one.variant.student, one.variant
    if not student.teacher:
        return None
    for other in evaluated:
        same = (other.variant.student.model, other.variant.scheme, other.variant.runtime)
        mine = (student.model, variant.scheme, variant.runtime)
        if same == mine and not other.variant.student.teacher and other.variant.student.role != "teacher":
            return other
    return None
