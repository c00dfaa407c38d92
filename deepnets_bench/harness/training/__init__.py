"""Training and evaluation of one hypernetwork on a track."""
