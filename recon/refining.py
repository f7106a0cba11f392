"""Learned refinement: draw the scene where photos were taken, tell every Gaussian what was wrong, let a network move it.

Input: Gaussians, posed photos, a rasteriser, an ``Updater``. Output: Gaussians that draw the photos better, as many as before.
Does not: know the network, add or remove Gaussians, or judge itself.

Gradients are the feedback, as in Chen et al., "G3R: Gradient Guided Generalizable Reconstruction", ECCV 2024; rounds of a small
network over the errors of the input photos, as in Xu et al., "ReSplat", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .geometry import SH_C0, quats_to_rotations
from .polishing.losses import LossConfig, photo_loss
from .polishing.polish import few_torch_threads
from .polishing.targets import Targets
from .polishing.workers import kernel, over_rows
from .progress import Progress
from .records import Gaussians, Rasterizer, RasterOptions

MOVE, TURN, SIZE, OPACITY, COLOR, SHEEN = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10), slice(10, 13), slice(13, 22)
"""Columns of feedback and of updates, all in a Gaussian's own terms: move along its axes in deviations, turn about its axes in
radians, logarithms of its deviations, logit of its opacity, colour, and what SH degree 1 adds to the colour (coefficient by
coefficient, three channels each; 0 where only degree 0 is stored)."""
COLUMNS = 22
MOST_PHOTOS = 24
"""Photos a round looks at."""
SHEEN_NORM = 3 / (4 * math.pi)
"""Sum of the squares of the three SH basis functions of degree 1."""
LEAST_WEIGHT = 0.5
"""Pixels added to a Gaussian's weight, so that one which is hardly seen hardly moves."""
ERROR = LossConfig(ssim_share=0.002, square_share=1.0, square_scale=0.5 / 0.998)
"""Half the squared error, and a little structural dissimilarity; per pixel the gradient of the first is the error itself."""
OPACITY_RANGE = (1e-4, 0.9995)
"""Opacities are kept within this."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What the photos say about every Gaussian; columns as named above."""

    slope: Float[Tensor, "N 22"]
    """Gradient of the error over the blending weight: for colour, the mean error of the pixels it drew."""
    scatter: Float[Tensor, "N 22"]
    """The same with absolute values of each photo's gradient: where it is much larger, photos disagree."""
    weight: Float[Tensor, " N"]
    """Sum of blending weights over all photos, pixels."""
    seen: Float[Tensor, " N"]
    """Photos it was drawn in."""
    photos: int
    error: float
    """Mean squared error of the photos before the update."""


@runtime_checkable
class Updater(Protocol):
    """Turns feedback into better Gaussians; ``state`` is what it remembers of earlier rounds."""

    rounds: int
    """How many rounds it was trained for."""

    def __call__(
        self, gaussians: Gaussians, spacing: Float[Tensor, " N"], feedback: Feedback, state: Tensor | None
    ) -> tuple[Gaussians, Tensor]: ...


def gather_feedback(
    gaussians: Gaussians,
    targets: Targets,
    rasterizer: Rasterizer,
    *,
    views: Sequence[int] | None = None,
    factor: int = 1,
    tick: Callable[[int], None] | None = None,
) -> Feedback:
    """Draw photos once and collect what their errors say.

    Args:
        targets: the photos.
        views: which of them; None takes all.
        factor: how much they are shrunk.
        tick: called before each is drawn with how many have been.
    """
    names = ("means", "quats", "scales", "opacities", "sh")
    leaves = Gaussians(**{name: getattr(gaussians, name).detach().clone().requires_grad_() for name in names})
    count, posed = len(gaussians), targets.posed
    slope = torch.zeros(count, COLUMNS, device=gaussians.means.device)
    scatter, weight, seen, squared = torch.zeros_like(slope), slope.new_zeros(count), slope.new_zeros(count), 0.0
    chosen = range(len(posed)) if views is None else views
    for number, view in enumerate(chosen):
        if tick is not None:
            tick(number)
        target = targets.at(view, factor)
        width, height = targets.size(view, factor)
        cameras = posed.cameras.select([view]).to(leaves.means.device).resized(width, height)
        with torch.enable_grad():
            rendering = rasterizer(leaves, cameras, RasterOptions(contribution=True))
        loss = photo_loss(rendering.color[0], target, ERROR)
        pixels = float(target.weight.sum().clamp_min(1)) * 3
        inputs = [getattr(leaves, name) for name in names]
        gradients = torch.autograd.grad(rendering.color, inputs, (loss.gradient * pixels)[None])
        if rendering.contribution is None:
            raise RuntimeError("gather_feedback: the rasteriser returned no contribution")
        add_slopes(gaussians, gradients, rendering.contribution[0].detach(), (slope, scatter, weight, seen))
        squared += loss.squared_error
    share = 1 / (weight + LEAST_WEIGHT)[:, None]
    return Feedback(
        slope=torch.nan_to_num(slope * share), scatter=torch.nan_to_num(scatter * share),
        weight=weight, seen=seen, photos=len(chosen), error=squared / max(1, len(chosen)),
    )  # fmt: skip


def local_frame(gaussians: Gaussians) -> Float[Tensor, "N 3 3"]:
    """Axes of every Gaussian times their deviations, as columns."""
    return quats_to_rotations(gaussians.quats) * gaussians.scales[:, None]


def add_slopes(gaussians: Gaussians, gradients: tuple[Tensor, ...], drawn: Float[Tensor, " N"], sums: tuple[Tensor, ...]) -> None:
    """Add what one photo says to the sums (slope, scatter, weight, seen), which are changed in place.

    Args:
        gradients: with respect to means, quats, scales, opacities and sh.
        drawn: sum of blending weights in this photo.
    """
    if gaussians.means.device.type != "cpu":
        add_slopes_twin(gaussians, gradients, drawn, sums)
        return
    values = [getattr(gaussians, name).detach().float().contiguous().numpy() for name in ("quats", "scales", "opacities")]
    arrays = [g.detach().float().contiguous().numpy() for g in gradients]
    over_rows(_add_slopes, len(gaussians), *values, *arrays, drawn.float().contiguous().numpy(), *(s.numpy() for s in sums), SH_C0)


@kernel
def _add_slopes(begin, end, quats, scales, opacities, g_means, g_quats, g_scales, g_opacities, g_sh, drawn,
                slope, scatter, weight, seen, basis):  # fmt: skip
    own = np.zeros(22, np.float32)
    high = 9 if g_sh.shape[1] > 3 else 0
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    unit = one / np.float32(basis)
    for i in range(begin, end):
        if not drawn[i] > 0:
            continue
        w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        gw, gx, gy, gz = g_quats[i, 0], g_quats[i, 1], g_quats[i, 2], g_quats[i, 3]
        a, b, c = g_means[i, 0], g_means[i, 1], g_means[i, 2]
        own[0] = ((one - two * (y * y + z * z)) * a + two * (x * y + w * z) * b + two * (x * z - w * y) * c) * scales[i, 0]
        own[1] = (two * (x * y - w * z) * a + (one - two * (x * x + z * z)) * b + two * (y * z + w * x) * c) * scales[i, 1]
        own[2] = (two * (x * z + w * y) * a + two * (y * z - w * x) * b + (one - two * (x * x + y * y)) * c) * scales[i, 2]
        own[3] = half * (-x * gw + w * gx + z * gy - y * gz)
        own[4] = half * (-y * gw - z * gx + w * gy + x * gz)
        own[5] = half * (-z * gw + y * gx - x * gy + w * gz)
        for k in range(3):
            own[6 + k] = g_scales[i, k] * scales[i, k]
            own[10 + k] = g_sh[i, 0, k] * unit
        own[9] = g_opacities[i] * opacities[i] * (one - opacities[i])
        for k in range(high):
            own[13 + k] = g_sh[i, 1 + k // 3, k % 3] * unit
        for k in range(13 + high):
            slope[i, k] += own[k]
            scatter[i, k] += abs(own[k])
        weight[i] += drawn[i]
        seen[i] += one


def add_slopes_twin(
    gaussians: Gaussians, gradients: tuple[Tensor, ...], drawn: Float[Tensor, " N"], sums: tuple[Tensor, ...]
) -> None:
    """The definition of ``add_slopes``, in torch."""
    at = torch.nonzero(drawn > 0)[:, 0]
    g_means, g_quats, g_scales, g_opacities, g_sh = (g.detach()[at].float() for g in gradients)
    w, x, y, z = gaussians.quats[at].unbind(1)
    gw, gx, gy, gz = g_quats.unbind(1)
    turn = torch.stack(
        [-x * gw + w * gx + z * gy - y * gz, -y * gw - z * gx + w * gy + x * gz, -z * gw + y * gx - x * gy + w * gz], dim=1
    )
    opacities = gaussians.opacities[at]
    own = torch.cat(
        [
            torch.einsum("nij,ni->nj", local_frame(gaussians)[at], g_means),
            turn / 2,
            g_scales * gaussians.scales[at],
            (g_opacities * opacities * (1 - opacities))[:, None],
            g_sh[:, 0] / SH_C0,
            g_sh[:, 1:4].flatten(1) / SH_C0 if g_sh.shape[1] > 3 else g_sh.new_zeros(len(g_sh), 9),
        ],
        dim=1,
    )
    for total, part in zip(sums, (own, own.abs(), drawn[at].float(), torch.ones_like(opacities)), strict=True):
        total[at] += part


def apply_update(gaussians: Gaussians, update: Float[Tensor, "N 22"]) -> Gaussians:
    """Move, turn, size, fade and colour Gaussians in their own terms. Differentiable in both."""
    w, x, y, z = gaussians.quats.unbind(1)
    a, b, c = (update[:, TURN] / 2).unbind(1)
    turned = torch.stack(
        [w - x * a - y * b - z * c, x + w * a - z * b + y * c, y + z * a + w * b - x * c, z - y * a + x * b + w * c], 1
    )
    logit = torch.logit(gaussians.opacities.clamp(*OPACITY_RANGE)) + update[:, 9]
    color = (gaussians.sh[:, 0] + update[:, COLOR] / SH_C0).clamp(-0.5 / SH_C0, 0.5 / SH_C0)
    parts = [color[:, None], gaussians.sh[:, 1:]]
    if gaussians.sh.shape[1] > 3:
        sheen = gaussians.sh[:, 1:4] + update[:, SHEEN].reshape(-1, 3, 3) * (SH_C0 / SHEEN_NORM)
        parts = [color[:, None], sheen, gaussians.sh[:, 4:]]
    return Gaussians(
        means=gaussians.means + torch.einsum("nij,nj->ni", local_frame(gaussians), update[:, MOVE]),
        quats=torch.nn.functional.normalize(turned, dim=1),
        scales=gaussians.scales * update[:, SIZE].exp(),
        opacities=torch.sigmoid(logit).clamp(*OPACITY_RANGE),
        sh=torch.cat(parts, dim=1),
    )


def pixel_spacing(gaussians: Gaussians, targets: Targets) -> Float[Tensor, " N"]:
    """World units that a pixel covers at each Gaussian, seen from the nearest camera."""
    cameras = targets.posed.cameras.to(gaussians.means.device)
    distances = torch.cdist(gaussians.means.float(), cameras.T_world_cam[:, :3, 3].float())
    return (distances / cameras.K[:, 0, 0].float()).amin(1)


def with_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Make room for SH up to a degree; nothing is cut."""
    missing = (degree + 1) ** 2 - gaussians.sh.shape[1]
    return gaussians if missing <= 0 else replace(gaussians, sh=torch.nn.functional.pad(gaussians.sh, (0, 0, 0, missing)))


def views_of_round(number: int, photos: int) -> list[int] | None:
    """Which photos a round looks at: all, or, of many, every n-th, others each round; None stands for all."""
    stride = -(-photos // MOST_PHOTOS)
    return None if stride <= 1 else list(range(number % stride, photos, stride))


def refine(
    gaussians: Gaussians, targets: Targets, rasterizer: Rasterizer, updater: Updater, *, rounds: int, progress: Progress
) -> tuple[Gaussians, list[float]]:
    """Go round: draw, compare, update.

    Args:
        targets: the input photos.
        rounds: each costs a forward and a backward drawing of up to ``MOST_PHOTOS`` photos.

    Returns:
        The Gaussians, and the mean squared error of the photos looked at before each round.
    """
    errors, state, photos = [], None, len(targets.posed)
    spacing = pixel_spacing(gaussians, targets)
    with few_torch_threads():
        for number in range(rounds):
            views = views_of_round(number, photos)
            looked_at = photos if views is None else len(views)

            def tick(done: int, number: int = number, looked_at: int = looked_at) -> None:
                share = (number + done / looked_at) / rounds
                progress.update("gaussians", 0.7 + 0.3 * share, f"refining, round {number + 1} of {rounds}")

            feedback = gather_feedback(gaussians, targets, rasterizer, views=views, tick=tick)
            gaussians, state = updater(gaussians, spacing, feedback, state)
            errors.append(feedback.error)
    return gaussians, errors
