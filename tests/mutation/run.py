"""Mutation testing: change a file in a hundred places, one at a time, and count how many changes its own tests notice.

`make mutants` (all files below) or `make mutants FILES="bench/protocol/drift.py" NUM=50`. Each mutant runs in a
forked process whose parent has imported torch and the other libraries, against a copy of the package, so child
processes of a test see the mutant too. Survivors are printed; one that no test can
notice is explained in `explained.toml`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mutate import Mutant, sample

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("search", "distill", "quant", "bench", "leaderboard")
MIN_SCORE = 0.85
# A file and the tests that are its own.
TARGETS: dict[str, tuple[str, ...]] = {
    "distill/losses/logits.py": ("tests/distill/losses/test_losses.py",),
    "distill/losses/features.py": ("tests/distill/losses/test_losses.py",),
    "distill/losses/methods.py": ("tests/distill/losses/test_losses.py", "tests/distill/losses/test_methods.py"),
    "distill/evaluation/statistics.py": (
        "tests/distill/evaluation/test_evaluate.py",
        "tests/distill/evaluation/test_paired.py",
    ),
    "distill/evaluation/paired.py": ("tests/distill/evaluation/test_paired.py",),
    "distill/evaluation/gain.py": ("tests/distill/evaluation/test_gain.py",),
    "distill/evaluation/thresholds.py": ("tests/distill/evaluation/test_thresholds.py",),
    "distill/data/splits.py": ("tests/distill/data/test_splits.py",),
    "leaderboard/pareto.py": ("tests/leaderboard/test_pareto.py", "tests/leaderboard/test_intervals.py"),
    "leaderboard/best.py": ("tests/leaderboard/test_best.py",),
    "leaderboard/filters.py": ("tests/leaderboard/test_filters.py",),
    "leaderboard/clauses.py": ("tests/leaderboard/test_clauses.py",),
    "search/costs/counts.py": ("tests/search/costs/test_counts.py",),
    "search/predict.py": ("tests/search/test_predict.py",),
    "bench/latency/evidence.py": ("tests/bench/latency/test_latency.py", "tests/bench/latency/test_evidence.py"),
    "bench/latency/model.py": ("tests/bench/latency/test_latency.py", "tests/bench/latency/test_evidence.py"),
    "bench/protocol/drift.py": ("tests/bench/protocol/test_drift.py",),
    "quant/int8/gates.py": ("tests/quant/export/test_gates_by_hand.py",),
    "quant/int8/ranges.py": ("tests/quant/int8/test_ranges.py",),
    "quant/int8/qat.py": ("tests/quant/int8/test_qat_by_hand.py",),
    "quant/int8/sensitivity.py": ("tests/quant/int8/test_sensitivity_by_hand.py",),
    "tutelage/pipeline/workspace.py": ("tests/tutelage/pipeline/test_workspace.py",),
}
# Of these, tests that are marked slow or long would run for minutes a mutant.
QUICK_TESTS_ALONE = (
    *("search/costs/counts.py", "search/predict.py", "bench/latency/model.py", "bench/latency/evidence.py"),
    *("distill/evaluation/statistics.py", "leaderboard/pareto.py", "leaderboard/filters.py"),
)
# Other tests that are left out, as `pytest -k` takes them: simulations and other processes that hold a lock. A mutant
# that these alone would notice counts as a survivor.
LEFT_OUT = {
    "distill/evaluation/gain.py": "of_1000",
    "tutelage/pipeline/workspace.py": "verbs_that_write or second_run or stage_that_is_killed",
}


@dataclass
class Score:
    """What became of the mutants of one file."""

    file: str
    killed: int = 0
    timed_out: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    explained: list[Mutant] = field(default_factory=list)

    @property
    def num(self) -> int:
        return self.killed + self.timed_out + len(self.survivors) + len(self.explained)

    @property
    def fraction(self) -> float:
        """The fraction noticed of those that can be: explained mutants do the same as the original."""
        possible = self.num - len(self.explained)
        return (self.killed + self.timed_out) / possible if possible else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the tests of the named files; exit code 1 where fewer than 85 % of the mutants are noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help=f"default: {' '.join(TARGETS)}")
    parser.add_argument("--num", type=int, default=100, help="mutants a file (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (default: one a core)")
    options = parser.parse_args(arguments)
    if unknown := set(options.files) - set(TARGETS):
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}: add them to TARGETS in {__file__}")
    explained = _explained()
    scores = []
    for file in options.files or TARGETS:
        score = _score(file, sample((ROOT / file).read_text(), options.num, options.seed), options.jobs, explained)
        scores.append(score)
        print(f"{file}: {score.fraction:.0%} of {score.num} noticed ({score.timed_out} by timeout), "
              f"{len(score.survivors)} survived, {len(score.explained)} explained", flush=True)  # fmt: skip
        for mutant in score.survivors:
            print(f"  {file}:{mutant.line} {mutant.operator}\n    - {mutant.before}\n    + {mutant.after}", flush=True)
    return int(any(score.fraction < MIN_SCORE for score in scores))


def _explained() -> set[tuple[str, str, str]]:
    entries = tomllib.loads((Path(__file__).parent / "explained.toml").read_text()).get("mutant", [])
    return {(entry["file"], entry["before"], entry["after"]) for entry in entries}


def _score(file: str, mutants: Sequence[Mutant], jobs: int, explained: set[tuple[str, str, str]]) -> Score:
    tests = [str(ROOT / test) for test in TARGETS[file]]
    tests += ["-m", "not slow and not long"] if file in QUICK_TESTS_ALONE else []
    tests += ["-k", f"not ({LEFT_OUT[file]})"] if file in LEFT_OUT else []
    with tempfile.TemporaryDirectory() as scratch:
        trees = [_copy_of_the_package(Path(scratch) / str(job)) for job in range(jobs)]
        seconds = _import_what_the_tests_import(trees[0], tests)
        limit = 10 + 5 * seconds * jobs
        score, waiting, running = Score(file), list(mutants), dict[int, tuple[Mutant, Path, float]]()
        while waiting or running:
            while waiting and trees:
                mutant, tree = waiting.pop(), trees.pop()
                place = _placed(tree, file)
                place.write_text(mutant.source)
                running[_start(tree, tests)] = (mutant, tree, time.monotonic() + limit)
            time.sleep(0.02)
            for pid, (mutant, tree, deadline) in list(running.items()):
                late = time.monotonic() > deadline
                if late:
                    os.killpg(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, 0 if late else os.WNOHANG)
                if not done:
                    continue
                del running[pid]
                trees.append(tree)
                shutil.copyfile(ROOT / file, _placed(tree, file))
                if late:
                    score.timed_out += 1
                elif os.waitstatus_to_exitcode(status) != 0:
                    score.killed += 1
                elif (file, *mutant.change) in explained:
                    score.explained.append(mutant)
                else:
                    score.survivors.append(mutant)
    return score


def _copy_of_the_package(tree: Path) -> Path:
    """Lay the package out as it is when installed: the rooms inside `tutelage`."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tutelage", tree / "tutelage", ignore=skipped)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / "tutelage" / room, ignore=skipped)
    return tree


def _placed(tree: Path, file: str) -> Path:
    return tree / file if file.startswith("tutelage/") else tree / "tutelage" / file


def _import_what_the_tests_import(tree: Path, tests: Sequence[str]) -> float:
    """Run the tests unchanged in a child, import here the libraries that it imported, and give the seconds it took."""
    listing, start = tree / "modules.json", time.monotonic()
    pid = _start(tree, tests, listing)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(tests)} fail without any mutant: mend them first")
    seconds = time.monotonic() - start
    for name in json.loads(listing.read_text()):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  (a module that cannot be imported by name alone is imported by the tests)
            continue
    return seconds


def _start(tree: Path, tests: Sequence[str], listing: Path | None = None) -> int:
    """Fork a process group that runs the tests against the package in `tree`; its exit code is pytest's."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(tree / "hypothesis")
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(tree))
        os.chdir(tree)
        code = _pytest(tests)
        if listing is not None:
            own = ("tutelage", "tests", "conftest", "test_", "__main__", "mutate")
            listing.write_text(json.dumps([name for name in sys.modules if not name.startswith(own)]))
    finally:
        os._exit(code)


def _pytest(tests: Sequence[str]) -> int:
    import pytest

    quiet = ["-x", "-q", "-n", "0", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "--no-header"]
    return int(pytest.main([*quiet, *tests]))


if __name__ == "__main__":
    sys.exit(main())
