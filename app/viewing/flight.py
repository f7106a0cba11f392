"""A camera path with key frames, and its video.

Input: places that a visitor chose. Output: cameras, and frames drawn one at a time.
Does not: encode (``render.video``) or know about browsers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recon.errors import UserError
from recon.records import Cameras, Gaussians, RasterOptions
from render.trajectories import fly_through
from render.video import write_video

from .page_frame import Eye, PageFrame
from .painter import NEAR_PAGE, Painter
from .pictures import Look, to_bytes

SIZES = {"854 x 480": (854, 480), "1280 x 720": (1280, 720), "1920 x 1080": (1920, 1080), "720 x 1280 (tall)": (720, 1280)}
FPS = 30
LONGEST_S = 120.0


def flight(eyes: list[Eye], frame: PageFrame, frames: int, size: tuple[int, int], *, loop: bool) -> Cameras:
    """Cameras along a smooth way through all key frames.

    Raises:
        UserError: there are fewer than two.
    """
    if len(eyes) < 2:
        raise UserError("A path needs two key frames or more.", "Go somewhere, add a key frame, go on, add another one.")
    stops = [*eyes, eyes[0]] if loop else eyes
    parts = [eye.sized(*size).cameras(frame) for eye in stops]
    cameras = Cameras(
        T_world_cam=torch.cat([part.T_world_cam for part in parts]),
        K=torch.cat([part.K for part in parts]),
        width=(size[0],) * len(parts),
        height=(size[1],) * len(parts),
    )
    return fly_through(cameras, frames, width=size[0], height=size[1])


def film(
    painter: Painter, gaussians: Gaussians, path: Cameras, look: Look, tell: Callable[[float], None], stopped: Callable[[], bool]
) -> bytes | None:
    """Draw and encode a video; waits, while the painter serves visitors between frames.

    Args:
        tell: told the share that is done, in [0, 1].
        stopped: True ends it early.

    Returns:
        The MP4 file; None when it was stopped.
    """
    options = replace(look.options(near=NEAR_PAGE / painter.document.scale), normals=False, background=look.background)

    def frames() -> Iterator[np.ndarray]:
        for index in range(len(path)):
            if stopped():
                return
            yield painter.work(_frame(painter, gaussians, path.select([index]), options)).result()
            tell((index + 1) / len(path))

    with tempfile.TemporaryDirectory(prefix="recon-film-") as folder:
        target = Path(folder) / "path.mp4"
        count = write_video(target, frames(), fps=FPS) if not stopped() else 0
        return target.read_bytes() if count == len(path) else None


def _frame(painter: Painter, gaussians: Gaussians, camera: Cameras, options: RasterOptions) -> Iterator[None]:
    """One step of work whose result is a uint8 frame."""
    with torch.no_grad():
        return to_bytes(painter.rasterizer(gaussians, camera, options).color[0])
    yield
