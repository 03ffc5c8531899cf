"""The benchmark programs that come with the runtimes: how each is called, and what it reports."""
