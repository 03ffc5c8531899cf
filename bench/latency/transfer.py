"""Fit the latency model of a new device from the models of others and ten to twenty networks measured on it.

`transfer` fits it twice: with the predictions of the other devices' models as its prior (`prior.py`), and afresh on
counts. The first is kept, unless its error on networks left out is the larger one by more than the standard error of
their difference. `choose_nets` says which networks to measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.records import Arch, InputError

from .features import count_features, typical
from .model import LatencyModel

# Networks for each source, at the least: with more sources than that, those that rank the networks best are used.
NETS_A_SOURCE = 3
# Fewer say too little of which model errs less.
MIN_TRANSFER_NETS = 10


@dataclass(frozen=True)
class Transfer:
    """The model that was kept, and both errors: the mean relative ones on networks left out."""

    model: LatencyModel
    sources: tuple[str, ...]  # what the transferred model is made of, whether it was kept or not
    error: float  # of the transferred model
    error_afresh: float

    @property
    def helped(self) -> bool:
        """Say whether the transferred model was kept."""
        return bool(self.model.sources)

    def summary(self) -> str:
        """Say in a line which model was kept and why."""
        names, num = ", ".join(self.sources), self.model.num_nets
        errors = f"{self.error:.1%} on networks left out of {num}, {self.error_afresh:.1%} when fitted afresh"
        if self.helped:
            return f"transferred from {names}: error {errors}"
        return f"not transferred, fitted afresh on its own {num} networks: from {names} the error is {errors}"


def covering(sources: Mapping[str, LatencyModel], archs: Sequence[Arch]) -> dict[str, LatencyModel]:
    """Keep the sources that predict all of these archs. Raises InputError where there is none."""
    found = {name: model for name, model in sources.items() if all(model.covers(arch) for arch in archs)}
    if not found:
        spaces = sorted({arch.space for arch in archs})
        sizes = ", ".join(map(str, sorted({arch.r for arch in archs})))
        known = "; ".join(
            f"{name}: {', '.join(model.spaces)} at {model.resolutions[0]} to {model.resolutions[-1]} px"
            for name, model in sources.items()
        )
        raise InputError(
            f"no device to transfer from predicts {', '.join(spaces)} at {sizes} px ({known or 'none is known'}): name "
            "one that does, or leave out --transfer"
        )
    return found


def choose_nets(archs: Sequence[Arch], num: int, num_classes: int, in_channels: int) -> list[int]:
    """Choose which of the archs to measure, typical ones of all sizes, each once; gives their indices."""
    places = list({arch: place for place, arch in reversed(list(enumerate(archs)))}.values())[::-1]
    chosen = typical(*count_features([archs[place] for place in places], num_classes, in_channels), num)
    return [places[index] for index in chosen]


def transfer(
    archs: Sequence[Arch],
    latency_ms: ArrayLike,
    sources: Mapping[str, LatencyModel],
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> Transfer:
    """Fit on measured networks with and without the sources, and keep the better. Raises InputError as a fit does."""
    if (num := len(set(archs))) < MIN_TRANSFER_NETS:
        raise InputError(
            f"{num} networks are too few to choose between transferring and fitting afresh: measure {MIN_TRANSFER_NETS}"
        )
    afresh = LatencyModel.fit(archs, latency_ms, num_classes=num_classes, in_channels=in_channels)
    used = _most_alike(covering(sources, archs), archs, latency_ms)
    fitted = LatencyModel.fit(archs, latency_ms, num_classes=num_classes, in_channels=in_channels, sources=used)
    worse = fitted.held_out_errors - afresh.held_out_errors
    noise = float(worse.std(ddof=1)) / math.sqrt(len(worse))
    kept = afresh if float(worse.mean()) > noise else fitted
    return Transfer(kept, tuple(used), fitted.error, afresh.error)


def _most_alike(
    sources: Mapping[str, LatencyModel], archs: Sequence[Arch], latency_ms: ArrayLike
) -> dict[str, LatencyModel]:
    """Keep as many sources as the networks can weigh: those whose predictions correlate best with the times."""
    most = max(1, len(set(archs)) // NETS_A_SOURCE)
    if len(sources) <= most:
        return dict(sources)
    times = np.log(np.asarray(latency_ms, dtype=np.float64))
    alike = {name: float(np.corrcoef(np.log(model.predict(archs)[0]), times)[0, 1]) for name, model in sources.items()}
    best = sorted(sources, key=lambda name: -alike[name])[:most]
    return {name: sources[name] for name in sources if name in best}
