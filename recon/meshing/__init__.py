"""From Gaussians to a mesh: depth rendered from many sides, fused, cleaned, simplified, coloured."""
