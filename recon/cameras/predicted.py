"""Cameras from a network: its prediction for all photos, with the points on which its depth maps agree.

Input: ``Views`` and a network's answer to them as a callable. Output: ``SfmResult`` at the original size.
Does not: know the network, or refine what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry import inside_image, pixel_grid, project, rays_cam, sample_image, transform
from ..progress import Progress
from ..records import Cameras, Prediction, Views
from .result import SfmResult

CameraSource = Callable[[Views, Progress], Prediction]
"""(photos, progress) -> cameras and depth in one world of the network's choosing."""
POINTS_PER_VIEW = 1200
"""Pixels per photo that are offered as points, on a regular grid."""
DEPTH_AGREEMENT = 0.03
"""Largest difference of depth, relative, at which a second photo is said to see a point."""
CONFIDENT_SHARE = 0.7
"""Share of each photo's pixels, the most confident ones, that may become points."""


def cameras_by_network(views: Views, predict: CameraSource, progress: Progress) -> SfmResult:
    """Let a network place all photos, and keep the points that at least two depth maps agree on.

    Points come from the depth of photos that are not held out. The reprojection error is the distance, in pixels of the
    network's input, by which a pixel misses itself after going to another photo by its own depth and back by the other's.

    Args:
        views: photos; held-out ones take part.

    Raises:
        UserError: the network cannot run here.
    """
    prediction = predict(views, progress)
    cameras = with_known_lenses(at_original_size(prediction.cameras, views), views)
    prediction = replace(prediction, cameras=replace(prediction.cameras, K=at_size_of(prediction.cameras, cameras)))
    points, colors, seen, missed = [], [], [], []
    for index, view in enumerate(views):
        if view.holdout:
            continue
        points_world, pixels = offered_points(prediction, index)
        visibility, distance = agreement(prediction, points_world, pixels, index)
        kept = visibility.sum(0) >= 2
        image = view.load_at(prediction.cameras.width[index], prediction.cameras.height[index])
        points.append(points_world[kept])
        colors.append(sample_image(image, pixels[kept], mode="nearest"))
        seen.append(visibility[:, kept])
        missed.append(distance)
    points_world, visibility = torch.cat(points).double(), torch.cat(seen, dim=1)
    errors = torch.cat(missed)
    return SfmResult(
        cameras=cameras,
        points_world=points_world,
        points_rgb=(torch.cat(colors) * 255).round().clamp(0, 255).to(torch.uint8),
        visibility=visibility,
        reprojection_error_px=float(errors.mean()) if len(errors) else 0.0,
        per_view_points=visibility.sum(1),
        observations_px=observed_at(cameras, points_world, visibility),
    )


def at_original_size(cameras: Cameras, views: Views) -> Cameras:
    """Scale a network's cameras to the photos' original sizes; they have no distortion."""
    resized = cameras.resized([v.original_width for v in views], [v.original_height for v in views])
    return Cameras(
        T_world_cam=resized.T_world_cam.double(),
        K=resized.K.double(),
        width=resized.width,
        height=resized.height,
        distortion=torch.zeros(len(views), 4, dtype=torch.float64),
        registered=torch.ones(len(views), dtype=torch.bool),
        names=tuple(views.names),
    )


def with_known_lenses(cameras: Cameras, views: Views) -> Cameras:
    """Put the lenses that the user knows in the place of predicted ones."""
    K, distortion = cameras.K.clone(), cameras.distortion
    assert distortion is not None
    distortion = distortion.clone()
    for index, view in enumerate(views):
        if view.intrinsics is not None:
            known = torch.tensor(view.intrinsics, dtype=torch.float64)
            K[index, [0, 1, 0, 1], [0, 1, 2, 2]], distortion[index] = known[:4], known[4:]
    return replace(cameras, K=K, distortion=distortion)


def at_size_of(like: Cameras, cameras: Cameras) -> Float[Tensor, "V 3 3"]:
    """Intrinsics of ``cameras`` at the size of ``like``."""
    return cameras.resized(list(like.width), list(like.height)).K.to(like.K)


def offered_points(prediction: Prediction, index: int) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 2"]]:
    """Lift a grid of one photo's confident pixels; returns points in the world and their pixels."""
    depth, confidence = prediction.depth[index], prediction.confidence[index]
    step = max(1, int((depth.numel() / POINTS_PER_VIEW) ** 0.5))
    least = torch.quantile(confidence[::step, ::step].flatten(), 1 - CONFIDENT_SHARE)
    usable = (depth > 0) & (confidence >= least) & (confidence > 0)
    pixels = pixel_grid(*depth.shape)[::step, ::step].reshape(-1, 2)
    usable_here, depth_here = usable[::step, ::step].flatten(), depth[::step, ::step].flatten()
    pixels, depth_here = pixels[usable_here], depth_here[usable_here]
    cameras = prediction.cameras
    points_cam = rays_cam(pixels, cameras.K[index]) * depth_here[:, None]
    return transform(cameras.T_world_cam[index], points_cam), pixels


def agreement(
    prediction: Prediction, points_world: Float[Tensor, "N 3"], pixels: Float[Tensor, "N 2"], index: int
) -> tuple[Bool[Tensor, "V N"], Float[Tensor, " E"]]:
    """Say which photos see the points of photo ``index``, and how far each point misses its pixel on the way back."""
    cameras = prediction.cameras
    T_cam_world = cameras.T_cam_world
    visibility = torch.zeros(len(cameras), len(points_world), dtype=torch.bool)
    visibility[index] = True
    distances = []
    for other in range(len(cameras)):
        if other == index:
            continue
        there, z = project(transform(T_cam_world[other], points_world), cameras.K[other])
        found = sample_image(prediction.depth[other][..., None], there, mode="nearest")[:, 0]
        inside = inside_image(there, cameras.width[other], cameras.height[other]) & (z > 0)
        visible = inside & ((found - z).abs() <= DEPTH_AGREEMENT * z)
        visibility[other] = visible
        lifted = rays_cam(there[visible], cameras.K[other]) * found[visible, None]
        back, _ = project(transform(T_cam_world[index], transform(cameras.T_world_cam[other], lifted)), cameras.K[index])
        distances.append((back - pixels[visible]).norm(dim=1))
    return visibility, torch.cat(distances) if distances else torch.zeros(0)


def observed_at(cameras: Cameras, points_world: Float[Tensor, "M 3"], visibility: Bool[Tensor, "V M"]) -> Float[Tensor, "O 2"]:
    """Project the points into the photos that see them, in pixels of the original size, row by row of ``visibility``."""
    T_cam_world = cameras.T_cam_world
    rows = [project(transform(T_cam_world[i], points_world[visibility[i]]), cameras.K[i])[0] for i in range(len(cameras))]
    return torch.cat(rows)
