"""Networks: the built-in depth network, the classical baseline, the depth-to-Gaussians head, and where their weights are found."""
