"""What can be taken home from a finished scene: every file with its size and what opens it.

Input: ``JobView``. Output: HTML with links and buttons. Does not: make files; ``Jobs.export`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from recon.errors import UserError

from ..server.exports import EXPORTS, ExportKind
from ..server.records import JobView
from .draw_job import Address
from .words import safe, size

FIRST = ("all", "ply", "html", "video", "report")
"""What most people want, on top."""
GROUPS = (
    ("The usual", FIRST),
    ("Gaussians for other programs", ("spz", "sog", "compressed-ply", "splat", "glb")),
    ("Meshes and points", ("mesh-glb", "mesh-obj", "mesh-stl", "points-ply")),
    ("Cameras and pictures", ("cameras", "transforms", "colmap", "preview")),
)


def made(view: JobView, kind: ExportKind) -> Path | None:
    """The file, if it stands there already."""
    places = ([view.scene / kind.file] if view.scene is not None else []) + [view.folder / "exports" / kind.file]
    return next((place for place in places if place.is_file()), None)


def draw_take_home(view: JobView, address: Address, busy: Collection[str], failed: Mapping[str, UserError]) -> str:
    """Draw the table.

    Args:
        busy: formats that are being made.
        failed: formats that could not be made, with the reason.
    """
    if view.scene is None:
        return ""
    known = [name for _, names in GROUPS for name in names]
    groups = [*GROUPS, ("More", tuple(name for name in EXPORTS if name not in known))]
    blocks = []
    for title, names in groups:
        rows = "".join(
            _row(name, EXPORTS[name], view, address, busy, failed) for name in names if name in EXPORTS and _possible(name, view)
        )
        blocks.append(f"<h3>{title}</h3><ul class='take'>{rows}</ul>" if rows else "")
    return "<h2>Take home</h2>" + "".join(blocks)


def _possible(name: str, view: JobView) -> bool:
    """Files that a run writes itself are there or not; a run without video has none."""
    return not EXPORTS[name].from_run or made(view, EXPORTS[name]) is not None


def _row(
    name: str, kind: ExportKind, view: JobView, address: Address, busy: Collection[str], failed: Mapping[str, UserError]
) -> str:
    path = made(view, kind)
    if name in busy:
        shown, act = "", '<span class="making" role="status">being made …</span>'
    elif path is not None and name != "all":
        shown = size(path.stat().st_size)
        act = f'<a class="get" href="{safe(address(path))}" download="{safe(kind.file)}" data-key="{name}">Download</a>'
        if name == "report":
            act = f'<a class="get" href="{safe(address(path))}?inline=1" target="_blank" rel="noopener" data-key="{name}">Open</a>'
    else:  # the zip of everything is made anew each time: more may have been made since
        shown = "not made yet" if path is None else size(path.stat().st_size)
        act = f'<button type="button" class="get" data-do="make" data-key="{name}">Make</button>'
        if path is not None:
            act += f' <a class="get" href="{safe(address(path))}" download="{safe(kind.file)}" data-key="{name}">Download</a>'
    why = f'<p class="bad">{safe(failed[name])}</p>' if name in failed else ""
    return (
        f"<li><div class='what'><b>{safe(kind.title)}</b> <code>{safe(kind.file)}</code>{why}</div>"
        f"<div class='opens'>{safe(kind.opens)}</div><div class='size'>{shown}</div><div class='do'>{act}</div></li>"
    )
