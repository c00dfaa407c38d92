"""Computation graphs: folded from programs or traced, their algorithms and pictures."""
