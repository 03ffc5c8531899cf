"""What a run says at its start: its memory limits, the stages it reuses, and those it computes and why."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tutelage.pipeline.keys.earlier import LACKS
from tutelage.pipeline.keys.plan import NEW, Plan, Planned
from tutelage.pipeline.recipe import Recipe

MAX_LINES = 12  # of stages that are done again; more of them are counted


def announcing(recipe: Recipe, workspace: Path, given: Iterable[str]) -> Callable[[Plan], None]:
    """Give what prints the memory limits of a run, and then its plan; `given`: what the command line sets."""

    def announce(plan: Plan) -> None:
        if line := memories_line(recipe, workspace, given):
            print(line, file=sys.stderr)
        print_plan(plan)

    return announce


def memories_line(recipe: Recipe, workspace: Path, given: Iterable[str]) -> str:
    """Say the memory limits of a recipe and where they come from; empty where there are none."""
    from tutelage.pipeline.stages.budgets import binding_memories

    return binding_memories(recipe, workspace, set(given))


def keys_given(changes: Sequence[str] | None, options: Mapping[str, object] | None = None) -> list[str]:
    """Name the keys of a recipe that --set and the options of a verb set."""
    keys = [change.partition("=")[0].strip() for change in changes or ()]
    keys += [key for key, value in (options or {}).items() if value is not None]
    return ["search.max_size" if key == "search.max_flash" else key for key in keys]


def print_plan(plan: Plan) -> None:
    """Print a plan on standard error."""
    for line in plan_lines(plan):
        print(line, file=sys.stderr)


def print_rehearsal(plan: Plan, as_json: bool, first: str = "") -> None:
    """Print what a run would do, on standard output: lines, or the stages with what each is reused or computed for."""
    if as_json:
        stages = [
            {"stage": one.stage, "title": one.title, "key": one.key, "reason": one.reason}
            for one in (*plan.reused, *plan.computed)
        ]
        print(json.dumps({"measured_first": plan.unmeasured, "undecided": plan.undecided, "stages": stages}))
        return
    print("\n".join([*filter(None, [first]), *plan_lines(plan)]))


def plan_lines(plan: Plan) -> list[str]:
    """Say what is reused, what is done again with the reason, and how much is new."""
    new = [one for one in plan.computed if one.reason == NEW]
    lacking = [one for one in plan.computed if one.reason.startswith(LACKS)]
    again = [one for one in plan.computed if one.reason != NEW and one not in lacking]
    lines = [f"reused: {len(plan.reused)} finished stages ({_counted(plan.reused)})"] if plan.reused else []
    if taken := [one for one in plan.reused if one.key in plan.taken]:
        lines.append(f"of them from the version before: {len(taken)} ({_counted(taken)})")
    lines += [f"done again: {one.title} ({one.reason})" for one in again[:MAX_LINES]]
    if len(again) > MAX_LINES:
        lines.append(f"done again: {len(again) - MAX_LINES} more stages ({_counted(again[MAX_LINES:])})")
    for reason in dict.fromkeys(one.reason for one in lacking):
        lines.append(f"done again: {_counted(one for one in lacking if one.reason == reason)} ({reason})")
    if new:
        lines.append(f"new: {len(new)} {'stage' if len(new) == 1 else 'stages'} ({_counted(new)})")
    if plan.unmeasured:
        lines.append(
            f"measured first: {', '.join(plan.unmeasured)}; the search and what is measured there depend on it"
        )
    if plan.open:
        lines.append("the students of the winners follow when the search is finished")
    if plan.undecided:
        lines.append(f"decided on validation, when what it compares is trained: {', '.join(plan.undecided)}")
    return lines


def _counted(stages: Iterable[Planned]) -> str:
    counts = Counter(one.stage for one in stages)
    return ", ".join(f"{name} {number}" if number > 1 else name for name, number in counts.items())
