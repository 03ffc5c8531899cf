"""The largest subnet of a trained supernet as a teacher of its students, as it is: `supernet_teacher`.

Progressive shrinking (Cai et al., ICLR 2020) and BigNAS (Yu et al., ECCV 2020) distil small subnets from it while the
supernet is trained; here it distils those that were chosen while they are fine-tuned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Resources, run_stage
from tutelage.pipeline.keys.stage_inputs import ComputedOn, ImagesInput, StageInputs, promised, versions_of
from tutelage.pipeline.objectives import recalibration_images
from tutelage.records import Arch, Student
from tutelage.search.supernet import extract, recalibrate_bn

from .supernet import Supernet
from .train import filed_network, trained
from .training import SupernetInput, network_input


class LargestInputs(StageInputs):
    """The largest subnet of a supernet, with the supernet's weights and the batch norm statistics of its own."""

    STAGE: ClassVar[str] = "take largest subnet"

    images: ImagesInput
    accelerator: ComputedOn
    supernet: SupernetInput
    arch: Arch
    batch_size: int
    calibration_batches: int
    seed: int

    @property
    def places(self) -> dict[str, str]:
        return {"batch_size": "supernet.batch_size", "calibration_batches": "search.calibration_batches"}

    def promise(self, key: str) -> dict[str, Any]:
        return {"weights": promised(key, networks.WEIGHTS, "weights")}


def supernet_teacher(ctx: Context, supernet: Supernet) -> Student:
    """File and validate the largest subnet, named by the supernet's space, as a teacher."""
    arch = supernet.space.largest()
    student = Student(
        model=supernet.space.name,
        role="teacher",
        arch=arch,
        recipe=ctx.recipe.name,
        dataset=ctx.dataset.name,
        seed=ctx.recipe.seed,
        start="supernet",
        epochs=0,
    )
    inputs = LargestInputs(
        title=f"take the largest subnet of {supernet.space.name}",
        versions=versions_of(network_input(student).libraries),
        images=ctx.images_input,
        accelerator=ctx.accelerator_input(),
        supernet=supernet.part,
        arch=arch,
        batch_size=ctx.recipe.supernet.batch_size,
        calibration_batches=ctx.recipe.search.calibration_batches,
        seed=ctx.recipe.seed,
    )
    return trained(student, run_stage(ctx, inputs, _take))


def _take(inputs: LargestInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Extract the subnet and recalibrate its batch norm as the search does before it scores one."""
    model = here.accelerator.place(extract(inputs.supernet.load(here), inputs.arch))
    batches = recalibration_images(here, inputs.arch.r, inputs.batch_size, inputs.calibration_batches, inputs.seed)
    recalibrate_bn(model, [batch.to(here.accelerator.device) for batch in batches])
    student = Student(model=inputs.supernet.space, role="teacher", arch=inputs.arch)
    notes = ("the largest subnet of the supernet, not trained further",)
    return filed_network(here, student, model, folder, notes)
