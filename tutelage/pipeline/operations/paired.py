"""Paired tests of leaderboard rows on the same images, by group, from the probabilities that their runs filed.

`RowFigures` is the one place that converts rows into `Comparison`s: `leaderboard compare`, the page and `gains` use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from tutelage.distill.evaluation.paired import FileFigures, compare_files, file_figures, mean_figures
from tutelage.leaderboard.best import margin_of
from tutelage.leaderboard.page.verdicts import Verdicts, decide
from tutelage.leaderboard.team.place import open_place
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.changes import one_line
from tutelage.pipeline.sharing.fetched import RowFiles, hashes_of
from tutelage.records import Comparison, InputError, Row

Split = Literal["test", "val"]


class RowFigures:
    """AUC and accuracy of rows with what a paired test needs, computed once a row; a pair is then a subtraction."""

    def __init__(self, workspace: Path, split: Split = "test", place: SharedFiles | None = None) -> None:
        """Read the predictions of a workspace; with a place, those of other workspaces are fetched from it."""
        self._files, self._split = RowFiles(workspace, place), split
        self._known: dict[str, FileFigures | None] = {}

    def of(self, row: Row) -> FileFigures | None:
        """Give a row's figures, means over its seeds; None where its predictions cannot be had."""
        files = files_of(row)
        hashes = hashes_of(row.details)
        key = repr([(file, hashes.get(str(file.get("predictions")))) for file in files])
        if key not in self._known:
            read = [self._read(file, row) for file in files]
            whole = [one for one in read if one is not None]
            self._known[key] = mean_figures(whole) if whole and len(whole) == len(files) else None
        return self._known[key]

    def compare(self, first: Row, second: Row, *, margin: float | None = None) -> list[Comparison]:
        """Test the first row's file less the second's, on AUC and accuracy; empty where they cannot be compared.

        `margin` is by default what the rows' recipes say (`margin_of`).
        """
        a, b = self.of(first), self.of(second)
        if a is None or b is None or a.images != b.images:
            return []
        num_seeds = min(len(files_of(first)), len(files_of(second)))
        within = margin_of((first, second)) if margin is None else margin
        return list(compare_files(a, b, margin=within, num_seeds=num_seeds).values())

    def _read(self, file: dict[str, Any], row: Row) -> FileFigures | None:
        named = str(file.get("predictions") or "")
        path = self._files.fetch(row.details, named, row.key) if named else None
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if f"{self._split}_groups" not in arrays:
                    return None  # written before groups were filed: the run evaluates it anew
                probs, labels, groups = (arrays[f"{self._split}_{name}"] for name in ("probs", "labels", "groups"))
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{path} does not hold the predictions of a row ({one_line(error)}): run the recipe again with --fresh"
            ) from None
        return file_figures(probs, labels, groups, threshold=file.get("threshold"), multi_label=labels.ndim == 2)


def files_of(row: Row) -> list[dict[str, Any]]:
    """Name the predictions and thresholds of a row's files: one a seed."""
    own = {"predictions": row.details.get("predictions") or "", "threshold": row.details.get("threshold")}
    seeds = row.details.get("seeds")
    return list(seeds["files"]) if isinstance(seeds, dict) and seeds.get("files") else [own]


def paired_tests(first: Row, second: Row, workspace: Path, *, margin: float | None = None) -> list[Comparison]:
    """Test the second row less the first, as `leaderboard compare` prints it; empty where they cannot be compared.

    Predictions that are not here are fetched from the place that the team shares.
    """
    return RowFigures(workspace, place=open_place()).compare(second, first, margin=margin)


def page_verdicts(rows: Sequence[Row], workspace: Path) -> Verdicts:
    """Choose the best students by tests on validation images, and test the rows' files in pairs on test images."""
    return decide(rows, RowFigures(workspace, "val").compare, RowFigures(workspace).compare)
