"""Tutelage finds small image classifiers that fit a device, distils and compresses them, and shows where they stand."""

from importlib.metadata import version as _version

__version__ = _version("tutelage")
