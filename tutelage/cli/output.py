"""Output of the verbs: tables and one-line facts for people, JSON for programs; one `print_*` function a result."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from tutelage.live import recording
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report, reporting
from tutelage.quantities import in_units
from tutelage.records import DeviceProfile, Row, Student

if TYPE_CHECKING:
    from tutelage.cli.options import Place
    from tutelage.distill.explain.maps import ExplanationFigures
    from tutelage.pipeline.operations.reproduce import Agreement
    from tutelage.pipeline.recipe import Recipe
    from tutelage.pipeline.run import Searched
    from tutelage.pipeline.sections import DeviceSection
    from tutelage.pipeline.stages.bundle import MadeBundle
    from tutelage.pipeline.stages.publish import Published
    from tutelage.pipeline.stages.search import Found

Setting = tuple[Workspace, Report, int]

# Of a run that goes on without some of it: what failed three times on workers, or what a runtime refuses.
EXIT_STAGES_FAILED = 5
MAX_ROWS = 40  # a screen: the table of a longer run shows its first device


@contextmanager
def run_setting(path: Path) -> Iterator[Setting]:
    """Open what a verb that writes needs: the workspace, locked, a progress report, and the threads it may use."""
    from tutelage.bench.protocol.host import busy_warning

    console = Console(stderr=True, markup=False)
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    workspace = Workspace(path)
    notes = [warning] if (warning := busy_warning()) else []  # of the host before the work of this command
    with workspace.locked(), reporting(console) as shown, recording(shown, workspace.path) as report:

        def noting(text: str, done: int, total: int) -> None:
            """Say that the host is busy when the work begins: a command that is refused before says only why."""
            while notes:
                console.print(f"note: {notes.pop()}", highlight=False, soft_wrap=True)
            report(text, done, total)

        yield workspace, noting, cores()


@contextmanager
def workers_setting(recipe: Recipe, setting: Setting, place: Place) -> Iterator[tuple[Setting, Mapping[str, str]]]:
    """Start or join the workers that were asked for; gives the setting of a run on them, and the stages that failed."""
    if not place.option:
        yield setting, {}
        return
    from tutelage.cluster.spread import spread, spread_on_cluster

    workspace, report, threads = setting
    if place.cluster is not None:
        opened = spread_on_cluster(recipe, workspace, report, place.cluster, place.share)
    else:
        assert place.workers is not None
        opened = spread(recipe, workspace, report, place.workers)
    with opened as spread_over:
        yield (spread_over, report, threads), spread_over.failed


def exit_for_failed(failed: Mapping[str, str]) -> None:
    """Say which stages of a run on workers failed, and end with an exit code of its own; nothing where none did."""
    if not failed:
        return
    for reason in failed.values():
        print(f"tutelage: {' '.join(reason.split())}", file=sys.stderr)
    print("tutelage: without what needs them; the same command tries them again", file=sys.stderr)
    sys.exit(EXIT_STAGES_FAILED)


def exit_for_refused(refused: Sequence[str]) -> None:
    """Say which files runtimes refused, and end with the same exit code; nothing where none did."""
    if not refused:
        return
    for one in refused:
        print(f"tutelage: left out: {one}", file=sys.stderr)
    print("tutelage: filed as failed, `tutelage leaderboard matrix` shows where; all else is complete", file=sys.stderr)
    sys.exit(EXIT_STAGES_FAILED)


def note_budget(max_latency: str | None, risk: float | None, devices: Sequence[DeviceSection] | None) -> None:
    """Say on standard error which of the recipe's devices a budget without --device holds on; None: they were named."""
    given = [f"--max-latency {max_latency}"] if max_latency is not None else []
    given += [f"--risk {risk:g}"] if risk is not None else []
    if devices is not None and given:
        names = ", ".join(section.name for section in devices)
        print(
            f"note: {' and '.join(given)} holds on the recipe's devices: {names}; --device names others",
            file=sys.stderr,
        )


def cores() -> int:
    """Count the cores this process may use, or take OMP_NUM_THREADS where that is fewer."""
    from tutelage.bench.protocol.host import available_cores

    allowed = available_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), allowed) if asked.isdigit() and int(asked) > 0 else allowed


def print_run(searched: Searched | None, published: Published, console: Console) -> None:
    """End a run: the table, what the search and the teachers were worth, and where the files lie."""
    print_rows_of_run(published.rows, console)
    if searched is not None:
        print_search(searched, console)
    for line in published.notes:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    rows = {row.key: row for row in published.rows}
    for headline in published.verdicts.headlines:
        console.print(_best_words(rows[headline.student]), highlight=False, soft_wrap=True)
    for warning in dict.fromkeys(one.warning for one in published.verdicts.headlines if one.warning):
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    for line in published.over:
        console.print(f"warning: {line}", highlight=False, soft_wrap=True)
    for name, path in (("report", published.report), ("plot", published.plot), ("table", published.table)):
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True)
    print_bundles(published.bundles, console)


def print_bundles(bundles: Sequence[MadeBundle], console: Console) -> None:
    """Name the bundles of a run, and the command that classifies a picture with the first of them."""
    for one in bundles:
        row = one.row
        latency = "" if row.latency_p50_ms is None else f", {row.latency_p50_ms:.3g} ms on {row.device}"
        what = f"{row.model} {row.scheme}, {row.runtime}, {in_units(row.size_bytes or 0, 'B')}{latency}"
        console.print(f"bundle: {one.folder} ({what})", highlight=False, markup=False, soft_wrap=True)
    if bundles:
        script = shlex.quote(str(bundles[0].folder / "predict.py"))
        console.print(f"classify a picture: python {script} PICTURE", highlight=False, markup=False, soft_wrap=True)


def _best_words(best: Row) -> str:
    trained = f"distilled from {best.teacher}" if best.teacher else "without a teacher"
    latency = "" if best.latency_p50_ms is None else f", {best.latency_p50_ms:.3g} ms on {best.device}"
    return (
        f"Best student by validation: {best.model} {best.scheme} {trained}: test accuracy "
        f"{_interval(best, 'accuracy')}, AUC {_interval(best, 'auc')}, {in_units(best.size_bytes or 0, 'B')}{latency}"
    )


def print_rows_of_run(rows: Sequence[Row], console: Console) -> None:
    """Print the rows of a run; of a long one those of its first device, and how to see the others."""
    others = Counter(row.device for row in rows if row.device != rows[0].device)
    hidden = others if len(rows) > MAX_ROWS else Counter()
    print_rows([row for row in rows if row.device not in hidden], console)
    for device, num in hidden.items():
        command = f"`tutelage leaderboard show --filter 'device={device}'`"
        console.print(f"{num} more rows on {device}: {command}", highlight=False, soft_wrap=True)


def print_search(searched: Searched, console: Console) -> None:
    """Print the winners, scored, counted, measured and predicted apart, and how many finalists broke a budget.

    The scored figure is the mean of the posterior with half its 95 % interval, by which winners are chosen. Measured is
    without the host's drift, as predictions are; the raw median stands beside it.
    """
    from tutelage.leaderboard.best import Candidate, choose
    from tutelage.pipeline.stages.budgets import bounds_in_words
    from tutelage.search.costs.counts import count

    found, devices = searched.found, searched.found.devices
    # The name of a single device stands in the title: in every heading it leaves the figures too few columns of 80.
    one = f", times on {devices[0].name}" if len(devices) == 1 else ""
    table = Table(title=f"Winners of the search in {searched.supernet.space.name}{one}", pad_edge=False, padding=0)
    scored = next(name for name, cheap in found.result.cheap.items() if not cheap)
    kinds: tuple[str, ...] = ("predicted ms", "measured ms", "raw p50 ms")
    bounded = bounds_in_words(searched.ctx)
    kinds += ("measured mJ",) if "max_energy" in bounded else ()
    times = [what if one else f"{device.name} {what}" for device in devices for what in kinds]
    table.add_column("winner", no_wrap=True)
    spread, unit = found.slicing.cost if len(found.choice.slices) > 1 else "", "ms"
    if spread:
        unit = "ms" if spread.startswith("latency_ms") else spread
        table.add_column(f"up to\n{unit}", justify="right")
    for column in (f"validation {scored}", "params", "MACs", *times):
        table.add_column(column.replace(" ", "\n"), justify="right")
    costs = count([winner.arch for winner in found.winners], searched.ctx.num_classes, searched.ctx.channels)
    for winner, params, macs in zip(found.winners, costs.params, costs.macs, strict=True):
        times = [
            f"{values[device.name]:.3f}" if device.name in values else "not measured"
            for device in devices
            for values in (winner.predicted_ms, winner.measured_ms, winner.p50_ms, winner.energy_mj)[: len(kinds)]
        ]
        counted = [in_units(int(number), "") for number in (params, macs)]
        part = [_ceiling(winner.slice.high, unit)] if spread and winner.slice is not None else []
        low, high = winner.interval
        table.add_row(winner.name, *part, f"{(low + high) / 2:.3f} ±{(high - low) / 2:.3f}", *counted, *times)
    console.print(table)
    candidates = []
    pairs = [*zip(found.winners, costs.params, strict=True)]
    judged = [pair for pair in pairs if not pair[0].flattered] or pairs
    for winner, params in judged:
        ms = winner.measured_ms.get(devices[0].name) if devices else None
        expected = winner.error if winner.expected is None else winner.expected
        quality = expected if found.result.objectives[scored] == "max" else 1 - expected
        candidates.append(Candidate(quality, 4.0 * int(params), None if ms is None else (ms, ms * 1.05)))
    if candidates:
        margin = searched.ctx.recipe.measure.margin
        best, _ = judged[choose(candidates, lambda place, best: None, margin)]
        console.print(f"Best winner by validation, before its training: {best.name}", highlight=False)
    budgets = [f"{device.name} {device.max_latency_ms:.3g} ms" for device in devices if device.max_latency_ms]
    held = f"the latency budget ({', '.join(budgets)})" if budgets else "a latency budget (none was set)"
    if bounded:
        held = f"a budget ({', '.join([*budgets, *(f'{name} {text}' for name, text in bounded.items())])})"
    if found.result.ended:
        console.print(f"{found.result.ended} (requested: {found.result.evaluations}).", highlight=False, soft_wrap=True)
    for line in (*found.choice.notes, *_verified(found, held)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"search: {found.folder / 'search.json'}\nwinners: {found.record}\npicture: {found.picture}",
        highlight=False,
        soft_wrap=True,
    )


def _ceiling(high: float, unit: str) -> str:
    """Write the upper end of a slice: milliseconds, or a count with its prefix."""
    return f"{high:.3g}" if unit == "ms" else in_units(int(high), "")


def _verified(found: Found, held: str) -> list[str]:
    """Say in words what was measured of the finalists, and what was predicted in its place."""
    lines = []
    files = [winner for winner in found.winners if winner.file_bytes]
    if files or any(device.reachable for device in found.devices) or not found.devices:
        lines.append(f"{found.broke} of {found.finalists} finalists broke {held} when measured again.")
    for winner in files:
        for name, size in winner.file_bytes.items():
            ram = winner.arena_bytes[name]
            lines.append(f"{winner.name} on {name}: {size:,} bytes of flash, {ram:,} bytes of RAM, by its int8 file.")
    for name, correction in found.choice.corrections.items():
        lines.append(f"Predictions for {name} are corrected: {correction.summary()}; further finalists go by that.")
    for device in found.devices:
        if not device.reachable:
            lines.append(f"{device.name} cannot be reached from here: its latencies are predicted, not measured.")
            continue
        known = [winner.drift[device.name] for winner in found.winners if device.name in winner.drift]
        paces = [drift for drift in known if drift is not None]
        if paces:
            lines.append(f"{device.name} ran {pace(sum(paces) / len(paces))} than when its profile was made.")
        else:
            lines.append(f"{device.name}: drift unknown, no anchor nets were measured with its profile.")
    return lines


def pace(drift: float) -> str:
    return f"{abs(drift):.1%} {'slower' if drift > 0 else 'faster'}"


def print_students(students: Sequence[Student], workspace: Path, console: Console) -> None:
    """Print trained students with their validation figures and the files of their weights."""
    table = Table(title="Students, figures on the validation split")
    for column in ("student", "teacher", "accuracy", "AUC", "parameters", "weights"):
        table.add_column(column)
    for student in students:
        figures = student.validation
        weights = str(workspace / student.weights.path) if student.weights else ""
        table.add_row(
            student.model,
            student.teacher or "(labels only)",
            *(f"{figures[name]:.4f}" if figures.get(name) is not None else "" for name in ("accuracy", "auc")),
            in_units(student.params or 0, ""),
            weights,
        )
    console.print(table)


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print rows as the table of the leaderboard."""
    from tutelage.leaderboard.terminal.table import show_table

    show_table(rows, console)


def print_agreement(agreement: Sequence[Agreement], console: Console, as_json: bool = False) -> None:
    """Print each figure then and now, and how far they agree."""
    if as_json:
        print(json.dumps([{**vars(one), "agrees": one.agrees, "difference": one.difference} for one in agreement]))
        return
    table = Table(title="The row run again")
    for column in ("figure", "then", "now", "agreement"):
        table.add_column(column)
    for one in agreement:
        shown = [f"{value:.6g}" if value is not None else "" for value in (one.then, one.now)]
        table.add_row(one.name, *shown, one.difference)
    console.print(table)
    compared = [one.agrees for one in agreement if one.agrees is not None]
    console.print(f"{sum(compared)} of {len(compared)} figures agree within their tolerance", highlight=False)


def print_explanations(
    figures: Mapping[str, ExplanationFigures], out: Path, console: Console, as_json: bool = False
) -> None:
    """Print how good and how alike the maps of each model are; what is undefined stays empty."""
    if as_json:
        print(json.dumps({name: value.to_dict() for name, value in figures.items()}))
        return
    columns = [name for name in next(iter(figures.values())).to_dict() if name not in ("method", "num_images")]
    table = Table(title="Explanations of validation images")
    for column in ("model", *columns):
        table.add_column(column.replace("_", " "))
    for name, value in figures.items():
        cells = value.to_dict()
        table.add_row(name, *("" if cells[column] is None else f"{cells[column]:.3f}" for column in columns))
    console.print(table)
    console.print(f"pictures: {out}", highlight=False, soft_wrap=True)


def print_figures(figures: Mapping[str, Any], console: Console, as_json: bool = False) -> None:
    """Print named figures a line each; names carry their units."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        absent = "unknown" if name == "drift" else "not measured"
        shown = f"{value:.4g}" if isinstance(value, float) else absent if value is None else str(value)
        console.print(f"{name:24} {shown}", highlight=False, soft_wrap=True, markup=False)


def print_device(profile: DeviceProfile, console: Console, as_json: bool = False) -> None:
    """Print what a device profile says, a line each."""
    print_figures(profile.to_dict(), console, as_json)


def print_added(profile: DeviceProfile, folder: Path, seconds: float, console: Console, as_json: bool = False) -> None:
    """Print a new profile, and then in words how steady the device is, how good its model and how long it took."""
    if as_json:
        print(json.dumps({**profile.to_dict(), "seconds": round(seconds, 1)}))
        return
    print_device(profile, console)
    steady = f"times known to {profile.steadiness:.1%} (95 % of nets); " if profile.steadiness is not None else ""
    if profile.session_noise is not None:
        steady += f"a later session differs by {profile.session_noise:.1%} (standard deviation); "
    error = (
        f"the model is off by {profile.model_error:.1%} on nets left out; " if profile.model_error is not None else ""
    )
    space = f" --space {profile.spaces[0]}" if profile.spaces else ""
    if profile.memory_only:
        console.print(
            f"{profile.name} is known by its memories alone: nothing is measured on it and no latency predicted\n"
            f"written: {folder / profile.name}.yaml, edit it freely",
            highlight=False,
            soft_wrap=True,
        )
        return
    if not profile.reachable:
        console.print(
            f"{profile.name} cannot be reached from here: it is predicted, never measured. Where it can be, give "
            "--ssh, --command or --here, or edit `host` in the profile",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{steady}{error}took {_duration(seconds)}\n"
        f"written: {folder / profile.name}.yaml, edit it freely; "
        f"next: tutelage search --device {profile.name}{space} --max-latency 5ms",
        highlight=False,
        soft_wrap=True,
    )


def _duration(seconds: float) -> str:
    """Write how long something took: seconds below two minutes."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _interval(row: Row, name: str) -> str:
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_lo", "_hi"))
    if value is None:
        return "undefined"
    if low is None or high is None:  # few test images: most resamples lack a class
        return f"{value:.3f} (interval undefined)"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
