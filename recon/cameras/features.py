"""Local features of photos.

Input: ``Views``. Output: keypoints with SIFT descriptors. Does not: match them, or find cameras.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..progress import Progress
from ..records import View, Views
from .child_process import run_child
from .recipes import FeatureKind

EDGE = 10.0
"""Greatest ratio of principal curvatures of a feature."""
MIN_SIDE = 16
"""Photos are not looked at smaller than this, pixels."""
MASK_MARGIN_PX, MASK_MARGIN_SCALES = 4.0, 2.0
"""Features this close to a masked pixel, or within so many of their own sizes, are left out: they stem from the mask's outline."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """SIFT features of one photo."""

    keypoints_px: Float[np.ndarray, "N C"]
    """x, y in pixels of (width, height), centres at +0.5; then scale in pixels and angle in radians, or the four numbers of an
    affine shape."""
    descriptors: UInt8[np.ndarray, "N 128"]
    """RootSIFT times 512, the scaling COLMAP keeps."""
    rgb: UInt8[np.ndarray, "N 3"]
    """Colour of the photo at the keypoint."""
    width: int
    """Width of the image the features were found in."""
    height: int
    """Height of the image the features were found in."""

    @property
    def scales_px(self) -> Float[np.ndarray, " N"]:
        """Size of each feature."""
        return sizes_px(self.keypoints_px)


def feature_size(view: View, kind: FeatureKind) -> tuple[int, int]:
    """Size at which features of a photo are found."""
    width, height = view.original_width, view.original_height
    scale = kind.side / max(width, height)
    if not kind.enlarge:
        scale = min(1.0, scale)
    return max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))


def read_photo(view: View, kind: FeatureKind) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a photo at the size its features are found at, masked pixels in the mean colour of the others.

    ``View.decode`` itself never enlarges well, so that is done here.
    """
    width, height = feature_size(view, kind)
    image = view.decode(min(width, view.original_width), min(height, view.original_height))
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    counted = view.counted(width, height)
    if counted is None or bool(counted.all()):
        return image
    seen = counted.numpy()
    mean = image[seen].mean(axis=0) if seen.any() else np.zeros(3)
    return np.where(seen[..., None], image, mean.round().astype(np.uint8))


def sizes_px(keypoints: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """Size of each feature."""
    if keypoints.shape[1] == 4:
        return keypoints[:, 2]
    shape = keypoints[:, 2:].reshape(-1, 2, 2).astype(np.float64)
    return np.sqrt(np.abs(np.linalg.det(shape)))


def usable_rows(view: View, keypoints: Float[np.ndarray, "N C"], width: int, height: int) -> np.ndarray:
    """Which keypoints lie on pixels that count, with a margin."""
    counted = view.counted(width, height)
    if counted is None or bool(counted.all()):
        return np.ones(len(keypoints), bool)
    away = cv2.distanceTransform(counted.numpy().astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x, y = np.clip(keypoints[:, :2].astype(np.int64), 0, [width - 1, height - 1]).T
    return away[y, x] > np.maximum(MASK_MARGIN_PX, MASK_MARGIN_SCALES * sizes_px(keypoints))


def make_features(view: View, image: np.ndarray, keypoints: np.ndarray, descriptors: np.ndarray) -> Features:
    """Drop what is masked and take the colours."""
    height, width = image.shape[:2]
    rows = usable_rows(view, keypoints, width, height)
    keypoints, descriptors = keypoints[rows], descriptors[rows]
    at = np.clip(keypoints[:, :2].astype(np.int64), 0, [width - 1, height - 1])
    return Features(keypoints_px=keypoints, descriptors=descriptors, rgb=image[at[:, 1], at[:, 0]], width=width, height=height)


def find_features(view: View, kind: FeatureKind) -> Features:
    """Detect SIFT features, the strongest first, described by RootSIFT.

    Source: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004; Arandjelovic and Zisserman,
    "Three things everyone should know to improve object retrieval", CVPR 2012, section 2 (square root of L1 norm).
    """
    image = read_photo(view, kind)
    detector = cv2.SIFT.create(
        nfeatures=kind.most, contrastThreshold=kind.contrast, edgeThreshold=EDGE, enable_precise_upscale=True
    )
    found, raw = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    if raw is None or not len(found):
        keypoints, descriptors = np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    else:
        # OpenCV counts from the centre of the first pixel; ours is at +0.5
        keypoints = np.array([(k.pt[0] + 0.5, k.pt[1] + 0.5, k.size / 2, np.deg2rad(k.angle)) for k in found], np.float32)
        root = np.sqrt(raw / np.maximum(np.abs(raw).sum(axis=1, keepdims=True), 1e-9))
        descriptors = np.clip(np.round(root * 512.0), 0, 255).astype(np.uint8)
    order = np.argsort(-keypoints[:, 2], kind="stable")[: kind.most] if len(keypoints) > kind.most else slice(None)
    return make_features(view, image, keypoints[order], descriptors[order])


def find_all_features(
    views: Views, kind: FeatureKind, folder: Path, progress: Progress, tell: Callable[[float, str], None]
) -> list[Features]:
    """Find features of every photo, stopping at once when cancelled.

    Args:
        views: photos.
        folder: job folder, for detectors that run in a process of their own.
        progress: asked whether to stop.
        tell: told the share that is done, and what is being done.
    """
    if kind.detector == "affine":
        return _find_affine_features(views, kind, folder, progress, tell)
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        futures = [pool.submit(find_features, view, kind) for view in views]
        features = []
        for done, future in enumerate(futures, start=1):
            features.append(future.result())
            tell(done / len(futures), f"features {done}/{len(futures)}")
        return features
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _find_affine_features(
    views: Views, kind: FeatureKind, folder: Path, progress: Progress, tell: Callable[[float, str], None]
) -> list[Features]:
    """COLMAP's affine features, in its process, a few photos at a time so that few pixels are held at once."""
    features: list[Features] = []
    batch = max(1, min(8, len(views)))
    for start in range(0, len(views), batch):
        chosen = list(views)[start : start + batch]
        images = [read_photo(view, kind) for view in chosen]
        grey = {f"image_{i}": cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for i, image in enumerate(images)}
        job = {"count": np.array(len(chosen)), "most": np.array(kind.most), "peak": np.array(kind.contrast), **grey}
        show = partial(_show_affine, tell, start, len(chosen), len(views))
        found = run_child("features", folder, job, progress=progress, on_news=show)
        features += [
            make_features(view, image, found[f"keypoints_{i}"], found[f"descriptors_{i}"])
            for i, (view, image) in enumerate(zip(chosen, images, strict=True))
        ]
    return features


def _show_affine(tell: Callable[[float, str], None], start: int, count: int, photos: int, item: dict) -> None:
    done = start + count * item["fraction"]
    tell(done / photos, f"features {done:.0f}/{photos}")
