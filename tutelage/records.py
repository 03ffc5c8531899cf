"""The types that the packages exchange: frozen, validated, with a JSON round trip and a content id each.

search, distill, quant, bench and leaderboard import this module and no other of `tutelage`; it re-exports
`comparison`, `inputs` and `record`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from numbers import Real
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .comparison import DEFAULT_MARGIN as DEFAULT_MARGIN
from .comparison import MIN_SEEDS as MIN_SEEDS
from .comparison import Comparison as Comparison
from .comparison import Verdict as Verdict
from .comparison import verdict_of as verdict_of
from .inputs import MAX_TEXT_BYTES as MAX_TEXT_BYTES
from .inputs import MAX_YAML_VALUES as MAX_YAML_VALUES
from .inputs import InfeasibleBudgetError as InfeasibleBudgetError
from .inputs import InputError as InputError
from .inputs import UnsteadyDeviceError as UnsteadyDeviceError
from .inputs import bounded_text as bounded_text
from .inputs import parsed_json as parsed_json
from .inputs import parsed_yaml as parsed_yaml
from .record import ID_DIGITS as ID_DIGITS
from .record import Record as Record
from .record import content_id as content_id

# numpy's numbers are registered as real ones; so typed, a comparison is not narrowed to what `Real` promises.
_ANY_NUMBER: Any = Real
Role = Literal["teacher", "student", "baseline"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

# The host of a device that cannot be reached from here: its latency is predicted, never measured.
UNREACHABLE = "unreachable"

# The slots of Once for All's spaces, by the beginning of their names: for each stage the blocks that are always there
# and how many more its depth may add. ProxylessNAS ends with one block of fixed depth.
OFA_SLOTS: dict[str, tuple[tuple[int, int], ...]] = {
    "ofa_mbv3": ((0, 4),) * 5,
    "ofa_proxyless": (*((0, 4),) * 5, (1, 0)),
    "ofa_resnet50": ((2, 2), (2, 2), (4, 2), (2, 2)),
}
# ResNet50D's d[0] is no stage's: it keeps the stem's residual block at 2 and leaves it out below.
_RESNET = "ofa_resnet50"
_RESNET_STEM_DEPTH = 2


def utc_now() -> str:
    """Give the time as rows store it, e.g. `2026-11-20T22:10:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Arch(Record):
    """One architecture of a space, in the field's JSON (OFA, DyNAS-T, HELP) and in canonical form.

    `ks`, `e`, `d` are per slot, per slot and per stage; `r` is the input size in pixels; `w` (ResNet50D only) holds
    the width choices by index. Slots of blocks beyond a stage's depth are inactive: they are set to 0, so two archs
    that differ only in filler are equal. Compact lists (one entry an active block) are accepted and spread out. Slots
    are known here for Once for All's spaces; lists of another space stay as given, with one entry a slot.
    """

    space: str
    ks: tuple[int, ...] = ()
    e: tuple[float, ...] = ()
    d: tuple[int, ...]
    r: int = Field(gt=0)
    w: tuple[int, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, data: Any) -> Any:
        if not isinstance(data, Mapping | Arch):
            raise ValueError(f"an architecture is a mapping of space, ks, e, d and r, not {data!r}")
        data = dict(data)
        for key in ("ks", "e", "d", "w"):
            values = data.get(key)
            if values is not None and not _are_numbers(values):
                raise ValueError(f"{key} is a list of numbers, not {values!r}")
        depth = [int(value) for value in data.get("d") or ()]
        slots = next((s for start, s in OFA_SLOTS.items() if str(data.get("space", "")).startswith(start)), None)
        if slots is None:
            return data
        if slots is OFA_SLOTS[_RESNET]:
            data["d"] = depth = _resnet_depths(depth)
            depth = depth[1:]
        active = _active_slots(depth, slots)
        for key in ("ks", "e"):
            if data.get(key):
                data[key] = _spread(key, data[key], active)
        return data

    @model_validator(mode="after")
    def _plain_numbers(self) -> Self:
        for value in (*self.ks, *self.e):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"ks and e must be finite and not negative, got {value}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Give the field's JSON: whole expand ratios are written as integers, absent lists are left out."""
        data: dict[str, Any] = {"space": self.space, "d": list(self.d), "r": self.r}
        if self.ks:
            data["ks"] = list(self.ks)
        if self.e:
            data["e"] = [int(value) if value == int(value) else value for value in self.e]
        if self.w:
            data["w"] = list(self.w)
        return data

    def replace(self, **changes: Any) -> Arch:
        """Return the same architecture with some fields changed, e.g. `arch.replace(r=64)`."""
        return Arch.model_validate({**self.to_dict(), **changes})

    def __hash__(self) -> int:
        return hash((self.space, self.ks, self.e, self.d, self.r, self.w))


class Budget(Record):
    """Upper bounds a student must keep; `None` is no bound. Milliseconds are per device profile name."""

    latency_ms: dict[str, float] = Field(default_factory=dict)
    macs: float | None = Field(None, gt=0)
    params: float | None = Field(None, gt=0)
    size_bytes: float | None = Field(None, gt=0)
    peak_activation_bytes: float | None = Field(None, gt=0)

    @field_validator("latency_ms")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for device, bound in value.items():
            if not (bound > 0 and math.isfinite(bound)):
                raise ValueError(f"latency budget on {device} must be a positive number of ms, got {bound}")
        return value

    @property
    def counted(self) -> dict[str, float]:
        """The bounds that need no device, by the name of the count."""
        pairs = {name: getattr(self, name) for name in ("macs", "params", "size_bytes", "peak_activation_bytes")}
        return {name: bound for name, bound in pairs.items() if bound is not None}


class DeviceProfile(Record):
    """A device as it is measured: where a model runs, how, and the latency model fitted for it."""

    name: str
    runtime: str
    runtime_version: str = ""
    threads: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    precision: Precision = "fp32"
    effective_precision: str = ""
    cpu_model: str = ""
    host: str = "local"  # "local", USER@HOST for a device reached by ssh, or UNREACHABLE
    command: str = ""  # a launcher template for what ssh does not reach
    latency_model: str = ""  # file beside the profile, empty when none was fitted
    spaces: tuple[str, ...] = ()
    resolutions: tuple[int, ...] = ()
    steadiness: float | None = None  # relative repeat-to-repeat difference of medians
    model_error: float | None = None  # held-out MAPE of the latency model, a fraction
    created: str = ""

    @property
    def reachable(self) -> bool:
        """Say whether models can be run on the device from here; if not, its figures are predictions."""
        return self.host != UNREACHABLE

    @property
    def local(self) -> bool:
        """Say whether the device is said to be this machine."""
        return self.host == "local" and not self.command


class Measurement(Record):
    """Raw single-stream latencies of one model on one device, and what the process cost. Never only a mean."""

    device: str
    runtime: str
    runtime_version: str
    threads: int
    batch: int
    precision: str
    effective_precision: str
    samples_ms: tuple[float, ...]
    anchored_ms: float | None = (
        None  # median without the host's drift; on the latency model's scale where `drift` is known
    )
    peak_rss_bytes: int | None = None  # the whole process
    runtime_rss_bytes: int | None = None  # the process before the model was loaded
    load_ms: float | None = None
    energy_mj: float | None = None
    throughput: dict[int, float] = Field(default_factory=dict)  # batch size -> images/s
    host_load_before: float | None = None
    host_load_after: float | None = None
    drift: float | None = None  # anchor nets' time now over the time when the profile was made, minus 1; None: unknown
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Leave an unknown drift out: measurements filed before there was the field keep their ids."""
        data = super().to_dict()
        return data if self.drift is not None else {key: value for key, value in data.items() if key != "drift"}

    @field_validator("samples_ms")
    @classmethod
    def _real_samples(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not (math.isfinite(sample) and sample > 0) for sample in value):
            raise ValueError("samples_ms must hold positive finite milliseconds")
        return value

    def percentile(self, percent: float) -> float:
        """Give a percentile of the raw samples in ms, linearly interpolated as numpy does."""
        ordered = sorted(self.samples_ms)
        place = (len(ordered) - 1) * percent / 100
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    @property
    def p50_ms(self) -> float:
        return self.percentile(50)

    @property
    def p90_ms(self) -> float:
        return self.percentile(90)

    @property
    def p99_ms(self) -> float:
        return self.percentile(99)


class Artifact(Record):
    """A file of a workspace: what it is, where it lies (relative to the workspace) and the hash it must have."""

    kind: str
    path: str
    sha256: str
    size_bytes: int


class Pruned(Record):
    """Result of structured pruning: the network that was pruned, the importance criterion, and the remaining shapes."""

    parent: str  # the model that was pruned, trained on hard labels only
    importance: str
    ratio: float  # fraction of every layer's channels that was removed
    shapes: dict[str, tuple[int, ...]]  # tensors of the state dict that are smaller than in the whole network


class Student(Record):
    """One trained network: its architecture, its teachers, and the file that holds its weights."""

    model: str
    role: Role
    arch: Arch | None = None  # None for a network that is not of a space (a teacher, a timm baseline)
    library_name: str = ""  # its name in timm, where `arch` is None
    options: dict[str, Any] = Field(default_factory=dict)  # passed to the library when it is built again
    pruned: Pruned | None = None  # where channels were pruned: `arch` or `library_name` is the unpruned network's
    teacher: str = ""  # empty: trained on hard labels only
    recipe: str = ""
    dataset: str = ""
    seed: int = 0
    weights: Artifact | None = None
    params: int | None = None
    macs: int | None = None
    validation: dict[str, float] = Field(default_factory=dict)  # figures on the validation split
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Leave `pruned` out where nothing was: whole networks keep the ids that they had before there was pruning."""
        data = super().to_dict()
        return data if self.pruned is not None else {key: value for key, value in data.items() if key != "pruned"}

    @property
    def subnet(self) -> Arch | None:
        """The architecture of a space that this network is, whole; None for a pruned one and for all others."""
        return self.arch if self.pruned is None else None


# How far the row of a run is: evaluated on the test split, measured on its device, compared and explained.
STATES = ("evaluated", "measured", "complete")
_FIGURES = (
    *("accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi"),
    *("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_rss_bytes", "energy_mj"),
)
# What of a row's details says what the row is of; the rest are figures.
_IDENTITY = ("manifest", "versions", "python", "cpu", "side_px", "imported_from")


class Row(Record):
    """One line of the leaderboard. A figure that was not measured is `None`, never 0."""

    model: str
    role: Role
    arch: Arch | None = None
    teacher: str = ""
    recipe: str = ""
    dataset: str
    split: str = "test"
    scheme: str = "fp32"
    runtime: str = ""
    device: str = ""
    batch: int | None = None
    threads: int | None = None
    accuracy: float | None = None
    accuracy_lo: float | None = None
    accuracy_hi: float | None = None
    auc: float | None = None
    auc_lo: float | None = None
    auc_hi: float | None = None
    params: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    peak_rss_bytes: int | None = None
    energy_mj: float | None = None
    seed: int = 0
    created: str = ""
    source: Literal["measured", "imported"] = "measured"
    measurement: str = ""  # id of the Measurement with the raw samples
    twin: str = ""  # model name of the same student trained without a teacher
    parent: str = ""  # model name of the fp32 network this row was compressed from
    details: dict[str, Any] = Field(default_factory=dict)  # per-class figures, predicted costs, data manifest, versions

    @field_validator(*_FIGURES)
    @classmethod
    def _as_databases_keep_it(cls, value: float | None) -> float | None:
        """Read NaN as not measured and -0 as 0: SQLite keeps neither, and to PostgreSQL NaN is the greatest number."""
        if value is None or math.isnan(value):
            return None
        return abs(value) if value == 0 else value

    @property
    def key(self) -> str:
        """The id: what makes two rows the same result, whenever it was made.

        A row of a run (it says how far it is, `details["state"]`) is named by what it is of: network and file by their
        hashes, recipe, data, device, versions. Its figures come one after the other and keep the id. Any other row is
        named by all that it says.
        """
        values = {name: value for name, value in self.to_dict().items() if name != "created"}
        if self.details.get("state") not in STATES:
            return content_id(values)
        made = values["details"].get("how", {})
        weights = (made.get("network") or {}).get("weights") or {}
        hashes = [(made.get("file") or {}).get("sha256"), weights.get("sha256")]
        later = (*_FIGURES, "measurement", "twin", "details")
        of = {name: value for name, value in values.items() if name not in later}
        said = {name: values["details"].get(name) for name in _IDENTITY}
        return content_id({**of, **said, "recipe_values": made.get("recipe"), "hashes": hashes})


def _are_numbers(values: Any) -> bool:
    """Say whether this is a list of numbers of the size that genes have."""
    return isinstance(values, list | tuple) and all(
        isinstance(value, _ANY_NUMBER) and not isinstance(value, bool) and -1e9 < value < 1e9 for value in values
    )


def _resnet_depths(depth: Sequence[int]) -> list[int]:
    """Check the length of a ResNet50D arch's `d`, and write its stem as the one value or the other."""
    if len(depth) != len(OFA_SLOTS[_RESNET]) + 1:
        raise ValueError(f"d of an ofa_resnet50 arch has 5 entries (stem, 4 stages), got {len(depth)}: {list(depth)}")
    return [_RESNET_STEM_DEPTH if depth[0] == _RESNET_STEM_DEPTH else 0, *depth[1:]]


def _active_slots(depth: Sequence[int], slots: Sequence[tuple[int, int]]) -> list[bool]:
    """Say which slots hold an active block; fixed stages come last. The space refuses a `d` of another length."""
    elastic = [stage for stage in slots if stage[1]]
    stages = [(elastic[min(i, len(elastic) - 1)], more) for i, more in enumerate(depth)]
    stages += [(stage, 0) for stage in slots if not stage[1]]
    return [i < base + more for (base, extra), more in stages for i in range(base + extra)]


def _spread(key: str, values: Sequence[float], active: Sequence[bool]) -> list[float]:
    """Mask filler of a full list, or spread a compact list over the active slots."""
    if len(values) == len(active):
        return [value if on else 0 for value, on in zip(values, active, strict=True)]
    if len(values) == sum(active):
        compact = iter(values)
        return [next(compact) if on else 0 for on in active]
    raise ValueError(
        f"{key} has {len(values)} entries; this depth takes {len(active)} (one a slot) or {sum(active)} (one a block)"
    )
