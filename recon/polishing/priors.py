"""What is known beside the photos: depth from a network, and that Gaussians should be neither huge nor opaque for nothing.

Input: predicted depth with confidence; what the scene shows. Output: gradients with respect to rendered depth.
Does not: enforce anything; with many photos the weights fade.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..records import Prediction

FEW, MANY = 6, 24
"""Priors have full weight up to FEW photos and none from MANY on."""
LEAST_ALPHA = 0.5
"""Rendered depth below this coverage is not pulled at."""


def prior_weight(photos: int) -> float:
    """1 with few photos, 0 with many, linear in between."""
    return min(1.0, max(0.0, (MANY - photos) / (MANY - FEW)))


class DepthPrior:
    """Pulls rendered depth towards predicted depth, where the network is sure.

    Args:
        prediction: depth and confidence per photo, in the scene's world frame.
    """

    def __init__(self, prediction: Prediction, device: torch.device | str = "cpu") -> None:
        self._inverse = [1.0 / d.float().to(device).clamp_min(1e-8) for d in prediction.depth]
        self._confidence = [c.float().to(device) for c in prediction.confidence]
        self._held: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def at(self, view: int, height: int, width: int) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
        """Inverse depth and confidence at a size; interpolated as inverse depth, which is linear on planes."""
        key = (view, height, width)
        if key not in self._held:
            if len(self._held) > 128:
                self._held.clear()
            maps = torch.stack([self._inverse[view], self._confidence[view]])[None]
            maps = torch.nn.functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[0]
            self._held[key] = (maps[0], maps[1])
        return self._held[key]

    def gradient(self, view: int, depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"], weight: float) -> Float[Tensor, "H W"]:
        """Gradient, with respect to depth, of weight * mean of confidence * |1 - depth / predicted depth|."""
        inverse, confidence = self.at(view, *depth.shape)
        used = confidence * (alpha > LEAST_ALPHA)
        return weight / depth.numel() * used * torch.sign(depth * inverse - 1) * inverse
