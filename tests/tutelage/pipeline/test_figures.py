"""Figures of filed predictions are computed once: a run that goes on reads them, to the last bit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.distill.data.dataset import Dataset
from tutelage.pipeline.context import Context
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages import figures
from tutelage.pipeline.stages.figures import figures_of
from tutelage.pipeline.workspace import Workspace

NUM = 120
SPLITS = {"val": np.arange(60), "test": np.arange(60, NUM)}


def context(folder: Path, multi_label: bool, *changes: str) -> Context:
    classes = np.random.default_rng(0).integers(0, 2, NUM)
    labels = np.stack([classes, 1 - classes, classes], 1).astype(np.float32) if multi_label else classes
    names = ("a", "b", "c") if multi_label else ("a", "b")
    groups = np.repeat(np.arange(NUM // 3), 3).astype(str)
    images = np.zeros((NUM, 2, 2, 1), np.uint8)
    data = Dataset("made", images, labels, names, groups, SPLITS, multi_label=multi_label, manifest="m")
    return Context(load_recipe("demo", list(changes)), Workspace(folder), data, lambda text, done, total: None, 1)


def predictions(ctx: Context, file: Path, seed: int = 1) -> dict[str, Any]:
    probs = np.random.default_rng(seed).dirichlet(np.ones(ctx.num_classes), NUM).astype(np.float32)
    found = {split: (probs[places], ctx.dataset.labels[places]) for split, places in SPLITS.items()}
    np.savez(file, **{split: one[0] for split, one in found.items()})
    return found


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed again")


@pytest.mark.parametrize("multi_label", [False, True])
def test_figures_are_computed_once_for_what_they_depend_on(
    multi_label: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, file = context(tmp_path, multi_label), tmp_path / "probabilities.npz"
    made = predictions(ctx, file)
    first = figures_of(ctx, file, made)
    assert first[1]["test"].auc_lo is not None
    (kept,) = tmp_path.glob("figures-*.json")
    with monkeypatch.context() as patch:
        patch.setattr(figures, "evaluate", refuse)
        assert figures_of(ctx, file, made) == first
        other = context(tmp_path, multi_label, "measure.bootstrap=200")
        with pytest.raises(AssertionError, match="computed again"):
            figures_of(other, file, made)
        with pytest.raises(AssertionError, match="computed again"):
            figures_of(ctx, file, predictions(ctx, file, 2))
    made = predictions(ctx, file)
    kept.write_text(kept.read_text()[:99])
    assert figures_of(ctx, file, made) == first
    assert len(kept.read_text()) > 99


def test_figures_of_further_test_sets_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, file = context(tmp_path, False), tmp_path / "probabilities.npz"
    made = predictions(ctx, file)
    whole = replace(ctx.dataset, splits={"test": np.arange(NUM)})
    there = replace(ctx, shift_sets={"b": replace(whole, splits={"test": np.arange(7, NUM)})})
    on_sets = {"b": np.concatenate([made["val"][0], made["test"][0]])[7:]}
    first = figures_of(there, file, made, on_sets)
    assert first[1]["set_b"].num_images == NUM - 7
    assert first[1]["set_b"].auc_lo is not None
    sets: list[Mapping[str, Dataset]] = [
        {"b": replace(whole, splits={"test": np.arange(NUM - 7)})},
        {"b": replace(there.shift_sets["b"], groups=np.arange(NUM).astype(str))},
    ]
    with monkeypatch.context() as patch:
        patch.setattr(figures, "evaluate", refuse)
        assert figures_of(there, file, made, on_sets) == first
        for other in sets:
            with pytest.raises(AssertionError, match="computed again"):
                figures_of(replace(ctx, shift_sets=other), file, made, on_sets)


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, file = context(tmp_path, False), tmp_path / "probabilities.npz"
    made = predictions(ctx, file)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "write_json", full)
    assert figures_of(ctx, file, made)[1]["test"].num_images == 60
    assert not list(tmp_path.glob("figures-*"))
