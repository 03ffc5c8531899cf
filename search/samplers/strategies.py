"""The registry of search strategies: one file each, and what other packages add under `tutelage.strategies`."""

from __future__ import annotations

from tutelage.plugins import Registry

from .default import DEFAULT
from .eeea import EEEA
from .linas import LINAS
from .nni_tpe import NNI_TPE
from .nsga2 import NSGA2
from .random_search import RANDOM
from .strategy import Strategy

STRATEGIES: Registry[Strategy] = Registry(
    "strategies", "strategy", Strategy, (DEFAULT, RANDOM, EEEA, NSGA2, LINAS, NNI_TPE)
)
