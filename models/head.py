"""The head that turns any depth source into the appearance of Gaussians.

Input: photo, z-depth, confidence and cross-view residuals of one view. Output: ``SplatAttributes`` per pixel.
Does not: see features of a depth network, so depth may come from another model or a sensor; place or choose Gaussians
(``recon.fuse`` does).

    photo, d(log z), confidence, residuals  -> 2x2 pixels into channels -> residual convolutions at half size -> corrections
    confidence, residuals                   -> rule: trusted depth is opaque, doubtful depth is soft     -> + corrections

The last layer starts at zero, so the untrained head is exactly the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.fuse import SplatAttributes

from .precision import autocast_dtype, to_channels_last

__all__ = ["HeadConfig", "HeadNetwork", "LearnedSplatHead", "trust_rule"]

INPUTS = 13
OUTPUTS = 7
"""Opacity, tangential and normal scale, colour, importance."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sizes of the head; stored with its weights."""

    width: int = 32
    """Channels at half size."""
    blocks: int = 3
    """Residual blocks; the n-th one looks 2^n pixels far."""


def trust_rule(confidence: Float[Tensor, "*N"], residuals: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Share in [0, 1] of belief in a depth: its own confidence raised by agreeing views, lowered by views that see through."""
    support, violation = residuals[..., 1], residuals[..., 2]
    supported = 1 - (1 - confidence) * (1 - 0.8 * support)
    return (supported * (1 - 0.8 * violation)).clamp(0, 1)


class DilatedBlock(nn.Module):
    """Two convolutions around a skip; the first looks far."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.far = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.near = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.near(F.silu(self.far(F.silu(x))))


class HeadNetwork(nn.Module):
    """Corrections to the rule, from a few convolutions."""

    def __init__(self, config: HeadConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HeadConfig()
        self.enter = nn.Conv2d(4 * INPUTS, config.width, 1)
        self.blocks = nn.Sequential(*(DilatedBlock(config.width, 2**n) for n in range(config.blocks)))
        self.leave = nn.Conv2d(config.width, 4 * OUTPUTS, 1)
        self.rule = nn.Parameter(torch.tensor([0.0, 4.0]))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self,
        image: Float[Tensor, "B H W 3"],
        depth: Float[Tensor, "B H W"],
        confidence: Float[Tensor, "B H W"],
        residuals: Float[Tensor, "B H W 4"],
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W 2"], Float[Tensor, "B H W 3"], Float[Tensor, "B H W"]]:
        """Return opacity, log_scale, color_delta and importance. Differentiable in the weights."""
        height, width = depth.shape[1:]
        x = head_inputs(image, depth, confidence, residuals)
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        x = self.enter(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        out = F.pixel_shuffle(self.leave(F.silu(self.blocks(x))), 2)[..., :height, :width].float()
        trust = trust_rule(confidence, residuals)
        opacity = torch.sigmoid(self.rule[0] + self.rule[1] * trust + out[:, 0])
        log_scale = 1.2 * torch.tanh(out[:, 1:3]).permute(0, 2, 3, 1)
        color_delta = 0.2 * torch.tanh(out[:, 3:6]).permute(0, 2, 3, 1)
        return opacity.clamp(1e-4, 1 - 1e-4), log_scale, color_delta, torch.exp(torch.tanh(out[:, 6]))


def head_inputs(image: Tensor, depth: Tensor, confidence: Tensor, residuals: Tensor) -> Float[Tensor, "B 13 H W"]:
    """Everything the head sees; depth enters by the change of its logarithm, so the scene's scale does not matter."""
    log_depth = depth.clamp_min(1e-8).log()[:, None]
    padded = F.pad(log_depth, (1, 1, 1, 1), mode="replicate")
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    dx, dy, bend = (right - left) / 2, (below - above) / 2, left + right + above + below - 4 * log_depth
    shape = torch.cat([torch.tanh(40 * dx), torch.tanh(40 * dy), torch.tanh(40 * bend)], dim=1)
    photo = (image.permute(0, 3, 1, 2) - 0.5) * 2
    gray = photo.mean(dim=1, keepdim=True)
    detail = torch.tanh(3 * (gray - F.avg_pool2d(gray, 5, 1, 2, count_include_pad=False)).abs())
    trust = trust_rule(confidence, residuals)[:, None]
    return torch.cat([photo, detail, shape, confidence[:, None], trust, residuals.permute(0, 3, 1, 2)], dim=1)


class LearnedSplatHead:
    """``SplatHead`` around a ``HeadNetwork``.

    Args:
        network: the network; it is put in evaluation mode.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, network: HeadNetwork, device: str = "cpu") -> None:
        self.network = to_channels_last(network).to(device).eval()
        self.device = device

    @torch.no_grad()
    def __call__(
        self,
        image: Float[Tensor, "H W 3"],
        depth: Float[Tensor, "H W"],
        confidence: Float[Tensor, "H W"],
        residuals: Float[Tensor, "H W 4"],
    ) -> SplatAttributes:
        """Describe the Gaussians of one view's pixels."""
        dtype = autocast_dtype(self.device)
        given = [t[None].float().to(self.device) for t in (image, depth, confidence, residuals)]
        with torch.autocast(self.device, dtype or torch.bfloat16, enabled=dtype is not None):
            parts = self.network(*given)
        opacity, log_scale, color_delta, importance = (p[0].float().to(depth.device) for p in parts)
        return SplatAttributes(opacity=opacity, log_scale=log_scale, color_delta=color_delta, importance=importance)
