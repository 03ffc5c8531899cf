"""Distill: data sets, teachers, losses, the training loop, evaluation and explanations."""
