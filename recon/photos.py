"""Photos in: from whatever a person gives to ``Views`` that decode lazily at the working size.

Input: folders, files, patterns, lists, archives, videos. Output: ``PhotoSet``: views in natural name order, what was skipped and
why, and what the photos look like. Does not: hold pixels, or look for cameras.

Every file is decoded once in a process of its own, within limits of time and memory, before it is decoded here.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .capture.check import PhotoCheck, check_photos
from .capture.choices import CaptureConfig
from .capture.decode import READABLE, decode_photo
from .capture.decoder import probe_all
from .capture.files import HOW_TO_SHOOT
from .capture.intake import take_in
from .capture.known import read_intrinsics
from .capture.masks import check_masks, combined, find_masks
from .capture.measures import LIKENESS_SIZE
from .capture.names import natural_key
from .capture.photo_size import working_size
from .config import Holdout
from .errors import CannotReconstruct, UserError
from .records import View, Views
from .resume.digests import path_digest

__all__ = ["PhotoSet", "decode_photo", "natural_key", "open_photos", "working_size"]

logger = logging.getLogger(__name__)

MEASURED_SIDE = 512
"""Every photo is decoded once at about this size, so that broken files are found, and photos judged, before work begins."""


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """The readable photos of a capture."""

    views: Views
    """In natural name order."""
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of every file that was given or found and is not among the views."""
    check: PhotoCheck
    """What the photos look like, with advice."""
    videos: list[dict[str, Any]] = field(default_factory=list)
    """Videos that frames were taken from."""


def open_photos(
    paths: Path | str | Sequence[Path | str],
    *,
    long_side: int,
    holdout: Holdout | None = None,
    keep_gps: bool = False,
    capture: CaptureConfig | None = None,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
) -> PhotoSet:
    """Open every readable photo and say what was skipped.

    Args:
        paths: folders, photos, patterns, lists (.txt), archives (.zip) and videos, or one of them.
        long_side: working size, longest side in pixels; photos are never enlarged.
        holdout: which photos, counted among the readable ones, are kept for scoring; None keeps none.
        keep_gps: also keep position, owner and serial numbers of EXIF in ``View.exif``.
        capture: how videos are cut, masks, and what is known of the lens.
        check: called often; may raise to stop.
        tell: told what is being done.

    Raises:
        UserError: a path cannot be read, or ``long_side`` is too small.
        CannotReconstruct: no photo is readable, or all show the same pixels.
    """
    if long_side < 32:
        raise UserError(f"A longest side of {long_side} pixels is too small to work with.", "Use 320 to 1600 pixels.")
    chosen = capture or CaptureConfig()
    intake = take_in(paths, chosen, check=check, tell=tell)
    tell(f"looking at {len(intake.photos)} files")
    probes = probe_all(list(intake.photos.values()), keep_private=keep_gps, side=MEASURED_SIDE, check=check)
    refused = tuple((name, probe["reason"]) for name, probe in zip(intake.photos, probes, strict=True) if "reason" in probe)
    skipped = intake.skipped + refused
    for name, reason in skipped:
        logger.info("skipped %s: %s", name, reason)
    readable = [(n, path, probe) for (n, path), probe in zip(intake.photos.items(), probes, strict=True) if "reason" not in probe]
    if not readable:
        shown = "; ".join(f"{name} {reason}" for name, reason in skipped[:5])
        more = f" (and {len(skipped) - 5} more files)" if len(skipped) > 5 else ""
        raise CannotReconstruct(f"No photo could be read: {shown}{more}.", f"Give {READABLE} photos, or a video.")
    if len(readable) > 1 and len({probe["digest"] for _, _, probe in readable}) == 1:
        raise CannotReconstruct(f"All {len(readable)} photos are the same picture; depth needs different viewpoints.", HOW_TO_SHOOT)
    views = _with_knowledge(_make_views(readable, long_side, holdout, chosen), chosen)
    return PhotoSet(views=views, skipped=skipped, check=_judged(readable), videos=intake.videos)


def _judged(readable: Sequence[tuple[str, Path, dict[str, Any]]]) -> PhotoCheck:
    width, height = LIKENESS_SIZE
    likeness = [np.frombuffer(base64.b64decode(p["likeness"]), np.uint8).reshape(height, width) for _, _, p in readable]
    return check_photos([name for name, _, _ in readable], [probe for _, _, probe in readable], likeness)


def _decode(path: Path, name: str, orientation: int, width: int, height: int) -> np.ndarray:
    """Decode a photo that could be decoded when the run began.

    Raises:
        UserError: the file has gone or changed since.
    """
    try:
        return decode_photo(path, orientation, width, height)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"The photo {name} can no longer be read ({reason}).", "Bring the disk or the file back and run the same command again."
        ) from error


def _make_views(
    readable: list[tuple[str, Path, dict[str, Any]]], long_side: int, holdout: Holdout | None, chosen: CaptureConfig
) -> Views:
    names = [name for name, _, _ in readable]
    masks = find_masks(Path(chosen.masks).expanduser(), names) if chosen.masks else {}
    check_masks(masks, {name: (probe["width"], probe["height"]) for name, _, probe in readable})
    items = []
    for index, (name, path, probe) in enumerate(readable):
        facts = probe["facts"]
        width, height = working_size(probe["width"], probe["height"], long_side)
        body = "one" if chosen.shared_camera else facts["body"] or "unknown"
        items.append(
            View(
                path=path,
                name=name,
                original_width=probe["width"],
                original_height=probe["height"],
                width=width,
                height=height,
                decode=partial(_decode, path, name, facts["orientation"]),
                focal_px=facts["focal_px"],
                camera_id=f"{body}|{probe['width']}x{probe['height']}",
                lens_is_shared=chosen.shared_camera,
                exif=facts["plain"],
                holdout=holdout is not None and holdout.covers(index),
                content=probe["content"] + (path_digest(str(masks[name])) if name in masks else ""),
                read_mask=combined(
                    path, facts["orientation"], probe["opaque"] is not None and probe["opaque"] < 1.0, masks.get(name)
                ),
            )
        )
    return Views(tuple(items))


def _with_knowledge(views: Views, chosen: CaptureConfig) -> Views:
    """Put what is known of the lens into the views; photos with the same lens share a camera."""
    if chosen.intrinsics is None:
        return views
    sizes = [(view.original_width, view.original_height) for view in views]
    known = read_intrinsics(chosen.intrinsics, views.names, sizes)
    items = []
    for view, lens in zip(views, known, strict=True):
        if lens is None:
            items.append(view)
            continue
        key = f"known {','.join(f'{value:g}' for value in lens)}|{view.original_width}x{view.original_height}"
        items.append(replace(view, intrinsics=lens, focal_px=(lens[0] * lens[1]) ** 0.5, camera_id=key))
    return Views(tuple(items))
