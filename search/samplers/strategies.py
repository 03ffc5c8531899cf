"""The registry of strategies: what the files of this package declare, and what others add (`tutelage.strategies`)."""

from __future__ import annotations

from tutelage.plugins import Registry, modules_of

from .strategy import Strategy

STRATEGIES: Registry[Strategy] = Registry(
    "strategies", "strategy", Strategy, modules_of("tutelage.search.samplers", Strategy)
)
