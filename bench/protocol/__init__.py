"""The measuring protocol: interleaved runs in worker processes, anchors, drift, remote devices."""
