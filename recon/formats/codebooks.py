"""Few values that stand for many: codebooks for numbers and palettes for vectors.

Input: numpy arrays. Output: codebook or palette, and the index of every input in it.
Does not: write files.
"""

from __future__ import annotations

import numpy as np
import torch

LLOYD_STEPS_1D = 24
LLOYD_STEPS = 6
TRAINING_VALUES = 400_000
TRAINING_VECTORS = 40_000
BLOCK_PRODUCTS = 1 << 24
"""Distances held at once."""


def codebook(values: np.ndarray, levels: int = 256) -> np.ndarray:
    """Choose ``levels`` values, ascending, that stand for all ``values`` with small squared error.

    Starts half from quantiles and half from an even grid (so that the ends keep a level), then Lloyd's steps; in one
    dimension a step is a look-up in a sorted array and its cumulative sum.
    """
    flat = np.sort(values.reshape(-1)[:: max(1, values.size // TRAINING_VALUES)].astype(np.float64))
    ends = np.array([values.min(), values.max()], dtype=np.float64)
    flat = np.concatenate([ends[:1], flat, ends[1:]])
    half = levels // 2
    centres = np.sort(
        np.concatenate([np.quantile(flat, (np.arange(half) + 0.5) / half), np.linspace(ends[0], ends[1], levels - half)])
    )
    total = np.concatenate([[0.0], np.cumsum(flat)])
    for _ in range(LLOYD_STEPS_1D):
        cut = np.concatenate([[0], np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2), [len(flat)]])
        size = np.diff(cut)
        centres = np.where(size > 0, np.diff(total[cut]) / np.maximum(size, 1), centres)
    centres.sort()
    return centres.astype(np.float32)


def nearest_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the nearest of ascending ``levels`` for every value."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values).astype(np.uint8)


def palette(vectors: np.ndarray, size: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Choose about ``size`` vectors that stand for all, and say which stands for each.

    Two levels of k-means (about sqrt(size) groups, then a share of the palette within each group): N sqrt(size)
    distances instead of N size, which is what makes 65,536 entries possible without a GPU.
    Source: tree-structured vector quantisation, Gersho and Gray, "Vector Quantization and Signal Compression", ch. 12.

    Returns:
        P D palette with P <= size, and the N labels.
    """
    points = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    if len(points) <= size:
        return vectors.astype(np.float32), np.arange(len(points))
    generator = torch.Generator().manual_seed(seed)
    groups = max(1, round(size**0.5))
    sample = points[torch.randperm(len(points), generator=generator)[:TRAINING_VECTORS]]
    group = nearest_vector(points, _lloyd(sample, groups, generator))
    order = torch.argsort(group, stable=True)
    members = torch.split(order, torch.bincount(group, minlength=groups).tolist())
    share = _shares([len(m) for m in members], size)
    entries, labels, start = [], torch.empty(len(points), dtype=torch.long), 0
    for indices, count in zip(members, share, strict=True):
        if count == 0:
            continue
        inside = points[indices]
        centres = _lloyd(inside, count, generator)
        labels[indices] = start + nearest_vector(inside, centres)
        entries.append(centres)
        start += len(centres)
    return torch.cat(entries).numpy(), labels.numpy()


def _shares(members: list[int], size: int) -> list[int]:
    """Divide ``size`` palette entries among groups by their number of members; a group with members gets at least one."""
    total = sum(members)
    wanted = [size * count / total for count in members]
    share = [min(count, max(int(w), 1)) if count else 0 for count, w in zip(members, wanted, strict=True)]
    while sum(share) > size:
        share[int(np.argmax(share))] -= 1
    return share


def _lloyd(points: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """k-means from random members; a centre that loses all its points stays where it is."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    if len(centres) == len(points):
        return centres
    for _ in range(LLOYD_STEPS):
        label = nearest_vector(points, centres)
        size = torch.bincount(label, minlength=len(centres))[:, None]
        total = torch.zeros_like(centres).index_add_(0, label, points)
        centres = torch.where(size > 0, total / size.clamp_min(1), centres)
    return centres


def nearest_vector(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre of every point, in blocks."""
    offset = -0.5 * (centres * centres).sum(dim=1)
    block = max(1, BLOCK_PRODUCTS // len(centres))
    return torch.cat([torch.addmm(offset, part, centres.T).argmax(dim=1) for part in points.split(block)])
