"""Quant: export to the runtimes and int8 compression."""
