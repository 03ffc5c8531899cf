"""The training loop, its schedule and checkpoints, and the soft targets of teachers."""
