"""Keys of stages: their typed inputs, digests of model files, and the plan of a run, which compares both."""
