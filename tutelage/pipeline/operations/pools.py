"""What `device list` says of pools of boards: who is up, who waits, when it was calibrated and how it drifted since."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.bench.boards.pool import POOL, joined, pool_of
from tutelage.bench.boards.shelf import Pool, pools
from tutelage.records import DeviceProfile, NotAvailableError


@dataclass(frozen=True)
class PoolState:
    """A device whose boards are a pool: their state now (None: not known, `why` says it), and of its measurements."""

    device: str
    pool: str
    boards: Pool | None
    why: str
    calibrated: str  # when its profile was made
    drift: float | None  # of its newest session in the workspace; None: unknown
    measured: str  # when that was

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """Say it in one line."""
        boards = self.boards
        if boards is None:
            now = f"boards not known: {self.why}"
        elif boards.up:
            now = f"{boards.up} up on {', '.join(sorted(set(boards.machines)))}, {boards.used} in use"
        else:
            now = "no board is up"
        if boards is not None:
            if boards.left:
                now += f", {boards.left} left ({', '.join(boards.left_from)})"
            now += f", {boards.waiting} waiting"
        then = f"calibrated {self.calibrated or 'never'}"
        if self.drift is not None:
            then += f", drift {self.drift:+.1%} ({self.measured})"
        return f"pool {self.pool} of {self.device}: {now}; {then}"


def pools_of(profiles: Sequence[DeviceProfile], workspace: Path) -> list[PoolState]:
    """Give the state of the pools that profiles name; Ray is asked only where one does."""
    named = [one for one in profiles if one.host.startswith(POOL)]
    if not named:
        return []
    known: dict[str, Pool] | None = None
    why = ""
    try:
        with joined() as ray:
            known = pools(ray)
    except NotAvailableError as error:
        why = str(error)
    found = []
    for profile in named:
        pool = pool_of(profile)
        boards = None if known is None else known.get(pool, Pool(pool))
        drift, measured = _newest_drift(profile.name, workspace)
        found.append(PoolState(profile.name, pool, boards, why, profile.created, drift, measured))
    return found


def _newest_drift(device: str, workspace: Path) -> tuple[float | None, str]:
    """Give the median drift of the newest session on a device, and when that was."""
    newest: tuple[str, float | None] = ("", None)
    for file in workspace.glob("artifacts/*/measurements.json"):
        values = [one for one in json.loads(file.read_text()).values() if one["device"] == device]
        created = max((one.get("created", "") for one in values), default="")
        drifts = [one["drift"] for one in values if one.get("drift") is not None]
        if values and created >= newest[0]:
            newest = created, statistics.median(drifts) if drifts else None
    return newest[1], newest[0]
