"""Gaussians as flat discs that lie in the surface: what makes a mesh of the scene smoother.

Input: Gaussians, the camera of a step, the depth it shows. Output: a loss with gradients for scales and rotations.
Does not: move centres, or enforce anything; the photos still decide.

The smallest of three scales is drawn towards zero, and the axis it belongs to towards the normal of the depth that the scene
shows at its centre. Source: Huang et al., "2D Gaussian Splatting for Geometrically Accurate Radiance Fields", SIGGRAPH 2024,
section 4.2 (normal consistency); Chen et al., "PGSR", TVCG 2024, section 3.1 (flattening).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry import backproject, inside_image, project, quats_to_rotations, transform
from ..records import Cameras, Gaussians

FLAT_WEIGHT, NORMAL_WEIGHT = 0.05, 0.05
"""Of the two parts, against a mean colour error of a few hundredths."""
LEAST_ALPHA = 0.5
"""Depth below this coverage has no normal."""
STEP = 0.05
"""Relative depth difference between neighbours that tells an edge, and between a centre and the surface, another surface."""


def surfel_loss(
    gaussians: Gaussians, camera: Cameras, depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"]
) -> Float[Tensor, ""]:
    """Mean flatness and mean disagreement of normals, weighted.

    Args:
        gaussians: with gradients for scales and quats.
        camera: the one camera that was drawn, at the size of ``depth``.
        depth: z-depth the scene shows; taken as it is, without gradients.
        alpha: its coverage.
    """
    ordered = gaussians.scales.sort(dim=1).values
    flat = (ordered[:, 0] / ordered[:, 1].detach().clamp_min(1e-12)).mean()
    normals, known = depth_normals(depth.detach(), alpha.detach(), camera.K[0].detach())
    wanted, seen = _normals_at_centres(gaussians.means.detach(), camera, depth.detach(), normals, known)
    if not bool(seen.any()):
        return FLAT_WEIGHT * flat
    R_world_local = quats_to_rotations(gaussians.quats[seen])
    shortest = gaussians.scales[seen].detach().argmin(dim=1)
    axes = R_world_local[torch.arange(len(shortest), device=shortest.device), :, shortest]
    turned = 1 - (axes * wanted).sum(dim=1).abs()
    return FLAT_WEIGHT * flat + NORMAL_WEIGHT * turned.sum() / len(gaussians)


def depth_normals(
    depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"], K: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
    """Unit normals of a depth map in the camera frame, and where they are known: covered, inside, not at an edge."""
    points = backproject(depth, K)
    across, down = torch.zeros_like(points), torch.zeros_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = torch.linalg.cross(across, down)
    length = normals.norm(dim=-1)
    smooth = torch.maximum(across[..., 2].abs(), down[..., 2].abs()) < STEP * depth
    known = smooth & (alpha > LEAST_ALPHA) & (length > 0)
    known[0], known[-1], known[:, 0], known[:, -1] = False, False, False, False
    return normals / length.clamp_min(1e-20)[..., None], known


def _normals_at_centres(
    means: Float[Tensor, "N 3"],
    camera: Cameras,
    depth: Float[Tensor, "H W"],
    normals: Float[Tensor, "H W 3"],
    known: Bool[Tensor, "H W"],
) -> tuple[Float[Tensor, "S 3"], Bool[Tensor, " N"]]:
    """World normals of the surface at the centres that lie on it, and which Gaussians these are."""
    height, width = depth.shape
    pixels, z = project(transform(camera.T_cam_world[0].detach(), means), camera.K[0].detach())
    seen = inside_image(pixels, width, height) & (z > 0)
    column, row = pixels[:, 0].nan_to_num().long().clamp(0, width - 1), pixels[:, 1].nan_to_num().long().clamp(0, height - 1)
    seen = seen & known[row, column] & ((z - depth[row, column]).abs() < STEP * z)
    return normals[row, column][seen] @ camera.T_world_cam[0, :3, :3].detach().T, seen
