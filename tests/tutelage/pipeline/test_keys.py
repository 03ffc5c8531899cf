"""The key of a stage is all that changes its result and nothing else: every field of a recipe, one at a time."""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.tutelage.pipeline.recipes_planned import WALKED, Field, Planner, fields, flipped, recipes, written
from tutelage.accelerator import CPU, Accelerator
from tutelage.pipeline.keys.former import as_before
from tutelage.pipeline.keys.plan import Plan
from tutelage.pipeline.keys.stage_inputs import ON_CPU, AcceleratorInput
from tutelage.pipeline.recipe import Recipe
from tutelage.records import InputError

TABLE = Path(__file__).resolve().parents[3] / "docs" / "workspace.md"
Keys = dict[str, set[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planned")


@pytest.fixture(scope="module")
def planner(folder: Path) -> Planner:
    return Planner(written(folder))


def declared() -> dict[str, set[str]]:
    """Read the table of the guide: which stages read a field of the recipe."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(dict(rows)) == len(rows), "a field stands in the table twice"
    return {name: set() if stages == "none" else set(stages.split(", ")) for name, stages in rows}


def read(plan: Plan) -> Keys:
    """Give what each stage reads of the recipe, by the stage: without what other stages give it."""
    found: Keys = {}
    for one in plan.stages:
        found.setdefault(one.stage, set()).add(json.dumps(_without_promises(one.values), sort_keys=True))
    return found


def _without_promises(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_promises(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_promises(one) for one in value]
    return "of a stage" if isinstance(value, str) and value.startswith("of ") else value


def test_every_field_of_a_recipe_changes_the_stages_that_the_guide_says_and_no_others(
    planner: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models are walked: a field that is added to a recipe and not to the table fails here."""
    # torch compiles functions by what is_available wraps, read when timm is imported first: before it is replaced.
    importlib.import_module("timm")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # planned on, never computed on
    changed: dict[str, set[str]] = {}
    for recipe, values in recipes(folder).items():
        whole = Recipe.model_validate(values).model_dump(mode="json")
        before = read(planner.plan(whole))
        for field in fields(Recipe, whole):
            if not field.name.startswith(WALKED.get(recipe, ("",))):
                continue
            try:
                after = read(planner.plan(flipped(field, whole, folder)))
            except (InputError, ValidationError):
                continue  # another recipe takes it
            differ = {stage for stage in {*before, *after} if before.get(stage) != after.get(stage)}
            changed.setdefault(field.name, set()).update(differ)
    assert changed == declared()


def _planned(planner: Planner, folder: Path, recipe: str = "named", **changes: Any) -> dict[str, str]:
    """Plan one of the recipes with some of its sections changed: the key of each stage by its title."""
    values = Recipe.model_validate(recipes(folder)[recipe]).model_dump(mode="json")
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    return {one.title: one.key for one in planner.plan(values).stages}


def _differ(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {title for title in {*before, *after} if before.get(title) != after.get(title)}


def test_the_number_of_processes_is_in_the_keys_where_batch_norm_is_of_each_apart(
    planner: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, apart = _planned(planner, folder), {"sync_batch_norm": False}
    assert _planned(planner, folder, **apart) == before  # one process
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _planned(planner, folder) == before
    two = _planned(planner, folder, **apart)
    differ = _differ(before, two)
    assert {"train teacher resnet10t", "train small on labels", "train small with QAT"} <= differ
    assert not any(title.startswith("take the weights") for title in differ)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "train teacher resnet10t" in _differ(two, _planned(planner, folder, **apart))


def test_what_follows_a_changed_stage_changes_too_and_nothing_beside_it(planner: Planner, folder: Path) -> None:
    before = _planned(planner, folder)
    differ = _differ(before, _planned(planner, folder, distill={"temperature": 3.0}))
    both = "small from resnet10t+mobilenetv3_small_050"
    assert f"distil {both}" in differ
    assert f"evaluate {both} int8-qat onnxruntime" in differ
    assert all(both in title or title.startswith("measure on") for title in differ)
    assert "train small on labels" in before


def test_a_renamed_recipe_does_nothing_again(planner: Planner, folder: Path) -> None:
    assert _planned(planner, folder) == _planned(planner, folder, name="renamed")


def test_another_teacher_is_not_trained_again_with_one(planner: Planner, folder: Path) -> None:
    teachers = Recipe.model_validate(recipes(folder)["named"]).model_dump(mode="json")["teachers"]
    changed = [teachers[0], {**teachers[1], "epochs": 3}]
    differ = _differ(_planned(planner, folder), _planned(planner, folder, teachers=changed))
    assert "train teacher mobilenetv3_small_050" in differ
    assert not any(title.startswith(("train teacher resnet10t", "evaluate resnet10t")) for title in differ)


def test_quantization_is_read_by_searches_at_int8_only(planner: Planner, folder: Path) -> None:
    def differ(*objectives: str) -> set[str]:
        search = {"objectives": [*objectives, "latency_ms@box"]}
        plain = _planned(planner, folder, "searched", search=search)
        return _differ(plain, _planned(planner, folder, "searched", search=search, quantize={"max_drop": 1.0}))

    assert "search ofa_mbv3_w1.0" in differ("error@int8")
    assert "search ofa_mbv3_w1.0" not in differ("error")


def test_a_rate_of_qat_that_trains_nothing_changes_nothing(planner: Planner, folder: Path) -> None:
    none = {"qat_epochs": 0}
    before = _planned(planner, folder, quantize=none)
    assert before == _planned(planner, folder, quantize={**none, "qat_lr": 3e-5})


def test_another_device_leaves_the_files_of_the_others_alone(planner: Planner, folder: Path) -> None:
    devices = [{"name": "box", "runtime": "onnxruntime"}]
    both, one = _planned(planner, folder), _planned(planner, folder, devices=devices)
    assert all(both[title] == key for title, key in one.items() if not title.startswith("explain"))
    assert {title for title in both if "ncnn" in title or "phone" in title} <= {*both} - {*one}


def test_the_versions_of_the_libraries_are_in_the_keys(
    planner: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.pipeline.keys import stage_inputs

    before = _planned(planner, folder)
    installed = stage_inputs._version
    monkeypatch.setattr(stage_inputs, "_version", lambda name: "0.0" if name == "timm" else installed(name))
    differ = _differ(before, _planned(planner, folder))
    assert {"train teacher resnet10t", "train small on labels", "export small"} <= differ
    monkeypatch.setattr(stage_inputs, "_version", lambda name: "0.0" if name == "onnxruntime" else installed(name))
    differ = _differ(before, _planned(planner, folder))
    assert {"evaluate small fp32 onnxruntime", "measure on box"} <= differ
    assert not any(title.startswith(("train", "distil", "export", "evaluate small fp32 ncnn")) for title in differ)


def test_another_way_to_draw_a_fresh_classifier_trains_its_networks_again(
    planner: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.pipeline.stages import training

    before = _planned(planner, folder)
    monkeypatch.setattr(training, "head_version", lambda name: 1)
    differ = _differ(before, _planned(planner, folder))
    assert "train teacher mobilenetv3_small_050" in differ  # of a family whose classifier timm draws too wide
    assert not {"train teacher resnet10t", "train small on labels"} & differ


BEFORE = json.loads((Path(__file__).parent / "workspaces" / "keys-before.json").read_text())


@pytest.mark.parametrize("name", BEFORE["recipes"])
def test_what_the_version_before_filed_is_found(
    name: str, planner: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of every stage that is computed as it was; a field that was added since is `Former` in what it replaces."""
    from tutelage.distill.data.dataset import Dataset
    from tutelage.pipeline.keys import stage_inputs
    from tutelage.pipeline.stages import quantization, train, training

    # What another machine, or another version of a library, gives.
    monkeypatch.setattr(stage_inputs, "_version", lambda name: "1")
    monkeypatch.setattr(quantization, "weight_bits", lambda: 7)
    # Fresh classifiers of MobileNets are drawn in another way since, and running statistics moved in another way.
    monkeypatch.setattr(training, "head_version", lambda name: 1)
    monkeypatch.setattr(train, "statistics_of", lambda start: 1)
    monkeypatch.setattr(Dataset, "identity", property(lambda self: "the images"))
    values = json.loads(json.dumps(BEFORE["recipes"][name]).replace("FOLDER", str(folder)))
    # A baseline that starts fresh beside a supernet now has the epochs of both, where the recipe names no number.
    values["baselines"] = [{"name": one, "epochs": values["distill"]["epochs"]} for one in values.get("baselines", ())]
    keys = {one.title: one.key for one in planner.plan(Recipe.model_validate(values).model_dump(mode="json")).stages}
    assert {title: keys.get(title) for title in BEFORE["keys"][name]} == BEFORE["keys"][name]


def test_a_field_that_came_later_is_in_a_key_where_it_changes_what_is_computed() -> None:
    cuda = Accelerator(torch.device("cuda"), bf16=True)
    for own, left in (
        (ON_CPU, {}),
        (AcceleratorInput.of(cuda), {"kind": "cuda", "bf16": True}),
        (AcceleratorInput.of(CPU, num_norms=2), {"num_norms": 2}),
    ):
        assert as_before(own, own.model_dump()) == left


def test_a_field_of_another_kind_needs_a_value_to_be_tried_with() -> None:
    with pytest.raises(AssertionError, match="FLIPS must say another value of odd"):
        flipped(Field("odd", ("odd",), list), {"odd": []}, Path())
