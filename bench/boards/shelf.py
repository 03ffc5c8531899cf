"""The boards of a cluster's pools: which are up, which have left, and how many sessions wait for one (`pools`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "tutelage-boards"  # of the actors that hold boards, named POOL/ID, and of what the head keeps
_SEEN = "seen:"  # how keys begin that say how many boards of a pool were up on a machine


@dataclass(frozen=True)
class Pool:
    """The boards of a pool: how many are up, in use and gone, and how many sessions wait.

    `left` counts those that were up at an earlier look since the head started, by machine: `left_from` names these.
    """

    name: str
    up: int = 0
    used: int = 0
    waiting: int = 0
    machines: tuple[str, ...] = ()
    left: int = 0
    left_from: tuple[str, ...] = ()


def resource(pool: str) -> str:
    """Name the Ray resource of a pool of boards."""
    return f"device:{pool}"


def pools(ray: Any) -> dict[str, Pool]:
    """Give the pools of the cluster by name. Boards that are up are noted at its head, for later looks."""
    machines: dict[str, list[str]] = {}
    up: dict[str, Counter[str]] = {}
    for node in ray.nodes():
        for name, number in node["Resources"].items() if node["Alive"] else ():
            if name.startswith("device:"):
                pool, machine = name.removeprefix("device:"), node["NodeManagerHostname"]
                machines.setdefault(pool, []).append(machine)
                up.setdefault(pool, Counter())[machine] += int(number)
    most = _most_seen(ray, up)
    free = ray.available_resources()
    named = [one["name"].partition("/")[0] for one in ray.util.list_named_actors(all_namespaces=True)
             if one["namespace"] == NAMESPACE]  # fmt: skip
    found = {}
    for pool in sorted({*up, *named, *most}):
        here = up.get(pool, Counter())
        left = Counter(most.get(pool, {})) - here
        total = here.total()
        used = total - int(free.get(resource(pool), 0))
        found[pool] = Pool(
            pool, total, used, max(0, named.count(pool) - used), tuple(sorted(machines.get(pool, ()))), left.total(),
            tuple(sorted(left)),
        )  # fmt: skip
    return found


def _most_seen(ray: Any, up: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Give the most boards that were up at once by pool and machine, at this look or an earlier one of anybody.

    Ray does not say what a machine offered that has left. Its head keeps what was seen as long as it runs, each number
    under a key of its own: sessions that look at once overwrite nothing of each other's.
    """
    store = ray.experimental.internal_kv
    before = {bytes(key).decode() for key in store._internal_kv_list(_SEEN, namespace=NAMESPACE)}
    now = {
        _SEEN + json.dumps([pool, machine, number]) for pool, counts in up.items() for machine, number in counts.items()
    }
    for key in now - before:
        store._internal_kv_put(key, "1", overwrite=True, namespace=NAMESPACE)
    most: dict[str, dict[str, int]] = {}
    for key in before | now:
        pool, machine, number = json.loads(key.removeprefix(_SEEN))
        known = most.setdefault(pool, {})
        known[machine] = max(number, known.get(machine, 0))
    return most


def also_compute(ray: Any, pools: Sequence[str]) -> bool:
    """Say whether a machine that has a board of these pools gives CPUs to tasks, too."""
    alive = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return any(one.get("CPU", 0) >= 1 and any(resource(pool) in one for pool in pools) for one in alive)
