"""Names under which uploads are stored: short, printable, harmless to pages, shells and disks.

Input: names as sent. Output: names of ours. Does not: touch files.
"""

from __future__ import annotations

from pathlib import Path

LONGEST_NAME = 80
FORBIDDEN = "<>:\"/\\|?*&'`$%#;{}[]^~!"
"""Letters that some system, page or shell takes for something else; they become low lines."""


def stored_name(name: str) -> str:
    """A short name without folders and ending, with nothing in it that a page, a shell or a disk could misread."""
    plain = "".join("_" if letter in FORBIDDEN or not letter.isprintable() else letter for letter in name)
    stem = Path(plain).stem.strip(" ._-") or "photo"
    while len(stem.encode()) > LONGEST_NAME:
        stem = stem[:-1]
    return stem


def unique(stem: str, used: set[str]) -> str:
    """A stem that is not among ``used``, which it joins; cases count as one, as on some disks."""
    made, number = stem, 1
    while made.casefold() in used:
        number += 1
        made = f"{stem}_{number}"
    used.add(made.casefold())
    return made
