"""The gated graph network of GHN-1 and GHN-2: its module and its sweeps on CPU and GPU."""
