"""`tutelage explain`: an int8 file is shown where a method can read one and the recipe's int8 was kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tutelage.accelerator import CPU
from tutelage.pipeline.operations import explain
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.records import Student

RECIPE = Recipe.model_validate({"name": "tiny"})


@pytest.mark.parametrize(
    ("method", "schemes", "shown"),
    [
        ("scorecam", ["fp32", "int8-ptq"], ["small", "small int8"]),
        ("scorecam", ["fp32"], ["small"]),  # max_drop refused it
        ("gradcam", None, ["small"]),  # nothing is quantized for nothing
    ],
)
def test_the_int8_file_is_shown_where_there_is_one(
    method: str, schemes: list[str] | None, shown: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compress(*_: object) -> list[SimpleNamespace]:
        assert schemes is not None
        return [SimpleNamespace(scheme=scheme, file=SimpleNamespace(path=f"{scheme}.onnx")) for scheme in schemes]

    ctx = SimpleNamespace(
        dataset=SimpleNamespace(masks=None, multi_label=False), size=32, accelerator=CPU, recipe=RECIPE,
        seed=lambda *_: 0, resolution=lambda student: 32,
        draw=lambda *_: [0], split=lambda *_: (torch.zeros(1, 1, 32, 32), torch.zeros(1, dtype=torch.long)),
    )  # fmt: skip
    monkeypatch.setattr(explain.pipeline, "distill", lambda *_: [Student(model="small", role="student")])
    monkeypatch.setattr(explain, "open_context", lambda *_: ctx)
    monkeypatch.setattr(explain.networks, "load", lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr(explain, "compress", compress)
    monkeypatch.setattr(explain, "compare", lambda models, *_, **options: dict.fromkeys(models, options["method"]))
    found = explain.explain_recipe(
        RECIPE, Workspace(tmp_path), lambda *_: None, 1, method=method, num_images=1, out=tmp_path / "maps"
    )
    assert found == dict.fromkeys(shown, method)
