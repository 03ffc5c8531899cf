"""Bench: device profiles, runtimes, the measuring protocol and latency models."""
