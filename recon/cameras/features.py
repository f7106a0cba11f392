"""Local features of photos, and which photos are worth comparing.

Input: ``Views``. Output: SIFT keypoints with descriptors at a common size, and pairs of photos.
Does not: match pairs fully, verify geometry, or find cameras (``recon.cameras.sfm`` does).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..photos import working_size
from ..progress import Progress
from ..records import View, Views

MIN_FEATURE_SIDE, MAX_FEATURE_SIDE = 640, 1600
"""Features are found at the working size, but at no less and no more than this longest side (and never enlarged)."""
MAX_FEATURES = 2048
"""Strongest features kept per photo; matching costs their square."""
CONTRAST, EDGE = 0.02, 10.0
"""SIFT detection thresholds: least contrast, greatest ratio of principal curvatures."""
EXHAUSTIVE_UP_TO = 16
"""Captures of up to this many photos are matched all against all."""
PROBES = 192
"""Features of largest scale per photo, on which pairs are judged before they are matched fully."""
PARTNERS, FOLLOWERS = 10, 3
"""Every photo is matched with its best partners by probes and with the next photos in name order: linear in the photos."""
MAX_RATIO = 0.8
"""Greatest ratio of the angles to the nearest and the second nearest descriptor (Lowe 2004, section 7.1)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """SIFT features of one photo."""

    keypoints_px: Float[np.ndarray, "N 4"]
    """x, y in pixels of (width, height), centres at +0.5; scale in pixels; angle in radians."""
    descriptors: UInt8[np.ndarray, "N 128"]
    """RootSIFT times 512, the scaling COLMAP keeps."""
    rgb: UInt8[np.ndarray, "N 3"]
    """Colour of the photo at the keypoint."""
    width: int
    """Width of the image the features were found in."""
    height: int
    """Height of the image the features were found in."""


def feature_size(view: View) -> tuple[int, int]:
    """Size at which features of a photo are found."""
    side = min(max(max(view.width, view.height), MIN_FEATURE_SIDE), MAX_FEATURE_SIDE)
    return working_size(view.original_width, view.original_height, side)


def find_features(view: View) -> Features:
    """Detect SIFT features, the strongest first up to ``MAX_FEATURES``, described by RootSIFT.

    Source: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004; Arandjelovic and Zisserman,
    "Three things everyone should know to improve object retrieval", CVPR 2012, section 2 (square root of L1 norm).
    """
    width, height = feature_size(view)
    image = view.decode(width, height)
    detector = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=CONTRAST, edgeThreshold=EDGE, enable_precise_upscale=True)
    found, raw = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    if raw is None or not len(found):
        keypoints, descriptors = np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    else:
        # OpenCV counts from the centre of the first pixel; ours is at +0.5
        keypoints = np.array([(k.pt[0] + 0.5, k.pt[1] + 0.5, k.size / 2, np.deg2rad(k.angle)) for k in found], np.float32)
        root = np.sqrt(raw / np.maximum(np.abs(raw).sum(axis=1, keepdims=True), 1e-9))
        descriptors = np.clip(np.round(root * 512.0), 0, 255).astype(np.uint8)
    order = np.argsort(-keypoints[:, 2], kind="stable")[:MAX_FEATURES] if len(keypoints) > MAX_FEATURES else slice(None)
    keypoints, descriptors = keypoints[order], descriptors[order]
    at = np.clip(keypoints[:, :2].astype(np.int64), 0, [width - 1, height - 1])
    return Features(keypoints_px=keypoints, descriptors=descriptors, rgb=image[at[:, 1], at[:, 0]], width=width, height=height)


def find_all_features(views: Views, progress: Progress, *, share: float) -> list[Features]:
    """Find features of every photo on all cores, stopping at once when cancelled.

    Args:
        views: photos.
        progress: told about the stage "cameras", from 0 to ``share``.
        share: the part of the stage that this step takes.
    """
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        futures = [pool.submit(find_features, view) for view in views]
        features = []
        for done, future in enumerate(futures, start=1):
            features.append(future.result())
            progress.update("cameras", share * done / len(futures), f"features {done}/{len(futures)}")
        return features
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def probe_scores(features: Sequence[Features]) -> np.ndarray:
    """Count mutual nearest neighbours that pass the ratio test among the largest-scale features of every two photos.

    Large features are few, stable and seen from afar, so a handful of matches among them foretells a useful pair.
    Source: Wu, "Towards linear-time incremental structure from motion", 3DV 2013, section 3 (preemptive matching).

    Returns:
        int ``V V``, symmetric, zero diagonal.
    """
    probes = []
    for one in features:
        largest = np.argsort(-one.keypoints_px[:, 2], kind="stable")[:PROBES]
        chosen = torch.from_numpy(one.descriptors[largest].astype(np.float32))
        probes.append(chosen / chosen.norm(dim=1, keepdim=True).clamp_min(1e-9))
    scores = np.zeros((len(probes), len(probes)), np.int64)
    for i, first in enumerate(probes):
        for j in range(i):
            second = probes[j]
            if min(len(first), len(second)) < 2:
                continue
            similarity = first @ second.T
            best, index = similarity.topk(2, dim=1)
            back = similarity.argmax(dim=0)
            angle = torch.arccos(best.clamp(-1.0, 1.0))
            mutual = back[index[:, 0]] == torch.arange(len(first))
            scores[i, j] = scores[j, i] = int((mutual & (angle[:, 0] < MAX_RATIO * angle[:, 1])).sum())
    return scores


def choose_pairs(features: Sequence[Features]) -> list[tuple[int, int]]:
    """Choose which photos to match: all pairs of a small capture, else each photo with its best partners and its followers.

    The partners are those whose largest features agree most; the followers hold a walk together where features fail.

    Returns:
        Pairs (i, j) with i < j, sorted.
    """
    count = len(features)
    if count <= EXHAUSTIVE_UP_TO:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    scores = probe_scores(features)
    pairs: set[tuple[int, int]] = set()
    for i in range(count):
        partners = [int(j) for j in np.argsort(-scores[i], kind="stable") if j != i][:PARTNERS]
        partners += range(i + 1, min(i + 1 + FOLLOWERS, count))
        pairs |= {(min(i, j), max(i, j)) for j in partners}
    return sorted(pairs)
