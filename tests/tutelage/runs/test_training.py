"""What a recipe's training sections do: weights used as they are, settings refused before anything is trained."""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.train import validate
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.keys.order import Until, train_networks
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages.students import check_training, train_named_students
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.stages.training import soft_targets
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import extract

NET = "mobilenetv3_small_050"
DATA = {"dataset": "phantom", "size": 32, "limit": 60, "augment": "light", "augment_variants": 1}


def opened(folder: Path, **sections: Any) -> Context:
    recipe = Recipe.model_validate({"name": "tiny", "data": DATA, **sections})
    return open_context(recipe, Workspace(folder / "w"), lambda text, done, total: None, 1)


def weights_file(folder: Path, classes: int = 4) -> Path:
    path = folder / f"{classes}-classes.safetensors"
    save_file(build_teacher(NET, classes, 1, 32, seed=7).state_dict(), path)
    return path


def test_a_teacher_with_weights_is_used_as_it_is(tmp_path: Path) -> None:
    path = weights_file(tmp_path)
    ctx = opened(tmp_path, teachers=[{"name": NET, "weights": str(path), "epochs": 0}])
    teacher = train_teacher(ctx, ctx.recipe.teachers[0])
    assert teacher.weights is not None
    filed, given = load_file(ctx.workspace.path / teacher.weights.path), load_file(path)
    assert filed.keys() == given.keys()
    assert all(torch.equal(filed[name], given[name]) for name in given)
    net = build_teacher(NET, 4, 1, 32, weights=path)
    figures = validate(net, ctx.in_order("val"), False)
    assert teacher.validation == {"accuracy": figures["val_accuracy"], "auc": figures["val_auc"]}
    assert teacher.notes == ("weights used as they are, not trained here",)
    other = opened(tmp_path, teachers=[{"name": NET, "weights": str(weights_file(tmp_path, 9)), "epochs": 0}])
    with pytest.raises(
        InputError, match="a classifier of 9 classes, these images have 4: with epochs: 0 it would stay"
    ):
        train_teacher(other, other.recipe.teachers[0])


def test_a_student_with_weights_is_used_as_it_is(tmp_path: Path) -> None:
    path = weights_file(tmp_path)
    ctx = opened(
        tmp_path, seeds=3, students=[{"name": NET, "weights": str(path), "epochs": 0}], teachers=[{"name": NET}]
    )
    (student,) = train_named_students(ctx, [])  # three seeds and a teacher change nothing of what is not trained
    assert (student.role, student.teacher, student.model) == ("student", "", NET)
    assert student.weights is not None
    filed = load_file(ctx.workspace.path / student.weights.path)
    assert all(torch.equal(filed[name], value) for name, value in load_file(path).items())


def test_a_named_student_starts_with_the_weights_of_the_supernet(tmp_path: Path) -> None:
    """At a rate of next to nothing its parameters stay those of the subnet; nothing is searched for it."""
    arch = SPACES["mbconv_small_w1.0"].with_resolutions((32,)).smallest()
    ctx = opened(
        tmp_path,
        students=[
            {"name": "small", "arch": arch.to_dict()},
            {"name": "fresh", "arch": arch.to_dict(), "start": "fresh"},
        ],
        supernet={"space": arch.space, "epochs": 2, "batch_size": 8, "num_random": 0},
        distill={"epochs": 1, "lr": 1e-9, "batch_size": 8, "warmup_epochs": 0, "weight_decay": 0},
    )
    trained = train_networks(ctx, Until.STUDENTS, lambda supernet: pytest.fail("it searches"))
    assert trained.supernet is not None
    inherited = dict(extract(trained.supernet.load(ctx), arch).named_parameters())
    small, fresh = trained.students
    assert [(one.start, one.epochs) for one in (small, fresh)] == [("supernet", 1), ("fresh", 3)]
    for student, same in ((small, True), (fresh, False)):
        own = dict(networks.load(ctx, student).named_parameters())
        close = [torch.allclose(own[name], value, atol=1e-5) for name, value in inherited.items() if value.ndim == 4]
        assert close == [same] * len(close)


@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_no_epochs_without_weights_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=rf"{kind}\.0: epochs: 0 uses trained weights as they are: give `weights`"):
        load_recipe("cxr3-folds", [f"{kind}=[{{name: {NET}, epochs: 0}}]"])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"teachers": [{"name": "resnet10t.c3_in1k"}]}, "names pretrained weights.* write 'resnet10t'"),
        ({"students": [{"name": "resnet10t.c3_in1k"}]}, "names pretrained weights"),
        ({"baselines": ["resnet10t.c3_in1k"]}, "names pretrained weights"),
        ({"distill": {"method": "at", "temperature": 4.0}}, "temperature = 4 has no effect under method 'at'"),
        ({"distill": {"options": {"teacher_layers": ["a"]}}}, "'teacher_layers' has no effect under method 'kd'"),
        ({"distill": {"warmup_epochs": 11}}, "warmup_epochs: 11 of 10 epochs never reach lr"),
        ({"distill": {"alpha": 1}}, "alpha = 1 leaves the teachers without effect"),
        ({"distill": {"combine": "best"}}, "no two teachers distil together"),
        ({"distill": {"method": "dkd", "mixup": 0.2}}, "disable mixup and cutmix"),
        ({"distill": {"method": "crckd"}}, "is called 'category_relation'"),
        ({"distill": {"method": "magic"}, "teachers": []}, "unknown distillation method"),
    ],
)
@pytest.mark.parametrize("searches", [True, False])
def test_what_cannot_be_is_refused_before_any_training(
    tmp_path: Path, sections: dict[str, Any], message: str, searches: bool
) -> None:
    usual: dict[str, Any] = {"teachers": [{"name": NET}], "students": [] if searches else [{"name": NET}]}
    ctx = opened(tmp_path, **{**usual, **sections})
    with pytest.raises(InputError, match=message) as caught:
        check_training(ctx)
    assert "\n" not in str(caught.value)


def test_a_supernet_has_teachers_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"supernet\.teachers: 'resnet18' is none of the recipe's teachers"):
        check_training(opened(tmp_path, teachers=[{"name": NET}], supernet={"teachers": ["resnet18"]}))


def test_a_plateau_that_never_acts_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for patience, said in ((5, True), (6, False)):
        caplog.clear()
        check_training(opened(tmp_path, distill={"decay": "plateau", "patience": patience}))
        assert ("distill: patience 5 ends a training before its plateau" in caplog.text) is said
    text = resources.files("tutelage.recipes") / "chexpert-mobilenetv2.yaml"
    assert "the rate never falls" in text.read_text()
    assert load_recipe("chexpert-mobilenetv2").distill.patience == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teachers.1.name=resnet10t"], "'resnet10t' is named twice"),
        (["data.folds=4"], "folds: 4 has no effect without a fold"),
        (["data.fold=1", "data.test_fraction=0.3"], "test_fraction: 0.3 has no effect beside fold: 1"),
        (["teachers.0.options={seed: 3}"], "seed is no option of a network"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("demo", changes)
    assert "\n" not in str(caught.value)


def test_soft_targets_of_batches_of_another_size_are_others(tmp_path: Path) -> None:
    path = weights_file(tmp_path)
    ctx = opened(tmp_path, teachers=[{"name": NET, "weights": str(path), "epochs": 0}])
    teacher = train_teacher(ctx, ctx.recipe.teachers[0])
    for resolution in (None, 20):  # what batches of 20 px show a teacher of 32 px is blurred
        batch = next(iter(ctx.loader(ctx.augment_input, 8, seed=0, resolution=resolution).epoch(0)))
        cached, fresh = (soft_targets(ctx, [teacher], ctx.augment_input, resolution) for _ in range(2))
        fresh._stores = [None]
        assert torch.equal(cached.logits(batch), fresh.logits(batch))


def test_without_variants_every_epoch_augments_anew_and_no_output_is_cached(tmp_path: Path) -> None:
    path = weights_file(tmp_path)
    ctx = opened(
        tmp_path, data={**DATA, "augment_variants": 0}, teachers=[{"name": NET, "weights": str(path), "epochs": 0}]
    )
    teacher = train_teacher(ctx, ctx.recipe.teachers[0])
    first, later = (next(iter(ctx.loader(ctx.augment_input, 8, seed=0).epoch(epoch))) for epoch in (0, 40))
    assert first.aug_seeds.unique().tolist() == [0]
    assert later.aug_seeds.unique().tolist() == [40]
    targets = soft_targets(ctx, [teacher], ctx.augment_input)
    assert torch.equal(targets.logits(first), targets.logits(first))
    assert targets.num_computed == 2 * len(first.images)
    assert not (ctx.workspace.path / "cache" / "soft-targets").exists()
    # Images that are not augmented look the same in every epoch: their outputs are kept.
    same = soft_targets(ctx, [teacher], ctx.augment_input.model_copy(update={"name": "none"}))
    assert torch.equal(same.logits(first), same.logits(first))
    assert same.num_computed == len(first.images)


def test_data_is_known_by_its_pixels_too(tmp_path: Path) -> None:
    """The option `fit` decodes the same files otherwise: neither checkpoints nor soft targets of the other are used."""
    rng = np.random.default_rng(0)
    for number in range(24):
        file = tmp_path / "images" / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 64), dtype=np.uint8)).save(file)
    found = {}
    for name, changes in {
        "usual": {}, "again": {}, "fit": {"options": {"fit": "pad"}}, "augment": {"augment": "medical"},
        "split": {"val_fraction": 0.3}, "variants": {"augment_variants": 2},
    }.items():  # fmt: skip
        data = {"dataset": "folder", "path": str(tmp_path / "images"), "size": 32, "augment_variants": 1, **changes}
        ctx = opened(tmp_path, data=data)
        found[name] = ctx.loader(ctx.augment_input, 4, seed=0).identity
    assert found["usual"] == found["again"]
    assert len(set(found.values())) == 5
