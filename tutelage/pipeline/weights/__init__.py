"""Pretrained weights by name: one notation for teachers, students, baselines and supernets (`given_weights`)."""
