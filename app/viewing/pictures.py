"""From a rendering to the picture a visitor sees.

Input: ``Rendering`` of one view and a ``Look``. Output: uint8 pixels, and depth for the things that stand in front of them.
Does not: draw Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from recon.geometry import quats_to_rotations
from recon.lens import to_opencv
from recon.records import Cameras, RasterOptions, Rendering

from .document import Box
from .page_frame import Eye, PageFrame

What = Literal["colour", "depth", "normals", "coverage"]
SEEN_ALPHA = 0.5
"""Below this there is no surface."""
FARTHEST_PAGE = 160.0
"""Depth that viser's page takes for the horizon; it knows none beyond 167."""
SEAM = np.array([255, 255, 255], np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A photo without distortion, and its camera in the world."""

    pixels: np.ndarray
    """uint8 ``H W 3``."""
    camera: Cameras
    """One pinhole of that size."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a visitor wants the scene drawn."""

    what: What = "colour"
    """What the pixels mean."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """sRGB behind everything."""
    view_dependent: bool = True
    """False draws SH degree 0."""
    opacity_min: float = 0.0
    """Gaussians fainter than this are not drawn."""
    seen_min: int = 0
    """Gaussians that fewer photos see are not drawn."""
    box: Box | None = None
    """Only what lies within is drawn."""
    photo: Photo | None = None
    """Laid over the left part of the picture."""
    photo_share: float = 0.0
    """How much of the photo's width is shown, in [0, 1]."""

    def options(self, near: float) -> RasterOptions:
        """What the rasteriser is asked for; ``near`` in world units."""
        plain = self.what in ("depth", "normals")
        return RasterOptions(
            background=(0.0, 0.0, 0.0) if plain else self.background,
            near=near,
            sh_degree=None if self.view_dependent else 0,
            normals=self.what == "normals",
            median_depth=self.what == "depth",
        )


def to_bytes(values: torch.Tensor) -> np.ndarray:
    """Floats in [0, 1] as uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def paint(drawn: Rendering, look: Look, eye: Eye, frame: PageFrame, typical: float) -> np.ndarray:
    """Make the picture ``H W 3`` uint8.

    Args:
        eye: the view that was drawn, at its size.
        typical: distance that gets the middle colour of a depth picture, world units.
    """
    alpha = drawn.alpha[0, ..., None]
    if look.what == "colour":
        picture = to_bytes(drawn.color[0])
    elif look.what == "coverage":
        picture = to_bytes(alpha.expand(-1, -1, 3))
    else:
        if look.what == "depth":
            assert drawn.median_depth is not None
            surface = torch.where(drawn.median_depth[0] > 0, drawn.median_depth[0], drawn.depth[0])
            nearness = 1.0 / (1.0 + surface.clamp_min(0) / typical)
            shown = torch.from_numpy(cv2.applyColorMap(to_bytes(nearness), cv2.COLORMAP_TURBO)[..., ::-1] / np.float32(255))
        else:
            assert drawn.normals is not None
            R_page_cam = quats_to_rotations(torch.tensor([eye.wxyz], dtype=torch.float32))[0]
            normals = torch.nn.functional.normalize(drawn.normals[0] @ R_page_cam.T, dim=-1)
            shown = 0.5 + 0.5 * normals * torch.tensor([1.0, -1.0, -1.0])
        picture = to_bytes(alpha * shown + (1 - alpha) * torch.tensor(look.background))
    if look.photo is not None and look.photo_share > 0:
        return lay_over(picture, look.photo, look.photo_share, eye.cameras(frame))
    return picture


def lay_over(picture: np.ndarray, photo: Photo, share: float, camera: Cameras) -> np.ndarray:
    """Lay the left ``share`` of a photo over a picture taken from the same place, with a line at the seam."""
    R_photo_view = photo.camera.T_world_cam[0, :3, :3].double().T @ camera.T_world_cam[0, :3, :3].double()
    K_photo, K_view = to_opencv(photo.camera.K[0]), to_opencv(camera.K[0])
    photo_from_view = K_photo @ R_photo_view.numpy() @ np.linalg.inv(K_view)
    height, width = picture.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(photo.pixels, photo_from_view, (width, height), flags=flags)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    seen = photo_from_view @ np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    ahead = seen[2] > 1e-9
    x = np.where(ahead, seen[0] / np.where(ahead, seen[2], 1.0), -1e9).reshape(height, width)
    y = np.where(ahead, seen[1] / np.where(ahead, seen[2], 1.0), -1e9).reshape(height, width)
    photo_height, photo_width = photo.pixels.shape[:2]
    tall = (y >= -0.5) & (y <= photo_height - 0.5)
    edge = share * photo_width - 0.5
    result = np.where(((x >= -0.5) & (x <= edge) & tall)[..., None], warped, picture)
    if share < 1.0:
        half = float(photo.camera.K[0, 0, 0] / camera.K[0, 0, 0])  # one pixel of the view, in pixels of the photo
        result[(np.abs(x - edge) <= half) & tall] = SEAM
    return np.ascontiguousarray(result)


def page_depth(drawn: Rendering, scale: float, long_side: int) -> np.ndarray:
    """Depth ``h w`` in page units, at most ``long_side`` pixels long; far away where there is no surface."""
    depth = torch.where(drawn.alpha[0] > SEEN_ALPHA, drawn.depth[0] * scale, torch.tensor(FARTHEST_PAGE))
    step = max(1, -(-max(depth.shape) // long_side))
    return depth[::step, ::step].clamp(max=FARTHEST_PAGE).cpu().numpy()
