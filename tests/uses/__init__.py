"""Tests of the uses: training of networks, labels, properties, search."""
