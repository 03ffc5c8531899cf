"""Where an inference spends its time: profiles by layer, in the runtimes that have a profiler."""
