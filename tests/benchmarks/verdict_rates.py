"""How often the paired tests err, and how often they see what is there: `make bench-verdicts`.

Draws made-up files of two classes: a score is skill x label + what is hard about its group + noise, where seeds differ
in skill and a training method (with or without a teacher) does better on some groups than on others. Under the null no
training is better. Printed is the fraction called gained or lost in AUC; 5 % is nominal. For contrast, the method used
before: a bootstrap of groups and seeds together. `--runs N` simulations a line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from tutelage.distill.evaluation.gain import compare_trainings
from tutelage.distill.evaluation.paired import FileFigures, compare_files, file_figures
from tutelage.distill.evaluation.statistics import resample_groups, weighted_auc


@dataclass(frozen=True)
class Study:
    """What a simulated study is like; standard deviations are those of scores, whose noise has 1."""

    num_seeds: int = 5
    num_groups: int = 60
    images_a_group: int = 3  # at most: a group has 1 to so many
    skill: float = 1.5  # how far the two classes lie apart
    seed_sd: float = 0.15  # of a training's skill, from seed to seed
    method_sd: float = 0.3  # of what a method makes of a group, the same in every seed
    gain: float = 0.0  # in skill, by the teacher


def drawn(study: Study, rng: np.random.Generator) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
    """Draw probabilities `(n, 2)` for each seed with and without a teacher, labels and groups."""
    groups = np.repeat(np.arange(study.num_groups), rng.integers(1, study.images_a_group + 1, study.num_groups))
    labels = rng.integers(0, 2, study.num_groups)[groups]
    hard = rng.normal(0, 0.5, study.num_groups)[groups]
    sides = []
    for gain in (study.gain, 0.0):
        method = rng.normal(0, study.method_sd, study.num_groups)[groups]
        skills = study.skill + gain + rng.normal(0, study.seed_sd, study.num_seeds)
        scores = [skill * (labels - 0.5) + hard + method + rng.standard_normal(len(labels)) for skill in skills]
        second = [1 / (1 + np.exp(-score)) for score in scores]
        sides.append([np.stack([1 - one, one], 1) for one in second])
    return sides, labels, groups


def figures(study: Study, rng: np.random.Generator) -> list[list[FileFigures]]:
    sides, labels, groups = drawn(study, rng)
    return [[file_figures(probs, labels, groups, threshold=0.5) for probs in side] for side in sides]


def teacher_called(study: Study, runs: int, seed: int = 0) -> float:
    """Give the fraction of studies in which the teacher is called gained or lost."""
    rng = np.random.default_rng(seed)
    calls = [compare_trainings(*figures(study, rng), margin=1e-9)["auc"].verdict for _ in range(runs)]
    return float(np.mean([call in ("gained", "lost") for call in calls]))


def files_called(study: Study, runs: int, seed: int = 0) -> float:
    """Give the fraction of studies in which two files of equal skill (but for `gain`) are called different."""
    study, rng = replace(study, num_seeds=1, seed_sd=0.0), np.random.default_rng(seed)
    calls = []
    for _ in range(runs):
        (first,), (second,) = figures(study, rng)
        calls.append(compare_files(first, second, margin=1e-9)["auc"].verdict)
    return float(np.mean([call in ("gained", "lost") for call in calls]))


def bootstrap_called(study: Study, runs: int, seed: int = 0, resamples: int = 500) -> float:
    """Do as `teacher_called` by the earlier method: a percentile bootstrap that draws groups and seeds together."""
    rng = np.random.default_rng(seed)
    calls = 0
    for _ in range(runs):
        sides, labels, groups = drawn(study, rng)
        weights, index = resample_groups(groups, len(labels), resamples, rng)
        areas = [np.stack([weighted_auc(probs[:, 1], labels == 1, weights, index) for probs in side]) for side in sides]
        seeds = rng.integers(0, study.num_seeds, (study.num_seeds, resamples))
        spread = np.take_along_axis(areas[0] - areas[1], seeds, axis=0).mean(0)
        tail = min(int((spread <= 0).sum()), int((spread >= 0).sum()))
        calls += 2 * (tail + 1) / (len(spread) + 1) < 0.05
    return calls / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--bootstrap-runs", type=int, default=300)
    asked = parser.parse_args()
    print(
        f"fraction called gained or lost in AUC, {asked.runs} runs a line ({asked.bootstrap_runs} for the bootstrap)\n"
    )
    print("no teacher helps (nominal .05)            a claim about the teacher   the earlier bootstrap")
    for seeds in (2, 3, 5, 8, 10):
        for groups in (30, 60, 200):
            for seed_sd in (0.0, 0.15, 0.4):
                study = Study(seeds, groups, seed_sd=seed_sd)
                called = teacher_called(study, asked.runs) if seeds >= 5 else None
                earlier = bootstrap_called(study, asked.bootstrap_runs)
                shown = "always inconclusive" if called is None else f"{called:.3f}"
                print(
                    f"  {seeds:2} seeds, {groups:3} groups, seed sd {seed_sd:.2f}  {shown:>26} {earlier:23.3f}",
                    flush=True,
                )
    print("\ntwo files of equal skill (nominal .05)    a claim about the files")
    for groups in (20, 40, 100, 300):
        for size in (1, 6):
            for skill in (0.5, 1.5, 3.5):
                called = files_called(Study(num_groups=groups, images_a_group=size, skill=skill), asked.runs)
                print(f"  {groups:3} groups of 1 to {size}, skill {skill:.1f}            {called:20.3f}", flush=True)
    print("\na teacher that helps (power)              5 seeds   10 seeds   two files")
    for gain in (0.2, 0.4, 0.8):
        for groups in (60, 200):
            study = Study(num_groups=groups, gain=gain)
            power = [teacher_called(replace(study, num_seeds=seeds), asked.runs) for seeds in (5, 10)]
            power.append(files_called(study, asked.runs))
            print(
                f"  +{gain:.1f} of skill {study.skill}, {groups:3} groups" + "".join(f"{one:11.3f}" for one in power),
                flush=True,
            )


if __name__ == "__main__":
    main()
