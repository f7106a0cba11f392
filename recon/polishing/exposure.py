"""Brightness and white balance of every photo, found while polishing.

Input: gradients of the loss with respect to rendered colours. Output: a gain and an offset per photo and channel.
They explain why two photos of one wall differ; the scene itself keeps the mean of all photos. Held-out photos are scored
without them. Does not: bend colours (no gamma, no vignetting).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .adam import BETA1, BETA2, EPSILON

GAIN_LIMIT, OFFSET_LIMIT = 0.5, 0.2
"""Largest change of gain around 1 and of offset around 0."""


class Exposure:
    """Adam on gains and offsets, their mean over all photos held at 1 and 0.

    Args:
        views: number of photos.
        rate: step on gains; offsets take a quarter of it.
    """

    def __init__(self, views: int, *, rate: float = 4e-3, device: torch.device | str = "cpu") -> None:
        self.gain = torch.ones(views, 3, device=device)
        self.offset = torch.zeros(views, 3, device=device)
        self.rate = rate
        self._first = torch.zeros(views, 6, device=device)
        self._second = torch.zeros(views, 6, device=device)
        self._steps = torch.zeros(views, device=device)

    def apply(self, color: Float[Tensor, "H W 3"], view: int) -> Float[Tensor, "H W 3"]:
        """What the camera would have recorded of ``color``."""
        return color * self.gain[view] + self.offset[view]

    def step(
        self, view: int, color: Float[Tensor, "H W 3"], gradient: Float[Tensor, "H W 3"], rate_share: float = 1.0
    ) -> Float[Tensor, "H W 3"]:
        """Update one photo and return the gradient with respect to the scene's colours.

        Args:
            color: rendered, before ``apply``.
            gradient: of the loss, after ``apply``.
            rate_share: factor on the rate; 0 changes nothing.
        """
        passed = gradient * self.gain[view]
        if rate_share > 0:
            g = torch.cat([(gradient * color).sum((0, 1)), gradient.sum((0, 1))])
            self._steps[view] += 1
            n = float(self._steps[view])
            self._first[view] = BETA1 * self._first[view] + (1 - BETA1) * g
            self._second[view] = BETA2 * self._second[view] + (1 - BETA2) * g * g
            move = (self._first[view] / (1 - BETA1**n)) / ((self._second[view] / (1 - BETA2**n)).sqrt() + EPSILON)
            self.gain[view] -= self.rate * rate_share * move[:3]
            self.offset[view] -= 0.25 * self.rate * rate_share * move[3:]
        return passed

    def center(self) -> None:
        """Give the mean back to the scene's side, so that brightness cannot wander off."""
        self.gain += 1 - self.gain.mean(0)
        self.offset -= self.offset.mean(0)
        self.gain.clamp_(1 - GAIN_LIMIT, 1 + GAIN_LIMIT)
        self.offset.clamp_(-OFFSET_LIMIT, OFFSET_LIMIT)
