"""What a run says at its start: which stages it reuses, and which it computes and why (`print_plan`)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable

from tutelage.pipeline.keys.plan import NEW, Plan, Planned
from tutelage.pipeline.run import Rehearsal

MAX_LINES = 12  # of stages that are done again; more of them are counted


def print_plan(plan: Plan) -> None:
    """Print a plan on standard error."""
    for line in plan_lines(plan):
        print(line, file=sys.stderr)


def print_rehearsal(rehearsal: Rehearsal, as_json: bool) -> None:
    """Print what a run would do, on standard output: lines, or the stages with what each is reused or computed for."""
    plan = rehearsal.plan
    if as_json:
        stages = [
            {"stage": one.stage, "title": one.title, "key": one.key, "reason": one.reason}
            for one in (*plan.reused, *plan.computed)
        ] if plan is not None else []  # fmt: skip
        print(json.dumps({"measured_first": rehearsal.unmeasured, "stages": stages}))
        return
    if plan is None:
        print(f"measured first: {', '.join(rehearsal.unmeasured)}; the plan of the stages depends on it")
        return
    print("\n".join(plan_lines(plan)))


def plan_lines(plan: Plan) -> list[str]:
    """Say what is reused, what is done again with the reason, and how much is new."""
    new = [one for one in plan.computed if one.reason == NEW]
    again = [one for one in plan.computed if one.reason != NEW]
    lines = [f"reused: {len(plan.reused)} finished stages ({_counted(plan.reused)})"] if plan.reused else []
    lines += [f"done again: {one.title} ({one.reason})" for one in again[:MAX_LINES]]
    if len(again) > MAX_LINES:
        lines.append(f"done again: {len(again) - MAX_LINES} more stages ({_counted(again[MAX_LINES:])})")
    if new:
        lines.append(f"new: {len(new)} {'stage' if len(new) == 1 else 'stages'} ({_counted(new)})")
    if plan.open:
        lines.append("the students of the winners follow when the search is finished")
    return lines


def _counted(stages: Iterable[Planned]) -> str:
    counts = Counter(one.stage for one in stages)
    return ", ".join(f"{name} {number}" if number > 1 else name for name, number in counts.items())
