"""Deprecated import path of `tutelage.bench.devices.imported`, kept for scripts that use it."""

from .devices.imported import check_units, import_profile, read_measurements

__all__ = ["check_units", "import_profile", "read_measurements"]
