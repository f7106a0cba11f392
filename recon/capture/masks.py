"""Which pixels of a photo count: alpha channels and mask files beside the photos.

Input: a folder of masks and photo names. Output: a reader per photo. Does not: apply masks; the stages do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .decode import decode_alpha, opened
from .decoder import probe_all
from .names import clean_name, shown

MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
WHITE = 128
"""Grey level from which a mask's pixel counts."""
ASPECT_TOLERANCE = 0.02

ReadMask = Callable[[int, int], np.ndarray]
"""(width, height) -> bool ``H W``: True where the photo counts."""


def read_mask_file(path: Path, width: int, height: int) -> np.ndarray:
    """Decode a mask at a size: grey level, or alpha where the mask is otherwise of one colour.

    Returns:
        bool ``H W``, True where everything that a pixel averages counts.
    """
    with opened(path) as image:
        if image.mode == "F" and image.getextrema()[1] <= 1:
            image = image.point(lambda level: level * 255)  # shares, not levels
        grey = image.convert("L") if image.mode in ("1", "L", "P", "RGB", "I;16", "I", "F") else image.convert("RGBA").convert("L")
        if "A" in image.mode:
            low, high = grey.getextrema()
            if low == high:
                grey = image.convert("RGBA").getchannel("A")
        white = grey.point(lambda level: 255 if level >= WHITE else 0)
        return np.asarray(white.resize((width, height), Image.Resampling.BOX)) == 255


def find_masks(folder: Path, names: list[str]) -> dict[str, Path]:
    """Photo name -> its mask: the same name with another ending, or with one more (a.jpg: a.png, a.jpg.png).

    Raises:
        UserError: there is no such folder, or no mask fits any photo.
    """
    if not folder.is_dir():
        raise UserError(f"--masks {shown(folder)} is not a folder.", "Give a folder with one mask per photo, named like it.")
    at: dict[str, Path] = {}
    bare: dict[str, Path] = {}  # by name alone, for photos in no folder: the mask of a/1.jpg says nothing of b/1.jpg
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in MASK_SUFFIXES and path.is_file():
            key = clean_name(path.relative_to(folder).with_suffix("").as_posix()).casefold()
            at.setdefault(key, path)
            bare.setdefault(key.rpartition("/")[2], path)
    found = {}
    for name in names:
        whole = name.casefold()
        stem = whole.rpartition(".")[0] or whole
        short = [key.rpartition("/")[2] for key in (whole, stem)]
        path = next((at[key] for key in (whole, stem, *short) if key in at), None)
        if path is None and "/" not in whole:
            path = next((bare[key] for key in short if key in bare), None)
        if path is not None:
            found[name] = path
    if not found:
        raise UserError(
            f"--masks {shown(folder)}: none of its files is named like a photo ({', '.join(names[:3])}).",
            "Name masks like the photos, for example img_1.png for img_1.jpg.",
        )
    return found


def check_masks(masks: dict[str, Path], sizes: dict[str, tuple[int, int]]) -> None:
    """Refuse masks that cannot be decoded or are of another shape than their photo.

    Raises:
        UserError: says which mask, and why.
    """
    answers = probe_all(list(masks.values()), keep_private=False, side=256)
    for (name, path), answer in zip(masks.items(), answers, strict=True):
        if "reason" in answer:
            raise UserError(f"The mask {shown(path)} {answer['reason']}.", "Save it as an 8-bit PNG.")
        if answer["exposure"]["mean"] == 0 and (answer["opaque"] is None or answer["opaque"] == 0):
            raise UserError(
                f"The mask {shown(path)} leaves nothing of {name}.", "White is used, black is not; leave the photo out."
            )
        width, height = sizes[name]
        if abs(answer["width"] / answer["height"] / (width / height) - 1) > ASPECT_TOLERANCE:
            raise UserError(
                f"The mask {shown(path)} has {answer['width']}x{answer['height']} pixels, its photo {width}x{height}.",
                "Make masks of the photos' shape, turned upright.",
            )


def combined(path: Path, orientation: int, alpha: bool, mask: Path | None) -> ReadMask | None:
    """Reader of a photo's own alpha and its mask file together; None when it has neither."""
    if not alpha and mask is None:
        return None
    return partial(_read_both, path, orientation, alpha, mask)


def _read_both(path: Path, orientation: int, alpha: bool, mask: Path | None, width: int, height: int) -> np.ndarray:
    counted = np.ones((height, width), bool)
    if alpha:
        opaque = decode_alpha(path, orientation, width, height)
        counted &= opaque if opaque is not None else counted
    if mask is not None:
        counted &= read_mask_file(mask, width, height)
    return counted
