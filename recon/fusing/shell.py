"""A far shell of large soft Gaussians that stands for sky and for whatever no photo explains.

Input: posed photos, trust and depth. Output: Gaussians on a sphere around the capture.
Does not: know what sky looks like; it averages what the photos show in each direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import inside_image, project, rgb_to_sh0, rotations_to_quats, sample_image, transform
from ..posed import PosedViews
from ..records import Gaussians

SPILL = 60.0
"""Sharpness of the spread of colours into unseen directions, per unit of cosine (about 10 degrees wide)."""


def fibonacci_directions(count: int) -> Float[Tensor, "N 3"]:
    """Evenly spread unit directions.

    Source: Swinbank and Purser, "Fibonacci grids", Q. J. R. Meteorol. Soc. 2006.
    """
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / count
    angle = torch.pi * (1 + 5**0.5) * i
    radius = (1 - z * z).clamp_min(0).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1).float()


def build_shell(
    posed: PosedViews,
    depth: Sequence[Float[Tensor, "_ _"]],
    trust: Sequence[Float[Tensor, "_ _"]],
    *,
    count: int,
    radius_factor: float,
) -> Gaussians | None:
    """Place Gaussians on a sphere, coloured by what views show where they trust no surface.

    The sphere is centred on the cameras and reaches ``radius_factor`` times the farthest depth. Each direction takes the
    mean colour of the views that see it, weighted towards untrusted and far pixels, from a blurred copy of the photo.
    Directions that no view sees take the colours of the nearest seen ones, softly, so that a step aside meets no hole.

    Args:
        count: directions on the whole sphere.
        radius_factor: radius over the 95% quantile of the depths, > 1.
    """
    cameras = posed.cameras
    centers = cameras.centers_world.float()
    center = centers.mean(0)
    reach = max(float(torch.quantile(d.flatten()[:: max(1, d.numel() // 10_000)], 0.95)) for d in depth)
    radius = radius_factor * reach + float((centers - center).norm(dim=-1).max())
    directions = fibonacci_directions(count)
    points = center + radius * directions
    color, total = torch.zeros(count, 3), torch.zeros(count)
    T_cam_world = cameras.T_cam_world.float()
    for i in range(len(posed)):
        pixels, z = project(transform(T_cam_world[i], points), cameras.K[i].float())
        seen = inside_image(pixels, cameras.width[i], cameras.height[i]) & (z > 0)
        if not seen.any():
            continue
        image, valid = posed.pixels(i)
        loose = ((1 - trust[i]) ** 2 + 0.02) * valid
        step = max(1, round(radius * (4 * torch.pi / count) ** 0.5 / radius * float(cameras.K[i, 0, 0])))
        maps = torch.cat([image * loose[..., None], loose[..., None]], dim=-1)
        blurred = torch.nn.functional.avg_pool2d(
            maps.permute(2, 0, 1)[None], step, stride=max(1, step // 4), padding=step // 2, ceil_mode=True, count_include_pad=False
        )[0].permute(1, 2, 0)
        scale = torch.tensor([blurred.shape[1] / cameras.width[i], blurred.shape[0] / cameras.height[i]])
        taken = sample_image(blurred, pixels[seen] * scale)
        color[seen] += taken[:, :3]
        total[seen] += taken[:, 3]
    seen = total > 1e-4
    if not seen.any():
        return None
    rgb = torch.empty(count, 3)
    rgb[seen] = color[seen] / total[seen][:, None]
    nearness = torch.softmax(SPILL * (directions[~seen] @ directions[seen].T), dim=-1)
    rgb[~seen] = nearness @ rgb[seen]
    helper = torch.where(directions[:, :1].abs() < 0.9, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    first = torch.nn.functional.normalize(torch.linalg.cross(directions, helper), dim=-1)
    rotation = torch.stack([first, torch.linalg.cross(directions, first), directions], dim=-1)
    spacing = radius * (4 * torch.pi / count) ** 0.5
    scales = torch.tensor([0.75, 0.75, 0.05]) * spacing
    return Gaussians(
        means=points,
        quats=rotations_to_quats(rotation),
        scales=scales.expand(len(points), 3).clone(),
        opacities=torch.full((len(points),), 0.98),
        sh=rgb_to_sh0(rgb)[:, None],
    )
