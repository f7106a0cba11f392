"""How close found cameras are to reference cameras.

Input: two ``Cameras`` of the same photos. Output: ``CameraScore``. Does not: find cameras.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..alignment import sim3_align
from ..records import Cameras

THRESHOLDS_DEG = (5.0, 10.0, 30.0)
MISS_DEG = 180.0
"""Error of a pair with a photo that was not placed."""
SAME_PLACE = 1e-6
"""Photos nearer to each other than this share of the whole way have no direction between them."""


@dataclass(frozen=True, kw_only=True)
class CameraScore:
    """Cameras against a reference, over the photos that the reference knows."""

    photos: int
    placed: int
    auc5: float
    """Area under the share of pairs with an error up to t, for t from 0 to 5 degrees, over 5 degrees: in [0, 1]."""
    auc10: float
    auc30: float
    focal_error: float | None
    """Median of |focal length / reference - 1| over placed photos; None without any."""
    ate: float | None
    """Root mean square distance of camera centres after the best similarity, over their root mean square distance from their
    middle in the reference; None with fewer than three placed photos."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def relative(T_world_cam: Float[Tensor, "V 4 4"], first: Int[Tensor, " P"], second: Int[Tensor, " P"]) -> Float[Tensor, "P 4 4"]:
    """T_first_second = T_first_world @ T_world_second of pairs of cameras."""
    return torch.linalg.inv(T_world_cam[first]) @ T_world_cam[second]


def pair_errors_deg(found: Cameras, reference: Cameras) -> Float[Tensor, " P"]:
    """Larger of the errors of relative rotation and of the direction of relative translation, for every two photos.

    Source: Wang et al., "PoseDiffusion", ICCV 2023, section 4.1, and the works after it; a pair with a photo that was not
    placed counts ``MISS_DEG``, and directions are compared with their sign.

    Args:
        found: cameras to score.
        reference: the same photos in the same order; photos it does not know are left out.
    """
    known = torch.nonzero(reference.registered_mask)[:, 0]
    first, second = (known[rows] for rows in torch.triu_indices(len(known), len(known), offset=1))
    ours = relative(found.T_world_cam.double(), first, second)
    theirs = relative(reference.T_world_cam.double(), first, second)
    turned = ours[:, :3, :3].transpose(1, 2) @ theirs[:, :3, :3]
    # |R - I| grows with the sine of half the angle: precise for small angles, where the trace is not
    rotation = 2 * torch.asin(((turned - torch.eye(3).double()).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1.0))
    a, b = ours[:, :3, 3], theirs[:, :3, 3]
    direction = torch.atan2(torch.linalg.cross(a, b).norm(dim=1), (a * b).sum(1))
    centers = reference.centers_world[known].double()
    extent = float((centers - centers.mean(0)).norm(dim=1).max()) if len(known) else 0.0
    direction = torch.where(b.norm(dim=1) > SAME_PLACE * extent, direction, torch.zeros_like(direction))
    placed = found.registered_mask[first] & found.registered_mask[second]
    return torch.where(placed, torch.rad2deg(torch.maximum(rotation, direction)), torch.full_like(rotation, MISS_DEG))


def area_under_recall(errors_deg: Float[Tensor, " P"], threshold_deg: float) -> float:
    """Exact integral of the share of errors up to t, t from 0 to the threshold, over the threshold."""
    return float((1 - errors_deg / threshold_deg).clamp_min(0).mean()) if len(errors_deg) else 0.0


def score_cameras(found: Cameras, reference: Cameras) -> CameraScore:
    """Score cameras against a reference.

    Args:
        found: cameras, photos without one marked as not registered, at the size of ``reference``.
        reference: the same photos in the same order.

    Raises:
        ValueError: the two are not of the same photos.
    """
    if len(found) != len(reference) or (found.width, found.height) != (reference.width, reference.height):
        raise ValueError("score_cameras: wanted cameras of the same photos at the same sizes")
    errors = pair_errors_deg(found, reference)
    both = found.registered_mask & reference.registered_mask
    focal_error = ate = None
    if bool(both.any()):
        f, g = (c.K[both][:, [0, 1], [0, 1]].double().mean(1) for c in (found, reference))
        focal_error = float((f / g - 1).abs().median())
    if int(both.sum()) >= 3:
        ours, theirs = found.centers_world[both].double(), reference.centers_world[both].double()
        spread = float((theirs - theirs.mean(0)).square().sum(1).mean().sqrt())
        if spread > 0 and float((ours - ours.mean(0)).norm()) > 0:
            away = sim3_align(ours, theirs).apply(ours) - theirs
            ate = float(away.square().sum(1).mean().sqrt()) / spread
    auc = [area_under_recall(errors, threshold) for threshold in THRESHOLDS_DEG]
    return CameraScore(
        photos=int(reference.registered_mask.sum()),
        placed=int(both.sum()),
        auc5=auc[0],
        auc10=auc[1],
        auc30=auc[2],
        focal_error=focal_error,
        ate=ate,
    )


def evenly_spread(indices: list[int], count: int) -> list[int]:
    """``count`` of the indices, evenly spread, the first and the last among them; all when there are no more."""
    if count >= len(indices):
        return list(indices)
    return [indices[round(i * (len(indices) - 1) / (count - 1))] for i in range(count)]


def drawn_at_random(indices: list[int], count: int, seed: int) -> list[int]:
    """``count`` of the indices, each choice as likely as any other, in their order; all when there are no more.

    The same for the same seed, and independent of what else is drawn.
    """
    if count >= len(indices):
        return list(indices)
    return sorted(random.Random(f"{seed} {count}").sample(indices, count))
