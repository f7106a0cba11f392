"""A look at the photos before anything costs time, with advice.

Input: what probing found. Output: ``PhotoCheck``: a line per photo and advice in words.
Does not: decode, or refuse; a run goes on and the advice is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEW, MANY = 8, 300
BLURRED = 0.62
"""Blur from which a photo is called blurred whatever the others are like."""
BLURRED_BESIDE = 0.16
"""How much more blurred than the median of its capture a photo may be, and by then at least BLURRED_ALONE."""
BLURRED_ALONE = 0.45
DARK_MEAN, BRIGHT_MEAN = 0.10, 0.92
CLIPPED = 0.35
"""Share of pixels without information from which a photo is called too dark or too bright."""
FLAT = 0.04
"""Contrast (standard deviation over full scale) below which there is hardly anything to match."""
SAME_LEVELS = 1.6
"""Mean difference in grey levels, brightness aside, below which two small pictures are the same."""
SMALL_SIDE = 400
MIXED_EXPOSURE = 0.22
"""Spread of mean brightness over a capture that asks for advice."""


@dataclass(frozen=True, kw_only=True)
class PhotoFinding:
    """What was seen in one photo."""

    name: str
    width: int
    height: int
    kind: str
    """Format of the file."""
    camera: str
    """Make, model and lens by EXIF; empty when unknown."""
    focal_px: float | None
    blur: float
    """0 sharp, 1 without detail."""
    brightness: float
    """Mean in [0, 1]."""
    same_as: str
    """Name of an earlier photo that shows the same picture; empty when there is none."""
    words: tuple[str, ...]
    """What is wrong with it: "blurred", "too dark", ..."""


@dataclass(frozen=True, kw_only=True)
class PhotoCheck:
    """What was seen in a capture."""

    photos: tuple[PhotoFinding, ...]
    advice: tuple[str, ...]
    """Sentences, most important first."""

    @property
    def summary(self) -> str:
        """One line."""
        sizes = Counter((max(p.width, p.height), min(p.width, p.height)) for p in self.photos)
        common = sizes.most_common(1)[0][0] if sizes else (0, 0)
        others = "" if len(sizes) <= 1 else f" and {len(sizes) - 1} other sizes"
        bad = sum(bool(p.words) for p in self.photos)
        return f"{len(self.photos)} photos, {common[0]}x{common[1]}{others}, {bad} of them doubtful"


def check_photos(names: Sequence[str], probes: Sequence[Mapping[str, Any]], likeness: Sequence[np.ndarray]) -> PhotoCheck:
    """Judge the readable photos of a capture.

    Args:
        names: of the photos.
        probes: per photo, what ``capture.child`` answered.
        likeness: per photo, uint8 ``24 32``, the picture small and grey.
    """
    same = find_copies(names, likeness)
    median = float(np.median([p["blur"] for p in probes])) if probes else 0.0
    photos = tuple(
        PhotoFinding(
            name=name,
            width=probe["width"],
            height=probe["height"],
            kind=probe["kind"],
            camera=probe["facts"]["body"].replace("|", " ").strip(),
            focal_px=probe["facts"]["focal_px"],
            blur=round(probe["blur"], 3),
            brightness=round(probe["exposure"]["mean"], 3),
            same_as=same.get(name, ""),
            words=tuple(_words(probe, median, same.get(name, ""))),
        )
        for name, probe in zip(names, probes, strict=True)
    )
    return PhotoCheck(photos=photos, advice=tuple(_advice(photos)))


def find_copies(names: Sequence[str], likeness: Sequence[np.ndarray]) -> dict[str, str]:
    """Photos that show the same picture as an earlier one: name -> name of the first."""
    if not names:
        return {}
    flat = np.stack([one.astype(np.float32).reshape(-1) for one in likeness])
    flat -= flat.mean(axis=1, keepdims=True)
    found: dict[str, str] = {}
    for i in range(1, len(names)):
        difference = np.abs(flat[:i] - flat[i]).mean(axis=1)
        nearest = int(difference.argmin())
        if difference[nearest] < SAME_LEVELS and flat[i].std() > 2 * SAME_LEVELS:
            found[names[i]] = found.get(names[nearest], names[nearest])
    return found


def _words(probe: Mapping[str, Any], median_blur: float, same_as: str) -> list[str]:
    exposure, words = probe["exposure"], []
    if probe["blur"] >= BLURRED or probe["blur"] >= max(BLURRED_ALONE, median_blur + BLURRED_BESIDE):
        words.append("blurred")
    if exposure["mean"] < DARK_MEAN or exposure["dark"] > CLIPPED:
        words.append("too dark")
    if exposure["mean"] > BRIGHT_MEAN or exposure["bright"] > CLIPPED:
        words.append("too bright")
    if exposure["contrast"] < FLAT:
        words.append("without detail")
    if max(probe["width"], probe["height"]) < SMALL_SIDE:
        words.append("small")
    if same_as:
        words.append("a copy")
    return words


def _advice(photos: Sequence[PhotoFinding]) -> list[str]:
    """Sentences for the whole capture."""
    said = []
    if len(photos) < FEW:
        said.append(f"{len(photos)} photos are few: 8 to 60 that overlap by two thirds work best.")
    if len(photos) > MANY:
        said.append(f"{len(photos)} photos are many: every second or third would do and saves time.")
    remedies = {
        "blurred": "hold the camera still, use more light, or leave them out",
        "too dark": "take them again with more light or a longer exposure",
        "too bright": "take them again with a shorter exposure",
        "without detail": "plain walls, sky and fog give nothing to match: turn towards things with texture",
        "small": "give the originals, not copies shrunk for sending",
        "a copy": "copies add nothing: move between photos",
    }
    for word, remedy in remedies.items():
        mine = [p.name for p in photos if word in p.words]
        if mine:
            what = {"a copy": "a copy of another photo"}.get(word, word)
            verb = "is" if len(mine) == 1 else "are"
            said.append(f"{len(mine)} of {len(photos)} photos {verb} {what} ({_some(mine)}): {remedy}.")
    cameras = Counter((p.camera, max(p.width, p.height), min(p.width, p.height)) for p in photos)
    if len(cameras) > 1:
        said.append(
            f"{len(cameras)} different cameras, zoom settings or sizes: that works, but one camera and one zoom work better."
        )
    if photos and not any(p.focal_px for p in photos):
        said.append(
            "No photo says its focal length (EXIF is missing, as after sending or editing): originals find cameras more surely."
        )
    if len(photos) > 2 and float(np.std([p.brightness for p in photos])) > MIXED_EXPOSURE:
        said.append("Brightness differs much between photos: lock the exposure if the camera can.")
    return said


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
