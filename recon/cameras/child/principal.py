"""Where the optical axis meets the picture: found together with everything else, as far as the matches prove it.

Input: an adjusted model. Output: the same model, better. Does not: touch lenses that the user knows.

The middle of the picture is a good guess, but lenses sit off it by about a percent, and a few tenths of a degree in every
photo are then laid upon rotations and places. Freed, the axis wanders where photos are few and all look the same way, or
makes up for a lens that bends otherwise than its model; so it is believed only where the gain is large (Bayesian information
criterion), and as far as it speaks louder than what is known of lenses.
Source: Schwarz, "Estimating the dimension of a model", Annals of Statistics 1978, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pycolmap

LENS_SHARE = 0.01
"""How far off the middle lenses sit (one standard deviation), over the longest side."""
FAR_SHARE = 0.06
"""Farther off than this it is not the lens that the matches ask for (a strongly cut picture gets less than it should)."""
INDEPENDENT = 1000
"""Observations that count at most: more of them err together, for they share points, textures and a lens that is not its model."""

TURNED_DEG = 10.0
"""Spread of viewing directions (root mean square about their middle) below which the axis is left alone: to photos that all look
the same way, on a drive ahead say, an axis off the middle and a slightly turned camera are one and the same."""

Solve = Callable[[pycolmap.Reconstruction, bool], None]
"""Adjust a model in place; the second says whether optical axes are free."""


def robust_cost(model: pycolmap.Reconstruction, scale_px: float) -> tuple[float, int]:
    """Cauchy cost of all observations, in px², and how many there are."""
    total, count = 0.0, 0
    for i in model.reg_image_ids():
        image = model.image(i)
        seen = [p for p in image.points2D if p.has_point3D()]
        if not seen:
            continue
        points = np.array([model.point3D(p.point3D_id).xyz for p in seen])
        drawn = model.camera(image.camera_id).img_from_cam(image.cam_from_world() * points)
        square = ((np.asarray(drawn) - np.array([p.xy for p in seen])) ** 2).sum(axis=1)
        square = square[np.isfinite(square)]
        total += float(0.5 * scale_px**2 * np.log1p(square / scale_px**2).sum())
        count += len(square)
    return total, count


def off_middle(model: pycolmap.Reconstruction, cameras: list[int]) -> dict[int, np.ndarray]:
    """Principal point minus the middle of the picture, pixels, of some cameras."""
    found = {}
    for number in cameras:
        camera = model.camera(number)
        middle = np.array([camera.width, camera.height]) / 2.0
        found[number] = np.array([camera.principal_point_x, camera.principal_point_y]) - middle
    return found


def turned_deg(model: pycolmap.Reconstruction) -> float:
    """Spread of the viewing directions of all placed photos about their middle, degrees."""
    ahead = np.array([model.image(i).cam_from_world().inverse().matrix()[:3, 2] for i in model.reg_image_ids()])
    middle = ahead.sum(axis=0)
    length = float(np.linalg.norm(middle))
    cosine = ahead @ (middle / length) if length > 1e-9 else np.zeros(len(ahead))
    return float(np.degrees(np.sqrt(np.mean(np.arccos(np.clip(cosine, -1.0, 1.0)) ** 2))))


def free_principal_points(model: pycolmap.Reconstruction, cameras: list[int], solve: Solve, scale_px: float) -> None:
    """Free the principal points of ``cameras`` and take back what the gain does not prove.

    Along the way from the middle to the optimum, the cost falls as a parabola and the prior on lenses rises as one; the share
    of the way that is kept minimises their sum (maximum a posteriori).

    Args:
        model: adjusted with the principal points in the middle; changed in place.
        cameras: of enough photos, whose lenses nobody told.
        solve: adjusts a model.
        scale_px: of the Cauchy loss that ``solve`` uses.
    """
    before, observations = robust_cost(model, scale_px)
    if not cameras or before <= 0.0 or turned_deg(model) < TURNED_DEG:
        return
    solve(model, True)
    after, _ = robust_cost(model, scale_px)
    shift = off_middle(model, cameras)
    counted = min(observations, INDEPENDENT)
    gain = (before - after) / before * counted  # of log-likelihood: a mean cost of half the variance, twice an observation
    shares = {n: by / max(model.camera(n).width, model.camera(n).height) for n, by in shift.items()}
    doubt = sum(float(share @ share) for share in shares.values()) / (2.0 * LENS_SHARE**2)
    kept = gain / (gain + doubt) if gain > len(cameras) * math.log(counted) else 0.0
    longest = max(float(np.linalg.norm(share)) for share in shares.values())
    kept = min(kept, FAR_SHARE / max(longest, FAR_SHARE))
    for number, by in shift.items():
        camera = model.camera(number)
        camera.principal_point_x = camera.width / 2.0 + kept * float(by[0])
        camera.principal_point_y = camera.height / 2.0 + kept * float(by[1])
    solve(model, False)
