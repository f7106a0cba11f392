"""EXIF facts of an opened picture as plain JSON.

Input: a PIL image. Output: a dictionary. Does not: interpret tags; ``recon.exif`` does.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from ...exif import PhotoFacts, read_facts

LONGEST_TEXT = 200
"""EXIF texts are cut to this many letters: a report is no place for a megabyte of comment."""


def facts_of(image: Image.Image, *, keep_private: bool) -> dict[str, Any]:
    """Read the facts; hostile EXIF gives none."""
    try:
        facts = read_facts(image, keep_private=keep_private)
    except Exception:  # PIL's parser meets every kind of broken block; a photo without EXIF is still a photo
        facts = PhotoFacts(orientation=1, focal_px=None, body="")
    return {
        "orientation": facts.orientation,
        "focal_px": facts.focal_px,
        "body": short(facts.body),
        "plain": {short(str(key)): short(value) for key, value in facts.plain.items()},
    }


def short(value: Any) -> Any:
    """Cut long texts and lists, replace what cannot be printed."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else " " for letter in value[:LONGEST_TEXT])
    if isinstance(value, dict):
        return {short(str(key)): short(item) for key, item in list(value.items())[:64]}
    if isinstance(value, list | tuple):
        return [short(item) for item in value[:64]]
    return value
