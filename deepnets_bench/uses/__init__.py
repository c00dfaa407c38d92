"""What hypernetworks and graphs are used for: training of single networks, labels, properties, search."""
