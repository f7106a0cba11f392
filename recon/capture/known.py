"""What a person knows about lens and scale, read and applied.

Input: words of the command line. Output: intrinsics per photo; a scale for cameras and points.
Does not: find anything out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import UserError
from ..files import read_json
from .names import shown

if TYPE_CHECKING:
    from ..cameras.result import SfmResult

Intrinsics = tuple[float, float, float, float, float, float, float, float]
"""fx, fy, cx, cy in pixels of the original photo (centres at +0.5), then OpenCV's k1, k2, p1, p2."""
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048, "in": 0.0254, "yd": 0.9144}
HOW = "Give fx,fy,cx,cy in pixels of the original photos, optionally k1,k2,p1,p2 after them; or a JSON file with such lists."
SCALE_HOW = "Give two photo names and the distance between the places they were taken from: A.jpg,B.jpg=1.2m"


def read_intrinsics(text: str, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[Intrinsics | None]:
    """Intrinsics of each photo; None where nothing is known.

    Args:
        text: numbers for all photos, or the path of a JSON file: {"all": [fx, fy, cx, cy]} or {"a.jpg": [...], ...}.
        names: of the photos.
        sizes: (width, height) of the photos, upright, original.

    Raises:
        UserError: it is neither, or a number makes no sense for its photo.
    """
    path, own = Path(text).expanduser(), set[str]()
    if re.fullmatch(r"[\s0-9eE+.,-]+", text):
        per_name = {name: _numbers(text.split(","), "--intrinsics") for name in names}
    else:
        content = read_json(path)
        if not isinstance(content, dict) or not content:
            raise UserError(f"{shown(path)} holds no intrinsics.", HOW)
        unknown = [name for name in content if name != "all" and name not in names]
        if unknown:
            raise UserError(f"{shown(path)} names photos that are not among those given: {', '.join(unknown[:5])}.", HOW)
        own = set(content)
        per_name = {
            name: _numbers(content[name if name in content else "all"], shown(path))
            for name in names
            if name in content or "all" in content
        }
    alike = {size for name, size in zip(names, sizes, strict=True) if name in per_name and name not in own}
    if len(alike) > 1:
        told = " and ".join(f"{width}x{height}" for width, height in sorted(alike))
        raise UserError(
            f"--intrinsics: the photos are of several sizes ({told} pixels), which one lens in pixels cannot fit.",
            'Give a JSON file with a list for each photo: {"a.jpg": [fx, fy, cx, cy], ...}.',
        )
    for name, (width, height) in zip(names, sizes, strict=True):
        if name in per_name:
            _check_lens(per_name[name], name, width, height)
    return [per_name.get(name) for name in names]


def _numbers(given: object, where: str) -> Intrinsics:
    try:
        values = [float(value) for value in given]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        values = []
    if len(values) not in (4, 8) or not all(math.isfinite(value) for value in values):
        raise UserError(f"{where}: wanted 4 or 8 numbers, got {given!r}.", HOW)
    fx, fy, cx, cy, k1, k2, p1, p2 = values if len(values) == 8 else [*values, 0.0, 0.0, 0.0, 0.0]
    return fx, fy, cx, cy, k1, k2, p1, p2


def _check_lens(lens: Intrinsics, name: str, width: int, height: int) -> None:
    fx, fy, cx, cy = lens[:4]
    long_side = max(width, height)
    if not (0.1 * long_side < min(fx, fy) and max(fx, fy) < 100 * long_side):
        raise UserError(f"--intrinsics: a focal length of {fx:g}, {fy:g} px is impossible for {name} ({width}x{height}).", HOW)
    if not (0 < cx < width and 0 < cy < height):
        raise UserError(f"--intrinsics: the centre {cx:g}, {cy:g} lies outside {name} ({width}x{height}).", HOW)


@dataclass(frozen=True, kw_only=True)
class KnownDistance:
    """Distance between the places two photos were taken from."""

    first: str
    second: str
    metres: float

    @staticmethod
    def parse(text: str) -> KnownDistance:
        """Read ``A,B=1.2m``.

        Raises:
            UserError: it cannot be read so.
        """
        photos, _, distance = text.rpartition("=")
        first, _, second = photos.partition(",")
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-z]*)\s*", distance)
        unit = UNITS_M.get((match[2] or "m") if match else "")
        try:
            metres = float(match[1]) * unit if match and unit else 0.0
        except ValueError:
            metres = 0.0
        first, second = first.strip(), second.strip()
        if not (first and second and first != second and 0 < metres < 1e7):
            raise UserError(f"--scale-from {text!r} cannot be read.", SCALE_HOW)
        return KnownDistance(first=first, second=second, metres=metres)


def apply_distance(solved: SfmResult, known: KnownDistance, names: Sequence[str]) -> tuple[SfmResult, float]:
    """Scale cameras and points so that the two photos' places are the given distance apart.

    Returns:
        The result in metres, and metres per unit of before.

    Raises:
        UserError: a photo is not there, has no camera, or both were taken from one place.
    """
    at = []
    for wanted in (known.first, known.second):
        fitting = [i for i, name in enumerate(names) if name == wanted] or [
            i for i, name in enumerate(names) if name.rpartition("/")[2].rpartition(".")[0] == wanted or name.endswith("/" + wanted)
        ]
        if len(fitting) != 1:
            raise UserError(f"--scale-from: {'no' if not fitting else 'more than one'} photo is called {wanted}.", SCALE_HOW)
        if not bool(solved.cameras.registered_mask[fitting[0]]):
            raise UserError(f"--scale-from: no camera was found for {wanted}.", "Name two photos that could be placed.")
        at.append(fitting[0])
    centres = solved.cameras.centers_world
    apart = float((centres[at[0]] - centres[at[1]]).norm())
    spread = float((centres[solved.cameras.registered_mask] - centres[at[0]]).norm(dim=1).max())
    if not apart > 1e-6 * max(spread, 1e-12):
        raise UserError(f"--scale-from: {known.first} and {known.second} were taken from one place.", "Name two others.")
    factor = known.metres / apart
    T = solved.cameras.T_world_cam.clone()
    T[:, :3, 3] *= factor
    cameras = replace(solved.cameras, T_world_cam=T)
    return replace(solved, cameras=cameras, points_world=solved.points_world * factor), factor


def intrinsics_matrix(lens: Intrinsics) -> torch.Tensor:
    """``K`` 3 3 in float64 of known intrinsics."""
    fx, fy, cx, cy = lens[:4]
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
