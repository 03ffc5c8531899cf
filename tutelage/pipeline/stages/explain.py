"""Saliency maps of each network on a few validation images, and their figures: one stage a network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutelage.bench.runtimes.registry import find_runtime
from tutelage.distill.explain.faithfulness import agreement
from tutelage.distill.explain.maps import Explained, compare, explain
from tutelage.distill.explain.pictures import overlay_png
from tutelage.distill.training.normalisation import Renormalisation
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Resources, derived_seed, run_stage
from tutelage.pipeline.keys.stage_inputs import (
    ComputedOn,
    FileInput,
    ImagesInput,
    NetworkInput,
    StageInputs,
    versions_of,
)
from tutelage.pipeline.runtime_files import answering
from tutelage.records import Normalisation, Student

from .compress import Variant, named
from .training import network_input

Maps = NDArray[np.float32]
# What validation images are drawn for, here and by the verb `explain`: both show the same ones.
EXPLAINED = "images to explain"


class ExplainInputs(StageInputs):
    """The saliency maps of one network and its int8 files, and their agreement with its teachers'."""

    STAGE: ClassVar[str] = "explain"

    images: ImagesInput
    accelerator: ComputedOn
    network: NetworkInput
    teachers: tuple[NetworkInput, ...]
    int8: tuple[tuple[str, FileInput], ...]  # runtime and file
    number: int  # of images
    method: Literal["gradcam", "hirescam", "eigencam", "scorecam"]
    seed: int

    @property
    def places(self) -> dict[str, str]:
        return {"number": "explain.images", "method": "explain.method"}

    def promise(self, key: str) -> dict[str, Any]:
        return {"explanation": {}, "explained": [], "int8": {}}


def explain_all(ctx: Context, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Give every file's `explanation` (figures) and, in fp32, `explained` (a picture an image), by the file's hash.

    Empty where the recipe asks for no maps. int8 files are explained by Score-CAM only: their activations
    cannot be read, and Score-CAM needs only outputs.
    """
    if ctx.recipe.explain.images == 0:
        return {}
    students = {variant.file.sha256: variant.student for variant in variants if variant.scheme == "fp32"}
    teachers = {student.model: student for student in students.values() if student.role == "teacher"}
    found: dict[str, dict[str, Any]] = {}
    for file, student in students.items():
        by = [teachers[name] for name in student.teacher.split("+") if name in teachers]
        int8 = [one for one in variants if one.student == student and one.scheme != "fp32"]
        result = explain_network(ctx, student, by, int8 if ctx.recipe.explain.method == "scorecam" else [])
        found[file] = {"explanation": result["explanation"], "explained": result["explained"]}
        found |= {sha: {"explanation": figures} for sha, figures in result["int8"].items()}
    return found


def explain_network(
    ctx: Context, student: Student, teachers: Sequence[Student], int8: Sequence[Variant]
) -> dict[str, Any]:
    """Explain one network and its int8 files; agreement is with the mean over its teachers' maps."""
    section, network = ctx.recipe.explain, network_input(student)
    by = tuple(network_input(teacher) for teacher in teachers)
    runtimes = [find_runtime(variant.runtime).distribution for variant in int8]
    inputs = ExplainInputs(
        title=f"explain {named(student)}",
        versions=versions_of(["grad-cam", *runtimes, *(name for one in (network, *by) for name in one.libraries)]),
        images=ctx.images_input,
        accelerator=ctx.accelerator_input(),
        network=network,
        teachers=by,
        int8=tuple((variant.runtime, FileInput.of(variant.file)) for variant in int8),
        number=section.images,
        method=section.method,
        seed=ctx.recipe.seed,
    )
    return run_stage(ctx, inputs, _explain).result


def _explain(inputs: ExplainInputs, here: Resources, folder: Path) -> dict[str, Any]:
    here.report(inputs.title, 0, 1)
    images, classes, masks = _images(inputs, here, inputs.network.student)
    # All are shown the run's images, so that maps and figures of networks with another normalisation compare.
    net = here.accelerator.place(networks.load(here, inputs.network.student, runs_images=True))
    models = {"net": Explained(net)}
    own = inputs.network.normalisation
    models |= {file.sha256: Explained(net, _answers(here, runtime, file, own)) for runtime, file in inputs.int8}
    maps = {
        name: explain(net, images, classes, method=inputs.method, predict=one.predict) for name, one in models.items()
    }
    figures = compare(
        models,
        images,
        classes,
        method=inputs.method,
        masks=masks,
        multi_label=here.dataset.multi_label,
        maps=maps,
    )
    of_teachers = [_maps_of(inputs, here, teacher.student) for teacher in inputs.teachers]
    explained = {name: _figures(one.to_dict(), maps[name], of_teachers, name) for name, one in figures.items()}
    pictures = [
        {
            "validation image of": here.dataset.class_names[label],
            "map": _embedded(image, heat),
            "image": _embedded(image),
        }
        for image, label, heat in zip(images, classes.tolist(), maps["net"], strict=True)
    ]
    here.report(inputs.title, 1, 1)
    return {"explanation": explained.pop("net"), "explained": pictures, "int8": explained}


def _maps_of(inputs: ExplainInputs, here: Resources, teacher: Student) -> Maps:
    """Give a teacher's own maps of the same images; they are few, so each student's stage draws them anew."""
    images, classes, _ = _images(inputs, here, teacher)
    net = here.accelerator.place(networks.load(here, teacher, runs_images=True))
    return explain(net, images, classes, method=inputs.method)


def _figures(figures: dict[str, Any], maps: Maps, teachers: Sequence[Maps], name: str) -> dict[str, Any]:
    """Put the agreement of an int8 file with its fp32 network, and of any file with its teachers, in their own keys."""
    with_fp32 = (figures.pop("agreement_spearman"), figures.pop("agreement_iou"))
    if name != "net":
        figures |= {"fp32_spearman": with_fp32[0], "fp32_iou": with_fp32[1]}
    pairs = [agreement(maps, _resized(other, maps.shape[-1])) for other in teachers]
    for place, key in enumerate(("teacher_spearman", "teacher_iou")):
        known = [value for pair in pairs if (value := pair[place]) is not None]
        figures[key] = float(np.mean(known)) if known else None
    return figures


def _images(
    inputs: ExplainInputs, here: Resources, student: Student
) -> tuple[Tensor, Tensor, NDArray[np.uint8] | None]:
    """Choose the validation images, the class each is explained for, and the lesions where the data has them."""
    chosen = here.draw("val", inputs.number, derived_seed(inputs.seed, EXPLAINED))
    images, labels = here.split("val", here.resolution(student), chosen)
    masks = None
    if here.dataset.masks is not None and here.resolution(student) == here.size:
        masks = here.dataset.masks[here.dataset.indices("val")][chosen]
    return images, kinds(labels).clamp(min=0), masks


def kinds(labels: Tensor) -> Tensor:
    """Give the class of each image `(n,)`; where an image may have more than one, its first, or -1 for none."""
    if labels.ndim == 1:
        return labels
    holds = labels.nan_to_num(0.0) > 0.5
    return torch.where(holds.any(1), holds.float().argmax(1), -1)


def _answers(
    here: Resources, runtime: str, file: FileInput, normalisation: Normalisation | None
) -> Callable[[Tensor], Tensor]:
    logits = answering(runtime, here.workspace.path / file.path, here.threads)
    own = None if normalisation is None else Renormalisation(*normalisation.values)

    def answer(batch: Tensor) -> Tensor:
        batch = batch.cpu()
        return torch.from_numpy(logits((batch if own is None else own(batch)).numpy()))

    return answer


def _resized(maps: Maps, side: int) -> Maps:
    whole = torch.from_numpy(maps)[:, None]
    return np.asarray(F.interpolate(whole, (side, side), mode="bilinear", align_corners=False)[:, 0].numpy())


def _embedded(image: Tensor, heat: Any = None) -> str:
    return "data:image/png;base64," + base64.b64encode(overlay_png(image, heat)).decode()
