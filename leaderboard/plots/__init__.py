"""Plots of fronts, searches and distillation."""
