"""Structured pruning: whole channels are removed, by our own criterion or by NNI's pruners."""
