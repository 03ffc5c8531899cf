"""Students against baselines, as tables for people and as records (`print_grounds`, `ground_records`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tutelage.leaderboard.columns import column
from tutelage.leaderboard.comparisons.baselines import Against, Ground
from tutelage.leaderboard.names import title
from tutelage.records import Row

if TYPE_CHECKING:
    from rich.console import Console


def print_grounds(grounds: Sequence[Ground], console: Console) -> None:
    """Print a table for each data set, device and precision, with the hypervolumes below it."""
    from rich.table import Table
    from rich.text import Text

    if not grounds:
        console.print(
            "nothing to compare: no measured students and baselines on the same data, device and precision "
            "(`baselines` of a recipe)", style="dim", soft_wrap=True,
        )  # fmt: skip
    for place, ground in enumerate(grounds):
        if place:
            console.print()
        console.print(Text(f"{ground.data} · {ground.device} · {ground.precision}", style="bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        quality = column(ground.figure).short_heading
        for heading in ("baseline", quality, "ms", "", "student", "ms", "difference"):
            is_name = heading in ("baseline", "student")  # long ones are folded: figures are never cut
            is_figure = heading in (quality, "ms", "difference")
            table.add_column(
                heading,
                justify="right" if is_figure else "left",
                no_wrap=not is_name,
                overflow="fold" if is_name else "ellipsis",
            )
        for one in ground.against:
            table.add_row(*map(Text, _cells(one, ground.figure)))
        console.print(table)
        console.print(_summary(ground), style="dim", soft_wrap=True)


def ground_records(grounds: Sequence[Ground]) -> list[dict[str, Any]]:
    """Give the same as records for JSON."""
    return [
        {
            **{name: getattr(ground, name) for name in ("data", "device", "precision", "figure")},
            "baselines": [
                {
                    "baseline": one.baseline.key,
                    "student": None if one.student is None else one.student.key,
                    "outcome": one.outcome,
                    "test": None if one.test is None else one.test.to_dict(),
                }
                for one in ground.against
            ],
            "students_hypervolume": ground.students_volume,
            "baselines_hypervolume": ground.baselines_volume,
            "ratio": ground.ratio,
        }
        for ground in grounds
    ]


def _cells(one: Against, figure: str) -> list[str]:
    if one.student is None:
        return [*_of(one.baseline, figure), "faster than", "all students", "", ""]
    words = {"dominated": "dominated", "as good": "as good", "no": "better"}[one.outcome]
    name, value, latency = _of(one.student, figure)
    return [*_of(one.baseline, figure), words, name, latency, _difference(one, figure, value)]


def _of(row: Row, figure: str) -> tuple[str, str, str]:
    ends = (getattr(row, f"{figure}_lo"), getattr(row, f"{figure}_hi"))
    latency = column("latency_p50_ms")
    return (
        title(row.model, row.teacher, "fp32"),
        column(figure).write(getattr(row, figure), *ends),
        latency.write(row.latency_p50_ms),
    )


def _difference(one: Against, figure: str, value: str) -> str:
    """Write the student's quality less the baseline's with its interval; the student's own where none was tested."""
    if one.test is None or one.test.difference is None or one.test.low is None or one.test.high is None:
        return f"to {value}"
    difference, low, high = (
        f"{value:+.3f}".replace("0.", ".") for value in (one.test.difference, one.test.low, one.test.high)
    )
    return f"{difference} [{low}, {high}]"


def _summary(ground: Ground) -> str:
    dominated = sum(one.outcome == "dominated" for one in ground.against)
    said = f"{dominated} of {len(ground.against)} baselines are dominated beyond chance"
    if ground.ratio is None:
        return said
    return (
        f"{said}; hypervolume of the students' front {ground.ratio:.2f} x the baselines' "
        f"({ground.students_volume:.3f} and {ground.baselines_volume:.3f} of the box up to the worst figures)"
    )
