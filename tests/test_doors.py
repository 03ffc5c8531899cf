"""The import paths that notebooks and outside scripts use: each is there, and does what it is there for."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tutelage.records import Arch

GENES = {"space": "ofa_mbv3_w1.0", "ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 32}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tutelage.records", ["Arch"]),
        ("tutelage.search.space", ["SPACES", "PRESETS", "Space", "find_space", "place"]),
        ("tutelage.search.counts", ["count", "block_specs"]),
        ("tutelage.search.predict", ["AccuracyPredictor"]),
        ("tutelage.search.evolve", ["Objective", "search", "SearchResult", "Evaluated"]),
        ("tutelage.search.supernet", ["build_supernet", "extract", "build_arch", "set_active", "score_subnets"]),
        ("tutelage.bench.latency", ["LatencyModel"]),
        ("tutelage.bench.conversion", ["Conversion", "parts", "size_bytes"]),
        ("tutelage.bench.imported", ["read_measurements", "import_profile", "check_units"]),
        ("tutelage.distill.data", ["DATASETS", "load_dataset", "Request", "phantom"]),
        ("tutelage.distill.images", ["decode", "is_image", "to_square", "resize_stack"]),
    ],
)
def test_a_stable_path_holds_its_names(module: str, names: list[str]) -> None:
    door = importlib.import_module(module)
    assert not [name for name in names if not hasattr(door, name)]


def test_an_arch_is_masked_and_goes_through_json() -> None:
    arch = Arch.from_dict(GENES)
    assert arch.ks == (3, 3, 0, 0) * 5
    assert Arch.from_dict(arch.to_dict()).id == arch.id


def test_presets_are_counted() -> None:
    """EEEA-Net-C1 has 5,068,128 parameters at 1000 classes, as timm's MobileNetV3 of the same blocks has."""
    from tutelage.search.counts import count
    from tutelage.search.space import PRESETS, SPACES

    counts = count(list(PRESETS.values()), num_classes=1000, in_channels=3)
    assert dict(zip(PRESETS, counts.params.tolist(), strict=True)) == {
        "OFA-595": 9_135_928,
        "EEEA-Net-C1": 5_068_128,
        "EEEA-Net-C2": 5_995_904,
        "ResNet-20-B": 272_474 + 990 * 65,  # 272,474 at 10 classes
    }
    assert all(arch.space in SPACES for arch in PRESETS.values())


def test_a_search_is_run_and_its_record_predicted() -> None:
    from tutelage.search.evolve import Objective, search
    from tutelage.search.predict import AccuracyPredictor
    from tutelage.search.space import SPACES

    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    error = Objective("error", "min", lambda archs: np.array([1 - sum(a.e) / 200 for a in archs]), cheap=False)
    result = search(space, [error, Objective("macs")], {"macs": 1e7}, strategy="random", evaluations=20, seed=1)
    archs = [row.arch for row in result.evaluated]
    assert all(row.counted["macs"] <= 1e7 for row in result.evaluated)
    mean, std = AccuracyPredictor().fit(archs, [row.measured["error"] for row in result.evaluated]).predict(archs)
    assert mean.shape == std.shape == (20,)


def test_a_latency_model_is_fitted_and_predicts() -> None:
    from tutelage.bench.latency import LatencyModel
    from tutelage.search.counts import count
    from tutelage.search.space import SPACES

    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    archs = space.decode(space.random(24, np.random.default_rng(0)))
    mean, low, high = LatencyModel().fit(archs, count(archs).macs / 1e7).predict(archs)
    assert ((low < mean) & (mean < high)).all()


def test_a_subnet_is_extracted() -> None:
    import torch

    from tutelage.search.space import SPACES
    from tutelage.search.supernet import build_supernet, extract

    space = SPACES["ofa_mbv3_w0.75"].with_resolutions((32,))
    with torch.no_grad():
        assert extract(build_supernet(space, 3, 1).eval(), space.smallest())(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_outside_measurements_pictures_and_models_are_read(tmp_path: Path) -> None:
    from PIL import Image

    from tutelage.bench.conversion import size_bytes
    from tutelage.bench.imported import read_measurements
    from tutelage.distill.images import decode, is_image

    rows = [{"arch": {**GENES, "ks": [3, 3, filler, 3] * 5}, "ms": 1.5 + i} for i, filler in enumerate((3, 5, 7, 3, 5))]
    (tmp_path / "measured.json").write_text(json.dumps(rows))
    archs, latency_ms = read_measurements(tmp_path / "measured.json")
    assert latency_ms == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert set(archs) == {Arch.from_dict(GENES)}  # the third slot of each stage is filler
    Image.new("L", (40, 20), 255).save(tmp_path / "white.png")
    assert is_image(tmp_path / "white.png")
    pixels, _ = decode(tmp_path / "white.png", 8)
    assert pixels.min() == 255
    (tmp_path / "net.xml").write_bytes(b"graph")
    (tmp_path / "net.bin").write_bytes(b"weights")
    assert size_bytes(tmp_path / "net.xml") == len(b"graphweights")
