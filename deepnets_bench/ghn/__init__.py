"""Graph hypernetworks: they predict the parameters of a network from its graph."""
