"""Fewer Gaussians that look like all of them, for the moments when speed matters more than detail.

Input: ``Gaussians`` and a share. Output: ``Gaussians``.
Does not: look at a camera; a share serves all views.

Each Gaussian is kept with a probability that grows with what it covers, and those that stay are enlarged so that the covered area
stays what it was: large ones (walls, sky) are always kept as they are, fine detail is replaced by a coarser sample of itself. The
same draw of the lot is used at every share, so a smaller set is part of each larger one and nothing jumps.

Source: Cook et al., Stochastic Simplification of Aggregate Detail, 2007.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from recon.records import Gaussians

MOST_GROWTH = 3.0
"""A Gaussian is never drawn larger than this many times its size."""
STEPS = 40
"""Bisections that find the factor of the probabilities."""


def keeping_probability(gaussians: Gaussians, share: float) -> Float[Tensor, " N"]:
    """Probability with which each Gaussian stays, so that about ``share`` of all do: min(1, c · opacity · side)."""
    sides = gaussians.scales.sort(dim=1).values
    weight = gaussians.opacities * (sides[:, 1] * sides[:, 2]).sqrt()
    weight = weight / weight.mean().clamp_min(1e-30)
    sample = weight[:: max(1, len(weight) // 50_000)]
    low, high = 0.0, 1e6
    for _ in range(STEPS):
        middle = (low * high) ** 0.5 if low > 0 else high * 1e-3
        if float((middle * sample).clamp(max=1).mean()) < share:
            low = middle
        else:
            high = middle
    return (high * weight).clamp(max=1)


def thinned(gaussians: Gaussians, share: float, *, seed: int = 0) -> Gaussians:
    """Keep about ``share`` of the Gaussians, enlarged to cover what all did."""
    if share >= 1.0 or len(gaussians) == 0:
        return gaussians
    lot = torch.rand(len(gaussians), generator=torch.Generator().manual_seed(seed))
    probability = keeping_probability(gaussians, share)
    kept = lot < probability
    if not bool(kept.any()):
        kept[int(probability.argmax())] = True
    growth = probability[kept].rsqrt().clamp(max=MOST_GROWTH)
    fewer = gaussians.select(kept)
    return replace(fewer, scales=fewer.scales * growth[:, None])
