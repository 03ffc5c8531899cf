"""`tutelage leaderboard baselines`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.leaderboard.store import Store
from tutelage.records import Row

from ..command import tutelage


def test_it_reads_a_workspace(tmp_path: Path) -> None:
    common = {"dataset": "d", "device": "box", "runtime": "onnxruntime"}
    rows = [
        Row(model=model, role=role, accuracy=value, accuracy_lo=value - 0.01, accuracy_hi=value + 0.01,
            latency_p50_ms=latency, **common)
        for model, role, value, latency in (("[red]net", "baseline", 0.6, 1.0), ("s", "student", 0.7, 0.5))
    ]  # fmt: skip
    Store(tmp_path / "leaderboard.db").add(rows)
    place = ("leaderboard", "baselines", "--workspace", str(tmp_path))
    (found,) = json.loads(tutelage(*place, "--json").stdout)
    assert [one["outcome"] for one in found["baselines"]] == ["dominated"]
    printed = tutelage(*place).stdout
    assert "[red]net" in printed
    assert "1 of 1 baselines are dominated beyond chance" in printed
    assert "nothing to compare" in tutelage(*place, "--filter", "model=s").stdout
