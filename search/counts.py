"""The stable import path of the counts."""

from .costs.counts import BlockSpec, Counts, block_specs, count, count_genes

__all__ = ["BlockSpec", "Counts", "block_specs", "count", "count_genes"]
