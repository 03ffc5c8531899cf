"""Gains of a run: two claims kept apart, rows of several seeds with their mean, and tests of rows by group."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.distill.data.dataset import Dataset
from tutelage.distill.evaluation.evaluate import evaluate
from tutelage.distill.evaluation.gain import compare_trainings, over_seeds
from tutelage.distill.evaluation.paired import compare_files, file_figures, mean_figures
from tutelage.pipeline.context import Context
from tutelage.pipeline.operations.paired import RowFigures, files_of, paired_tests
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.evaluate import Evaluated
from tutelage.pipeline.stages.gains import details_of, gains
from tutelage.pipeline.stages.publish import _figures
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.bundle.card import model_card
from tutelage.records import DEFAULT_MARGIN, Artifact, Comparison, Row, Student

NUM = 240
LABELS = np.random.default_rng(0).integers(0, 2, NUM)
GROUPS = np.repeat(np.arange(80), 3).astype(str)


def context(folder: Path, seeds: int, *changes: str, multi_label: bool = False) -> Context:
    labels = np.stack([LABELS, 1 - LABELS], 1).astype(np.float32) if multi_label else LABELS
    data = Dataset(
        name="made", images=np.zeros((NUM, 2, 2, 1), np.uint8), labels=labels, class_names=("healthy", "ill"),
        groups=GROUPS, splits={"test": np.arange(NUM)}, multi_label=multi_label, manifest="m",
    )  # fmt: skip
    recipe = load_recipe("demo", [f"seeds={seeds}", *changes])
    return Context(recipe, Workspace(folder), data, lambda text, done, total: None, 1)


def evaluated(ctx: Context, model: str, teacher: str, seed: int, skill: float, role: Any = "student") -> Evaluated:
    """Evaluate made-up predictions and file them, as a run does; `skill` is how far apart the classes' scores lie."""
    rng = np.random.default_rng([seed, len(model), len(teacher)])
    second = 1 / (1 + np.exp(-(skill * (LABELS - 0.5) + rng.standard_normal(NUM))))
    probs = np.stack([1 - second, second], 1).astype(np.float32)
    multi_label = ctx.dataset.multi_label
    probs = probs[:, ::-1] if multi_label else probs  # column k is the probability of label k
    threshold: Any = (0.5, 0.5) if multi_label else 0.5
    student = Student(model=model, role=role, teacher=teacher, seed=seed)
    name = f"{model}-{teacher}-{seed}"
    artifact = Artifact(kind="onnx", path=f"{name}.onnx", sha256=name, size_bytes=1)
    np.savez(ctx.workspace.path / f"{name}.npz", test_probs=probs, test_labels=ctx.dataset.labels, test_groups=GROUPS)
    figures = evaluate(probs, ctx.dataset.labels, GROUPS, threshold=threshold, multi_label=multi_label, bootstrap=100)
    variant = Variant(student, "fp32", "onnxruntime", artifact)
    return Evaluated(variant, figures, threshold, probs, ctx.dataset.labels, figures, f"{name}.npz")


def run_of(ctx: Context, seeds: int, skill: float = 2.5) -> list[Evaluated]:
    """A teacher, a student it distils and that student alone, each with so many seeds (the teacher: one)."""
    found = [evaluated(ctx, "big", "", 0, 4.0, "teacher")]
    for seed in range(seeds):
        found += [evaluated(ctx, "small", "big", seed, skill), evaluated(ctx, "small", "", seed, 1.0)]
    return found


def figures_of(ctx: Context, evaluated: list[Evaluated]) -> list[Any]:
    return [
        file_figures(one.probs, one.labels, GROUPS, threshold=0.5)
        for one in sorted(evaluated, key=lambda one: one.variant.student.seed)
    ]


def test_five_seeds_make_a_claim_about_the_teacher_beside_the_one_about_the_files(tmp_path: Path) -> None:
    ctx = context(tmp_path, 5)
    evaluated = run_of(ctx, 5)
    found = details_of(gains(ctx, evaluated), evaluated[1])["gain_over_control"]
    with_, without = figures_of(ctx, evaluated[1::2]), figures_of(ctx, evaluated[2::2])
    helped, differ = (
        compare_trainings(with_, without),
        compare_files(mean_figures(with_), mean_figures(without), num_seeds=5),
    )
    assert found["claims"]["teacher"]["auc"] == helped["auc"].to_dict()
    assert found["claims"]["file"]["accuracy"] == differ["accuracy"].to_dict()
    assert (found["outcome"], found["num_seeds"], found["num_groups"], found["corrected_for"]) == ("gained", 5, 80, 1)
    assert found["verdict"] == helped["auc"].text
    assert found["file_verdict"] == differ["auc"].text
    assert (found["auc"], found["auc_lo"], found["auc_p"]) == (
        helped["auc"].difference,
        helped["auc"].low,
        helped["auc"].p,
    )
    assert Comparison.from_dict(found["claims"]["teacher"]["auc"]).verdict == "gained"


def test_three_seeds_are_inconclusive_about_the_teacher_however_far_apart_the_files_are(tmp_path: Path) -> None:
    ctx = context(tmp_path, 3)
    evaluated = run_of(ctx, 3)
    found = details_of(gains(ctx, evaluated), evaluated[1])["gain_over_control"]
    assert found["outcome"] == "inconclusive"
    assert found["verdict"].endswith("3 of the 5 seeds needed")
    assert found["auc_p"] is None  # columns must not read as a claim that was not made
    assert found["auc_lo"] is not None
    assert found["file_verdict"].startswith("gained +")


def test_the_margin_is_the_recipes(tmp_path: Path) -> None:
    ctx = context(tmp_path, 5, "measure.margin=0.4")
    evaluated = run_of(ctx, 5)
    found = details_of(gains(ctx, evaluated), evaluated[1])["gain_over_control"]
    assert (found["outcome"], found["margin"]) == ("equivalent", 0.4)
    assert "equivalent within .4 AUC" in found["file_verdict"]


def test_a_student_is_compared_with_its_teacher_as_files(tmp_path: Path) -> None:
    ctx = context(tmp_path, 1)
    evaluated = run_of(ctx, 1)
    found = details_of(gains(ctx, evaluated), evaluated[1])
    assert found["against_teachers"]["big"]["outcome"] == "lost"
    assert found["against_teachers"]["big"]["auc_p"] < 0.05
    assert "seeds" not in found
    assert found["gain_over_control"]["auc_lo"] is None


def test_each_label_has_its_own_test(tmp_path: Path) -> None:
    ctx = context(tmp_path, 1, multi_label=True)
    evaluated = run_of(ctx, 1)
    labels = details_of(gains(ctx, evaluated), evaluated[1])["gain_over_control"]["per_label"]
    assert {name: one["verdict"] for name, one in labels.items()} == {"healthy": "gained", "ill": "gained"}


def test_rows_of_several_seeds_have_the_mean_with_an_interval_over_seeds_and_say_whose_file_it_is(
    tmp_path: Path,
) -> None:
    ctx = context(tmp_path, 2)
    evaluated = run_of(ctx, 2)
    details = details_of(gains(ctx, evaluated), evaluated[1])
    seeds, shown = details["seeds"], _figures(evaluated[1], details)
    own = [one.evaluation.auc for one in evaluated[1::2]]
    expected = over_seeds(figures_of(ctx, evaluated[1::2]))["auc"]
    assert shown["auc"] == pytest.approx(np.mean([value or 0 for value in own]))
    assert (shown["auc_lo"], shown["auc_hi"]) == (expected.low, expected.high)
    assert seeds["auc"] == own
    assert seeds["file"]["seed"] == 0
    assert seeds["file"]["auc"] == own[0] != shown["auc"]
    assert [one["predictions"] for one in seeds["files"]] == ["small-big-0.npz", "small-big-1.npz"]
    row = Row(model="small", role="student", dataset="made", details=details, **shown)
    parity = {"reference": "fp32", "num_images": 1, "largest_difference": 0.0, "mean_difference": 0.0, "same_top1": 1.0}
    card = model_card(row, ["healthy", "ill"], parity, {"values": (0.5, 0.5), "multi_label": False}, {}, [])
    assert f"| AUC | {own[0]:.4f} (" in card
    assert f"AUC {shown['auc']:.4f} (" in card
    assert "2 seeds" in card
    alone = details_of(gains(ctx, evaluated), evaluated[0])
    assert _figures(evaluated[0], alone)["auc"] == evaluated[0].evaluation.auc


def row_of(one: Evaluated, **more: Any) -> Row:
    details = {"predictions": one.predictions, "threshold": one.threshold, **more}
    return Row(model=one.variant.student.model, role="student", dataset="made", details=details)


def test_rows_are_compared_by_group_from_the_predictions_that_were_filed(tmp_path: Path) -> None:
    ctx = context(tmp_path, 2)
    _, good, poor, good_too, poor_too = run_of(ctx, 2)
    figures = RowFigures(tmp_path)
    expected = list(compare_files(*(figures_of(ctx, [one])[0] for one in (good, poor))).values())
    assert figures.compare(row_of(good), row_of(poor)) == expected
    assert paired_tests(row_of(poor), row_of(good), tmp_path) == expected  # the second less the first
    assert expected[0].num_groups == 80
    several = row_of(good, seeds={"files": [files_of(row_of(one))[0] for one in (good, good_too)]})
    means = [mean_figures(figures_of(ctx, side)) for side in ([good, good_too], [poor])]
    assert figures.compare(several, row_of(poor))[0].difference == means[0].auc.value - means[1].auc.value
    assert poor_too.predictions


def test_rows_whose_predictions_are_gone_or_of_other_images_are_not_compared(tmp_path: Path) -> None:
    ctx = context(tmp_path, 1)
    _, good, poor = run_of(ctx, 1)
    assert paired_tests(row_of(good), Row(model="x", role="student", dataset="made"), tmp_path) == []
    arrays = {"test_probs": poor.probs, "test_labels": LABELS}
    np.savez(tmp_path / "old.npz", **arrays)
    old = row_of(good).model_copy(update={"details": {"predictions": "old.npz", "threshold": 0.5}})
    assert paired_tests(row_of(good), old, tmp_path) == []  # filed before groups were
    np.savez(tmp_path / "old.npz", **arrays, test_groups=np.arange(NUM).astype(str))
    assert paired_tests(row_of(good), old, tmp_path) == []  # other groups: not the same images


def test_two_rows_are_compared_within_the_margin_of_their_recipes(tmp_path: Path) -> None:
    ctx = context(tmp_path, 1)
    _, good, poor = run_of(ctx, 1)

    def stated(one: Evaluated, margin: float) -> Row:
        return row_of(one, how={"recipe": {"measure": {"margin": margin}}})

    assert [one.margin for one in paired_tests(stated(good, 0.3), stated(poor, 0.3), tmp_path)] == [0.3, 0.3]
    assert paired_tests(stated(good, 0.3), stated(poor, 0.2), tmp_path)[0].margin == 0.2
    assert paired_tests(stated(good, 0.3), row_of(poor), tmp_path)[0].margin == 0.3
    assert paired_tests(row_of(good), row_of(poor), tmp_path)[0].margin == DEFAULT_MARGIN
    assert RowFigures(tmp_path).compare(stated(good, 0.3), stated(poor, 0.3), margin=0.05)[0].margin == 0.05
