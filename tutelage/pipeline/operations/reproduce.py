"""Run the recipe of a row again (`reproduce`): counts and accuracy must agree exactly, times and memory within a
tolerance.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tutelage.pipeline.changes import one_line
from tutelage.pipeline.recipe import Recipe, with_options
from tutelage.pipeline.sharing.fetched import fetch_device
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.records import InputError, Row

from .board import open_board

if TYPE_CHECKING:
    from tutelage.pipeline.keys.plan import Plan

log = logging.getLogger(__name__)

# Figures that the same seed gives again to the digit; the rest are measured and only compared by ratio.
EXACT = ("accuracy", "auc", "params", "macs", "size_bytes")
MEASURED = ("latency_p50_ms", "latency_p90_ms", "peak_rss_bytes")


@dataclass(frozen=True)
class Agreement:
    """One figure of a row then and now."""

    name: str
    then: float | None
    now: float | None
    tolerance: float  # relative; 0: exactly equal

    @property
    def agrees(self) -> bool | None:
        """Say whether both are within the tolerance; None where one was not measured."""
        if self.then is None or self.now is None:
            return None
        return self.then == self.now or abs(self.now / self.then - 1) <= self.tolerance if self.then else self.now == 0

    @property
    def difference(self) -> str:
        if self.then is None or self.now is None:
            return "not measured" if self.then is self.now else "measured once only"
        if not self.tolerance:
            return "the same" if self.agrees else f"differs by {self.now - self.then:+.4g}: it should be the same"
        return f"{self.now / self.then - 1:+.1%}, {'within' if self.agrees else 'outside'} ±{self.tolerance:.0%}"


def check_place(origin: Path, into: Path) -> None:
    """Refuse to run again in the workspace of the row: its stages are done there, so nothing would be run."""
    if origin.expanduser().resolve() == into.expanduser().resolve():
        raise InputError(f"--into {str(into)!r} is the row's own workspace, where all is done: name another folder")


def reproduce(
    row_id: str,
    origin: Path,
    workspace: Workspace,
    report: Report,
    threads: int,
    accelerator: str | None = None,
    announce: Callable[[Plan], None] | None = None,
) -> list[Agreement]:
    """Run the recipe of a row again in another workspace, with the same device profiles, and compare that row.

    Counts and accuracies must be exactly equal; times and memory may differ by the recipe's `tolerance`, which
    is how far two halves of one measurement may differ. accelerator: in place of the recipe's, where that is not here.
    """
    from tutelage.pipeline import run as pipeline  # it brings torch, which `check_place` does without

    row = open_board(origin).row(row_id)
    if "how" not in row.details:
        raise InputError(f"row {row.key} was {row.source}: it does not say how it was made")
    if row.details["how"].get("recipe") is None:
        raise InputError(f"row {row.key[:8]} does not hold the recipe that made it: it cannot be run again")
    try:
        recipe = Recipe.model_validate(row.details["how"]["recipe"])
    except ValidationError as error:
        raise InputError(
            f"row {row.key[:8]} was made by a recipe that this version cannot read ({one_line(error)}): install the "
            f"version that made it, {row.details.get('versions', {}).get('tutelage', 'unknown')}"
        ) from None
    if (origin / "devices").is_dir():
        shutil.copytree(origin / "devices", workspace.path / "devices", dirs_exist_ok=True)
    fetch_device(row, origin, workspace.path / "devices")
    # Rows are compared: bundles would be made in vain.
    recipe = with_options(recipe, {"accelerator": accelerator, "bundle.rows": "none", **_order(recipe, row, origin)})
    _, published = pipeline.run(recipe, workspace, report, threads, announce)
    same = [other for other in published.rows if _name(other) == _name(row)]
    if not same:
        raise InputError(
            f"the run made no row {_name(row)}: the search gave other architectures, see {published.table}"
        )
    tolerances = dict.fromkeys(EXACT, 0.0) | dict.fromkeys(MEASURED, recipe.measure.tolerance)
    return [Agreement(name, getattr(row, name), getattr(same[0], name), far) for name, far in tolerances.items()]


def _order(recipe: Recipe, row: Row, origin: Path) -> dict[str, str]:
    """Give the option by which a search with several evaluations at once goes as the row's did."""
    named = row.details.get("search", {}).get("file")
    if named is None or recipe.search.parallel == 1:
        return {}
    if not (origin / named).is_file():
        log.warning("%s is not there: the search runs in another order and may come to other rows", origin / named)
        return {}
    return {"search.replay": str((origin / named).absolute())}


def _name(row: Row) -> tuple[str, ...]:
    return (row.role, row.model, row.teacher, row.scheme, row.runtime, row.device)
