"""Computation graphs of any torch module: its forward pass, recorded."""
