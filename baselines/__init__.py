"""Baseline GNNs, one a file, each written as a user would write a plug-in."""
