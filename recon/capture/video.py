"""The frames of a video or animation that are worth keeping: sharp, and a step apart.

Input: mp4, mov, webm, avi, mkv (OpenCV), or an animated GIF, WebP or PNG (Pillow). Output: JPEG files.
Does not: bound its own time or memory; it runs in ``capture.child``.

    every frame, small and grey -> motion since the last one, sharpness
    path cut into pieces of equal motion, none shorter than 1 / fps -> sharpest frame of each piece -> written in full
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..resume.leftovers import temporary_folder
from .decode import MAX_PIXELS, opened, to_rgb
from .measures import grey

LOOK_SIDE = 320
"""Longest side in pixels at which frames are compared."""
CORNERS = 120
STEP = 0.07
"""Motion between two kept frames as a share of the longest side, when there are fewer pieces than asked for."""
JPEG_QUALITY = 95
ANIMATIONS = (".gif", ".webp", ".png", ".apng")
TELL_EVERY = 8
LONGEST_FRAMES = 200_000
"""Frames looked at, at most."""


def extract_frames(path: Path, target: Path, *, fps: float, max_frames: int, tell: Callable[[float], None]) -> dict[str, Any]:
    """Choose frames and write them to a folder.

    Args:
        path: the video.
        target: folder for frame_00000.jpg, ...; numbers are those of the video's frames.
        fps: frames kept per second, at most.
        max_frames: frames kept in all, at most.
        tell: called with the share of the work done.

    Returns:
        {"written": names, "frames": frames seen, "seconds": length of the video}.

    Raises:
        ValueError: it is no video, or has no frames.
    """
    with readable_path(path) as source:
        rate, count = video_facts(source)
        sharpness, moved = look(source, count, tell)
        chosen = choose_frames(sharpness, moved, rate=rate, fps=fps, max_frames=max_frames)
        wanted, written, last = set(chosen), [], max(chosen, default=0)
        for index, frame in enumerate(read_frames(source, wanted)):
            if index in wanted and frame is not None:
                name = f"frame_{index:05d}.jpg"
                Image.fromarray(frame).save(target / name, quality=JPEG_QUALITY, subsampling=0)
                written.append(name)
            if index in wanted or index % TELL_EVERY == 0:  # who hears nothing for long takes the decoder for hung
                tell(0.6 + 0.4 * min(1.0, (index + 1) / (last + 1)))
            if len(written) == len(wanted):
                break
    return {"written": written, "frames": len(moved), "seconds": len(moved) / rate}


@contextmanager
def readable_path(path: Path) -> Iterator[Path]:
    """Give OpenCV a name it can take: its own doors know UTF-8 alone."""
    try:
        os.fspath(path).encode("utf-8")
        yield path
    except UnicodeEncodeError:
        with temporary_folder("video") as folder:
            link = folder / f"video{path.suffix if path.suffix.isascii() else ''}"
            link.symlink_to(path.resolve())
            yield link


def is_animation(path: Path) -> bool:
    return path.suffix.lower() in ANIMATIONS


def video_facts(path: Path) -> tuple[float, int]:
    """Frames per second and number of frames (0 when unknown).

    Raises:
        ValueError: it is no video.
    """
    if is_animation(path):
        with opened(path) as image:
            frames = int(getattr(image, "n_frames", 1))
            return 1000.0 / max(10.0, float(image.info.get("duration") or 100.0)), frames
    capture = cv2.VideoCapture(os.fspath(path))
    try:
        if not capture.isOpened():
            raise ValueError("no video decoder takes it")
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > MAX_PIXELS:
            raise ValueError(f"its frames have {width:.0f}x{height:.0f} pixels")
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return (rate if 0.1 <= rate <= 1000 else 25.0), (int(count) if 0 < count < 1e8 else 0)
    finally:
        capture.release()


def read_frames(path: Path, wanted: set[int] | None = None) -> Iterator[np.ndarray | None]:
    """Frames in order as uint8 ``H W 3``; those not wanted are skipped cheaply and come as None."""
    if is_animation(path):
        with opened(path) as image:
            for index in range(int(getattr(image, "n_frames", 1))):
                image.seek(index)
                yield np.array(to_rgb(image.copy())) if wanted is None or index in wanted else None
        return
    capture = cv2.VideoCapture(os.fspath(path))
    try:
        index = 0
        while index < LONGEST_FRAMES and capture.grab():
            if wanted is None or index in wanted:
                ok, frame = capture.retrieve()
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok else None
            else:
                yield None
            index += 1
    finally:
        capture.release()


def look(path: Path, count: int, tell: Callable[[float], None]) -> tuple[list[float], list[float]]:
    """How sharp every frame is, and how far the picture moved since the last one, as a share of its longest side.

    Frames of one video show much the same things, so that the variance of their Laplacians can be compared.

    Raises:
        ValueError: there is not one frame.
    """
    last: np.ndarray | None = None
    sharpness: list[float] = []
    moved: list[float] = []
    for index, frame in enumerate(read_frames(path)):
        if frame is None:
            sharpness.append(-1.0)  # broken: never the sharpest of its piece
            moved.append(0.0)
            continue
        factor = max(frame.shape[:2]) / LOOK_SIDE
        if factor > 1:
            size = (max(1, round(frame.shape[1] / factor)), max(1, round(frame.shape[0] / factor)))
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        luma = grey(frame).astype(np.uint8)
        moved.append(0.0 if last is None else motion(last, luma))
        sharpness.append(float(cv2.Laplacian(luma, cv2.CV_32F).var()))
        last = luma
        if index % TELL_EVERY == 0:
            tell(0.6 * min(1.0, index / count) if count else 0.3)
    if last is None:
        raise ValueError("it has no frames")
    return sharpness, moved


def motion(before: np.ndarray, after: np.ndarray) -> float:
    """Median distance that corners travel between two frames, as a share of the longest side; 0 when nothing can be followed."""
    if before.shape != after.shape:
        return 0.0
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 7)
    if corners is None:
        return 0.0
    found, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty(0, np.float32), winSize=(15, 15), maxLevel=3)
    kept = ok.reshape(-1) == 1
    if kept.sum() < 8:
        return STEP  # nothing of the last frame is left: a cut, or a very fast turn
    return float(np.median(np.linalg.norm((found - corners).reshape(-1, 2)[kept], axis=1))) / max(before.shape)


def choose_frames(sharpness: Sequence[float], moved: Sequence[float], *, rate: float, fps: float, max_frames: int) -> list[int]:
    """Pick the sharpest frame of each piece of the way; the pieces are equally long in motion.

    Args:
        sharpness: one per frame; negative where a frame is broken.
        moved: motion since the frame before.
        rate: frames per second of the video.
        fps: frames kept per second, at most.
    """
    count = len(sharpness)
    way = np.cumsum(moved)
    by_time = max(2, int(np.ceil(count / rate * fps)))
    by_motion = max(2, int(np.ceil(way[-1] / STEP)) + 1)
    pieces = min(count, max_frames, by_time, by_motion)
    # a little of the clock in the measure keeps pieces apart where nothing could be followed
    measure = way + np.arange(count) * (max(float(way[-1]), 1e-6) * 1e-3 / max(1, count))
    edges = np.linspace(0.0, float(measure[-1]) * (1 + 1e-9), pieces + 1)
    piece_of = np.clip(np.searchsorted(edges, measure, side="right") - 1, 0, pieces - 1)
    gap = rate / fps if fps > 0 else 0.0
    chosen: list[int] = []
    for piece in range(pieces):
        inside = [i for i in np.flatnonzero(piece_of == piece).tolist() if not chosen or i - chosen[-1] >= 0.5 * gap]
        if inside:
            chosen.append(max(inside, key=lambda i: sharpness[i]))
    return chosen
