"""Fronts on the page: Python's for whole groups, and the script's own for what a filter leaves, which are the same."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tutelage.leaderboard import page, pareto
from tutelage.leaderboard.page.build import page_text
from tutelage.records import Row

SCRIPT = Path(page.__file__).parent / "page_front.js"
PAIR = ("latency_p50_ms", "auc")
NODE = """
const { script, data, subsets } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const find = new Function("DATA", "subsets", `
  const FIGURES = DATA.columns, NUM = DATA.count;
  const figure = (name, i) => (DATA.figures[name] ? DATA.figures[name][i] : null);
  const isImported = () => false;
  const interval = (name, i) => { const [a, b] = [figure(name + "_lo", i), figure(name + "_hi", i)]; return a === null || b === null ? null : [a, b]; };
  ${script}
  return subsets.map((rows) => [false, true].map((isWhole) => {
    const { front, verdicts } = frontOf(rows, "latency_p50_ms", "auc", isWhole);
    return { front, verdicts: [...verdicts] };
  }));`);
console.log(JSON.stringify(find(data, subsets)));
"""  # noqa: E501 - a script


def rows_of(seed: int, size: int = 60) -> list[Row]:
    """Rows on a coarse grid, so that many are equal or tie; some have intervals, some lack a figure."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(size):
        auc, ms = float(80 + rng.integers(0, 12)) / 100, float(rng.integers(1, 9))
        bounds = {"auc_lo": round(auc - 0.01, 4), "auc_hi": round(auc + 0.02, 4)} if rng.random() < 0.5 else {}
        details = (
            {"latency_p50_ms_lo": round(ms * 0.9, 4), "latency_p50_ms_hi": round(ms * 1.2, 4)}
            if rng.random() < 0.3
            else {}
        )
        known = {"auc": auc, **bounds} if rng.random() < 0.95 else {}
        rows.append(
            Row(model=str(place), role="student", dataset="d", device="x", latency_p50_ms=ms, details=details, **known)
        )
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_what_a_filter_leaves_has_the_fronts_that_python_gives_it(seed: int) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: apt-get install nodejs")
    rows = rows_of(seed)
    data = json.loads(re.search(r'id="data" data-packed="">(.*?)</script>', page_text(rows, "t"), re.S)[1])
    rng = np.random.default_rng(seed + 100)
    subsets = [sorted(rng.choice(len(rows), size, replace=False).tolist()) for size in (1, 2, 7, 20, 59)]
    subsets.append(list(range(len(rows))))
    given = {"script": SCRIPT.read_text(), "data": data, "subsets": subsets}
    done = subprocess.run([node, "-e", NODE], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for subset, (own, _) in zip(subsets, found, strict=True):
        some = [rows[place] for place in subset]
        flags, verdicts = pareto.front(some, PAIR), pareto.front_with_intervals(some, PAIR)
        known = [place for place, row in zip(subset, some, strict=True) if row.auc is not None]
        assert sorted(own["front"]) == [place for place, flag in zip(subset, flags, strict=True) if flag]
        expected = {place: verdict for place, verdict in zip(subset, verdicts, strict=True) if place in known}
        assert dict(own["verdicts"]) == expected
    own, shipped = found[-1]
    assert (shipped["front"], dict(shipped["verdicts"])) == (own["front"], dict(own["verdicts"]))
