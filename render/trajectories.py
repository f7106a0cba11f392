"""Camera paths for videos: an orbit about what the photos look at, and a flight through the photos' own positions.

Input: ``Cameras``. Output: ``Cameras``, one per frame, pinhole, all of one size.
Does not: look at the scene; a path stays near the places photos were taken from, where the scene is known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recon.geometry import quats_to_rotations, rotations_to_quats
from recon.records import Cameras

FULL_TURN_GAP_DEG = 100.0
"""Photos that leave no gap wider than this around the focus are orbited in full turns, others in a swing."""
SHORTEST_SWING_DEG = 12.0
"""Photos from nearly one place still get this much movement."""


def _check(cameras: Cameras, frames: int) -> None:
    if len(cameras) == 0:
        raise ValueError("cameras: wanted at least one, got none")
    if frames < 1:
        raise ValueError(f"frames: wanted at least 1, got {frames}")


def _even(size: int) -> int:
    return max(2, size - size % 2)


def _common_lens(cameras: Cameras, width: int | None, height: int | None) -> tuple[Tensor, int, int]:
    """``K`` with the median field of view and a centred principal point, and an even picture size."""
    width = _even(cameras.width[0] if width is None else width)
    height = _even(cameras.height[0] if height is None else height)
    heights = cameras.K.new_tensor(cameras.height)
    focal = (cameras.K[:, 1, 1] / heights).double().median() * height
    K = torch.tensor([[0.0, 0.0, width / 2], [0.0, 0.0, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    K[0, 0] = K[1, 1] = focal
    return K, width, height


def _assemble(R_world_cam: Tensor, centers_world: Tensor, K: Tensor, width: int, height: int, like: Cameras) -> Cameras:
    frames = len(centers_world)
    T_world_cam = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    T_world_cam[:, :3, :3] = R_world_cam
    T_world_cam[:, :3, 3] = centers_world
    to = like.K
    K = K.expand(frames, 3, 3) if K.ndim == 2 else K
    return Cameras(T_world_cam=T_world_cam.to(to), K=K.to(to).contiguous(), width=(width,) * frames, height=(height,) * frames)


def focus_point(cameras: Cameras) -> Tensor:
    """World point nearest to all optical axes, pulled towards the middle of the view where the axes are parallel.

    Method: least squares over point-to-axis distances; a weak pull (1e-3) to one camera spread ahead of the mean camera decides
    the direction the axes leave open.
    """
    centers = cameras.centers_world.double()
    forward = cameras.T_world_cam[:, :3, 2].double()
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    spread = (centers - centers.mean(dim=0)).norm(dim=1).max().clamp(min=1e-6)
    ahead = centers.mean(dim=0) + 2.0 * spread * torch.nn.functional.normalize(forward.mean(dim=0), dim=0)
    pull = 1e-3 * len(cameras)
    left = across.sum(dim=0) + pull * torch.eye(3, dtype=torch.float64)
    right = (across @ centers[:, :, None])[:, :, 0].sum(dim=0) + pull * ahead
    point = torch.linalg.solve(left, right)
    # A focus behind most cameras means that they look outwards: take the point ahead instead.
    return point if ((point - centers) * forward).sum(dim=1).median() > 0 else ahead


def _look_at(centers_world: Tensor, target_world: Tensor, up_world: Tensor) -> Tensor:
    """Rotations ``F 3 3`` (camera to world) of cameras that look at a target with the horizon level."""
    forward = torch.nn.functional.normalize(target_world - centers_world, dim=1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up_world.expand_as(forward)), dim=1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], dim=2)


def _swing(angles: Tensor, frames: int) -> Tensor:
    """Angle per frame: full turns when the given angles surround the focus, else back and forth over their range; both loop."""
    order = angles.sort().values
    gaps = torch.cat([order[1:] - order[:-1], order[:1] + 2 * math.pi - order[-1:]])
    phase = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / frames)
    widest = int(gaps.argmax())
    if math.degrees(float(gaps[widest])) < FULL_TURN_GAP_DEG:
        return order[0] + phase
    begin = float(order[(widest + 1) % len(order)])
    sweep = max(2 * math.pi - float(gaps[widest]), 0.0)
    middle, half = begin + sweep / 2, max(sweep, math.radians(SHORTEST_SWING_DEG)) / 2
    return middle - half * torch.cos(phase)


def orbit(cameras: Cameras, frames: int, *, width: int | None = None, height: int | None = None) -> Cameras:
    """Circle about the point the cameras look at, at their mean distance and height, level, and closed in a loop.

    Args:
        cameras: those of the photos; only registered ones count.
        frames: how many cameras to return.
        width: of the frames in pixels; None takes the first camera's. Made even, as video wants.
        height: likewise.

    Raises:
        ValueError: no cameras, or no frames.
    """
    cameras = cameras.select(cameras.registered_mask.nonzero()[:, 0].tolist())
    _check(cameras, frames)
    K, width, height = _common_lens(cameras, width, height)
    centers = cameras.centers_world.double()
    focus = focus_point(cameras)
    up = torch.nn.functional.normalize(-cameras.T_world_cam[:, :3, 1].double().mean(dim=0), dim=0)
    offsets = centers - focus
    heights = offsets @ up
    flat = offsets - heights[:, None] * up
    radius = flat.norm(dim=1).mean().clamp(min=1e-6)
    axis_x = torch.nn.functional.normalize(flat[int(flat.norm(dim=1).argmax())], dim=0)
    axis_y = torch.linalg.cross(up, axis_x)
    angles = _swing(torch.atan2(flat @ axis_y, flat @ axis_x), frames)[:, None]
    path = focus + heights.mean() * up + radius * (torch.cos(angles) * axis_x + torch.sin(angles) * axis_y)
    return _assemble(_look_at(path, focus, up), path, K, width, height, cameras)


def fly_through(cameras: Cameras, frames: int, *, width: int | None = None, height: int | None = None) -> Cameras:
    """Fly smoothly through the cameras in their order, at even speed.

    Method: centripetal Catmull-Rom through the centres (Yuksel et al. 2011) and spherical interpolation between rotations; both
    run on one clock, the length of the path plus the turning scaled to it.

    Args:
        cameras: key positions in order; only registered ones count.
        frames: how many cameras to return.
        width: of the frames in pixels; None takes the first camera's. Made even.
        height: likewise.

    Raises:
        ValueError: no cameras, or no frames.
    """
    cameras = cameras.select(cameras.registered_mask.nonzero()[:, 0].tolist())
    _check(cameras, frames)
    K, width, height = _common_lens(cameras, width, height)
    centers = cameras.centers_world.double()
    quats = rotations_to_quats(cameras.T_world_cam[:, :3, :3].double())
    for i in range(1, len(quats)):
        if float(quats[i] @ quats[i - 1]) < 0:
            quats[i] = -quats[i]
    steps = (centers[1:] - centers[:-1]).norm(dim=1)
    turns = 2 * torch.acos((quats[1:] * quats[:-1]).sum(dim=1).clamp(-1, 1))
    scale = steps.mean().clamp(min=1e-9) if len(steps) else centers.new_ones(())
    clock = torch.cat([centers.new_zeros(1), torch.cumsum(steps / scale + turns + 1e-9, dim=0)])
    times = torch.linspace(0, float(clock[-1]), frames, dtype=torch.float64)
    segment = torch.searchsorted(clock, times, right=True).sub(1).clamp(0, max(0, len(centers) - 2))
    if len(centers) == 1:
        return _assemble(quats_to_rotations(quats.expand(frames, 4)), centers.expand(frames, 3), K, width, height, cameras)
    share = ((times - clock[segment]) / (clock[segment + 1] - clock[segment])).clamp(0, 1)
    path = _catmull_rom(centers, segment, share)
    turned = _slerp(quats[segment], quats[segment + 1], share)
    return _assemble(quats_to_rotations(turned), path, K, width, height, cameras)


def _catmull_rom(points: Tensor, segment: Tensor, share: Tensor) -> Tensor:
    """Centripetal Catmull-Rom at ``share`` of each ``segment``; end points are mirrored."""
    padded = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (padded[segment + k] for k in range(4))

    def knot(a: Tensor, b: Tensor) -> Tensor:
        return (b - a).norm(dim=1, keepdim=True).sqrt().clamp(min=1e-9)

    t1 = knot(p0, p1)
    t2 = t1 + knot(p1, p2)
    t3 = t2 + knot(p2, p3)
    t = t1 + share[:, None] * (t2 - t1)
    a1, a2, a3 = (t1 - t) / t1 * p0 + t / t1 * p1, (t2 - t) / (t2 - t1) * p1 + (t - t1) / (t2 - t1) * p2, None
    a3 = (t3 - t) / (t3 - t2) * p2 + (t - t2) / (t3 - t2) * p3
    b1 = (t2 - t) / t2 * a1 + t / t2 * a2
    b2 = (t3 - t) / (t3 - t1) * a2 + (t - t1) / (t3 - t1) * a3
    return (t2 - t) / (t2 - t1) * b1 + (t - t1) / (t2 - t1) * b2


def _slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Interpolate unit quaternions ``F 4`` along the shorter arc."""
    cosine = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine).clamp(min=1e-9)
    share = share[:, None]
    mixed = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return torch.nn.functional.normalize(mixed, dim=1)
