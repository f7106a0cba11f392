"""What procedural worlds and their photos are made of, each thing with a share that may be set to 0.

Input: names of ingredients. Output: ``WorldConfig``. Does not: make worlds; ``worlds`` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

__all__ = ["INGREDIENTS", "WorldConfig", "without"]


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What the worlds and their captures look like. Shares of kinds, of styles and of shapes count against the older ones' 1."""

    photographic: bool = True
    """Exposure drift, noise, blur, compression and small camera errors."""
    simple: float = 0.2
    """Share of worlds whose photos may show little more than one plane or one colour."""
    camera_noise_px: float = 0.25
    """Standard deviation of the camera rotation error, in pixels at the image centre."""
    roll: float = 0.03
    """Standard deviation of a photo's turn about its optical axis, radians."""
    distance: float = 0.06
    """Standard deviation of the distance from what is looked at, as a share of it, where the path goes around something."""
    stride: float = 1.0
    """Factor of the way between photos."""
    off_centre: float = 0.3
    """Largest shift of the principal point of narrow photos, as a share of a side: they are parts of larger ones."""
    stretch: float = 0.0
    """Standard deviation of the logarithm of fy over fx."""
    cells: tuple[int, ...] = (2, 4)
    """Blocks, in pixels, of the depth maps besides that of 8."""
    court: float = 0.18
    """Kind of world: buildings round a yard. Like the shares below, against 1 for rooms, ground, facades and clutter together."""
    terrain: float = 0.14
    """Kind of world: hills, ridges or terraces."""
    table: float = 0.14
    """Kind of world: things on a table in a room."""
    drone: float = 0.12
    """Style of capture: from high above, looking down, in wide steps; under the sky only. Against 1 for the older ones."""
    turn: float = 0.04
    """Style of capture: turning almost on the spot."""
    cones: float = 0.1
    """Shape of things; like those below, against 1 for boxes, ellipsoids, cylinders and cards together."""
    tori: float = 0.1
    superquadrics: float = 0.15
    wires: float = 0.08
    """Very thin cylinders, millimetres to centimetres where things measure decimetres."""
    cuts: float = 0.2
    """Share of boxes, ellipsoids, cylinders and cones with a hole, round or through them."""
    reliefs: float = 0.2
    """Share of walls of facades, of courts and of cards that are bumpy instead of flat."""
    movers: float = 0.12
    """Share of worlds in which something is elsewhere in each photo."""
    shadows: float = 0.4
    """Share of worlds in which things cast shadows, hard or soft."""
    motion_blur: float = 0.12
    """Share of photographic captures in which some photos are smeared by the camera's motion."""
    defocus: float = 0.12
    """Share of photographic captures that are sharp at one distance alone."""
    distortion_px: float = 0.4
    """Standard deviation of what a lens's correction left over, pixels at the corners; in half of the photographic captures."""


NOT_LEFT_OUT = ("stride", "stretch", "cells")
INGREDIENTS = tuple(field.name for field in fields(WorldConfig) if field.name not in NOT_LEFT_OUT)
"""Fields that an ablation may set to nothing."""


def without(names: Iterable[str], config: WorldConfig | None = None) -> WorldConfig:
    """Leave ingredients out.

    Raises:
        ValueError: there is no such ingredient.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in INGREDIENTS]
    if unknown:
        raise ValueError(f"worlds without {', '.join(unknown)}: wanted names among {', '.join(INGREDIENTS)}")
    config = config or WorldConfig()
    return replace(config, **{name: type(getattr(config, name))(0) for name in names})
