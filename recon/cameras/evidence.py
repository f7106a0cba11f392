"""How well cameras explain what was matched, whoever made them: one measure for every attempt.

Input: ``Cameras`` and ``Matches``. Output: ``Evidence``, its score, and what is weak about it in words.
Does not: look at points a solver made, which it made to fit its own cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int

from ..lens import to_opencv
from ..records import Cameras
from .matches import Matches

EXPLAINED_SHARE = 0.004
"""A match is explained when it lies within this share of the longest side of its epipolar line, in front of both cameras."""
PARALLAX_DEG = 1.0
"""Matches whose rays meet at a smaller angle are not asked to lie in front of the cameras: noise decides that."""
ENOUGH = 60.0
"""Explained matches with which a photo counts fully."""
LEAST_SHARE = 0.35
"""Photos whose matches are explained to a smaller share were placed wrongly."""

STRONG_MATCHES, STRONG_AGREEMENT, STRONG_SHARE, STRONG_ANGLE_DEG, STRONG_ERROR_SHARE = 50, 0.8, 0.6, 2.0, 0.0015
"""Strong: every photo placed and with so many explained matches, this share of all matches and of each photo's explained, rays
meeting at this angle (upper quartile), points reprojected within this share of the longest side."""
FOCAL_RANGE = (0.25, 6.0)
"""Focal lengths over longest side that lenses of photographers have."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How well cameras explain matches."""

    placed: int
    """Photos with a camera."""
    explained: Int[np.ndarray, " V"]
    """Matches of each photo that the cameras explain."""
    matched: Int[np.ndarray, " V"]
    """Matches of each photo with placed photos."""
    angle_deg: float
    """Angle at which the rays of explained matches meet, upper quartile."""
    focal_ratio: tuple[float, float]
    """Smallest and largest focal length over longest side of placed photos."""
    error_share: float
    """Mean reprojection error over the longest side of the image it was measured in; 0 when unknown."""

    @property
    def share(self) -> Float[np.ndarray, " V"]:
        """Share of each photo's matches that is explained; 0 without matches."""
        return self.explained / np.maximum(self.matched, 1)

    @property
    def agreement(self) -> float:
        """Share of all matches between placed photos that is explained."""
        return float(self.explained.sum() / max(1, self.matched.sum()))

    @property
    def score(self) -> float:
        """At most 1: photos placed, each weighted by how much it explains and reduced by how much it contradicts.

        A photo most of whose matches contradict its camera counts against the attempt. Rays that meet at next to no angle
        prove little, so the score falls with them.
        """
        weight = np.minimum(1.0, self.explained / ENOUGH) * (2.0 * self.share - 1.0)
        return float(weight.sum() / max(1, len(weight))) * min(1.0, self.angle_deg / PARALLAX_DEG)

    def weaknesses(self) -> dict[str, str]:
        """What keeps these cameras from being taken at once, by kind; empty when the evidence is strong."""
        found, photos, seen = {}, len(self.explained), self.matched > 0
        if self.placed < photos:
            found["placed"] = f"{photos - self.placed} of {photos} photos not placed"
        thin = int((seen & (self.explained < STRONG_MATCHES)).sum())
        if thin:
            found["thin"] = f"{thin} photos held by fewer than {STRONG_MATCHES} matches"
        if self.agreement < STRONG_AGREEMENT:
            found["agreement"] = f"{1 - self.agreement:.0%} of the matches contradict the cameras"
        doubtful = int((seen & (self.share < STRONG_SHARE)).sum())
        if doubtful:
            found["doubtful"] = f"{doubtful} photos contradict many of their matches"
        if self.angle_deg < STRONG_ANGLE_DEG:
            found["angle"] = f"rays meet at {self.angle_deg:.1f} degrees only"
        if not (FOCAL_RANGE[0] <= self.focal_ratio[0] and self.focal_ratio[1] <= FOCAL_RANGE[1]):
            found["focal"] = f"focal lengths of {self.focal_ratio[0]:.2f} to {self.focal_ratio[1]:.2f} times the longest side"
        if self.error_share > STRONG_ERROR_SHARE:
            found["error"] = f"points miss their pixels by {self.error_share:.2%} of the longest side"
        return found

    @property
    def is_final(self) -> bool:
        """Whether no other way of finding cameras could do better: a small angle lies in the photos, not in the solver."""
        return set(self.weaknesses()) <= {"angle"}


def straight_rays(cameras: Cameras, view: int, px: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Rays at z = 1 in the camera frame through pixels of a photo with distortion."""
    bend = np.zeros(4) if cameras.distortion is None else cameras.distortion[view].double().numpy()
    flat = cv2.undistortPoints(np.ascontiguousarray(px - 0.5).reshape(-1, 1, 2), to_opencv(cameras.K[view]), bend).reshape(-1, 2)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def epipolar_distance_px(
    T_second_first: np.ndarray, first: Float[np.ndarray, "N 3"], second: Float[np.ndarray, "N 3"], focal_px: float
) -> Float[np.ndarray, " N"]:
    """Distance of matches from their epipolar lines, to first order. Without a baseline, distance from the rotated ray.

    Source: Hartley and Zisserman, "Multiple View Geometry", 2nd ed., section 11.4.3 (Sampson distance).

    Args:
        T_second_first: camera motion, ``3 4``.
        first: rays at z = 1 in the first camera.
        second: rays at z = 1 in the second camera.
        focal_px: pixels per unit of the rays.
    """
    R, t = T_second_first[:, :3], T_second_first[:, 3]
    length = np.linalg.norm(t)
    if length < 1e-12:
        turned = first @ R.T
        turned = turned / np.where(np.abs(turned[:, 2:]) < 1e-9, 1e-9, turned[:, 2:])
        return np.linalg.norm(turned[:, :2] - second[:, :2], axis=1) * focal_px
    x, y, z = t / length
    E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ R
    line_second, line_first = first @ E.T, second @ E
    miss = (second * line_second).sum(1)
    slope = (line_second[:, :2] ** 2).sum(1) + (line_first[:, :2] ** 2).sum(1)
    return np.abs(miss) / np.sqrt(np.maximum(slope, 1e-18)) * focal_px


def meeting(
    T_second_first: np.ndarray, first: Float[np.ndarray, "N 3"], second: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Angle in degrees at which rays meet, and the smaller of their two depths where they come closest."""
    a = first @ T_second_first[:, :3].T
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = second / np.linalg.norm(second, axis=1, keepdims=True)
    t = T_second_first[:, 3]
    ab, at, bt = (a * b).sum(1), a @ t, b @ t
    sine2 = np.maximum(1.0 - ab**2, 1e-18)
    along_a, along_b = (ab * bt - at) / sine2, (bt - ab * at) / sine2
    return np.rad2deg(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), ab)), np.minimum(along_a, along_b)


def judge(cameras: Cameras, matches: Matches, *, error_share: float = 0.0) -> Evidence:
    """Measure how well cameras explain matches.

    Args:
        cameras: at the original size, photos without a camera marked as not registered.
        matches: of the same photos; pairs with a photo that is not placed do not count.
        error_share: mean reprojection error of the points over the longest side; 0 when unknown.
    """
    placed = cameras.registered_mask.numpy()
    T_world_cam, T_cam_world = cameras.T_world_cam.double().numpy(), cameras.T_cam_world.double().numpy()
    explained, matched = np.zeros(len(cameras), np.int64), np.zeros(len(cameras), np.int64)
    long_side = np.maximum(np.array(cameras.width), np.array(cameras.height))
    focal = cameras.K[:, [0, 1], [0, 1]].double().numpy().mean(axis=1)
    angles = [np.zeros(0)]
    for i, j, px in matches:
        if not (placed[i] and placed[j]):
            continue
        first, second = straight_rays(cameras, i, px[:, :2]), straight_rays(cameras, j, px[:, 2:])
        # T_second_first = T_second_world @ T_world_first; pixels are counted in longest sides, so photos of any size compare
        T_second_first = (T_cam_world[j] @ T_world_cam[i])[:3]
        sides_per_ray = (focal[i] / long_side[i] + focal[j] / long_side[j]) / 2
        angle, depth = meeting(T_second_first, first, second)
        good = epipolar_distance_px(T_second_first, first, second, sides_per_ray) < EXPLAINED_SHARE
        good &= (depth > 0) | (angle < PARALLAX_DEG)
        for view in (i, j):
            explained[view] += int(good.sum())
            matched[view] += len(px)
        angles.append(angle[good])
    everything = np.concatenate(angles)
    ratios = (focal / long_side)[placed] if placed.any() else np.ones(1)
    return Evidence(
        placed=int(placed.sum()),
        explained=explained,
        matched=matched,
        angle_deg=float(np.percentile(everything, 75)) if len(everything) else 0.0,
        focal_ratio=(float(ratios.min()), float(ratios.max())),
        error_share=error_share,
    )
