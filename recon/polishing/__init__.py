"""Optimisation of a scene through the rasteriser: losses, optimiser, schedule, growth, cameras, guard."""
