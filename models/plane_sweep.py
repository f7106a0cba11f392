"""Classical plane sweep: the baseline that the network has to beat, with nothing learned.

Input: posed photos, neighbours and depth ranges chosen outside. Output: ``Prediction`` at half the working size.
Does not: regularise beyond its matching window; that is what the network adds.

Every neighbour is warped over inverse-depth planes and compared by normalised cross-correlation in a window; the better half
of the neighbours votes (the others may be occluded); the best plane wins and is refined by a parabola. Confidence is the
correlation, lowered where no neighbour's own depth agrees.
Source: plane sweeping, Collins 1996; best-half voting, Kang, Szeliski and Chai 2001, section 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.geometry import backproject, inside_image, project, sample_image, transform
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Prediction

from .correlation import relative_geometry
from .mini_predictor import check_request, half_size

__all__ = ["PlaneSweepPredictor"]

PLANES = 96
WINDOW = 7
AGREE_REL = 0.02
"""Relative depth difference at which a neighbour still agrees."""
PLAIN_VARIANCE = 1.0e-4
"""Grey variance added in the correlation's denominator, so that noise on plain walls does not correlate."""


class PlaneSweepPredictor:
    """``DepthPredictor`` by photo-consistency alone.

    Args:
        device: 'cpu' or 'cuda'.
    """

    name = "plane-sweep"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @torch.inference_mode()
    def __call__(
        self,
        posed: PosedViews,
        neighbours: tuple[tuple[int, ...], ...],
        depth_range: Float[Tensor, "V 2"],
        progress: Progress,
    ) -> Prediction:
        """Estimate depth and confidence of every view; see ``MiniPredictor`` for the contract."""
        check_request(posed, neighbours, depth_range)
        halves = [half_size(w, h) for w, h in zip(posed.cameras.width, posed.cameras.height, strict=True)]
        cameras = posed.cameras.resized([w for w, _ in halves], [h for _, h in halves])
        depth, score = [], []
        for i, chosen in enumerate(neighbours):
            progress.update("depth", 0.9 * i / len(posed), f"photo {i + 1} of {len(posed)}")
            grays = [self._gray(posed, j, halves[j]) for j in (i, *chosen)]
            z, ncc = sweep(grays, cameras, (i, *chosen), depth_range[i].float())
            depth.append(z)
            score.append(ncc)
        confidence = []
        for i, chosen in enumerate(neighbours):
            progress.update("depth", 0.9 + 0.1 * i / len(posed), "checking depth across photos")
            agreed = agreement(depth, cameras, i, chosen)
            valid = F.interpolate(posed.pixels(i)[1][None, None].float(), size=depth[i].shape, mode="area")[0, 0] > 0.99
            confidence.append(score[i].clamp(0, 1) * (0.1 + 0.9 * agreed) * valid)
        progress.update("depth", 1.0)
        return Prediction(cameras=cameras, depth=tuple(depth), confidence=tuple(confidence))

    def _gray(self, posed: PosedViews, index: int, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        image = posed.image(index).permute(2, 0, 1)[None].to(self.device)
        return F.interpolate(image, size=(size[1], size[0]), mode="area")[0].mean(dim=0)


def sweep(
    grays: list[Tensor], cameras: Cameras, order: tuple[int, ...], depth_range: Float[Tensor, "2"]
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """z-depth of the best plane and its correlation, for the first photo of ``grays`` against the others.

    Args:
        order: the views that ``grays`` belong to.
        depth_range: near and far z-depth, world units.
    """
    ref = grays[0]
    near, far = (float(d) for d in depth_range)
    if len(grays) == 1:
        return torch.full(ref.shape, 2.0 / (1.0 / near + 1.0 / far)), torch.zeros(ref.shape)
    at = torch.as_tensor(order)
    K, T_world_cam = cameras.K[at].float(), cameras.T_world_cam[at]
    A, b = relative_geometry(K[:1], T_world_cam[:1], K[None, 1:], T_world_cam[None, 1:])
    height, width = ref.shape
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).to(ref.device)
    rotated = torch.einsum("sij,hwj->shwi", A[0].to(ref.device), pixels)
    inverses = torch.linspace(1.0 / far, 1.0 / near, PLANES)
    sizes = torch.tensor([[g.shape[1], g.shape[0]] for g in grays[1:]], dtype=torch.float32, device=ref.device)
    full = sizes.amax(dim=0).int().tolist()
    others = torch.stack([F.pad(g, (0, full[0] - g.shape[1], 0, full[1] - g.shape[0])) for g in grays[1:]])[:, None]
    mean_ref, var_ref = window_moments(ref[None])
    scores = torch.empty(PLANES, height, width, device=ref.device)
    for d, inverse in enumerate(inverses.tolist()):
        q = rotated + inverse * b[0, :, None, None].to(ref.device)
        xy = q[..., :2] / q[..., 2:].clamp_min(1e-6)
        inside = (q[..., 2] > 1e-6) & (xy >= 0).all(dim=-1) & (xy < sizes[:, None, None]).all(dim=-1)
        grid = xy / torch.tensor(full, device=ref.device) * 2 - 1
        warped = F.grid_sample(others, grid, padding_mode="border", align_corners=False)[:, 0]
        mean, variance = window_moments(warped)
        cross = window_mean(warped * ref) - mean * mean_ref
        ncc = cross / ((variance + PLAIN_VARIANCE) * (var_ref + PLAIN_VARIANCE)).sqrt()
        ncc = torch.where(inside, ncc, torch.full_like(ncc, -1.0))
        scores[d] = ncc.sort(dim=0, descending=True).values[: max(1, len(grays) // 2)].mean(dim=0)
    return refine_best(scores, inverses)


def window_mean(gray: Float[Tensor, "S h w"]) -> Float[Tensor, "S h w"]:
    """Mean in the matching window around each pixel."""
    return F.avg_pool2d(gray, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def window_moments(gray: Float[Tensor, "S h w"]) -> tuple[Float[Tensor, "S h w"], Float[Tensor, "S h w"]]:
    """Mean and variance in the matching window around each pixel."""
    mean = window_mean(gray)
    return mean, (window_mean(gray * gray) - mean**2).clamp_min(0)


def refine_best(scores: Float[Tensor, "D h w"], inverses: Float[Tensor, " D"]) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Take the best plane, moved to the top of the parabola through its two neighbours."""
    best, index = scores.max(dim=0)
    inner = index.clamp(1, len(inverses) - 2)[None]
    low, mid, high = (scores.gather(0, inner + k)[0] for k in (-1, 0, 1))
    bend = (low - 2 * mid + high).clamp(max=-1e-6)
    shift = torch.where(index == inner[0], (0.5 * (low - high) / bend).clamp(-0.5, 0.5), torch.zeros_like(best))
    step = float(inverses[1] - inverses[0])
    return (1.0 / (inverses[0] + step * (index + shift))).cpu(), best.cpu()


def agreement(depth: list[Tensor], cameras: Cameras, index: int, chosen: tuple[int, ...]) -> Float[Tensor, "h w"]:
    """1.0 where at least one neighbour's own depth agrees with this view's, falling off with the difference."""
    points_world = transform(cameras.T_world_cam[index].float(), backproject(depth[index], cameras.K[index].float()))
    best = torch.zeros_like(depth[index])
    for j in chosen:
        xy, z = project(transform(cameras.T_cam_world[j].float(), points_world), cameras.K[j].float())
        seen = inside_image(xy, cameras.width[j], cameras.height[j]) & (z > 0)
        other = sample_image(depth[j][..., None], xy, mode="nearest")[..., 0]
        close = torch.exp(-(((z - other) / (AGREE_REL * z.clamp_min(1e-8))) ** 2))
        best = torch.maximum(best, close * seen)
    return best
