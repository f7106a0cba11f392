"""Correct the colours of Gaussians so that their overlap reproduces the photos.

Input: Gaussians, posed photos, a rasteriser. Output: the same Gaussians with other degree 0 colours.
Does not: move, add or remove anything.
"""

from __future__ import annotations

import torch

from ..geometry import SH_C0
from ..posed import PosedViews
from ..progress import Progress
from ..records import Gaussians, Rasterizer, RasterOptions


def recolor(gaussians: Gaussians, posed: PosedViews, rasterizer: Rasterizer, *, steps: int, progress: Progress) -> Gaussians:
    """Spread each photo's residual back onto the Gaussians that drew the pixel.

    With geometry fixed the picture is linear in colour: pixel = sum of w_i c_i. Each step adds to c_i the residuals of
    all photos averaged with the blending weights, which the rasteriser's gradient and contribution give directly.
    Source: simultaneous iterative reconstruction, Gilbert, J. Theor. Biol. 1972, with blending weights as the system.

    Args:
        steps: passes over all photos; each costs a forward and a backward drawing per photo.
    """
    sh = gaussians.sh.clone()
    options = RasterOptions(contribution=True)
    for step in range(steps):
        update, weight = torch.zeros_like(sh[:, 0]), torch.zeros(len(gaussians))
        for i in range(len(posed)):
            progress.update("gaussians", 0.7 + 0.3 * (step + i / len(posed)) / steps, "matching colours")
            leaf = sh.clone().requires_grad_()
            current = Gaussians(
                means=gaussians.means, quats=gaussians.quats, scales=gaussians.scales, opacities=gaussians.opacities, sh=leaf
            )
            rendering = rasterizer(current, posed.cameras.select([i]), options)
            image, valid = posed.pixels(i)
            residual = (image - rendering.color[0].detach()) * valid[..., None]
            (gradient,) = torch.autograd.grad(rendering.color, leaf, residual[None])
            update += gradient[:, 0] / SH_C0
            if rendering.contribution is None:
                raise RuntimeError("recolor: the rasteriser returned no contribution")
            weight += rendering.contribution[0].detach()
        sh[:, 0] += update / (weight[:, None] + 0.5) / SH_C0
        sh[:, 0] = sh[:, 0].clamp(-0.5 / SH_C0, 0.5 / SH_C0)
    return Gaussians(means=gaussians.means, quats=gaussians.quats, scales=gaussians.scales, opacities=gaussians.opacities, sh=sh)
