"""What a first recipe is made of (`Wish`, `Chosen`), and the recipe written from it (`written`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage.pipeline.changes import typed_yaml
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import DeviceSection
from tutelage.quantities import size_in_bytes
from tutelage.records import DeviceProfile

from . import pretrained
from .choices import SEEDS_MINUTES, Choice, Epochs, Memory
from .document import Document, flow
from .findings import Findings

_VAL_FRACTION, _TEST_FRACTION = 0.15, 0.2  # of all images, as where a recipe says nothing
FEW_MINUTES = 10.0  # below: two winners and the quickest quantizer


@dataclass(frozen=True)
class Wish:
    """What the user asks for; None is what is chosen here."""

    device: str
    path: Path | None = None
    dataset: str | None = None
    max_latency: str | None = None
    max_size: str | None = None
    max_ram: str | None = None
    max_energy: str | None = None
    target: str | None = None
    side: int | None = None
    runtime: str | None = None
    minutes: float = 30.0
    accelerator: str = "auto"
    add_device: bool = False
    timing: bool = True


@dataclass(frozen=True)
class Chosen:
    """All that a first recipe says."""

    name: str
    wish: Wish
    found: Findings
    device: DeviceSection
    side: Choice[int]
    space: Choice[str]
    split: str  # how the images are split, in words
    weighting: Choice[str]
    teacher: Choice[tuple[str, str]]  # its name and its weights, empty for none
    pretrained_supernet: bool
    pretrained_baseline: bool
    batch: int
    calibration_images: int
    epochs: Epochs
    unreadable: int = 0
    bundles: bool = True
    notes: tuple[str, ...] = ()  # of the run: its minutes and disk, the range of latencies

    @property
    def channels(self) -> int:
        """Give the channels of the images."""
        return self.found.channels

    @property
    def winners(self) -> int:
        """Give how many students the search is to find: one for each of several budgets."""
        return len(self.device.budgets) if len(self.device.budgets) > 1 else 2 if self.wish.minutes < FEW_MINUTES else 3

    @property
    def seeds(self) -> int:
        """Give how often each student is trained: once, or three times where the minutes allow it."""
        return 3 if self.wish.minutes >= SEEDS_MINUTES else 1

    @property
    def recipe(self) -> Recipe:
        """Give the recipe as a run reads it."""
        return Recipe.model_validate(typed_yaml(written(self), Recipe))


def memory_of(wish: Wish, target: DeviceProfile | None, device: DeviceProfile | None = None) -> Memory:
    """Give the bounds on memories: those asked for, else the target's, else what the device's profile says."""
    limits = target if target is not None else device
    flash: float | None = limits.flash_bytes if limits is not None else None
    ram: float | None = limits.ram_bytes if limits is not None else None
    said = []
    if wish.max_size is not None:
        flash = size_in_bytes(wish.max_size)
        said.append(f"--max-size {wish.max_size}")
    if wish.max_ram is not None:
        ram = size_in_bytes(wish.max_ram)
        said.append(f"--max-ram {wish.max_ram}")
    if limits is not None and len(said) < 2 and (limits.flash_bytes or limits.ram_bytes):
        said.append(f"the memories of {limits.name}")
    return Memory(flash, ram, int8=target is not None, said=tuple(said))


def written(chosen: Chosen) -> str:
    """Write the recipe with the reasons for its choices."""
    doc = Document()
    doc.comment("Written by `tutelage init` for these images; edit it freely, every key is in docs/recipes.md")
    doc.comment(*chosen.notes)
    doc.key("name", chosen.name)
    _head(doc, chosen)
    _data(doc, chosen)
    _teachers(doc, chosen)
    _search(doc, chosen)
    _students(doc, chosen)
    return doc.text()


def _head(doc: Document, chosen: Chosen) -> None:
    doc.key("seed", 0)
    if chosen.wish.accelerator != "auto":
        doc.key("accelerator", chosen.wish.accelerator)
    if chosen.seeds > 1:
        doc.comment("Students are trained with each seed, so that a teacher's worth has an interval; five for a claim")
    else:
        doc.comment("One seed, for the minutes; a claim about a teacher needs five")
    doc.key("seeds", chosen.seeds)


def _data(doc: Document, chosen: Chosen) -> None:
    found = chosen.found
    doc.section("data")
    doc.key("dataset", found.dataset, indent=2)
    if found.path is not None:
        doc.key("path", str(found.path), indent=2)
    doc.comment(f"{chosen.side.value} px: {chosen.side.why}", indent=2)
    doc.key("size", chosen.side.value, indent=2)
    doc.comment("The pictures have colours" if found.colour else "The pictures are gray", indent=2)
    doc.key("channels", chosen.channels, indent=2)
    doc.comment(f"Splits: {chosen.split}", indent=2)
    if "test" not in found.splits:
        doc.key("test_fraction", _TEST_FRACTION, indent=2)
    if "val" not in found.splits:
        doc.key("val_fraction", _VAL_FRACTION, indent=2)
    if found.options:
        doc.key("options", dict(found.options), indent=2)
    if chosen.unreadable:
        doc.comment(f"{chosen.unreadable} of {found.num_images:,} pictures cannot be read and are left out; "
                    "`tutelage data check` names them", indent=2)  # fmt: skip
        doc.key("skip_bad", True, indent=2)
    doc.comment("Small rotations, shifts and changes of brightness; `flip` where left and right are alike", indent=2)
    doc.key("augment", "light", indent=2)


def _teachers(doc: Document, chosen: Chosen) -> None:
    entry: dict[str, object]
    name, weights = chosen.teacher.value
    doc.comment(f"Teacher: {chosen.teacher.why}")
    if not name:
        doc.key("teachers", [])
        if chosen.side.value >= pretrained.MIN_SIDE:
            entry = {"name": pretrained.DOWNLOADED, "weights": "imagenet", "epochs": chosen.epochs.student}
            doc.lines.append(f"# teachers: [{flow(entry)}]")
        return
    entry = {"name": name, **({"weights": weights} if weights else {})}
    entry |= {"epochs": chosen.epochs.teacher, "lr": 3.0e-4 if weights else 1.0e-3, "batch_size": chosen.batch}
    doc.entries("teachers", [{**entry, "class_weights": chosen.weighting.value}])


def _search(doc: Document, chosen: Chosen) -> None:
    epochs, device = chosen.epochs, chosen.device
    doc.comment(f"Space: {chosen.space.why}")
    start = "From the published weights" if chosen.pretrained_supernet else "From scratch"
    doc.comment(f"{start}. Epochs: {epochs.why}")
    doc.section("supernet")
    doc.key("space", chosen.space.value, indent=2)
    if chosen.pretrained_supernet:
        doc.key("weights", "imagenet", indent=2)
    doc.key("epochs", epochs.supernet, indent=2)
    doc.key("lr", 1.0e-3 if chosen.pretrained_supernet else 2.0e-3, indent=2)
    doc.key("batch_size", chosen.batch, indent=2)
    doc.key("num_random", 1, indent=2)
    if device.max_latency is None:
        doc.comment("No latency budget was given: winners are spread over the latencies of the space; "
                    "add max_latency: 5ms to bound them")  # fmt: skip
    said = device.model_dump(mode="json", include={"name", "runtime", "threads", "batch", "max_latency"})
    doc.entries("devices", [{key: value for key, value in said.items() if value is not None}])
    doc.comment("Winners: students spread over the latencies within the budget; those on the front become bundles")
    search: dict[str, object] = {"evaluations": epochs.evaluations}
    if len(device.budgets) <= 1:
        search["winners"] = chosen.winners
    for key in ("target", "max_size", "max_ram", "max_energy"):
        if (value := getattr(chosen.wish, key)) is not None:
            search[key] = value
    if chosen.wish.target is not None:
        doc.comment(
            f"Deployed to {chosen.wish.target} at int8: what nothing else bounds is bounded by its RAM and flash; "
            f"`tutelage bundle --format tflm-c --target {chosen.wish.target}` writes the C sources"
        )
    doc.key("search", search)


def _students(doc: Document, chosen: Chosen) -> None:
    doc.comment("Students start from their subnets of the supernet", f"class weights: {chosen.weighting.why}")
    doc.key("distill", {"epochs": chosen.epochs.student, "lr": 1.0e-3, "batch_size": chosen.batch,
                        "class_weights": chosen.weighting.value})  # fmt: skip
    doc.comment("What one would deploy otherwise, for comparison")
    weights = {"weights": "imagenet"} if chosen.pretrained_baseline else {}
    doc.entries("baselines", [{"name": pretrained.BASELINE, **weights} if weights else pretrained.BASELINE])
    quick = chosen.wish.minutes < FEW_MINUTES
    doc.comment("ranges of int8: minmax, one try for the minutes" if quick else
                "ranges of int8: auto tries several and keeps what is nearest to fp32 on validation")  # fmt: skip
    doc.key("quantize", {"method": "minmax" if quick else "auto", "calibration_images": chosen.calibration_images})
    doc.comment("Two halves of a measurement may differ by a fifth, as on a laptop that does other things too")
    doc.key("measure", {"tolerance": 0.2})
    if chosen.bundles:
        doc.comment("Folders to deploy, one for each student on the front: bundles/ in the workspace")
        doc.key("bundle", {"rows": "front"})
    else:
        doc.comment(f"No bundles: none is made for {chosen.device.runtime}")
