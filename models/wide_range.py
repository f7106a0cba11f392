"""Depth ranges that are too wide for the planes of one sweep: search them in bands first, then around what was found.

Input: a depth range, and a way to sweep a range for one photo. Output: z-depth and confidence.
Does not: know networks.

Planes lie evenly in inverse depth, so that 64 of them over 1:10,000 have one for all that is farther than a 160th of the far
end. Bands whose ends are a fixed ratio apart resolve every depth equally well. Of what is found with confidence a narrower range is
made, as of the points of structure from motion (``recon.depth_range``), and swept as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["WIDEST", "bands", "last_plane", "search_in_bands"]

WIDEST = 200.0
"""Far over near up to which one sweep will do."""
BAND = 16.0
"""Far over near of a band at most, but for what it shares with the next."""
SHARED = 1.5
"""Ratio by which a band reaches into the next, so that no surface lies at the ends of both."""
CERTAIN = 0.5
"""Confidence from which a depth has a say in the narrower range."""
LEAST_CERTAIN = 0.005
"""Share of a photo that must be found with confidence for a narrower range to be made."""
NEARER, FARTHER = 0.5, 2.0
"""Room that the narrower range leaves around what was found."""

DepthMap = Float[Tensor, "h w"]
Sweep = Callable[[Float[Tensor, "2"]], tuple[DepthMap, DepthMap]]
"""Depth and confidence within a range of near and far z-depth."""


def bands(near: float, far: float) -> list[tuple[float, float]]:
    """Near and far of each band, from the nearest on."""
    count = math.ceil(math.log(far / near) / math.log(BAND) - 1e-9)
    ratio = (far / near) ** (1 / count)
    lows = [near * ratio**k for k in range(count)]
    return [(low, far if low == lows[-1] else low * ratio * SHARED) for low in lows]


def last_plane(near: float, far: float, planes: int) -> float:
    """Depth of the last plane before the far end.

    What lies beyond a range is answered with its far end, confidently, as the sky is: answers beyond this depth say that the
    surface is elsewhere.
    """
    return 1.0 / (1.0 / far + (1.0 / near - 1.0 / far) / (planes - 1))


def search_in_bands(sweep: Sweep, near: float, far: float, planes: int) -> tuple[DepthMap, DepthMap]:
    """Find depth anywhere between near and far, however far apart they are.

    Args:
        sweep: estimates depth and confidence within a range.
        planes: that it spreads over the range.

    Returns:
        Depth and confidence: of a sweep around what is found with confidence, where that is no wide range; else, and for surfaces
        outside it, of the band that is most confident.
    """
    depth, confidence = best_of_bands(sweep, near, far, planes)
    certain = confidence > CERTAIN
    if float(certain.float().mean()) < LEAST_CERTAIN:
        return depth, confidence
    low, high = quantiles(depth[certain])
    low, high = max(NEARER * low, near), min(FARTHER * high, far)
    if high > WIDEST * low:
        return depth, confidence
    closer, sure = sweep(torch.tensor([low, high]))
    outside = certain & ((depth < low) | (depth > high))
    if high < far:
        outside |= closer > last_plane(low, high, planes)
    return torch.where(outside, depth, closer), torch.where(outside, confidence, sure)


def best_of_bands(sweep: Sweep, near: float, far: float, planes: int) -> tuple[DepthMap, DepthMap]:
    """Answer each pixel with the band that is most confident; of those that know nothing, with the farthest."""
    searched = bands(near, far)
    depth, confidence = sweep(torch.tensor(searched[-1]))
    for low, high in reversed(searched[:-1]):
        z, sure = sweep(torch.tensor([low, high]))
        better = (sure > confidence) & (z <= last_plane(low, high, planes))
        depth, confidence = torch.where(better, z, depth), torch.where(better, sure, confidence)
    return depth, confidence


def quantiles(depth: Float[Tensor, " N"]) -> tuple[float, float]:
    """The 1st and 99th percentile; of every n-th value of many."""
    some = depth[:: max(1, len(depth) // 100_000)].float()
    low, high = torch.quantile(some, torch.tensor([0.01, 0.99])).tolist()
    return low, high
