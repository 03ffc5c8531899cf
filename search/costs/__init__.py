"""Exact costs of architectures without building a network, and whether a budget can be met. No torch."""
