"""What any layer may need of the machine: files, locks, signals, processes, Dask (no torch)."""
