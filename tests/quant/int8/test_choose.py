"""The calibration method is chosen on validation data: the one whose figures are best there is the one written."""

import numpy as np
import pytest

from tutelage.quant.int8.choose import quantize_best
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.run import run_onnx
from tutelage.records import InputError


@pytest.mark.slow
def test_the_best_method_is_kept_and_all_trials_are_reported(digits, small, tmp_path) -> None:
    report = quantize_best(small, tmp_path / "best.onnx", digits.images[:48], digits.val_images[:200])
    differences = {}
    for method in ("minmax", "percentile", "entropy"):
        made = quantize_onnx(small, tmp_path / f"{method}.onnx", digits.images[:48], method=method)
        differences[method] = float(
            np.abs(run_onnx(made.path, digits.val_images[:200]) - run_onnx(small, digits.val_images[:200])).mean()
        )
        assert report.trials[method] == pytest.approx(-differences[method])
    assert report.method == min(differences, key=differences.__getitem__)
    assert (tmp_path / "best.onnx").read_bytes() == (tmp_path / f"{report.method}.onnx").read_bytes()


@pytest.mark.slow
def test_a_score_decides_before_the_difference(digits, small, tmp_path) -> None:
    """A score that likes only the second file it sees: percentile wins, whatever its logits are."""
    seen: list[int] = []

    def score(logits: np.ndarray) -> float:
        seen.append(len(logits))
        return float(len(seen) == 2)

    report = quantize_best(small, tmp_path / "best.onnx", digits.images[:8], digits.val_images[:20], score=score)
    assert report.method == "percentile"
    assert report.trials == {"minmax": 0.0, "percentile": 1.0, "entropy": 0.0}


def test_unknown_methods_are_named(digits, small, tmp_path) -> None:
    with pytest.raises(InputError, match="'kl'"):
        quantize_best(small, tmp_path / "b.onnx", digits.images[:8], digits.val_images[:8], methods=["kl"])  # type: ignore[list-item]
