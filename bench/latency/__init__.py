"""Latency models: milliseconds of an architecture on a device after few measurements, with intervals."""

from .model import LatencyModel

__all__ = ["LatencyModel"]
