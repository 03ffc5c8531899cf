"""Teachers are compared with the student's control on validation: weights, dropped teachers, self and supernet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from tests.tutelage.pipeline.recipes_planned import Planner, recipes, written
from tutelage.cli.planned import plan_lines
from tutelage.distill.evaluation.evaluate import predict_logits, probabilities
from tutelage.distill.evaluation.paired import FileFigures, file_figures
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.files import sha256_of
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, TeacherSet, open_context
from tutelage.pipeline.keys.former import as_before
from tutelage.pipeline.keys.plan import Plan
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import DistillSection
from tutelage.pipeline.stages import teacher_sets
from tutelage.pipeline.stages.largest import supernet_teacher
from tutelage.pipeline.stages.named import named_network, num_epochs
from tutelage.pipeline.stages.students import check_training, train_choices, train_named_students, train_winners
from tutelage.pipeline.stages.supernet import Supernet
from tutelage.pipeline.stages.teacher_sets import Compared, chosen, decided
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.stages.training import SupernetInput, distillation_input
from tutelage.pipeline.stages.validation import validation_figures
from tutelage.pipeline.stages.winners import Winner
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import Comparison, InputError, Student
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import build_supernet

NET = "mobilenetv3_small_050"
LABELS = np.arange(400) % 2


def opened(folder: Path, **sections: Any) -> Context:
    data = {"dataset": "phantom", "size": 32, "limit": 60, "augment": "light", "augment_variants": 1}
    recipe = Recipe.model_validate({"name": "tiny", "data": data, **sections})
    return open_context(recipe, Workspace(folder / "w"), silent, 1)


def comparison(difference: float | None, half: float | None) -> Comparison:
    ends = (None, None) if difference is None or half is None else (difference - half, difference + half)
    return Comparison(
        claim="file", figure="auc", difference=difference, low=ends[0], high=ends[1], p=0.5, margin=0.01,
        num_seeds=1, num_groups=50,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "half", "weight", "surely"),
    [(0.02, 0.01, 1, False), (0.0, 0.01, 1, False), (-0.01, 0.04, 0.75, False), (-0.04, 0.04, 0, False),
     (-0.05, 0.04, 0, True), (-0.05, None, 1, False), (None, None, 1, False)],
)  # fmt: skip
def test_a_weight_falls_to_0_over_half_the_interval(
    difference: float | None, half: float | None, weight: float, surely: bool
) -> None:
    found = Compared("t", "s", (0.9, 0.9), comparison(difference, half))
    assert found.weight == weight
    assert found.is_surely_weaker is surely


def test_the_soft_term_shrinks_by_the_largest_weight_and_is_shared_by_all() -> None:
    section = DistillSection(alpha=0.4)
    teachers = [Student(model=name, role="teacher", library_name=name) for name in ("a", "b")]
    usual = distillation_input(section, teachers)
    assert usual is not None
    assert distillation_input(section, teachers, (1.0, 1.0)) == usual
    assert "teacher_weights" not in as_before(usual, usual.model_dump())  # keys of before there were weights
    both = distillation_input(section, teachers, (0.5, 0.25))
    assert both is not None
    assert (both.alpha, both.teacher_weights) == (0.7, (1.0, 0.5))  # 0.6 of soft term, halved; hard labels take it
    alone = distillation_input(section, teachers[:1], (0.5,))
    assert alone is not None
    assert (alone.alpha, alone.teacher_weights) == (0.7, ())


def figures(skill: float, seed: int) -> FileFigures:
    """Predictions with this noise; the more skill, the higher their AUC."""
    scores: NDArray[np.float64] = skill * LABELS + np.random.default_rng(seed).normal(size=len(LABELS))
    second = 1 / (1 + np.exp(-scores))
    return file_figures(np.stack([1 - second, second], 1), LABELS)


SKILLS = {"strong": (3.0, 0), "level": (1.7, 1), "weak": (0.5, 0), "s": (2.0, 0)}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give networks the predictions of SKILLS, by their teacher or their name."""
    monkeypatch.setattr(
        teacher_sets,
        "validation_figures",
        lambda ctx, student, title: figures(*SKILLS[student.teacher or student.model]),
    )


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("distill", "left"),
    [
        ({}, ["weak", "level", "weak+level"]),
        ({"teachers": "best"}, ["level"]),
        ({"teacher_weight": "validation"}, ["level"]),
        ({"teacher_weight": "validation", "self_teacher": True}, ["level", "self"]),
    ],
)
def test_weaker_teachers_are_reported_and_dropped_as_the_recipe_says(
    tmp_path: Path, distill: dict[str, Any], left: list[str]
) -> None:
    ctx = opened(tmp_path, distill=distill)
    said: list[str] = []
    ctx = Context(ctx.recipe, ctx.workspace, ctx.dataset, silent, 1, note=said.append)
    student = Student(model="s", role="student")
    weak, level = (Student(model=name, role="teacher") for name in ("weak", "level"))
    found = decided(ctx, student, [student], [(weak,), (level,), (weak, level)])
    assert [choice.name for (choice,) in found] == left
    assert len(said) == 2
    assert said[0].startswith("teacher weak: validation AUC .6")
    assert "below its student s alone .9" in said[0]
    assert "surely weaker; " in said[0]
    assert said[0].endswith("would drop it" if not distill else "it is dropped")
    assert "weaker, not beyond the noise" in said[1]
    by_level = next(choice for (choice,) in found if choice.name == "level")
    assert by_level.notes == (said[1],)
    if "teacher_weight" in distill:
        assert 0 < by_level.weights[0] < 1
    else:
        assert by_level.weights == ()


def test_a_teacher_that_knows_nothing_is_compared_by_its_predictions(tmp_path: Path) -> None:
    weights = build_teacher(NET, 4, 1, 32, seed=7).state_dict()
    weights["classifier.weight"].zero_()  # the same output for every image: AUC .5
    save_file(weights, tmp_path / "blind.safetensors")
    teacher = {"name": NET, "weights": str(tmp_path / "blind.safetensors"), "epochs": 0}
    ctx = opened(tmp_path, teachers=[teacher], distill={"teacher_weight": "validation"})
    blind = train_teacher(ctx, ctx.recipe.teachers[0])
    same = blind.model_copy(update={"model": "s", "role": "student"})
    ((choice,),) = decided(ctx, same, [same], [(blind,)])
    assert choice == TeacherSet((blind,), (1.0,))
    found = validation_figures(ctx, blind, "teacher")
    assert found is not None
    assert found.auc.value == 0.5


@pytest.mark.usefixtures("known")
def test_validation_chooses_a_distilled_student_only_where_it_has_surely_gained(tmp_path: Path) -> None:
    ctx = opened(tmp_path)
    alone = Student(model="s", role="student")
    level, strong = (alone.model_copy(update={"teacher": name}) for name in ("level", "strong"))
    assert chosen(ctx, "s", [alone, level]) == ""
    assert chosen(ctx, "s", [alone, level, strong]) == "strong"


@pytest.fixture(scope="module")
def distilled(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Context, list[Student], list[list[TeacherSet]], list[str]]:
    """Train a student alone and by itself, two seeds; give what was trained, by which choices, and what was said."""
    distill = {"epochs": 1, "batch_size": 16, "teachers": "best", "self_teacher": True}
    ctx = opened(tmp_path_factory.mktemp("distilled"), seeds=2, distill=distill, students=[{"name": NET, "title": "s"}])
    by: list[list[TeacherSet]] = []
    said: list[str] = []
    ctx = Context(
        ctx.recipe, ctx.workspace, ctx.dataset, silent, 1, note=said.append,
        trained=lambda seeds, choices: by.append(list(choices)),
    )  # fmt: skip
    return ctx, train_named_students(ctx, []), by, said


Distilled = tuple[Context, list[Student], list[list[TeacherSet]], list[str]]


def test_a_control_distils_its_own_second_generation_seed_by_seed(distilled: Distilled) -> None:
    ctx, trained, by, _ = distilled
    alone, own = ([one for one in trained if one.teacher == name] for name in ("", "self"))
    assert [one.seed for one in own] == [one.seed for one in alone] == [0, 1]
    assert [choice.teachers[0].weights for choice in by[-1]] == [one.weights for one in alone]
    assert len({one.weights.sha256 for one in (*alone, *own) if one.weights}) == 4
    filed = sorted(path.name.split("-")[0] for path in (ctx.workspace.path / "cache" / "soft-targets").iterdir())
    assert len(set(filed)) == 2  # each control's outputs
    assert settings_of(ctx.recipe, own[0], "fp32").get("teachers") is None


def test_validation_figures_are_those_of_the_network(distilled: Distilled) -> None:
    ctx, trained, _, _ = distilled
    images, labels = ctx.split("val", 32)
    probs = probabilities(predict_logits(networks.load(ctx, trained[0]), images), False)
    groups = ctx.dataset.groups[ctx.dataset.indices("val")]
    found = validation_figures(ctx, trained[0], "s")
    assert found is not None
    assert found.auc.value == pytest.approx(file_figures(probs, labels.numpy(), groups).auc.value)
    assert trained[0].validation["auc"] == pytest.approx(found.auc.value)


def test_the_choice_is_said_at_the_end(distilled: Distilled) -> None:
    _, trained, _, said = distilled
    names = ", ".join(dict.fromkeys(one.teacher or "labels alone" for one in trained))
    assert said[-1].startswith("s: validation chooses ")
    assert said[-1].endswith(f" of {names}")


def test_a_control_that_distils_is_a_teacher_as_far_as_options_have_an_effect(tmp_path: Path) -> None:
    ctx = opened(tmp_path, distill={"self_teacher": True, "alpha": 1}, baselines=[NET], students=[{"name": NET}])
    with pytest.raises(InputError, match="alpha = 1 leaves the teachers without effect"):
        check_training(ctx)


def test_the_best_of_labels_alone_and_self_is_a_choice_and_has_no_weight(tmp_path: Path) -> None:
    own = {"self_teacher": True, "epochs": 1, "batch_size": 8}
    check_training(opened(tmp_path, distill={**own, "teachers": "best"}, students=[{"name": NET}]))
    for distill in ({**own, "teacher_weight": "validation"}, {"teachers": "best"}):
        with pytest.raises(InputError, match="has no effect: the recipe has no teachers"):
            check_training(opened(tmp_path, distill=distill, students=[{"name": NET}]))


def test_a_supernet_that_only_distils_is_used(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"students": [{"name": NET}], "supernet": {"epochs": 1, "batch_size": 8}}
    check_training(opened(tmp_path, distill={"supernet_teacher": True, "batch_size": 8}, **sections))
    with pytest.raises(InputError, match="no student or baseline starts from"):
        check_training(opened(tmp_path, distill={"batch_size": 8}, **sections))


def untrained(ctx: Context, space: Space) -> tuple[Supernet, nn.Module]:
    """File a supernet that nobody trained; give it and the network of its weights."""
    net = build_supernet(space, ctx.num_classes, ctx.channels, seed=3)
    path = ctx.workspace.path / "net.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    weights = FileInput(sha256=sha256_of(path), path="net.safetensors")
    part = SupernetInput(space=space.name, origin="", resolutions=space.resolutions, weights=weights)
    return Supernet(space, part), net


@pytest.mark.long
def test_the_largest_subnet_of_the_supernet_distils_winners(tmp_path: Path) -> None:
    ctx = opened(tmp_path, distill={"epochs": 1, "batch_size": 8, "supernet_teacher": True}, search={"winners": 1})
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((24,))
    supernet, net = untrained(ctx, space)
    teacher = supernet_teacher(ctx, supernet)
    assert (teacher.model, teacher.role, teacher.arch) == (space.name, "teacher", space.largest())
    assert (teacher.start, teacher.epochs) == ("supernet", 0)
    assert teacher.weights is not None
    filed = load_file(ctx.workspace.path / teacher.weights.path)
    stem = next(name for name in filed if name.startswith("first_conv") and name.endswith("conv.weight"))
    assert torch.equal(filed[stem], net.state_dict()[stem])
    mean = next(name for name in filed if name.startswith("first_conv") and name.endswith("running_mean"))
    assert not torch.equal(filed[mean], net.state_dict()[mean])  # statistics of its own
    assert set(teacher.validation) == {"accuracy", "auc"}
    winner = Winner("w", space.smallest(), 0.1, {}, {}, {}, {})
    trained = train_winners(ctx, supernet, [winner], [(teacher,)])  # which sees 24 px, as the winner does
    assert [one.teacher for one in trained] == ["", space.name]


@pytest.mark.parametrize(("said", "start", "epochs"), [({}, "supernet", 1), ({"start": "fresh"}, "fresh", 3)])
def test_fresh_winners_are_trained_for_the_epochs_of_the_supernet_too(
    tmp_path: Path, said: dict[str, str], start: str, epochs: int
) -> None:
    ctx = opened(
        tmp_path,
        distill={"epochs": 1, "batch_size": 8, **said},
        supernet={"space": "mbconv_micro_w0.25", "epochs": 2, "batch_size": 8},
        search={"winners": 1},
        baselines=[NET],
    )
    space = SPACES["mbconv_micro_w0.25"].with_resolutions((24,))
    supernet, _ = untrained(ctx, space)
    winner = Winner("w", space.smallest(), 0.1, {}, {}, {}, {})
    (trained,) = train_winners(ctx, supernet, [winner], [])
    assert (trained.start, trained.epochs) == (start, epochs)
    assert ("supernet" in settings_of(ctx.recipe, trained, "fp32")) is (start == "supernet")
    baseline = ctx.recipe.baselines[0]
    fresh = num_epochs(ctx, baseline, named_network(ctx, baseline, "baseline"))
    assert fresh == 3, "a fresh baseline sees as many images as a fresh winner"


def test_a_fresh_start_of_winners_needs_a_search(tmp_path: Path) -> None:
    ctx = opened(tmp_path, distill={"start": "fresh"}, students=[{"name": NET}])
    with pytest.raises(InputError, match="the recipe searches nothing: leave it out"):
        check_training(ctx)


def _plan(folder: Path, **distill: Any) -> Plan:
    planner = Planner(written(folder))
    values = Recipe.model_validate(recipes(folder)["named"]).model_dump(mode="json")
    values["distill"] = {**values["distill"], **distill}
    return planner.plan(values)


def _with_baseline(folder: Path, distill: dict[str, Any]) -> dict[str, Any]:
    values = Recipe.model_validate(recipes(folder)["named"]).model_dump(mode="json")
    return {**values, "baselines": [NET], "distill": {**values["distill"], **distill}}


@pytest.mark.parametrize("distill", [{"teachers": "best"}, {"teacher_weight": "validation"}])
def test_a_plan_says_what_waits_for_validation(tmp_path: Path, distill: dict[str, str]) -> None:
    plan = _plan(tmp_path, **distill)
    assert plan.undecided == ("what distils small",)
    assert not any(one.stage in ("distil", "measure") for one in plan.stages)
    assert {"validate teacher resnet10t", "validate small alone, seed 0"} <= {one.title for one in plan.stages}
    assert plan_lines(plan)[-1] == "decided on validation, when what it compares is trained: what distils small"


def test_a_plan_of_all_teachers_with_fixed_weights_is_whole(tmp_path: Path) -> None:
    plan = _plan(tmp_path, self_teacher=True)
    assert plan.undecided == ()
    assert {"distil small from self", "distil small from resnet10t+mobilenetv3_small_050", "measure on box"} <= {
        one.title for one in plan.stages
    }


def test_baselines_learn_from_labels_alone_where_the_recipe_says_so(tmp_path: Path) -> None:
    both, alone = (
        {one.title for one in Planner(written(folder)).plan(_with_baseline(folder, said)).stages}
        for folder, said in ((tmp_path / "both", {}), (tmp_path / "alone", {"baselines": False}))
    )
    assert {title for title in both - alone if title.startswith("distil ")} == {f"distil {NET} from resnet10t+{NET}"}
    assert alone < both
    assert f"train {NET} on labels" in alone


def test_a_recipe_whose_baselines_learn_alone_runs_without_teachers_and_without_baselines(tmp_path: Path) -> None:
    """`--set teachers=[]` and `--set baselines=[]` go with every recipe that ships."""
    plans = []
    for folder, said in ((tmp_path / "without", {}), (tmp_path / "said", {"baselines": False})):
        values = _with_baseline(folder, said) | {"teachers": []}
        plans.append({one.title for one in Planner(written(folder)).plan(values).stages})
    assert plans[0] == plans[1]
    assert f"train {NET} on labels" in plans[0]
    for baselines in ([], [NET]):
        check_training(opened(tmp_path, distill={"baselines": False}, baselines=baselines, students=[{"name": NET}]))


def test_a_recipe_that_distils_nothing_compares_nothing(tmp_path: Path) -> None:
    ctx = opened(tmp_path, distill={"epochs": 1, "batch_size": 8})
    train_choices(ctx, Student(model="s", role="student", library_name=NET), None, [])
    assert {event["stage"] for event in ctx.workspace.journal() if "stage" in event} == {"train s on labels"}
