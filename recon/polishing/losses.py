"""How far a rendering is from a photo, and the gradient of that with respect to the rendering.

Input: rendered colours, the photo and a weight per pixel. Output: loss, gradient, squared error.
``photo_loss`` dispatches: compiled kernels on a CPU, torch elsewhere. Both compute the same numbers.
Does not: draw or update anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .loss_kernels import WINDOW, blur_statistics, loss_and_gradient

C1, C2 = 0.01**2, 0.03**2
"""Stabilisers of SSIM for a data range of 1."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    ssim_share: float = 0.2
    """Share of 1 - SSIM in the loss, in [0, 1]; the rest is the pixel difference."""
    square_share: float = 0.6
    """Share of squared differences (scaled by ``square_scale``) in the pixel difference, in [0, 1]; the rest is absolute."""
    square_scale: float = 4.0
    """Factor on squared differences."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A photo at one size, with what SSIM needs of it computed once."""

    image: Float[Tensor, "H W 3"]
    """The photo times the weight of each pixel."""
    weight: Float[Tensor, "H W"]
    """1 where the photo shows the scene, 0 where a pixel must not count."""
    mean: Float[Tensor, "H W 3"]
    """Gaussian-windowed mean of ``image``."""
    variance: Float[Tensor, "H W 3"]
    """Gaussian-windowed variance of ``image``."""

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.weight.nbytes + self.mean.nbytes + self.variance.nbytes


@dataclass(frozen=True, kw_only=True)
class PhotoLoss:
    """Value and gradient of the loss of one view."""

    value: float
    """The loss, mean over weighted pixels and channels."""
    squared_error: float
    """Mean squared error over weighted pixels and channels."""
    gradient: Float[Tensor, "H W 3"]
    """d value / d rendered colour."""


def make_target(image: Float[Tensor, "H W 3"], weight: Float[Tensor, "H W"]) -> Target:
    """Prepare a photo for ``photo_loss``."""
    shown = (image * weight[..., None]).contiguous()
    if shown.device.type == "cpu":
        mean, variance = (torch.from_numpy(a) for a in blur_statistics(shown.numpy()))
    else:
        mean = blur(shown)
        variance = blur(shown * shown) - mean * mean
    return Target(image=shown, weight=weight.contiguous(), mean=mean, variance=variance)


def photo_loss(color: Float[Tensor, "H W 3"], target: Target, config: LossConfig) -> PhotoLoss:
    """Loss (1 - s) (|d| or d^2) + s (1 - SSIM) of a rendering, with its gradient.

    SSIM has an 11 px Gaussian window of sigma 1.5 and zeros outside the picture, as in 3DGS.
    Source: Kerbl et al., "3D Gaussian Splatting", SIGGRAPH 2023, section 5; Wang et al. 2004, equation 13.
    """
    if color.device.type != "cpu":
        leaf = color.detach().requires_grad_()
        value, squared = photo_loss_twin(leaf, target, config)
        (gradient,) = torch.autograd.grad(value, leaf)
        return PhotoLoss(value=float(value.detach()), squared_error=float(squared.detach()), gradient=gradient)
    shares = np.array([config.ssim_share, config.square_share, config.square_scale], dtype=np.float32)
    gradient, value, squared = loss_and_gradient(
        color.detach().contiguous().numpy(),
        target.image.numpy(),
        target.weight.numpy(),
        target.mean.numpy(),
        target.variance.numpy(),
        shares,
    )
    return PhotoLoss(value=value, squared_error=squared, gradient=torch.from_numpy(gradient))


def blur(image: Float[Tensor, "H W C"]) -> Float[Tensor, "H W C"]:
    """Weigh each pixel's neighbourhood with the Gaussian window; zeros outside."""
    window = torch.as_tensor(WINDOW, dtype=image.dtype, device=image.device)
    maps = image.permute(2, 0, 1)[:, None]
    pad = len(WINDOW) // 2
    rows = torch.nn.functional.conv2d(maps, window.view(1, 1, 1, -1), padding=(0, pad))
    return torch.nn.functional.conv2d(rows, window.view(1, 1, -1, 1), padding=(pad, 0))[:, 0].permute(1, 2, 0)


def photo_loss_twin(
    color: Float[Tensor, "H W 3"], target: Target, config: LossConfig
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The definition of the loss, in differentiable torch; returns the loss and the mean squared error."""
    weight = target.weight[..., None]
    shown = color * weight
    total = weight.sum().clamp_min(1) * 3
    difference = shown - target.image
    pixel = (1 - config.square_share) * difference.abs() + config.square_share * config.square_scale * difference**2
    mean = blur(shown)
    variance = blur(shown * shown) - mean * mean
    covariance = blur(shown * target.image) - mean * target.mean
    similarity = ((2 * mean * target.mean + C1) * (2 * covariance + C2)) / (
        (mean**2 + target.mean**2 + C1) * (variance + target.variance + C2)
    )
    value = (1 - config.ssim_share) * pixel.sum() / total + config.ssim_share * ((1 - similarity) * weight).sum() / total
    return value, (difference**2).sum() / total
