"""Distillation losses of logits and of features, and the registry of methods."""
