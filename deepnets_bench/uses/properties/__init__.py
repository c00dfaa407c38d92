"""Prediction of properties: from node embeddings, by GNNs trained on labels, and by baselines."""
