"""How close renderings are to photos that no stage but camera finding has seen.

Input: Gaussians, held-out photos with cameras, a rasteriser. Output: PSNR, SSIM and coverage, per view and mean.
Does not: align cameras, exposures or anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..fuse import Fused
from ..posed import PosedViews
from ..records import Rasterizer

UNREGISTERED_PSNR = 10.0
"""What a held-out photo counts when no camera was found for it, dB."""
UNREGISTERED_SSIM = 0.0
COVERED_ALPHA = 0.5
"""A pixel is covered when the scene's accumulated opacity reaches this."""
SSIM_SIDE, SSIM_SIGMA = 11, 1.5


@dataclass(frozen=True, kw_only=True)
class ViewScore:
    """Score of one held-out photo."""

    name: str
    registered: bool
    psnr: float
    ssim: float
    coverage: float
    """Share of pixels that the scene, far shell included, covers."""
    surface_coverage: float
    """The same without the far shell."""


def as_8bit(image: Float[Tensor, "*S 3"]) -> Float[Tensor, "*S 3"]:
    """Round to the 256 levels of an 8-bit picture, still in [0, 1]."""
    return (image.clamp(0, 1) * 255).round() / 255


def psnr(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> float:
    """Peak signal-to-noise ratio in dB over the valid pixels, peak 1. Equal pictures give infinity."""
    error = ((a - b) ** 2)[valid].double().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim_map(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W"]:
    """Structural similarity per pixel, mean over channels; 11 px Gaussian window of sigma 1.5, data range 1.

    Source: Wang et al., "Image quality assessment", IEEE TIP 2004, equation 13.
    """
    x = torch.arange(SSIM_SIDE, dtype=a.dtype) - SSIM_SIDE // 2
    window = torch.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()

    def blur(maps: Tensor) -> Tensor:
        channels = maps.shape[1]
        pad = SSIM_SIDE // 2
        padded = torch.nn.functional.pad(maps, (pad, pad, pad, pad), mode="reflect")
        rows = torch.nn.functional.conv2d(padded, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return torch.nn.functional.conv2d(rows, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    p, q = a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None]
    mp, mq = blur(p), blur(q)
    vp, vq, cov = blur(p * p) - mp * mp, blur(q * q) - mq * mq, blur(p * q) - mp * mq
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mp * mq + c1) * (2 * cov + c2)) / ((mp * mp + mq * mq + c1) * (vp + vq + c2))
    return value[0].mean(0)


def ssim(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> float:
    """Mean structural similarity over the valid pixels; both pictures are black outside them."""
    inside = valid[..., None].to(a.dtype)
    return ssim_map(a * inside, b * inside)[valid].double().mean().item()


def score_views(fused: Fused, held_out: PosedViews, unregistered: Sequence[str], rasterizer: Rasterizer) -> list[ViewScore]:
    """Score every held-out photo.

    Drawn over black, rounded to 8 bit, compared over the whole undistorted frame. Held-out photos without a camera
    count UNREGISTERED_PSNR.

    Args:
        held_out: registered held-out photos at the scoring size.
        unregistered: names of held-out photos without a camera.
    """
    scores = []
    surface = fused.surface if fused.shell_count else fused.gaussians
    for i, name in enumerate(held_out.names):
        camera = held_out.cameras.select([i])
        image, valid = held_out.pixels(i)
        with torch.no_grad():
            whole = rasterizer(fused.gaussians, camera)
            alpha = rasterizer(surface, camera).alpha[0] if fused.shell_count else whole.alpha[0]
        drawn, photo = as_8bit(whole.color[0]), as_8bit(image)
        scores.append(
            ViewScore(
                name=name,
                registered=True,
                psnr=psnr(drawn, photo, valid),
                ssim=ssim(drawn, photo, valid),
                coverage=float((whole.alpha[0] >= COVERED_ALPHA)[valid].float().mean()),
                surface_coverage=float((alpha >= COVERED_ALPHA)[valid].float().mean()),
            )
        )
    blank = {"registered": False, "psnr": UNREGISTERED_PSNR, "ssim": UNREGISTERED_SSIM, "coverage": 0.0, "surface_coverage": 0.0}
    return scores + [ViewScore(name=name, **blank) for name in unregistered]


def summarize(scores: Sequence[ViewScore]) -> dict:
    """Means over the scored photos, and the photos themselves, ready for report.json."""
    if not scores:
        return {"n_scored": 0}
    mean = {key: sum(getattr(s, key) for s in scores) / len(scores) for key in ("psnr", "ssim", "coverage", "surface_coverage")}
    return {
        "psnr_mean": mean["psnr"],
        "ssim_mean": mean["ssim"],
        "coverage": mean["coverage"],
        "surface_coverage": mean["surface_coverage"],
        "n_scored": len(scores),
        "n_unregistered": sum(not s.registered for s in scores),
        "per_view": [asdict(s) for s in scores],
    }
