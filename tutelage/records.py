"""The types that the packages exchange: frozen, validated, with a JSON round trip and a content id each.

search, distill, quant, bench and leaderboard import this module and no other of `tutelage`; it re-exports
`arch`, `comparison`, `inputs`, `measured` and `record`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AliasChoices, Field, PrivateAttr, field_validator

from .arch import SLOTS as SLOTS
from .arch import Arch as Arch
from .comparison import DEFAULT_MARGIN as DEFAULT_MARGIN
from .comparison import MIN_SEEDS as MIN_SEEDS
from .comparison import Comparison as Comparison
from .comparison import Verdict as Verdict
from .comparison import verdict_of as verdict_of
from .inputs import MAX_TEXT_BYTES as MAX_TEXT_BYTES
from .inputs import MAX_YAML_VALUES as MAX_YAML_VALUES
from .inputs import FaultsError as FaultsError
from .inputs import InfeasibleBudgetError as InfeasibleBudgetError
from .inputs import InputError as InputError
from .inputs import NotAvailableError as NotAvailableError
from .inputs import UnsteadyDeviceError as UnsteadyDeviceError
from .inputs import bounded_text as bounded_text
from .inputs import checked_name as checked_name
from .inputs import npz_arrays as npz_arrays
from .inputs import parsed_json as parsed_json
from .inputs import parsed_yaml as parsed_yaml
from .measured import DeviceState as DeviceState
from .measured import TurnReport as TurnReport
from .record import ID_DIGITS as ID_DIGITS
from .record import Record as Record
from .record import content_id as content_id

Role = Literal["teacher", "student", "baseline"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

# The host of a device that cannot be reached from here: its latency is predicted, never measured.
UNREACHABLE = "unreachable"


def utc_now() -> str:
    """Give the time as rows store it, e.g. `2026-11-20T22:10:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Budget(Record):
    """Upper bounds a student must keep; `None` is no bound. Milliseconds are per device profile name."""

    latency_ms: dict[str, float] = Field(default_factory=dict)
    macs: float | None = Field(None, gt=0)
    params: float | None = Field(None, gt=0)
    size_bytes: float | None = Field(None, gt=0)
    peak_activation_bytes: float | None = Field(None, gt=0)
    int8_file_bytes: float | None = Field(None, gt=0)
    ram_bytes: float | None = Field(None, gt=0)
    int8_ram_bytes: float | None = Field(None, gt=0)
    energy_mj: float | None = Field(None, gt=0)  # of an inference, where it is measured

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
        names = ("macs", "params", "size_bytes", "peak_activation_bytes", "int8_file_bytes", "ram_bytes")
        pairs = {name: getattr(self, name) for name in (*names, "int8_ram_bytes")}
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
    host: str = "local"  # "local", USER@HOST of ssh, adb:SERIAL, ray:POOL, or UNREACHABLE
    command: str = ""  # what starts the runner where ssh does not reach, or a program that speaks the device protocol
    program: str = ""  # the runtime's benchmark program, a file here that is pushed to a device reached by adb
    cores: tuple[int, ...] = ()  # that inferences are pinned to; empty: the quietest, or of a phone the fastest
    latency_model: str = ""  # file beside the profile, empty when none was fitted
    spaces: tuple[str, ...] = ()
    resolutions: tuple[int, ...] = ()
    steadiness: float | None = None  # relative repeat-to-repeat difference of medians
    model_error: float | None = None  # held-out MAPE of the latency model, a fraction
    session_noise: float | None = None  # relative standard deviation of a later session's times about the model's
    processor: str = ""  # what ran the models, a GPU with its driver
    system: str = ""  # operating system and C library, as the device names them
    reanchored: str = ""  # when the model's scale was measured again; empty: never
    # What a network may take of the device's memories: activations of its RAM, the model file of its flash.
    ram_bytes: int | None = Field(None, gt=0)
    flash_bytes: int | None = Field(None, gt=0)
    created: str = ""

    @property
    def memory_only(self) -> bool:
        """Say whether the device is known by its memories alone: nothing is measured on it and no latency predicted."""
        return not self.reachable and not self.latency_model and (self.ram_bytes or self.flash_bytes) is not None

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
    runs_a_sample: int = Field(1, gt=0)  # more: each sample is the mean of so many inferences, and p99 says little
    reported: tuple[TurnReport, ...] = ()  # what a program said of them
    # Median without the host's drift; on the latency model's scale where `drift` is known.
    anchored_ms: float | None = None
    peak_rss_bytes: int | None = None  # the whole process
    runtime_rss_bytes: int | None = None  # the process before the model was loaded
    load_ms: float | None = None
    energy_mj: float | None = None  # of an image, above the idle device
    energy_method: str = ""  # which counter; empty: not measured, or by a version that subtracted nothing
    energy_missing: str = ""  # which file, right or package its machine lacks for that
    throughput: dict[int, float] = Field(default_factory=dict)  # batch size -> images/s
    host_load_before: float | None = None
    host_load_after: float | None = None
    drift: float | None = None  # anchor nets' time now over the time when the profile was made, minus 1; None: unknown
    processor: str = ""  # the CPU or GPU that ran it, as the device names it
    power_state: str = ""  # what sets its clock: governor, turbo, battery; empty where the device does not say
    state_before: DeviceState | None = None
    state_after: DeviceState | None = None
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Leave out what is unknown of the fields that came later: older measurements keep their ids."""
        later: dict[str, Any] = {"drift": None, "processor": "", "power_state": "", "runs_a_sample": 1, "reported": []}
        later |= {"state_before": None, "state_after": None, "energy_method": "", "energy_missing": ""}
        return {key: value for key, value in super().to_dict().items() if key not in later or value != later[key]}

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
    def p90_ms(self) -> float | None:
        """None where samples are means of several inferences: their tail is not that of inferences."""
        return self.percentile(90) if self.runs_a_sample == 1 else None

    @property
    def p99_ms(self) -> float | None:
        return self.percentile(99) if self.runs_a_sample == 1 else None


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


class Normalisation(Record):
    """How a network takes its images: pixels in 0..1, minus `mean`, over `std`, one value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def values(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give both, the mean first."""
        return self.mean, self.std


class Student(Record):
    """One trained network: its architecture, its teachers, and the file that holds its weights."""

    model: str
    role: Role
    arch: Arch | None = None  # None for a network that is not of a space (a teacher, a timm baseline)
    library_name: str = ""  # its name in timm, where `arch` is None
    options: dict[str, Any] = Field(default_factory=dict)  # passed to the library when it is built again
    normalisation: Normalisation | None = None  # of its own, as its pretrained weights want it; None: the run's
    pruned: Pruned | None = None  # where channels were pruned: `arch` or `library_name` is the unpruned network's
    teacher: str = ""  # empty: trained on hard labels only
    recipe: str = ""
    dataset: str = ""
    seed: int = 0
    weights: Artifact | None = None
    params: int | None = None
    macs: int | None = None
    validation: dict[str, float] = Field(default_factory=dict)  # figures on the validation split
    start: str = ""  # of its training: fresh, supernet, pruned, or the weights by name; empty: not known
    epochs: int | None = None  # of its schedule; 0: its weights are used as they are, None: not known
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Leave out what is absent of the fields that came later: networks without them keep their ids."""
        later = ("pruned", "normalisation", "start", "epochs")
        return {key: value for key, value in super().to_dict().items() if key not in later or value not in (None, "")}

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
# Rows are comparable where all of these agree: the data that they were evaluated on, and the device as it was measured.
DATA_KEY = ("dataset", "manifest", "split", "fold", "image_size")
DEVICE_KEY = ("device", "processor", "runtime", "runtime_version", "threads", "batch", "precision", "power_state")
COMPARABLE = (*DATA_KEY, *DEVICE_KEY, "source")
# Fields that came after ids were given out: an empty one is no part of an id that is computed from the content.
_LATER_FIELDS = ("manifest", "fold", "image_size", "processor", "runtime_version", "precision", "power_state")
# Fields that were renamed keep the name under which ids are computed.
_NAMED_IN_IDS = {"control": "twin"}


class Row(Record):
    """One line of the leaderboard. A figure that was not measured is `None`, never 0.

    Two rows are equal where they say the same; the id that a store gave a row is no part of what it says.
    """

    model: str
    role: Role
    arch: Arch | None = None
    teacher: str = ""
    recipe: str = ""
    dataset: str
    manifest: str = ""  # hash of the files, labels, groups and splits; empty: not known
    split: str = "test"
    fold: int | None = None  # None: the set was not split into folds
    image_size: int | None = None  # pixels at which images were decoded; a network may take them resized
    scheme: str = "fp32"
    runtime: str = ""
    runtime_version: str = ""
    device: str = ""
    processor: str = ""  # the CPU or GPU that ran it
    precision: str = ""  # of the device profile: what fp32 files are computed in; `scheme` is the file's own
    power_state: str = ""  # governor, turbo and battery during the measurement; empty: not known
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
    # Model name of the same student trained without a teacher; files of earlier versions call it twin.
    control: str = Field("", validation_alias=AliasChoices("control", "twin"))
    parent: str = ""  # model name of the fp32 network this row was compressed from
    details: dict[str, Any] = Field(default_factory=dict)  # per-class figures, predicted costs, data manifest, versions

    @field_validator(*_FIGURES)
    @classmethod
    def _as_databases_keep_it(cls, value: float | None) -> float | None:
        """Read NaN as not measured and -0 as 0: SQLite keeps neither, and to PostgreSQL NaN is the greatest number."""
        if value is None or math.isnan(value):
            return None
        return abs(value) if value == 0 else value

    _stored_id: str = PrivateAttr("")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.__dict__ == other.__dict__

    def filed_as(self, row_id: str) -> Row:
        """Give this row with the id that a store holds it under."""
        row = self.model_copy()
        row._stored_id = row_id
        return row

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Row:
        """Copy the row; a changed copy is another row, without the stored id."""
        row = super().model_copy(update=update, deep=deep)
        if update:
            row._stored_id = ""
        return row

    @property
    def key(self) -> str:
        """The id: the stored one, else what makes two rows the same result, whenever it was made.

        A row of a run (it says how far it is, `details["state"]`) is named by what it is of: network and file by their
        hashes, recipe, data, device, versions. Its figures come one after the other and keep the id. Any other row is
        named by all that it says.
        """
        if self._stored_id:
            return self._stored_id
        empty = ("", None)
        values = {
            _NAMED_IN_IDS.get(name, name): value
            for name, value in self.to_dict().items()
            if name != "created" and not (name in _LATER_FIELDS and value in empty)
        }
        if self.details.get("state") not in STATES:
            return content_id(values)
        made = values["details"].get("how") or {}
        weights = (made.get("network") or {}).get("weights") or {}
        hashes = [(made.get("file") or {}).get("sha256"), weights.get("sha256")]
        # The data are said by the details too; what the device was like is known when it was measured.
        later = (*_FIGURES, *_LATER_FIELDS, "measurement", "twin", "details")
        of = {name: value for name, value in values.items() if name not in later} | {"dataset": self._read_as}
        said = {name: values["details"].get(name) for name in _IDENTITY}
        return content_id({**of, **said, "recipe_values": made.get("recipe"), "hashes": hashes})

    @property
    def _read_as(self) -> str:
        """The data set as the registry names it: rows of folders and tables were called so, and keep their ids."""
        return str(self.details.get("data_reader") or self.dataset)

    @property
    def comparable(self) -> str:
        """The hash of all that rows must agree in to be compared; a store keeps it as a column."""
        return content_id([getattr(self, name) for name in COMPARABLE])

    @property
    def identity(self) -> str:
        """What this is a result of: a later run of the same supersedes the row. Empty where it does not say.

        The recipe's name and settings, the network with its role, teachers, scheme and seed, the data and the device.
        Versions of libraries and of this package are no part: a run by newer ones is a later run of the same thing.
        """
        settings = (self.details.get("how") or {}).get("settings")
        if self.details.get("state") not in STATES or settings is None:
            return ""
        names = (*COMPARABLE, "recipe", "role", "model", "teacher", "scheme", "seed")
        values = {name: getattr(self, name) for name in names} | {"dataset": self._read_as}
        if "pruned" in self.details:  # as older versions named it
            values["model"] = re.sub(r"-cut(\d+)$", r"-pruned\1", self.model)
        return content_id([settings, self.details.get("imported_from"), *values.values()])
