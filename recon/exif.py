"""What a photo's EXIF says about its lens, its orientation and its body.

Input: an opened PIL image. Output: ``PhotoFacts``.
Does not: keep position, owner or serial numbers unless asked to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from PIL import ExifTags, Image

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""35 mm equivalents compare diagonals (CIPA DCG-001)."""
MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit -> millimetres."""
FOCAL_RATIO_RANGE = (0.2, 20.0)
"""Focal lengths outside this multiple of the longest side are taken as broken EXIF."""

_PRIVATE_BASE = ("Artist", "Copyright", "XPAuthor", "HostComputer")
_PRIVATE_DETAIL = ("CameraOwnerName", "BodySerialNumber", "LensSerialNumber", "UserComment", "ImageUniqueID")


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """What EXIF says about one photo."""

    orientation: int
    """EXIF orientation, 1 to 8; 1 when absent."""
    focal_px: float | None
    """Focal length in pixels of the stored size (the same after any orientation); None when unknown."""
    body: str
    """Make, model, lens and focal length as one key; empty when EXIF names none."""
    plain: Mapping[str, Any] = field(default_factory=dict)
    """Fields fit for a report: never position or owner, unless they were asked for."""


def _number(value: Any) -> float | None:
    """EXIF rationals, pairs and numbers to a finite positive float; None for anything else."""
    try:
        number = float(Fraction(value[0], value[1])) if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return "" if value is None else str(value).replace("\x00", "").strip()


def _reportable(value: Any) -> Any:
    """Make an EXIF value plain: numbers, text, lists and dictionaries only."""
    if isinstance(value, Mapping):
        return {str(k): _reportable(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_reportable(v) for v in value]
    if isinstance(value, (bytes, str)):
        return _text(value)
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return _text(value)
    return number if math.isfinite(number) else None


def focal_px_from_exif(detail: Mapping[int, Any], width: int, height: int) -> float | None:
    """Focal length in pixels from the 35 mm equivalent, else from the sensor's resolution.

    The equivalent compares image diagonals. The sensor's resolution counts pixels of the picture as it was taken, so a
    picture resized since is scaled by its width.

    Args:
        detail: the Exif IFD, tag number -> value.
        width: stored width in pixels, before orientation.
        height: stored height in pixels, before orientation.

    Returns:
        Focal length in pixels of the stored size, or None when EXIF is silent or absurd.
    """
    focal_px = None
    equivalent_mm = _number(detail.get(ExifTags.Base.FocalLengthIn35mmFilm))
    focal_mm = _number(detail.get(ExifTags.Base.FocalLength))
    pixels_per_unit = _number(detail.get(ExifTags.Base.FocalPlaneXResolution))
    unit_mm = MM_PER_UNIT.get(int(_number(detail.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
    if equivalent_mm:
        focal_px = equivalent_mm * math.hypot(width, height) / FULL_FRAME_DIAGONAL_MM
    elif focal_mm and pixels_per_unit and unit_mm:
        taken_width = _number(detail.get(ExifTags.Base.ExifImageWidth)) or width
        focal_px = focal_mm / unit_mm * pixels_per_unit * width / taken_width
    if focal_px is None:
        return None
    low, high = FOCAL_RATIO_RANGE
    return focal_px if low <= focal_px / max(width, height) <= high else None


def read_facts(image: Image.Image, *, keep_private: bool = False) -> PhotoFacts:
    """Read orientation, focal length and the fields worth reporting.

    Args:
        image: an opened photo; its pixels are not decoded.
        keep_private: also report position, owner and serial numbers.

    Returns:
        ``PhotoFacts``; a photo without EXIF, or with EXIF that cannot be parsed, gives orientation 1 and no focal length.
    """
    try:
        exif = image.getexif()
        detail = exif.get_ifd(ExifTags.IFD.Exif)
        position = exif.get_ifd(ExifTags.IFD.GPSInfo) if keep_private else {}
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # PIL's parser meets every kind of broken block
        return PhotoFacts(orientation=1, focal_px=None, body="")
    tags = ExifTags.Base
    orientation = exif.get(tags.Orientation, 1)
    focal_mm = _number(detail.get(tags.FocalLength))
    body = [_text(exif.get(tags.Make)), _text(exif.get(tags.Model)), _text(detail.get(tags.LensModel))]
    plain = {
        "make": body[0],
        "model": body[1],
        "lens": body[2],
        "focal_mm": focal_mm,
        "focal_35mm": _number(detail.get(tags.FocalLengthIn35mmFilm)),
        "exposure_s": _number(detail.get(tags.ExposureTime)),
        "f_number": _number(detail.get(tags.FNumber)),
        "iso": _reportable(detail.get(tags.ISOSpeedRatings)),
        "taken": _text(detail.get(tags.DateTimeOriginal)),
    }
    if keep_private:
        plain["gps"] = {ExifTags.GPSTAGS.get(key, str(key)): _reportable(value) for key, value in position.items()}
        private = {name: exif.get(tags[name]) for name in _PRIVATE_BASE} | {n: detail.get(tags[n]) for n in _PRIVATE_DETAIL}
        plain |= {name: _reportable(value) for name, value in private.items() if value is not None}
    key = "|".join([*body, f"{focal_mm:g}"]) if any(body) and focal_mm else "|".join(body) if any(body) else ""
    return PhotoFacts(
        orientation=orientation if orientation in range(1, 9) else 1,
        focal_px=focal_px_from_exif(detail, *image.size),
        body=key,
        plain={name: value for name, value in plain.items() if value not in (None, "", {})},
    )
