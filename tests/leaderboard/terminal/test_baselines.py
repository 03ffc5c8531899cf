"""Students against baselines: who dominates whom beyond chance, and the hypervolumes of both fronts."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from pymoo.indicators.hv import HV
from rich.console import Console

from tutelage.leaderboard.comparisons.baselines import against_baselines
from tutelage.leaderboard.terminal.baselines import ground_records, print_grounds
from tutelage.records import Comparison, Row


def row(model: str, accuracy: float, latency: float, role: str = "student", **more: Any) -> Row:
    ends = {"accuracy_lo": accuracy - 0.01, "accuracy_hi": accuracy + 0.01}
    fields = {"dataset": "d", "device": "box", "runtime": "onnxruntime", **ends, **more}
    return Row(model=model, role=role, accuracy=accuracy, latency_p50_ms=latency, **fields)


def paired(half: float) -> Any:
    """Tests whose interval is the difference +- half."""

    def test(first: Row, second: Row) -> list[Comparison]:
        difference = first.accuracy - second.accuracy
        return [
            Comparison(
                claim="file",
                figure="accuracy",
                difference=difference,
                low=difference - half,
                high=difference + half,
                p=0.01,
                margin=0.01,
                num_seeds=1,
                num_groups=100,
            )
        ]

    return test


BASELINES = [row("net-20", 0.60, 1.0, "baseline"), row("net-56", 0.61, 3.0, "baseline")]


def outcomes(rows: list[Row], half: float | None = 0.005) -> dict[str, tuple[str, str | None]]:
    (ground,) = against_baselines(rows, None if half is None else paired(half))
    return {one.baseline.model: (one.outcome, one.student and one.student.model) for one in ground.against}


def test_a_baseline_is_dominated_by_the_fastest_student_that_is_surely_better() -> None:
    rows = [*BASELINES, row("small", 0.604, 0.2), row("middle", 0.62, 0.5), row("large", 0.65, 0.9)]
    assert outcomes(rows) == {"net-20": ("dominated", "middle"), "net-56": ("dominated", "middle")}
    assert outcomes(rows, half=0.03) == {"net-20": ("dominated", "large"), "net-56": ("dominated", "large")}
    assert outcomes(rows, half=0.06) == {"net-20": ("as good", "large"), "net-56": ("as good", "large")}


def test_without_predictions_the_two_intervals_decide() -> None:
    assert outcomes([*BASELINES, row("s", 0.615, 0.5)], None)["net-20"] == ("as good", "s")
    assert outcomes([*BASELINES, row("s", 0.621, 0.5)], None)["net-20"] == ("dominated", "s")


def test_a_slower_student_says_nothing_against_a_baseline() -> None:
    rows = [*BASELINES, row("slow", 0.9, 1.01), row("weak", 0.5, 0.5)]
    assert outcomes(rows) == {"net-20": ("no", "weak"), "net-56": ("dominated", "slow")}
    assert outcomes([*BASELINES, row("slow", 0.9, 4.0)]) == {"net-20": ("no", None), "net-56": ("no", None)}


def test_devices_precisions_and_data_are_apart() -> None:
    rows = [
        made
        for more in ({}, {"device": "phone"}, {"scheme": "int8-ptq"}, {"manifest": "0123456789"})
        for made in (row("b", 0.6, 1.0, "baseline", **more), row("s", 0.7, 0.5, **more))
    ]
    grounds = against_baselines([*rows, row("b", 0.6, 1.0, "baseline", device="without students")])
    assert len({(one.data, one.device, one.precision) for one in grounds}) == 4
    assert all(len(one.against) == 1 for one in grounds)
    assert {one.precision for one in grounds} == {"fp32", "int8"}


@pytest.mark.parametrize("seed", range(5))
def test_hypervolumes_are_pymoos(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sets = [draw.uniform([0.1, 0.2], [3.0, 0.9], (6, 2)) for _ in range(2)]
    rows = [
        row(f"{role}{place}", accuracy, latency, role)
        for role, points in zip(("student", "baseline"), sets, strict=True)
        for place, (latency, accuracy) in enumerate(points)
    ]
    (ground,) = against_baselines(rows)
    costs = [np.stack([points[:, 0], 1 - points[:, 1]], 1) for points in sets]
    worst = np.concatenate(costs).max(axis=0)
    wanted = [float(HV(ref_point=np.ones(2))(one / worst)) for one in costs]
    assert (ground.students_volume, ground.baselines_volume) == pytest.approx(tuple(wanted))
    assert ground.ratio == pytest.approx(wanted[0] / wanted[1])


def test_the_table_names_both_with_the_difference_and_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    grounds = against_baselines([*BASELINES, row("s", 0.65, 0.5), row("w", 0.5, 4.0)], paired(0.005))
    print_grounds(grounds, Console(width=100))
    said = capsys.readouterr().out
    assert "net-20" in said
    assert "+.050 [+.045, +.055]" in said
    assert "2 of 2 baselines are dominated beyond chance; hypervolume" in said
    assert ground_records(grounds)[0]["ratio"] == pytest.approx(grounds[0].ratio)


def test_a_run_that_goes_on_again_counts_once_by_the_rows_that_are_further() -> None:
    def stated(state: str, model: str, latency: float, role: str) -> Row:
        return row(model, 0.6, latency, role, details={"state": state, "how": {"settings": "of the run"}})

    earlier = [stated("complete", "net-20", 1.0, "baseline"), stated("complete", "small", 0.2, "student")]
    again = [stated("measured", "net-20", 1.4, "baseline"), stated("evaluated", "small", 0.3, "student")]
    for rows in ([*earlier, *again], [*again, *earlier]):
        (ground,) = against_baselines(rows, paired(0.05))
        ((baseline, student),) = [(one.baseline, one.student) for one in ground.against]
        assert student is not None
        assert (baseline.latency_p50_ms, student.latency_p50_ms) == (1.0, 0.2)


def test_names_keep_most_of_a_narrow_line() -> None:
    names = ("mobilenetv3_small_100", "mbconv_from_teachers")
    rows = [row(names[0], 0.6, 1.0, "baseline"), row("net-20", 0.6, 0.1, "baseline"), row(names[1], 0.7, 0.5)]
    console = Console(width=80, record=True, file=io.StringIO())
    print_grounds(against_baselines(rows, paired(0.01)), console)
    lines = console.export_text().splitlines()
    assert any("faster than all students" in line for line in lines)
    begun = next(line for line in lines if "dominated" in line)
    assert all(name[:12] in begun for name in names), lines
