"""Named students and baselines: what is trained beside them, what they start from, their epochs and their rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.tutelage.pipeline.recipes_planned import Planner, recipes, written
from tutelage.pipeline.context import Context
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.recipe import Recipe, load_recipe, with_changes, with_options
from tutelage.pipeline.stages.named import beginning, named_network, num_epochs, start_kind
from tutelage.pipeline.stages.pruned import check_pruned
from tutelage.pipeline.stages.students import check_training
from tutelage.pipeline.stages.supernet import Supernet
from tutelage.pipeline.stages.train import trained
from tutelage.pipeline.stages.training import SupernetInput
from tutelage.pipeline.workspace import Stage
from tutelage.records import InputError, Student

FRESH = "mobilenetv3_small_050"
GENES = {"space": "ofa_mbv3_w1.2", "ks": [3] * 10, "e": [3] * 10, "d": [2] * 5, "r": 64}
STEM1 = {"space": "ofa_mbv3_w1.0_stem1", "epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("named")


@pytest.fixture(scope="module")
def planner(folder: Path) -> Planner:
    return Planner(written(folder))


@pytest.fixture
def both(folder: Path) -> dict[str, Any]:
    return recipes(folder)["both"]


def opened(planner: Planner, both: Mapping[str, Any], **changes: Any) -> Context:
    """Open the recipe with some of its sections changed; None leaves one out."""
    return planner.context({name: value for name, value in {**both, **changes}.items() if value is not None})


def says(recipe: Recipe) -> tuple[bool, bool]:
    return recipe.trains_supernet, recipe.searches


def test_a_recipe_searches_beside_its_students_where_it_writes_a_search() -> None:
    named: dict[str, Any] = {"name": "a", "students": [{"name": "OFA-595"}]}
    wide = {"supernet": {"space": "ofa_mbv3_w1.2"}}
    cases = (
        ({"name": "a"}, (True, True)), (named, (False, False)), ({**named, **wide}, (True, False)),
        ({**named, "search": {}}, (True, True)), ({**named, **wide, "search": {"winners": 1}}, (True, True)),
    )  # fmt: skip
    for values, wanted in cases:
        recipe = Recipe.model_validate(values)
        assert says(recipe) == wanted
        # As rows and the options of verbs keep it.
        assert says(Recipe.model_validate(recipe.model_dump(mode="json"))) == wanted
        assert says(with_options(with_changes(recipe, ["seed=3"]), {"accelerator": "cpu"})) == wanted
    assert says(with_changes(Recipe.model_validate(named), ["search.evaluations=9"])) == (True, True)
    whole = Recipe.model_validate({**named, **wide, "search": {}})
    assert says(with_changes(whole, ["search=null"])) == (True, False)
    assert says(with_changes(whole, ["search=null", "supernet=null"])) == (False, False)


def test_what_an_earlier_version_recorded_of_named_students_searches_nothing() -> None:
    """It recorded every section, written or not, and no `start`."""
    whole = {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in Recipe.model_validate({"name": "a"})
    }
    earlier = {**whole, "students": [{"name": "OFA-595", "weights": None, "title": "", "epochs": None, "options": {}}]}
    assert says(Recipe.model_validate(earlier)) == (False, False)
    assert says(Recipe.model_validate({**whole, "students": []})) == (True, True)
    today = {**earlier, "students": [{"name": "OFA-595", "start": "auto"}]}
    assert says(Recipe.model_validate(today)) == (True, True)


def test_winners_named_students_and_baselines_are_trained_in_one_run(planner: Planner, both: dict[str, Any]) -> None:
    stages = {one.title: one.values for one in planner.plan(both).stages}
    assert {"train supernet ofa_mbv3_w1.0", "search ofa_mbv3_w1.0"} <= stages.keys()
    starts = {
        title: (values["start"] or {}).get("space", "fresh")
        for title, values in stages.items()
        if title.endswith(" on labels")
    }
    winner = next(title for title in starts if title.startswith("train ofa-"))
    of_the_supernet = {f"train {name} on labels" for name in ("EEEA-Net-C1", "EEEA-Net-C2")} | {winner}
    assert starts == {**dict.fromkeys(of_the_supernet, "ofa_mbv3_w1.0"), f"train {FRESH} on labels": "fresh"}
    epochs = {title: stages[title]["schedule"]["epochs"] for title in starts}
    assert epochs == {**dict.fromkeys(of_the_supernet, 10), f"train {FRESH} on labels": 12}
    only = {one.title for one in planner.plan({name: both[name] for name in both if name != "search"}).stages}
    assert "train supernet ofa_mbv3_w1.0" in only
    assert not any(title.startswith(("search", "measure finalists", "train ofa-")) for title in only)


@pytest.mark.parametrize(
    ("section", "start", "epochs"),
    [
        ({"name": "EEEA-Net-C2"}, "supernet", 10),
        ({"name": "EEEA-Net-C2", "start": "supernet"}, "supernet", 10),
        ({"name": "EEEA-Net-C2", "start": "fresh"}, "fresh", 12),
        ({"name": "EEEA-Net-C2", "epochs": 4}, "supernet", 4),
        ({"name": FRESH}, "fresh", 12),
        ({"name": FRESH, "epochs": 3}, "fresh", 3),
        ({"name": "OFA-595"}, "fresh", 12),  # of a wider space
        ({"name": "resnet14t", "weights": "FOLDER/a.safetensors"}, "weights", 10),
        ({"name": "EEEA-Net-C2", "weights": "FOLDER/a.safetensors"}, "weights", 10),
        ({"name": "resnet14t", "weights": "FOLDER/a.safetensors", "epochs": 0}, "weights", 0),
    ],
)
@pytest.mark.parametrize("role", ["student", "baseline"])
def test_starts_and_epochs(
    planner: Planner, folder: Path, both: dict[str, Any], role: Any, section: dict[str, Any], start: str, epochs: int
) -> None:
    section = {name: str(value).replace("FOLDER", str(folder)) if name == "weights" else value
               for name, value in section.items()}  # fmt: skip
    ctx = opened(planner, both, **{f"{role}s": [section]})
    (chosen,) = ctx.recipe.students if role == "student" else ctx.recipe.baselines
    student = named_network(ctx, chosen, role)
    assert (start_kind(ctx, chosen, student), num_epochs(ctx, chosen, student)) == (start, epochs)
    part = SupernetInput(space="ofa_mbv3_w1.0", origin="", resolutions=(32,), weights=FileInput(sha256="s", path="s"))
    space = planner.context(both)
    begun = beginning(ctx, chosen, role, Supernet(space_named(space), part))
    assert (begun.epochs, begun.start == part, begun.start is None) == (epochs, start == "supernet", start == "fresh")


def space_named(ctx: Context) -> Any:
    from tutelage.pipeline.stages.supernet import space_of

    return space_of(ctx)


def test_without_a_supernet_epochs_and_starts_are_as_before(planner: Planner, both: dict[str, Any]) -> None:
    ctx = opened(planner, both, supernet=None, search=None)
    for section in (*ctx.recipe.students, *ctx.recipe.baselines):
        student = named_network(ctx, section, "baseline")
        assert (start_kind(ctx, section, student), num_epochs(ctx, section, student)) == ("fresh", 10)
        assert student.options == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": [{"name": FRESH, "start": "supernet"}]}, f"student {FRESH}: start: supernet, and {FRESH} is no"),
        ({"baselines": [{"name": "OFA-595", "start": "supernet"}]}, "OFA-595 is a subnet of ofa_mbv3_w1.2, and the"),
        (
            {"students": [{"name": "EEEA-Net-C1", "start": "supernet"}], "supernet": None, "search": None},
            "the recipe trains no supernet",
        ),
        (
            {"students": [{"name": "g", "arch": GENES}], "baselines": [], "search": None},
            "no student or baseline starts from ofa_mbv3_w1.0, and nothing searches it",
        ),
        ({"baselines": [{"name": "EEEA-Net-C2", "options": {"drop_rate": 0.1}}]}, "baseline EEEA-Net-C2 is a subnet"),
        (
            {"students": [{"name": "EEEA-Net-C1", "epochs": 1}], "distill": {"warmup_epochs": 2.0}},
            "warmup_epochs: 2 of 1 epochs",
        ),
    ],
)  # fmt: skip
def test_what_cannot_start_so_is_refused_before_any_training(
    planner: Planner, both: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_training(opened(planner, both, **changes))
    check_training(planner.context(both))


def test_a_network_has_one_start() -> None:
    for kind in ("students", "baselines"):
        with pytest.raises(ValidationError, match="are two starts"):
            Recipe.model_validate({"name": "a", kind: [{"name": FRESH, "weights": "a.pth", "start": "fresh"}]})


def test_beside_a_stem_of_stride_1_networks_get_one(planner: Planner, both: dict[str, Any]) -> None:
    named = [{"name": name} for name in ("EEEA-Net-C2", FRESH, "vgg11", "vit_tiny_patch16_224")]
    named += [{"name": "resnet18", "options": {"stem_stride": 2}}, {"name": "ResNet-20-B"}]
    ctx = opened(planner, both, baselines=named, students=named, supernet=STEM1)
    for role, sections in (("student", ctx.recipe.students), ("baseline", ctx.recipe.baselines)):
        preset, small, vgg, vit, kept, stem1 = (named_network(ctx, section, role) for section in sections)  # type: ignore[arg-type]
        assert preset.arch is not None
        assert (preset.arch.space, preset.arch.r) == ("ofa_mbv3_w1.0_stem1", 32)
        assert stem1.arch is not None
        assert stem1.arch.space == "resnet_small_w1.0_stem1", "it has such a stem itself"
        assert [one.options for one in (small, vgg, vit, kept)] == [{"stem_stride": 1}, {}, {}, {"stem_stride": 2}]
        assert [len(one.notes) for one in (small, vgg, vit, kept)] == [0, 0, 1, 0]
        assert "divides its image into patches" in vit.notes[0]
    plain = opened(planner, both, baselines=named)
    assert named_network(plain, plain.recipe.baselines[1], "baseline").options == {}


def test_the_settings_of_a_row_say_its_start_and_its_own_epochs(both: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({**both, "students": [{"name": "EEEA-Net-C1", "start": "supernet"}]})
    student = Student(model="EEEA-Net-C1", role="student", start="supernet", epochs=10)
    inherited = settings_of(recipe, student, "fp32")
    assert inherited["supernet"] == {"epochs": 2}
    assert inherited["students"] == [{"name": "EEEA-Net-C1", "start": "supernet"}]
    auto = Recipe.model_validate(both)
    assert settings_of(auto, student, "fp32") == inherited, "auto came out as the supernet"
    fresh = settings_of(auto, student.model_copy(update={"start": "fresh", "epochs": 12}), "fp32")
    assert "supernet" not in fresh
    assert (fresh["students"], fresh["distill"]) == ([{"name": "EEEA-Net-C1"}], {"epochs": 12})
    # Twelve epochs of `distill` are the same training, whatever supernet there is beside it.
    longer = auto.model_copy(update={"distill": auto.distill.model_copy(update={"epochs": 12})})
    assert settings_of(longer, student.model_copy(update={"start": "fresh", "epochs": 12}), "fp32") == fresh
    # A row of an earlier version says no start: a subnet that was searched began as that of its supernet.
    genes = student.model_copy(update={"start": "", "epochs": None, "arch": GENES})
    assert "supernet" in settings_of(Recipe.model_validate({"name": "a", "supernet": {"epochs": 2}}), genes, "fp32")


def test_the_record_of_a_network_without_a_start_is_as_before() -> None:
    said = Student(model="a", role="student").to_dict()
    assert not {"start", "epochs"} & said.keys()
    assert Student(model="a", role="student", start="fresh", epochs=0).to_dict()["epochs"] == 0


def test_a_training_that_had_not_converged_says_so_in_the_record(tmp_path: Path) -> None:
    weights = {"kind": "weights", "path": "w", "sha256": "w", "size_bytes": 1}
    result = {"weights": weights, "notes": ["2 processes"], "convergence": "validation still rising"}
    student = Student(model="a", role="student", notes=("its stem is as timm has it",))
    said = trained(student, Stage("train a", "key", tmp_path, result)).notes
    assert said == ("its stem is as timm has it", "2 processes", "validation still rising")
    assert trained(student, Stage("train a", "key", tmp_path, {**result, "convergence": ""})).notes == said[:2]
    # An earlier version filed no word of it.
    assert trained(student, Stage("train a", "key", tmp_path, {"weights": weights})).notes == said[:1]


def test_only_winners_are_pruned_as_winners(planner: Planner, both: dict[str, Any]) -> None:
    pruned = [one.title for one in planner.plan({**both, "pruned": [{"of": "winners"}]}).stages if one.stage == "prune"]
    assert len(pruned) == 1
    assert pruned[0].startswith("prune ofa-")
    whole = Recipe.model_validate({**both, "pruned": [{"of": "winners"}]})
    check_pruned(whole, whole.pruned[0])
    alone = Recipe.model_validate(
        {name: both[name] for name in both if name != "search"} | {"pruned": [{"of": "winners"}]}
    )
    with pytest.raises(InputError, match="known: EEEA-Net-C1, EEEA-Net-C2"):
        check_pruned(alone, alone.pruned[0])


def test_the_papers_students_start_from_the_supernets_of_their_recipes() -> None:
    for name, space in (("cxr-ofa595", "ofa_mbv3_w1.2"), ("cxr14-eeea-c2", "ofa_mbv3_w1.0")):
        recipe = load_recipe(name)
        assert (says(recipe), recipe.supernet.space) == ((True, False), space)
    assert says(load_recipe("chest-ct-kd-ptq")) == (True, True)
