"""The photos before a start: what was dropped, what was understood of it, what was turned or taken out.

Input: uploaded files and ``Inspection``. Output: ``Tray`` and its HTML. Does not: decode or look at photos itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..server.records import Inspection, PhotoLook
from .words import listing, plural, safe, size, trouble

HINT = """<div class="hint"><p><b>8 to 60 photos</b> of one place or thing, a zip of them, or a short video.</p><ul>
<li>Walk around it: each photo overlaps the last by two thirds.</li><li>Things and light hold still; no mirrors, no bare walls.</li>
</ul></div>"""


@dataclass(frozen=True, kw_only=True)
class Tray:
    """What is on the table."""

    looks: tuple[PhotoLook, ...] = ()
    """Photos that can be used. A zip or a video has become its pictures here: the server unpacks it when it looks."""
    lost: tuple[PhotoLook, ...] = ()
    """What cannot be used, shown until it is taken away."""
    turns: Mapping[Path, int] = field(default_factory=dict)
    """Quarter turns clockwise."""
    inspection: Inspection = field(default_factory=Inspection)
    """The latest: advice and estimates."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What a run is given."""
        return tuple(look.path for look in self.looks)

    def looked(self, found: Inspection) -> Tray:
        """Take in what was understood of ``files`` and of what came with them."""
        used = tuple(look for look in found.photos if not look.skipped)
        known = {key_of(look) for look in self.lost}
        lost = self.lost + tuple(look for look in found.photos if look.skipped and key_of(look) not in known)
        turns = {path: turn for path, turn in self.turns.items() if path in {look.path for look in used}}
        return Tray(looks=used, lost=lost, turns=turns, inspection=found)

    def without(self, key: str) -> Tray:
        """Take one thing away."""
        looks = tuple(look for look in self.looks if key_of(look) != key)
        turns = {path: turn for path, turn in self.turns.items() if path in {look.path for look in looks}}
        return replace(self, looks=looks, lost=tuple(look for look in self.lost if key_of(look) != key), turns=turns)

    def turned(self, key: str, quarter: int) -> Tray:
        """Turn a photo clockwise."""
        look = next((look for look in self.looks if key_of(look) == key), None)
        if look is None:
            return self
        turn = (self.turns.get(look.path, 0) + quarter) % 4
        rest = {path: value for path, value in self.turns.items() if path != look.path}
        return replace(self, turns={**rest, look.path: turn} if turn else rest)


def key_of(look: PhotoLook) -> str:
    """A short name of a photo for the buttons; tells nothing about where it lies."""
    return hashlib.sha256(f"{look.path}\0{look.name}".encode()).hexdigest()[:16]


def draw_tray(tray: Tray, picture: Callable[[Path], str]) -> str:
    """Draw thumbnails with what was understood.

    Args:
        picture: thumbnail -> address.
    """
    if not tray.looks and not tray.lost:
        return HINT
    found = tray.inspection
    cards = "".join(_card(look, tray.turns.get(look.path, 0), picture) for look in (*tray.looks, *tray.lost))
    return (
        f'<p class="count" role="status">{_count(tray)}</p>'
        + (trouble(found.reason, found.remedy) if found.reason else "")
        + listing(found.advice)
        + f'<ul class="thumbs">{cards}</ul>'
    )


def draw_pending(files: Sequence[Path]) -> str:
    """Draw while files are being looked at."""
    total = sum(path.stat().st_size for path in files if path.is_file())
    return f'<p class="count busy" role="status">Looking at {plural(len(files), "file")}, {size(total)} …</p>'


def _count(tray: Tray) -> str:
    doubtful = sum(bool(look.words) for look in tray.looks)
    parts = [f"<b>{plural(len(tray.looks), 'photo')}</b>"]
    parts += [f"{len(tray.lost)} cannot be used"] if tray.lost else []
    parts += [f"{doubtful} doubtful"] if doubtful else []
    return ", ".join(parts)


def _button(act: str, look: PhotoLook, text: str, label: str) -> str:
    said = f'aria-label="{safe(label)}" title="{safe(label)}"'
    return f'<button type="button" data-do="{act}" data-key="{key_of(look)}" {said}>{text}</button>'


def _card(look: PhotoLook, turn: int, picture: Callable[[Path], str]) -> str:
    """One photo: picture, name, camera and size, what is wrong, buttons."""
    name, marks = safe(look.name), ""
    if look.skipped:
        shown = '<div class="nothing" aria-hidden="true">×</div>'
        facts = f'<span class="bad">Cannot be used: {safe(look.skipped)}</span>'
    else:
        source = safe(picture(look.thumbnail)) if look.thumbnail is not None else ""
        shown = f'<img src="{source}" alt="{name}" loading="lazy" class="turn{turn}">' if source else '<div class="nothing"></div>'
        width, height = (look.height, look.width) if turn % 2 else (look.width, look.height)
        facts = f"{width} × {height}" + (f"<br>{safe(_camera(look.camera))}" if look.camera else "")
        marks = "".join(f'<span class="flag">{safe(_word(word, look))}</span>' for word in look.words)
    acts = _button("remove", look, "✕", f"Remove {look.name}")
    if not look.skipped:
        acts = _button("left", look, "↺", f"Turn {look.name} left") + _button("right", look, "↻", f"Turn {look.name} right") + acts
    return (
        f'<li class="photo{" lost" if look.skipped else ""}"><div class="frame">{shown}<div class="marks">{marks}</div></div>'
        f'<div class="name" title="{name}">{name}</div><div class="facts">{facts}</div><div class="acts">{acts}</div></li>'
    )


def _camera(text: str) -> str:
    """Make, model and focal length as a person says them: no make twice, millimetres behind the number."""
    words = text.split()
    if len(words) > 1 and words[0].lower() == words[1].lower():
        words = words[1:]
    if len(words) > 1 and words[-1].replace(".", "", 1).isdigit():
        words[-1] = f"{float(words[-1]):.3g} mm"
    return " ".join(words)


def _word(word: str, look: PhotoLook) -> str:
    """Say of which photo a copy is one."""
    return f"copy of {look.same_as}" if look.same_as and "copy" in word else word
