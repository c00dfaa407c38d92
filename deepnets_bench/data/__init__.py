"""Splits of graphs on disk and in batches: shards, manifests, statistics, the torch dataset."""
