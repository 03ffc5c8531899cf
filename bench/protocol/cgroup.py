"""The CPU quota that a container or a batch system sets on this process: `cpu_quota`, of cgroup v1 and v2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")


def cpu_quota(proc: Path = _PROC) -> float | None:
    """Give the cores that this process may use on average, e.g. 0.5; None where nothing limits them.

    The tightest quota from the process's own group up to the root that is mounted here counts: a group's limit holds
    for all groups below it. `proc` is the process's folder, which a test may write.
    """
    quotas = [quota for folder in _folders(proc) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(proc: Path) -> Iterator[Path]:
    """Give the folders of the CPU controller, from the process's own group upwards."""
    groups = dict(_groups(proc))
    for root, mount, controllers in _mounts(proc):
        group = groups.get("cpu" if "cpu" in controllers else "", "/")
        # What is mounted here is the tree below `root`. A group outside of it (its path starts with /.., or a container
        # sees the host's path) is the mount's own root: its files are those of the group that holds us.
        below = PurePosixPath(group)
        if below.is_relative_to(root):
            below = below.relative_to(root)
        parts = [part for part in below.parts if part not in ("/", "..")]
        for length in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:length])


def _groups(proc: Path) -> Iterator[tuple[str, str]]:
    """Read /proc/self/cgroup: the group by controller; v2's controller is the empty string."""
    for line in _lines(proc / "cgroup"):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            yield controller, group


def _mounts(proc: Path) -> Iterator[tuple[str, Path, set[str]]]:
    """Read /proc/self/mountinfo: (root, mount point, controllers) of cgroup v2 and of v1's CPU controller."""
    for line in _lines(proc / "mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kinds) < 3:
            continue
        root, mount = (re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
        controllers = set(kinds[2].split(","))
        if kinds[0] == "cgroup2":
            yield root, Path(mount), set()
        elif kinds[0] == "cgroup" and "cpu" in controllers:
            yield root, Path(mount), {"cpu"}


def _quota(folder: Path) -> float | None:
    """Read one group's quota in cores: v2's `cpu.max`, or v1's quota and period; -1 and `max` are no limit."""
    unified = _lines(folder / "cpu.max")
    if unified:
        words = [*unified[0].split(), "100000"][:2]
    else:
        words = [*_lines(folder / "cpu.cfs_quota_us")[:1], *_lines(folder / "cpu.cfs_period_us")[:1]]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
