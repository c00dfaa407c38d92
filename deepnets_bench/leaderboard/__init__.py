"""Results of benchmark runs: append-only rows, and what is computed and printed from them (no torch)."""
