"""Rows compared in tables: students with baselines, architectures on devices. Nothing is printed here."""
