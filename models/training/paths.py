"""How people carry a camera through a world: rotations, paths of the capture styles, focal lengths.

Input: a random generator, what is worth looking at and from how far. Output: cameras. Does not: know what stands in the world.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from .ingredients import WorldConfig

__all__ = ["camera_path", "euler", "intrinsics", "pick_style", "upright"]

Array = np.ndarray
STYLES = {"orbit": 0.35, "forward": 0.33, "walk": 0.12, "wide": 0.2}


def upright(rng: np.random.Generator, tilt: float) -> Float[Array, "3 3"]:
    """Turn about the vertical, tilted by about ``tilt`` radians."""
    yaw, a, b = rng.uniform(0, 2 * math.pi), rng.normal(0, tilt), rng.normal(0, tilt)
    return euler(yaw, a, b)


def euler(yaw: float, pitch: float, roll: float) -> Float[Array, "3 3"]:
    """Turns about y, x and z, radians; the last is applied first."""
    cy, sy, cp, sp, cr, sr = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn_y @ turn_x @ turn_z


def pick_style(rng: np.random.Generator, config: WorldConfig, *, under_sky: bool) -> str:
    """Draw a capture style; nobody flies a drone indoors."""
    shares = STYLES | {"drone": config.drone * under_sky, "turn": config.turn}
    return str(rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))


def camera_path(
    rng: np.random.Generator, config: WorldConfig, views: int, style: str, *, target: Float[Array, " 3"], reach: float
) -> Float[Array, "V 4 4"]:
    """Camera-to-world matrices along one capture style around ``target``, from about ``reach`` away."""
    if style == "drone":
        return _flight(rng, config, views, target, reach)
    azimuth, elevation = rng.uniform(0, 6.28), rng.uniform(-0.05, 0.7)
    step = {"orbit": rng.uniform(0.08, 0.3), "wide": rng.uniform(0.25, 0.5)}.get(style, 0.0)
    step *= config.stride
    baseline = config.stride * reach * math.exp(rng.uniform(math.log(0.1), math.log(0.5)))
    sweep = rng.uniform(0.1, 0.22)
    roll = math.pi / 2 if rng.random() < 0.1 else 0.0
    out = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
    for i in range(views):
        place = i - (views - 1) / 2
        angle = azimuth + step * place + rng.normal(0, 0.1 * step)
        up = elevation + rng.normal(0, 0.3 * step)
        away = reach * (1 + max(rng.normal(0, config.distance if step else 0.0), -0.7))
        center = target + away * np.array([math.cos(angle) * math.cos(up), -math.sin(up), math.sin(angle) * math.cos(up)])
        R_world_cam = look(target + rng.normal(0, 0.05 * reach, 3) * (step > 0) - center, roll + rng.normal(0, config.roll))
        if style == "forward":
            center = center + R_world_cam @ (rng.uniform(-1, 1, 3) * np.array([1, 0.6, 0.25]) * baseline)
            R_world_cam = R_world_cam @ euler(*rng.normal(0, 0.04, 3))
        elif style == "walk":
            center = center + R_world_cam @ (np.array([rng.normal(0, 0.6), rng.normal(0, 0.25), place]) * baseline * 0.7)
            R_world_cam = R_world_cam @ euler(rng.normal(0, 0.1), *rng.normal(0, 0.03, 2))
        elif style == "turn":
            center = center + R_world_cam @ (rng.uniform(-1, 1, 3) * np.array([1, 0.5, 0.5]) * 0.15 * baseline)
            R_world_cam = euler(sweep * place + rng.normal(0, 0.02), 0.0, 0.0) @ R_world_cam
        out[i, :3, :3], out[i, :3, 3] = R_world_cam, center
    return out


def _flight(rng: np.random.Generator, config: WorldConfig, views: int, target: Float[Array, " 3"], reach: float) -> Array:
    """A straight line or a wide arc high above, the camera held at one angle below the horizon."""
    azimuth, down = rng.uniform(0, 6.28), rng.uniform(0.5, 1.25)
    away = reach * rng.uniform(1.5, 3.0)
    step = config.stride * away * rng.uniform(0.15, 0.4)
    arc, heading = rng.random() < 0.4, rng.uniform(0, 6.28)
    out = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
    for i in range(views):
        place = i - (views - 1) / 2 + rng.normal(0, 0.1)
        angle = azimuth + (step / away * place if arc else 0.0)
        back = np.array([math.cos(angle) * math.cos(down), -math.sin(down), math.sin(angle) * math.cos(down)])
        along = np.array([math.cos(heading), 0.0, math.sin(heading)]) * (0.0 if arc else step * place)
        out[i, :3, 3] = target + along + away * back * (1 + rng.normal(0, 0.03)) + rng.normal(0, 0.02 * away, 3)
        out[i, :3, :3] = look(-back, rng.normal(0, config.roll)) @ euler(*rng.normal(0, 0.03, 3))
    return out


def intrinsics(rng: np.random.Generator, config: WorldConfig, views: int, height: int, width: int) -> Float[Array, "V 3 3"]:
    """Focal lengths from wide to a narrow crop of a larger photo, principal point off centre as in a crop."""
    focal = math.exp(rng.uniform(math.log(0.6), math.log(2.2))) * max(width, height)
    off = rng.uniform(-config.off_centre, config.off_centre, 2) * (focal > 1.2 * width)
    K = np.tile(
        np.array([[focal, 0, width * (0.5 + off[0])], [0, focal, height * (0.5 + off[1])], [0, 0, 1]], np.float32),
        (views, 1, 1),
    )
    if rng.random() < 0.2:
        K[:, :2, :2] *= rng.uniform(0.9, 1.1, (views, 1, 1))
    if config.stretch:
        K[:, 1, 1] *= math.exp(rng.normal(0, config.stretch))
    return K.astype(np.float32)


def look(forward: Float[Array, " 3"], roll: float) -> Float[Array, "3 3"]:
    """Camera-to-world rotation that looks along ``forward`` with the image's down towards +y."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(np.array([0, 1.0, 0]), z)
    x = x / max(np.linalg.norm(x), 1e-6)
    return np.stack([x, np.cross(z, x), z], axis=1) @ euler(0.0, 0.0, roll)
