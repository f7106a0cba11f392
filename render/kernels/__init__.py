"""Numba kernels of the CPU rasteriser, one stage a file: project, sort, bin, draw, and the same backwards."""
