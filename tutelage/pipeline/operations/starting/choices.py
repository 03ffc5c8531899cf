"""What a first recipe holds, and why: pure choices from what was found, measured and asked for.

Each choice is a value with the sentence that the recipe's comment says. Sizes come from the pictures and from what can
be trained in the minutes; epochs from the number of images and the minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES, Space

from . import pretrained
from .findings import Findings
from .timing import StepTimes

Value = TypeVar("Value")

SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
SMALL_SIDE = 40  # up to here a stem of stride 1 keeps the maps of the stages large enough
# What fits where nothing else does.
MICRO_SPACE = "mbconv_micro_w0.25"
SMALL_SET, LARGE_SET = 5_000, 50_000  # images: a narrower space below, a wider one above
SMALL_TEST = 100  # images: below, an accuracy is known to more than 10 points
UNBALANCED = 2.0
# What an OFA subnet takes in ONNX Runtime, in ms and ms a million multiply-accumulates: on one core of an AMD EPYC
# (2026-11-27) this was 1 to 15 % less than the medians of the smallest ones of three spaces at 32 to 224 px.
OVERHEAD_MS, MS_A_MILLION = 0.16, 0.03
# A supernet is good after about so many images, a student that starts from one after fewer: from the recipes' own runs.
SUPERNET_IMAGES, STUDENT_IMAGES = 60_000, 25_000
MIN_EPOCHS, MAX_EPOCHS = 6, 60
# Of the minutes that are left after files and measurements.
SUPERNET_FRACTION, SEARCH_FRACTION, STUDENT_FRACTION = 0.45, 0.10, 0.25
MOST_EVALUATIONS, FEWEST_EVALUATIONS = 120, 16
# Seconds of one network's files: export, quantization and evaluation in each runtime, and its measurement; and of what
# a run does once (finalists, anchors, figures, plots). On two cores of an AMD EPYC, 2026-11.
FILES_SECONDS, ONCE_SECONDS = 15.0, 45.0
# Images and minutes from which a teacher without pretrained weights may be better than its students.
FROM_SCRATCH_TEACHER, TEACHER_MINUTES = 10_000, 60.0
SEEDS_MINUTES = 180.0


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """A value of a recipe and why it was chosen, a sentence for its comment."""

    value: Value
    why: str


@dataclass(frozen=True)
class Epochs:
    """How long everything is trained, and how many subnets the search evaluates."""

    supernet: int
    student: int
    teacher: int
    evaluations: int
    why: str


def choose_side(
    found: Findings, asked: int | None, covered: Sequence[int], times: StepTimes, timed_side: int, minutes: float
) -> Choice[int]:
    """Choose the image size: that asked for, else the largest that the pictures have and the minutes allow.

    covered: sizes that the device's latency model knows; empty: any.
    """
    if asked is not None:
        return Choice(asked, "as asked")
    sides = sorted(covered) or list(SIDES)
    native = found.side or 64
    fit = [side for side in sides if side <= max(native * 1.15, sides[0], 32)] or sides[:1]
    for side in reversed(fit):
        step = times.at(timed_side, side).supernet
        if side == fit[0] or step * MIN_EPOCHS * found.num_images <= SUPERNET_FRACTION * minutes * 60:
            break
    pictures = f"the pictures' shorter side is {native} px (median)" if found.side else "the set is drawn at any size"
    if side < fit[-1]:
        return Choice(side, f"{pictures}; {MIN_EPOCHS} epochs at {fit[-1]} px would not fit into {minutes:g} min")
    if covered:
        return Choice(side, f"{pictures}; the device's latency model knows {', '.join(map(str, sides))} px")
    return Choice(side, pictures)


@dataclass(frozen=True)
class Memory:
    """What a network may take of a device's memories, in bytes, of its int8 file or the fp32 one; None: no bound."""

    flash: float | None = None
    ram: float | None = None
    int8: bool = False
    said: tuple[str, ...] = ()  # the bounds in words

    def holds(self, found: Findings, side: int, space: str) -> bool:
        """Say whether the smallest subnet of a space fits."""
        counts = count([SPACES[space].with_resolutions((side,)).smallest()], len(found.class_counts), found.channels)
        flash, ram = (
            (counts.int8_file_bytes, counts.int8_ram_bytes) if self.int8 else (4 * counts.params, counts.ram_bytes)
        )
        return (self.flash is None or flash[0] <= self.flash) and (self.ram is None or ram[0] <= self.ram)


def within_ram(side: Choice[int], found: Findings, memory: Memory) -> Choice[int]:
    """Take the largest size up to `side` at which the RAM holds the smallest network there is."""
    if memory.ram is None or memory.holds(found, side.value, MICRO_SPACE):
        return side
    fit = [one for one in SIDES if one < side.value and memory.holds(found, one, MICRO_SPACE)]
    if not fit:
        return side  # refused with the bound that nothing keeps
    return Choice(fit[-1], f"{side.why}; at {side.value} px no network is within {' and '.join(memory.said)}")


def choose_space(
    found: Findings, side: int, covered: Sequence[str], memory: Memory, budget_ms: float | None
) -> Choice[str]:
    """Choose the space by image size, number of images, memories and budget; one that the device's latency model knows.

    budget_ms: the smallest latency budget; None where there is none, or it is a fraction of a range.
    """

    def is_small(space: str) -> bool:
        return memory.holds(found, side, space)

    def fits(space: str) -> bool:
        return is_small(space) and (budget_ms is None or _smallest_ms(found, side, space) <= budget_ms)

    if covered:
        return Choice(next(filter(is_small, covered), covered[0]), "the space that the device's latency model knows")
    stem = "_stem1" if side <= SMALL_SIDE else ""
    bounded = " and ".join([*memory.said, *([f"{budget_ms:g} ms"] if budget_ms is not None else [])])
    width = "0.75" if found.num_images < SMALL_SET else "1.2" if found.num_images > LARGE_SET and side >= 128 else "1.0"
    why = f"{width} times OFA's widths for {found.num_images:,} images"
    if not fits(f"ofa_mbv3_w{width}{stem}"):
        width, why = "0.75", f"the narrowest, for {bounded}"
    if not fits(f"ofa_mbv3_w{width}{stem}"):
        if not is_small(f"mbconv_small_w1.0{stem}") and is_small(MICRO_SPACE):
            return Choice(MICRO_SPACE, f"a quarter of MobileNetV2's widths, for {bounded}")
        why = f"five to seventeen blocks, for {bounded}: OFA's smallest subnet has eleven"
        return Choice(f"mbconv_small_w1.0{stem}", why)
    stride = ", a stem of stride 1 for small images" if stem else ""
    return Choice(f"ofa_mbv3_w{width}{stem}", why + stride)


def _smallest_ms(found: Findings, side: int, space: str) -> float:
    """Give about the milliseconds that the smallest subnet of a space takes."""
    counts = count([SPACES[space].with_resolutions((side,)).smallest()], len(found.class_counts), found.channels)
    return OVERHEAD_MS + MS_A_MILLION * float(counts.macs[0]) / 1e6


def choose_batch(num_train: int) -> int:
    """Give the batch size: larger for more images, and at least ten batches an epoch where that can be."""
    largest = 32 if num_train < 2_000 else 64 if num_train < 20_000 else 128
    while largest > 8 and largest * 10 > num_train:
        largest //= 2
    return largest


def choose_weighting(found: Findings) -> Choice[str]:
    """Choose class weights: balanced where one class (label) is more than twice as rare as another."""
    times = found.imbalance
    if times > UNBALANCED:
        what = "of a label's two values one is up to" if found.multi_label else "the largest class is"
        return Choice("balanced", f"{what} {times:.1f} times as frequent")
    return Choice("none", f"classes differ by at most {times:.1f} times in their images")


def choose_split(found: Findings, test: int) -> str:
    """Say how images are split: by the set's own splits, by groups, or by image."""
    own = found.splits
    drawn = [name for name in ("val", "test") if name not in own]
    if "test" in own:
        why = "the set's own splits" + (f"; {' and '.join(drawn)} drawn from train" if drawn else "")
    elif found.grouped_by:
        why = f"drawn by group, {found.num_groups:,} groups by {found.grouped_by}: none stands in two splits"
    else:
        ids = "options.group, a regular expression on file names"
        if found.dataset == "table":
            ids = "options.group_column, a column of their ids"
        why = (
            "drawn by image: no patients or series were seen. If several pictures are of one, set "
            f"{ids}, or the figures flatter"
        )
    if 0 < test < SMALL_TEST:
        why += f". With {test} test images the intervals are wide"
        why += "" if "test" in own else ": `--set data.fold=0` to `data.fold=4` runs five folds, each image tested once"
    return why


@dataclass(frozen=True)
class Work:
    """What a run trains and evaluates: images of train and val, winners, seeds, one baseline, perhaps a teacher.

    fresh_baseline: the baseline has no pretrained weights, and is then trained for the supernet's epochs as well.
    """

    num_train: int
    num_val: int
    winners: int
    seeds: int
    has_teacher: bool
    fresh_baseline: bool = True

    @property
    def repeats(self) -> int:
        """Count the trainings of one network: with each seed, and where there is a teacher with it and without."""
        return (2 if self.has_teacher else 1) * self.seeds

    @property
    def trainings(self) -> int:
        """Count the trainings of students."""
        return self.winners * self.repeats

    @property
    def networks(self) -> int:
        """Count the networks whose files are made: students, the baseline and the teacher."""
        return self.trainings + self.repeats + int(self.has_teacher)

    @property
    def once_seconds(self) -> float:
        """Give the seconds of what does not depend on epochs: files of networks, measurements, pictures."""
        return self.networks * FILES_SECONDS + ONCE_SECONDS


def choose_epochs(times: StepTimes, work: Work, minutes: float) -> Epochs:
    """Choose how long to train: what the number of images asks for, cut to the minutes where that takes longer."""
    wanted = _wanted(work)
    asked = sum(run_seconds(wanted, times, work).values())
    epochs = wanted if asked <= minutes * 60 else _cut(wanted, times, work, minutes)
    why = (
        f"{epochs.supernet * work.num_train:,} images seen by the supernet, {epochs.student * work.num_train:,} by a "
        "student"
    )
    if (epochs.supernet, epochs.student) != (wanted.supernet, wanted.student):
        why += (
            f"; cut to {minutes:g} min from {wanted.supernet} and {wanted.student} epochs, which this many images ask "
            f"for and --minutes {math.ceil(asked / 300) * 5} would train"
        )
    return replace(epochs, why=why)


def _cut(wanted: Epochs, times: StepTimes, work: Work, minutes: float) -> Epochs:
    """Cut epochs and evaluations in fixed proportions of the minutes, and then all alike until a run fits into them.

    The proportions leave room for one training of a baseline on as many images as supernet and student together.
    """
    left = max(60.0, minutes * 60 - work.once_seconds)
    supernet_epoch, student_epoch = times.supernet * work.num_train, times.student * work.num_train
    spare = left * (1 - SUPERNET_FRACTION - SEARCH_FRACTION - STUDENT_FRACTION) / (2 if work.has_teacher else 1)
    student = _most(wanted.student, min(STUDENT_FRACTION * left / work.trainings, spare / 2) / student_epoch)
    supernet = _most(wanted.supernet, min(SUPERNET_FRACTION * left / supernet_epoch, spare / student_epoch - student))
    teacher = _most(wanted.teacher, spare / (times.teacher * work.num_train)) if work.has_teacher else 0
    evaluations = _most(MOST_EVALUATIONS, SEARCH_FRACTION * left / (times.score * work.num_val))
    evaluations = max(FEWEST_EVALUATIONS, evaluations)
    epochs = Epochs(supernet, student, teacher, evaluations, "")
    for tenths in range(10, 0, -1):
        epochs = Epochs(
            max(1, supernet * tenths // 10), max(1, student * tenths // 10),
            max(1, teacher * tenths // 10) if work.has_teacher else 0, evaluations, "",
        )  # fmt: skip
        if sum(run_seconds(epochs, times, work).values()) <= minutes * 60:
            break
    return epochs


def _wanted(work: Work) -> Epochs:
    """Give the epochs of supernet, students and teacher that the number of images asks for, and all evaluations."""
    epochs = (round(images / work.num_train) for images in (SUPERNET_IMAGES, STUDENT_IMAGES))
    supernet, student = (min(MAX_EPOCHS, max(MIN_EPOCHS, number)) for number in epochs)
    return Epochs(supernet, student, student if work.has_teacher else 0, MOST_EVALUATIONS, "")


def _most(wanted: int, possible: float) -> int:
    return max(1, min(wanted, int(possible)))


def run_seconds(epochs: Epochs, times: StepTimes, work: Work) -> dict[str, float]:
    """Estimate the seconds of each part of a run."""
    student_epoch = times.student * work.num_train
    return {
        "supernet": epochs.supernet * times.supernet * work.num_train,
        "teacher": epochs.teacher * times.teacher * work.num_train,
        "search": epochs.evaluations * times.score * work.num_val,
        "students": epochs.student * student_epoch * work.trainings,
        "baseline": (epochs.student + work.fresh_baseline * epochs.supernet) * student_epoch * work.repeats,
        "files, measuring, pictures": work.once_seconds,
    }


def disk_bytes(
    num_images: int, channels: int, space: Space, num_classes: int, networks: int, teacher_params: int
) -> int:
    """Estimate what a run takes on disk: decoded images, files of networks, and one training's checkpoint at a time."""
    largest = space.largest()
    params = int(count([largest], num_classes, channels).params[0])
    cache = num_images * largest.r**2 * channels
    # A network's weights, and its ONNX, int8 and IR files beside; a student has about half of the parameters.
    files = 4 * params + networks * 4 * 3 * params // 2 + 4 * 2 * teacher_params
    return cache + files + 4 * 4 * max(params, teacher_params)  # weights, the best ones and two moments


def choose_teacher(
    found: Findings, side: int, channels: int, num_train: int, minutes: float
) -> Choice[tuple[str, str]]:
    """Choose a CNN teacher and its weights, both empty for none: only one that can be better than its students."""
    name = pretrained.choose_teacher(channels) if side >= pretrained.MIN_SIDE else ""
    if name:
        where = "on this disk" if pretrained.has_network_weights(name, channels, here=True) else "downloaded"
        why = f"{name} from ImageNet's weights, {where}; every student is trained without it, too"
        return Choice((name, "imagenet"), why)
    if num_train >= FROM_SCRATCH_TEACHER and minutes >= TEACHER_MINUTES:
        why = f"small and from scratch on {num_train:,} images; every student is trained without it, too"
        return Choice((pretrained.SCRATCH, ""), why)
    scratch = f"from scratch on {num_train:,} images a teacher is seldom better than its students"
    if side < pretrained.MIN_SIDE:
        return Choice(("", ""), f"none. At {side} px ImageNet's features, of 224 px, are of little use, and {scratch}")
    return Choice(
        ("", ""),
        f"none. No pretrained weights are on this disk or can be downloaded, and {scratch}. With a network put the "
        "line below in the place of []",
    )
