"""From encoded architectures to programs, tables of operations, on integers only (no torch)."""
