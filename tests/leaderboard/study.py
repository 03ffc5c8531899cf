"""Rows in the shape the pipeline files them, with the figures of one real run on PneumoniaMNIST (28 px, two cores)."""

import base64
import io

import numpy as np
from PIL import Image

from tutelage.leaderboard.page.verdicts import Verdicts, decide
from tutelage.records import Arch, Comparison, Row

DENSE, DEIT = "densenet121", "deit_tiny_patch16_224"
BOTH = f"{DENSE}+{DEIT}"
# model, teacher, role, params (M), MACs (M); fp32: AUC, its interval, accuracy, p50 ms, MB; int8: no interval.
# Parameters, figures and times are the run's; MACs and fp32 sizes stand in for them.
NETWORKS = (
    (DEIT, "", "teacher", 2.68, 72.0, (0.945, 0.929, 0.961, 0.835, 1.13, 10.8),
     (0.947, 0.833, 0.72, 2.95)),
    (DENSE, "", "teacher", 6.95, 46.2, (0.969, 0.956, 0.981, 0.849, 4.01, 28.5),
     (0.969, 0.857, 1.94, 8.03)),
    ("ofa-ef2781", "", "student", 2.15, 4.9, (0.957, 0.941, 0.971, 0.854, 0.38, 8.6),
     (0.957, 0.846, 0.33, 2.43)),
    ("ofa-ef2781", DENSE, "student", 2.15, 4.9, (0.963, 0.949, 0.975, 0.838, 0.38, 8.6),
     (0.962, 0.840, 0.33, 2.43)),
    ("ofa-ef2781", DEIT, "student", 2.15, 4.9, (0.964, 0.951, 0.976, 0.873, 0.38, 8.6),
     (0.964, 0.870, 0.33, 2.43)),
    ("ofa-ef2781", BOTH, "student", 2.15, 4.9, (0.967, 0.954, 0.978, 0.843, 0.38, 8.6),
     (0.966, 0.837, 0.33, 2.43)),
    ("EEEA-Net-C1", "", "baseline", 3.79, 9.4, (0.967, 0.954, 0.979, 0.875, 0.58, 15.2),
     (0.968, 0.859, 0.48, 4.22)),
    ("EEEA-Net-C1", BOTH, "baseline", 3.79, 9.4, (0.971, 0.958, 0.982, 0.886, 0.59, 15.2),
     (0.970, 0.893, 0.48, 4.22)),
    ("EEEA-Net-C2", "", "baseline", 4.72, 16.1, (0.973, 0.961, 0.983, 0.869, 0.93, 19.0),
     (0.973, 0.862, 0.68, 5.33)),
    ("mobilenetv2_100", "", "baseline", 2.23, 6.1, (0.884, 0.858, 0.909, 0.782, 0.56, 9.0),
     (0.885, 0.785, 0.32, 2.59)),
    ("mobilenetv3_small_100", "", "baseline", 1.52, 1.4, (0.919, 0.895, 0.941, 0.837, 0.25, 6.1),
     (0.878, 0.814, 0.28, 1.86)),
)  # fmt: skip
ARCHS = {
    "ofa-ef2781": Arch(space="ofa_mbv3_w1.0_stem1", ks=[3, 5, 3] * 4, e=[3, 4, 6] * 4, d=[2, 2, 3, 2, 3], r=28),
    "EEEA-Net-C1": Arch(space="ofa_mbv3_w1.0_stem1", ks=[5, 3, 7] * 5, e=[4, 6, 3] * 5, d=[3] * 5, r=28),
    "EEEA-Net-C2": Arch(space="ofa_mbv3_w1.2_stem1", ks=[7, 5] * 10, e=[6, 4] * 10, d=[4] * 5, r=28),
}
CLASSES = ("normal", "pneumonia")


def study_rows() -> list[Row]:
    """Two data sets' worth of nothing but shape: 22 rows on one data set and device, details and maps included."""
    rng = np.random.default_rng(3)
    rows = []
    alone: dict[tuple[str, str], float] = {}
    for model, teacher, role, params, macs, plain, small in NETWORKS:
        for scheme in ("fp32", "int8-ptq"):
            auc, accuracy, latency, size = (plain[0], *plain[3:]) if scheme == "fp32" else small
            low, high = auc - plain[0] + plain[1], auc - plain[0] + plain[2]
            alone.setdefault((model, scheme), auc)
            details = _details(rng, auc, accuracy, scheme)
            details["predictions"] = f"artifacts/{model}-{teacher}-{scheme}.npz"
            if teacher:
                details["gain_over_control"] = _gain(auc - alone[model, scheme], rng)
            rows.append(
                Row(
                    **{"model": model, "teacher": teacher, "role": role, "arch": ARCHS.get(model), "scheme": scheme},
                    **{"recipe": "pneumoniamnist", "dataset": "pneumoniamnist", "runtime": "onnxruntime"},
                    **{"manifest": "9f2c41d07be1a3aa", "image_size": 28},
                    **{"device": "host-ort-28px", "batch": 1, "threads": 1, "seed": 1},
                    **{"auc": auc, "auc_lo": low, "auc_hi": high, "accuracy": accuracy},
                    accuracy_lo=accuracy - 0.028,
                    accuracy_hi=accuracy + 0.027,
                    params=round(params * 1e6),
                    macs=round(macs * 1e6),
                    size_bytes=round(size * 1e6),
                    latency_p50_ms=latency,
                    latency_p90_ms=round(latency * 1.04, 4),
                    latency_p99_ms=round(latency * 1.2, 4),
                    peak_rss_bytes=round(7e7 + params * 5e6),
                    created="2026-11-20T22:10:00Z",
                    control=model if teacher else "",
                    parent=model if scheme != "fp32" else "",
                    details=details,
                )
            )
    return rows


def study_verdicts(rows: list[Row]) -> Verdicts:
    """Choose and test as a page of a run does; the tests' intervals are .004 wide to either side."""

    def on_test(first: Row, second: Row) -> tuple[Comparison, ...]:
        return tuple(
            Comparison(
                claim="file", figure=figure, difference=value, low=value - 0.004, high=value + 0.004,
                p=float(np.exp(-((value / 0.002) ** 2) / 2)), margin=0.01, num_seeds=1, num_groups=600,
            )
            for figure in ("auc", "accuracy")
            for value in [getattr(first, figure) - getattr(second, figure)]
        )  # fmt: skip

    return decide(rows, None, on_test)


def _gain(value: float, rng: np.random.Generator) -> dict[str, float]:
    half = float(rng.uniform(0.006, 0.012))
    p = float(np.clip(np.exp(-((value / half * 1.96) ** 2) / 2) * 0.9, 0.0004, 1.0))
    return {
        "auc": value,
        "auc_lo": value - half,
        "auc_hi": value + half,
        "auc_p": p,
        "accuracy": 0.004,
        "accuracy_p": 0.6,
    }


def _details(rng: np.random.Generator, auc: float, accuracy: float, scheme: str) -> dict[str, object]:
    figures = {
        "auc": auc,
        "average_precision": auc - 0.01,
        "sensitivity": accuracy + 0.09,
        "specificity": accuracy - 0.12,
    }
    details: dict[str, object] = {
        "validation": {"accuracy": accuracy + 0.09, "auc": 0.99 + (auc - 0.96) / 10},
        "threshold": 0.61,
        "predictions": "artifacts/predictions.npz",
        "test_images": 624,
        "per_class": {name: {"num": 234 + 156 * n, **figures} for n, name in enumerate(CLASSES)},
        **{"balanced_accuracy": accuracy - 0.03, "f1": accuracy + 0.04, "brier": 0.1, "ece": 0.07},
        "confusion": [[150, 84], [10, 380]],
        "how": {
            "command": "tutelage run pneumoniamnist",
            "recipe": {"data": {"path": "/home/someone/data"}},
            "file": {"path": "m"},
        },
        "versions": {"torch": "2.10", "onnxruntime": "1.25"},
        "python": "3.11",
        "explanation": {"method": "gradcam", "num_images": 6, "insertion_auc": 0.81, "deletion_auc": 0.22},
    }
    if scheme == "fp32":
        details["explained"] = [{"validation image of": CLASSES[n % 2], "map": _picture(rng)} for n in range(4)]
    return details


def _picture(rng: np.random.Generator) -> str:
    """Draw a warm spot on a grey ground, 96 px, as an overlay is embedded."""
    y, x = np.mgrid[0:96, 0:96] / 96
    cx, cy = rng.uniform(0.3, 0.7, 2)
    heat = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.03)
    ground = 0.25 + 0.4 * np.exp(-((x - 0.5) ** 2) / 0.1)
    pixels = np.stack([ground + 0.6 * heat, ground + 0.15 * heat, ground - 0.1 * heat], axis=-1)
    file = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
