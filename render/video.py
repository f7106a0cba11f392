"""Frames to an MP4 file that browsers play.

Input: an iterator of frames. Output: a VP9 video in an MP4 container, written through OpenCV's own encoder, so no ffmpeg
binary and no patented codec is needed.
Does not: keep frames; one is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from recon.errors import UserError


def _to_bgr(frame: Tensor | np.ndarray) -> np.ndarray:
    """A frame (float in [0, 1] or uint8, RGB) as uint8 BGR with even sides."""
    pixels = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"frames: wanted H W 3, got shape {tuple(pixels.shape)}")
    if pixels.dtype != np.uint8:
        pixels = (np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    if not height or not width:
        raise ValueError(f"frames: wanted at least 2x2 pixels, got {pixels.shape[1]}x{pixels.shape[0]}")
    return np.ascontiguousarray(pixels[:height, :width, ::-1])


def write_video(path: str | os.PathLike, frames: Iterable[Tensor | np.ndarray], fps: float = 30.0) -> int:
    """Encode frames as VP9 in MP4 and return how many were written.

    Args:
        path: ends in .mp4; an existing file is replaced.
        frames: ``H W 3`` RGB, float in [0, 1] or uint8, all of one size; an odd side loses its last pixel.
        fps: frames per second.

    Raises:
        ValueError: no frames, frames of another shape or size, or fps <= 0.
        UserError: this OpenCV cannot encode VP9, or the file cannot be written.
    """
    path = Path(path)
    if fps <= 0:
        raise ValueError(f"fps: wanted more than 0, got {fps}")
    writer: cv2.VideoWriter | None = None
    size, count = (0, 0), 0
    try:
        for frame in frames:
            pixels = _to_bgr(frame)
            if writer is None:
                size = (pixels.shape[1], pixels.shape[0])
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"vp09"), fps, size)
                if not writer.isOpened():
                    remedy = "Check that the folder exists and can be written to."
                    raise UserError(f"OpenCV cannot write a VP9 video to {path}.", remedy)
            if (pixels.shape[1], pixels.shape[0]) != size:
                raise ValueError(f"frames: wanted one size, got {pixels.shape[1]}x{pixels.shape[0]} after {size[0]}x{size[1]}")
            writer.write(pixels)
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise ValueError("frames: wanted at least one, got none")
    return count
