"""Tracks: what a benchmark fixes (no torch)."""
