"""The table of costs counts the trainings and epochs that a run does."""

from typing import Any

import pytest

from tests.big.costs import RATES, macs_of, rounds
from tutelage.pipeline.recipe import Recipe

IMAGES = 1000


def recipe(**sections: Any) -> Recipe:
    named = [{"name": "resnet10t"}]
    teachers = [{"name": "resnet18", "epochs": 1}, {"name": "resnet26", "epochs": 1}]
    values = {"name": "x", "seeds": 2, "data": {"size": 64}, "teachers": teachers, "students": named}
    return Recipe.model_validate({**values, "distill": {"epochs": 3}, **sections})


def student_epochs(found: Recipe) -> tuple[int, list[float]]:
    """Give the number of students' trainings, and for how many epochs each goes by its hours."""
    last = rounds(found, IMAGES)[-1]
    one_epoch = 6 * macs_of("resnet10t", found, 64) * IMAGES / RATES["dense"] / 3600
    return len(last), sorted({round(job.hours / one_epoch, 6) for job in last if job.title == "resnet10t"})


@pytest.mark.parametrize(("mode", "sets"), [("each", 2), ("together", 1), ("both", 3)])
def test_a_control_and_every_set_of_teachers_are_trained_with_every_seed(mode: str, sets: int) -> None:
    assert student_epochs(recipe(distill={"epochs": 3, "teacher_mode": mode})) == (2 * (1 + sets), [3.0])


def test_a_fresh_student_beside_a_supernet_is_trained_for_its_epochs_too() -> None:
    supernet = {"space": "mbconv_small_w1.0", "epochs": 4}
    assert student_epochs(recipe(supernet=supernet)) == (2 * 4, [7.0])
    searched = recipe(supernet=supernet, search={"winners": 3})
    assert student_epochs(searched) == (2 * 4 * (1 + 3), [7.0])
    (winner,) = {job.hours for job in rounds(searched, IMAGES)[-1] if job.title == "ofa winner"}
    assert winner > 0
