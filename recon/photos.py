"""Photos in: from a folder or a list of files to ``Views`` that decode lazily at the working size.

Input: paths of JPEG and PNG files. Output: ``PhotoSet``: views in natural name order, and what was skipped and why.
Does not: hold pixels, apply colour profiles, or look for cameras.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .config import Holdout
from .errors import CannotReconstruct, UserError
from .exif import PhotoFacts, read_facts
from .records import View, Views

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG")
"""What Pillow may try. The MPO of cameras that append a second picture opens as JPEG; its first picture is read."""
PROBE_SIDE = 64
"""Every photo is decoded once at about this size, so that broken files are found before work begins."""
DRAFT_FACTOR = 2
"""JPEGs are decoded at no less than this multiple of the wanted size, then filtered down."""
HOW_TO_SHOOT = "Take 8 to 60 photos while walking around the scene, each overlapping the last by two thirds or more."

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright."""


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """The readable photos of a capture."""

    views: Views
    """In natural name order."""
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of every file that was given or found and is not among the views."""


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which img2 comes before img10."""
    return tuple((0, int(part)) if part.isdigit() else (1, part.casefold()) for part in re.split(r"([0-9]+)", name) if part)


def working_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Size whose longest side is ``long_side`` pixels; photos are never enlarged."""
    scale = min(1.0, long_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to 8-bit RGB; 16-bit grey keeps its high byte, transparent pixels become black."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("RGB")


def decode_photo(path: Path, orientation: int, width: int, height: int) -> np.ndarray:
    """Decode one photo at a size, turned upright; large JPEGs are decoded at a fraction of their size first.

    Args:
        path: JPEG or PNG file.
        orientation: EXIF orientation, 1 to 8.
        width: wanted width in pixels after orientation.
        height: wanted height in pixels after orientation.

    Returns:
        uint8 ``H W 3``, sRGB.

    Raises:
        OSError: the file is missing, broken or truncated.
    """
    size = (height, width) if orientation >= 5 else (width, height)
    with Image.open(path, formats=FORMATS) as image:
        image.draft("RGB", (size[0] * DRAFT_FACTOR, size[1] * DRAFT_FACTOR))
        pixels = _to_rgb(image)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if orientation in _TRANSPOSE:
        pixels = pixels.transpose(_TRANSPOSE[orientation])
    return np.array(pixels)


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """What opening a file once revealed."""

    facts: PhotoFacts | None = None
    width: int = 0
    height: int = 0
    digest: str = ""
    reason: str = ""


def _probe(path: Path, keep_private: bool) -> _Probe:
    """Decode a photo once, small; the reason says why it cannot be used."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            stored = image.size
            facts = read_facts(image, keep_private=keep_private)
    except FileNotFoundError:
        return _Probe(reason="there is no such file")
    except (PermissionError, IsADirectoryError) as error:
        return _Probe(reason=f"cannot be opened ({error.strerror})")
    except Image.DecompressionBombError:
        return _Probe(reason="has more than 178 million pixels; make it smaller")
    except (OSError, SyntaxError, ValueError, EOFError):
        return _Probe(reason="is not a JPEG or PNG image, or its header is damaged")
    width, height = stored[::-1] if facts.orientation >= 5 else stored
    if min(width, height) < 16:
        return _Probe(reason=f"is only {width}x{height} pixels")
    try:
        pixels = decode_photo(path, facts.orientation, *working_size(width, height, PROBE_SIDE))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return _Probe(reason=f"is damaged or cut off ({error})")
    digest = hashlib.blake2b(pixels.tobytes() + f"{width}x{height}".encode(), digest_size=16).hexdigest()
    return _Probe(facts=facts, width=width, height=height, digest=digest)


def _list_folder(folder: Path) -> list[Path]:
    try:
        found = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read ({error.strerror or error}).", "Check its permissions.") from error
    if not found:
        raise CannotReconstruct(f"The folder {folder} holds no files.", "Give the folder that directly holds the photos.")
    return found


def find_files(paths: Path | str | Sequence[Path | str]) -> dict[str, Path]:
    """Name -> path of every candidate file, in natural order of the names.

    Args:
        paths: a folder (its direct files are taken, hidden ones left out), a file, or a list of files and folders.

    Raises:
        UserError: a path does not exist or cannot be read.
        CannotReconstruct: nothing was given, or a folder is empty.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if not given:
        raise CannotReconstruct("No photos were given.", HOW_TO_SHOOT)
    missing = [str(p) for p in given if not p.exists()]
    if missing:
        raise UserError(f"There is no file or folder {', '.join(missing)}.", "Check the path.")
    files = [file for path in given for file in (_list_folder(path) if path.is_dir() else [path])]
    files = list(dict.fromkeys(Path(os.path.abspath(f)) for f in files))
    names = [f.name for f in files]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath([f.parent for f in files]))
        names = [f.relative_to(common).as_posix() for f in files]
    return dict(sorted(zip(names, files, strict=True), key=lambda pair: (natural_key(pair[0]), pair[0])))


def _decoder(path: Path, orientation: int) -> Callable[[int, int], np.ndarray]:
    return partial(decode_photo, path, orientation)


def open_photos(
    paths: Path | str | Sequence[Path | str], *, long_side: int, holdout: Holdout | None = None, keep_gps: bool = False
) -> PhotoSet:
    """Open every readable photo and say what was skipped.

    Args:
        paths: a folder, a file, or a list of them.
        long_side: working size, longest side in pixels; photos are never enlarged.
        holdout: which photos, counted among the readable ones, are kept for scoring; None keeps none.
        keep_gps: also keep position, owner and serial numbers of EXIF in ``View.exif``.

    Raises:
        UserError: a path cannot be read, or ``long_side`` is too small.
        CannotReconstruct: no photo is readable, or all show the same pixels.
    """
    if long_side < 32:
        raise UserError(f"A longest side of {long_side} pixels is too small to work with.", "Use 320 to 1600 pixels.")
    files = find_files(paths)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        probes = list(pool.map(partial(_probe, keep_private=keep_gps), files.values()))
    skipped = tuple((name, probe.reason) for name, probe in zip(files, probes, strict=True) if probe.reason)
    for name, reason in skipped:
        logger.info("skipped %s: %s", name, reason)
    readable = [(name, path, probe) for (name, path), probe in zip(files.items(), probes, strict=True) if probe.facts is not None]
    if not readable:
        shown = "; ".join(f"{name} {reason}" for name, reason in skipped[:5])
        more = f" (and {len(skipped) - 5} more files)" if len(skipped) > 5 else ""
        raise CannotReconstruct(f"No photo could be read: {shown}{more}.", "Give a folder of JPEG or PNG photos.")
    if len(readable) > 1 and len({probe.digest for _, _, probe in readable}) == 1:
        raise CannotReconstruct(f"All {len(readable)} photos are the same picture; depth needs different viewpoints.", HOW_TO_SHOOT)
    return PhotoSet(views=_make_views(readable, long_side, holdout), skipped=skipped)


def _make_views(readable: list[tuple[str, Path, _Probe]], long_side: int, holdout: Holdout | None) -> Views:
    items = []
    for index, (name, path, probe) in enumerate(readable):
        facts = probe.facts
        assert facts is not None
        width, height = working_size(probe.width, probe.height, long_side)
        items.append(
            View(
                path=path,
                name=name,
                original_width=probe.width,
                original_height=probe.height,
                width=width,
                height=height,
                decode=_decoder(path, facts.orientation),
                focal_px=facts.focal_px,
                camera_id=f"{facts.body or 'unknown'}|{probe.width}x{probe.height}",
                exif=facts.plain,
                holdout=holdout is not None and holdout.covers(index),
            )
        )
    return Views(tuple(items))
