"""Image sets: loaded, partitioned and drawn from."""
