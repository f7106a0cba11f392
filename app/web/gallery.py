"""All reconstructions of a visitor as cards.

Input: ``JobView`` records. Output: HTML. Does not: open or delete; the page does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..server.records import JobView
from .draw_job import Address, thumbnail
from .words import STAGES, badge, plural, safe, size, when

EMPTY = '<p class="note">Nothing here yet. Drop some photos under <b>New scene</b>.</p>'


def draw_gallery(views: Sequence[JobView], address_of: Callable[[JobView], Address]) -> str:
    """Draw the cards, newest first.

    Args:
        address_of: job -> where its files are found.
    """
    if not views:
        return EMPTY
    return f'<ul class="cards">{"".join(_card(view, address_of(view)) for view in views)}</ul>'


def _card(view: JobView, address: Address) -> str:
    cover = view.folder / "cover.jpg"
    small = cover if cover.is_file() else next((t for name in view.photos[:8] if (t := thumbnail(view, name))), None)
    shown = f'<img src="{safe(address(small))}" alt="" loading="lazy">' if small else '<div class="nothing"></div>'
    name, key = safe(view.name), safe(view.id)
    return (
        f'<li class="card"><button type="button" class="open" data-do="open" data-key="{key}" aria-label="Open {name}">'
        f'<div class="frame">{shown}</div><span class="title">{name}</span></button>'
        f"<div>{badge(view)} <small>{_facts(view)}</small></div>"
        f'<button type="button" class="drop" data-do="delete" data-key="{key}" aria-label="Delete {name}" title="Delete"'
        f' data-sure="Delete “{name}” with all its files?">✕</button></li>'
    )


def _facts(view: JobView) -> str:
    facts = [when(view.created_s), plural(len(view.photos), "photo")]
    if view.state == "running" and view.stages:
        stage, event = list(view.stages.items())[-1]
        facts = [f"{STAGES.get(stage, (stage,))[0].lower()} {event.fraction:.0%}"]
    if view.state == "done":
        facts.append(size(view.bytes))
    return ", ".join(facts)
