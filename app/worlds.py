"""`recon worlds`: a contact sheet of the procedural worlds that networks are trained on.

Input: a seed and textures. Output: one PNG. Does not: train.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from models.training.ingredients import INGREDIENTS, WorldConfig, without
from models.training.raycast_cuda import can_cast
from models.training.sheet import contact_sheet
from models.training.textures import load_textures
from models.training.worlds import Worlds
from recon.errors import UserError
from recon.files import atomic_path

from .console import say

MULTIPLE = 8
"""Sizes of photos are multiples of this, pixels."""


@dataclass(frozen=True, kw_only=True)
class WorldsArguments:
    """Draw what training sees: a row per world with its photos, and depth and normals of the first of them."""

    sheet: Path
    """Picture to write (PNG)."""
    textures: Path | None = None
    """Texture pack of `python -m data.pack_textures`; without it textures are generated."""
    worlds: int = 8
    """Rows."""
    views: int = 4
    """Photos of each world."""
    height: int = 192
    """Of a photo, pixels; a multiple of 8."""
    width: int = 256
    """Of a photo, pixels; a multiple of 8."""
    seed: int = 0
    """The same seed draws the same worlds."""
    cast: Literal["cpu", "cuda"] = "cpu"
    """Where rays are cast; a seed draws the same worlds either way."""
    without: str = ""
    """Ingredients to leave out, by name with commas between (tori,movers,shadows); a wrong name is answered with all of them."""


def draw_worlds(arguments: WorldsArguments) -> int:
    """Run the command."""
    if arguments.worlds < 1 or arguments.views < 2 or arguments.seed < 0:
        raise UserError("A sheet needs a world, two views of it and a seed.", "Give --worlds 1, --views 2, --seed 0 or more.")
    if any(side < 64 or side % MULTIPLE for side in (arguments.height, arguments.width)):
        raise UserError(
            f"Photos of {arguments.width} x {arguments.height} pixels cannot be drawn.", "Give multiples of 8, 64 or more."
        )
    if arguments.sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {arguments.sheet} is not a PNG.", "Give a name that ends in .png.")
    check_cast(arguments.cast)
    chosen = chosen_ingredients(arguments.without)
    worlds = Worlds(read_textures(arguments.textures), arguments.seed, chosen, cast=arguments.cast)
    captures = [worlds.capture(arguments.views, arguments.height, arguments.width) for _ in range(arguments.worlds)]
    with atomic_path(arguments.sheet) as partial:
        Image.fromarray(contact_sheet(captures)).save(partial, format="PNG")
    say(
        f"Written to {arguments.sheet}; rows from the top: {', '.join(f'{capture.kind} ({capture.style})' for capture in captures)}"
    )
    return 0


def check_cast(cast: str) -> None:
    """Whether rays can be cast there.

    Raises:
        UserError: on CUDA, and there is no GPU or nothing to compile for it with.
    """
    if cast == "cuda" and not can_cast():
        raise UserError(
            "--cast cuda: there is no NVIDIA GPU here that Numba can compile for.",
            "It needs the driver and libnvvm of the CUDA toolkit (set CUDA_HOME to the toolkit's folder); or leave --cast out.",
        )


def chosen_ingredients(names: str) -> WorldConfig:
    """All ingredients but the named ones.

    Raises:
        UserError: there is no such ingredient.
    """
    try:
        return without(name.strip() for name in names.split(",") if name.strip())
    except ValueError as error:
        raise UserError(f"--without {names} cannot be done.", f"Choose among {', '.join(INGREDIENTS)}.") from error


def read_textures(pack: Path | None) -> np.ndarray | None:
    """Read a texture pack.

    Raises:
        UserError: there is none, or it is something else.
    """
    if pack is None:
        return None
    try:
        return load_textures(pack)
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{pack} is no texture pack.", "Make one: python -m data.pack_textures FOLDER PACK.npz") from error
