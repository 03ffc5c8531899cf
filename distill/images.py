"""Deprecated import path of `tutelage.distill.data.images`, kept for scripts that use it."""

from .data.images import SUFFIXES, Fit, decode, is_image, resize_stack, to_channels, to_plain, to_square

__all__ = ["SUFFIXES", "Fit", "decode", "is_image", "resize_stack", "to_channels", "to_plain", "to_square"]
