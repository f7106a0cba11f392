"""The parts of a report's page about what came in: the photos, what the user knew of them, and what was expected of the run.

Input: the dictionary of report.json. Output: HTML text. Does not: draw the rest of the page.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

MOST_NAMES = 6


def capture_sections(report: Mapping) -> list[str]:
    """Photos, what was known, and the plan; a section without content is left out."""
    return [part for part in (_photos(report), _known(report), _plan(report)) if part]


def table(rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table of text."""
    lines = [("th", head)] if head else []
    lines += [("td", row) for row in rows]
    drawn = "".join("<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>" for tag, cells in lines)
    return f"<table>{drawn}</table>"


def _photos(report: Mapping) -> str:
    check = (report.get("photos") or {}).get("check")
    if not check:
        return ""
    doubtful = [photo for photo in check["photos"] if photo["words"]]
    rows = [
        (p["name"], f"{p['width']}x{p['height']}", f"{p['blur']:.2f}", f"{p['brightness']:.2f}", ", ".join(p["words"]))
        for p in doubtful
    ]
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in check["advice"])
    shown = table(rows, ("photo", "size", "blur", "brightness", "doubts")) if rows else ""
    videos = [
        (v["name"], f"{v['kept']} of {v['frames']} frames", f"{v['seconds']:.0f} s") for v in report["photos"].get("videos") or []
    ]
    frames = table(videos, ("video", "kept", "length")) if videos else ""
    return "<h2>Photos</h2>" + said + shown + frames if said or shown or frames else ""


def _known(report: Mapping) -> str:
    choices = report.get("choices") or {}
    capture, scale, rows = choices.get("capture") or {}, choices.get("scale"), []
    if capture.get("masked"):
        rows.append(("masked photos", f"{len(capture['masked'])}: {_names(capture['masked'])}"))
    if capture.get("intrinsics"):
        lenses = {", ".join(f"{value:g}" for value in lens) for lens in capture["intrinsics"].values()}
        rows.append(("known lenses (fx, fy, cx, cy, k1, k2, p1, p2)", " | ".join(sorted(lenses)[:3])))
    if capture.get("one_camera_said"):
        rows.append(("one camera for all photos", "said by the user"))
    if scale:
        first, second = scale["from"]
        factor = f"{scale['metres_per_unit_before']:.4g}"
        rows.append(("scale", f"{first} to {second} is {scale['metres']:g} m (factor {factor}); all lengths are metres"))
    return "<h2>What was known</h2>" + table(rows) if rows else ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _plan(report: Mapping) -> str:
    plan = report.get("plan")
    if not plan:
        return ""

    def seconds(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.1f} s"

    rows = [(name, seconds(pair["estimated"]), seconds(pair["actual"])) for name, pair in plan["seconds"].items()]
    rows.append(("together", seconds(plan["total_s"]["estimated"]), seconds(plan["total_s"]["actual"])))
    memory = plan["memory_bytes"]
    if memory["actual"]:
        rows.append(("memory", f"{memory['estimated'] / 1e9:.2f} GB", f"{memory['actual'] / 1e9:.2f} GB"))
    found = (report.get("stages") or {}).get("from_cache") or []
    note = (
        f"<p>Found in the cache: {html.escape(', '.join(found))}; their real seconds are those of the run that made them.</p>"
        if found
        else ""
    )
    chunks = "<p>Gaussians were made in chunks to keep to the memory allowed.</p>" if plan.get("chunked") else ""
    return "<h2>Expected and real</h2>" + table(rows, ("", "expected", "real")) + chunks + note
