"""Lenses: from photos with distortion to the pinhole pictures every later stage works on.

Input: photos, cameras with OpenCV distortion (k1 k2 p1 p2). Output: undistorted pixels with their validity, pinhole cameras.
Does not: estimate distortion.

OpenCV puts pixel centres at integers, this project at +0.5. The half pixel is moved here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .photos import working_size
from .posed import Pixels, PosedViews
from .records import Cameras, Views

if TYPE_CHECKING:
    from .cameras.result import SfmResult


def to_opencv(K: Float[Tensor, "3 3"]) -> np.ndarray:
    """Intrinsics for OpenCV, whose pixel centres are integers."""
    moved = K.double().numpy().copy()
    moved[:2, 2] -= 0.5
    return moved


def sampling_map(
    K: Float[Tensor, "3 3"], distortion: np.ndarray, *, K_out: Float[Tensor, "3 3"], width_out: int, height_out: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where in the photo each pixel of the pinhole picture is seen, in OpenCV's pixels (centres at integers), each ``H W``."""
    return cv2.initUndistortRectifyMap(to_opencv(K), distortion, np.eye(3), to_opencv(K_out), (width_out, height_out), cv2.CV_32FC1)


def radius_squared(K: Float[Tensor, "3 3"], width: int, height: int) -> np.ndarray:
    """Squared distance of every pixel's ray from the optical axis at z = 1, ``H W``."""
    x = (np.arange(width) + 0.5 - float(K[0, 2])) / float(K[0, 0])
    y = (np.arange(height) + 0.5 - float(K[1, 2])) / float(K[1, 1])
    return np.square(x)[None] + np.square(y)[:, None]


def turning_radius_squared(k1: float, k2: float) -> float:
    """Squared radius up to which r (1 + k1 r^2 + k2 r^4) grows; rays beyond would fold back into the photo."""
    roots = np.roots([5 * k2, 3 * k1, 1.0])
    real = [float(root.real) for root in roots if abs(root.imag) < 1e-12 and root.real > 0]
    return min(real, default=np.inf)


def undistort(
    image: Float[Tensor, "H W 3"],
    K: Float[Tensor, "3 3"],
    distortion: Float[Tensor, " 4"] | None,
    *,
    K_out: Float[Tensor, "3 3"],
    width_out: int,
    height_out: int,
) -> tuple[Float[Tensor, "H2 W2 3"], Bool[Tensor, "H2 W2"]]:
    """Resample a photo so that straight lines are straight.

    Args:
        K: intrinsics of the photo, pixels of its own size.
        distortion: OpenCV k1 k2 p1 p2; None or zeros mean none.
        K_out: pinhole intrinsics wanted, pixels of the output.

    Returns:
        The pinhole picture, and which of its pixels lie inside the photo. Others are black.
    """
    height, width = image.shape[:2]
    straight = distortion is None or not bool(distortion.any())
    if straight and (width, height) == (width_out, height_out) and torch.equal(K, K_out):
        return image, torch.ones(height, width, dtype=torch.bool)
    bend = np.zeros(4) if distortion is None else distortion.double().numpy()
    map_x, map_y = sampling_map(K, bend, K_out=K_out, width_out=width_out, height_out=height_out)
    drawn = cv2.remap(image.numpy(), map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (map_x >= -0.5) & (map_y >= -0.5) & (map_x <= width - 0.5) & (map_y <= height - 0.5)
    inside &= radius_squared(K_out, width_out, height_out) < turning_radius_squared(float(bend[0]), float(bend[1]))
    return torch.from_numpy(drawn).clamp_(0, 1) * torch.from_numpy(inside)[..., None], torch.from_numpy(inside)


def pinhole_cameras(cameras: Cameras, views: Views, *, long_side: int) -> Cameras:
    """Cameras of the undistorted photos: same focal length and centre, scaled to the working size, no distortion.

    Args:
        cameras: at the original size of ``views``, in their order.
        long_side: longest side in pixels; photos are never enlarged.
    """
    sizes = [working_size(view.original_width, view.original_height, long_side) for view in views]
    resized = cameras.resized([w for w, _ in sizes], [h for _, h in sizes])
    return Cameras(
        T_world_cam=resized.T_world_cam.float(),
        K=resized.K.float(),
        width=resized.width,
        height=resized.height,
        names=tuple(views.names),
    )


def posed_views(views: Views, solved: SfmResult, indices: Sequence[int], *, long_side: int) -> PosedViews:
    """Undistorted photos with pinhole cameras, decoded when asked for.

    Args:
        views: all photos of the capture, in the order of ``solved.cameras``.
        indices: the registered photos wanted.
        long_side: longest side in pixels; photos are never enlarged.
    """
    picked = [int(i) for i in indices]
    chosen = views.select(picked)
    original = solved.cameras.select(picked)
    pinhole = pinhole_cameras(original, chosen, long_side=long_side)
    bent = original.resized(pinhole.width, pinhole.height)

    def straightened(picture: Float[Tensor, "H W 3"], index: int) -> Pixels:
        return undistort(
            picture,
            bent.K[index].float(),
            None if bent.distortion is None else bent.distortion[index],
            K_out=pinhole.K[index],
            width_out=pinhole.width[index],
            height_out=pinhole.height[index],
        )

    def read(index: int) -> Pixels:
        view, size = chosen.items[index], (pinhole.width[index], pinhole.height[index])
        image, valid = straightened(view.load_at(*size), index)
        counted = view.counted(*size)
        if counted is None:
            return image, valid
        seen, _ = straightened(counted.float()[..., None].expand(-1, -1, 3).contiguous(), index)
        valid = valid & ((seen[..., 0] - 1).abs() < 1e-3)  # nothing that is masked takes part in the resampling
        return image * valid[..., None], valid

    rows = torch.as_tensor(picked, dtype=torch.long)
    return PosedViews(
        names=tuple(chosen.names),
        cameras=pinhole,
        read=read,
        points_world=solved.points_world.float(),
        visibility=solved.visibility[rows],
    )
