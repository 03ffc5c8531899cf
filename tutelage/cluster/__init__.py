"""Where a run's stages are computed, beside this process: on Ray."""
