"""Which points hang together: connected groups of occupied cells of a grid.

Input: points and a cell size. Output: for every point the size of its group.
Does not: look at anything but positions.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

CELLS_PER_AXIS = 1 << 20
HALF_NEIGHBOURS = [offset for offset in itertools.product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]
"""13 of the 26 neighbours of a cell; the others are seen from the other side."""


def cluster_sizes(points: Float[Tensor, "N 3"], cell: float) -> Int[Tensor, " N"]:
    """Count the points in the group of each point; cells that touch, corners included, are one group.

    Args:
        points: finite, any frame.
        cell: edge of a grid cell, units of the points.
    """
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.long)
    positions = points.detach().cpu().double().numpy()
    cells = np.floor((positions - positions.min(axis=0)) / cell)
    keys = _keys(np.minimum(cells, CELLS_PER_AXIS - 2).astype(np.int64) + 1)
    occupied, of = np.unique(keys, return_inverse=True)
    label = _join(occupied)
    sizes = np.bincount(label[of])
    return torch.from_numpy(sizes[label[of]])


def _keys(cells: np.ndarray) -> np.ndarray:
    """One integer per cell; neighbours differ by a constant per direction."""
    return (cells[:, 0] * (CELLS_PER_AXIS + 2) + cells[:, 1]) * (CELLS_PER_AXIS + 2) + cells[:, 2]


def _join(occupied: np.ndarray) -> np.ndarray:
    """Label the connected groups of sorted cell keys: every cell takes the smallest label around it until nothing changes.

    Pointer jumping between the rounds keeps their number logarithmic in the length of a group.
    """
    pairs = []
    for offset in HALF_NEIGHBOURS:
        wanted = occupied + _keys(np.array([offset]))[0]
        at = np.searchsorted(occupied, wanted).clip(0, len(occupied) - 1)
        hit = occupied[at] == wanted
        pairs.append(np.stack([np.nonzero(hit)[0], at[hit]]))
    first, second = np.concatenate(pairs, axis=1)
    label = np.arange(len(occupied))
    while True:
        lowest = np.minimum(label[first], label[second])
        updated = label.copy()
        np.minimum.at(updated, label[first], lowest)
        np.minimum.at(updated, label[second], lowest)
        while not np.array_equal(updated, updated[updated]):
            updated = updated[updated]
        updated = updated[label]
        if np.array_equal(updated, label):
            return label
        label = updated
