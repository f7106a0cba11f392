"""One reconstruction as HTML: its head, its stages, what went wrong, its photos, what came out.

Input: ``JobView``. Output: HTML, and the data of the plot of cameras. Does not: ask the server for anything but addresses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..server.records import JobView, StageView
from ..server.settings import PRESETS
from .words import STAGES, badge, duration, listing, plural, safe, trouble, when

Address = Callable[[Path], str]
"""File in a job's folder -> address on the page's own port."""
MOST_PHOTOS = 80


def draw_head(view: JobView) -> str:
    """Name, state, and one line about it."""
    line = f"{plural(len(view.photos), 'photo')}, {safe(view.settings.get('preset', ''))}, {when(view.created_s)}"
    if view.started_s is not None and view.finished_s is not None:
        line += f", took {duration(view.finished_s - view.started_s)}"
    if view.resumed and not view.over:
        line += "; it goes on where it was when the server had stopped"
    return f'<div class="head" role="status"><h2>{safe(view.name)}</h2>{badge(view)}<p>{line}</p></div>'


def expected_stages(view: JobView) -> list[str]:
    """The stages this run will go through, as far as its settings tell, and those it did."""
    preset = PRESETS[view.settings["preset"]][1] if view.settings.get("preset") in PRESETS else {}
    polish = view.settings.get("polish_s")
    polished = bool(preset.get("polish_s") if polish is None else polish)
    skip = {"polish"} if not polished else set()
    if not view.settings.get("holdout"):
        skip.add("score")
    return [stage for stage in STAGES if stage in view.stages or (stage not in skip and not view.over)]


def draw_stages(view: JobView) -> str:
    """What is done, what runs and how far it is, what comes."""
    if view.state == "waiting":
        place, ahead = max(view.position, 1), max(view.position - 1, 0)
        before = f"{plural(ahead, 'other reconstruction')} will come first." if ahead else "It is next."
        return f'<p class="queue" role="status"><b>Number {place} in the queue.</b> {before} You may close this page.</p>'
    rows = "".join(_stage(stage, view) for stage in expected_stages(view))
    shown = f'<ol class="stages">{rows}</ol>' + listing(view.advice)
    return f'<details class="strip"><summary>How it went</summary>{shown}</details>' if view.state == "done" else shown


def _stage(stage: str, view: JobView) -> str:
    """One stage: done, found in the cache, running, broken off, or to come."""
    name, meaning = STAGES.get(stage, (stage, ""))
    order, reached = list(STAGES), list(view.stages)
    if stage not in view.stages:
        passed = any(later in view.stages for later in order[order.index(stage) :])
        return _row("over", "✓", name, "<small>nothing to do</small>") if passed else _row("to-come", "", name, _small(meaning))
    event = view.stages[stage]
    if view.state == "done" or stage != reached[-1]:
        return _row("over", "✓", name, _small(duration(event.seconds)))
    if view.over:
        return _row("broke", "!", name, _small(f"{view.state} here"))
    share = min(max(event.fraction, 0.0), 1.0)
    bar = f'<progress max="1" value="{share:.3f}" aria-label="{name}">{share:.0%}</progress>'
    return _row("now", "", name, f'<span class="share">{share:.0%}{_left(event)}</span>{bar}{_small(event.message or meaning)}')


def _row(kind: str, mark: str, name: str, rest: str) -> str:
    return f'<li class="{kind}"><span class="mark" aria-hidden="true">{mark}</span><div><b>{safe(name)}</b> {rest}</div></li>'


def _small(text: str) -> str:
    return f"<small>{safe(text)}</small>"


def _left(event: StageView) -> str:
    """The rest of the stage by its pace so far; empty while unknown."""
    if event.fraction <= 0.02 or event.fraction >= 1 or event.seconds < 1:
        return ""
    return f", {duration(event.seconds * (1 - event.fraction) / event.fraction)} left"


def draw_outcome(view: JobView, address: Address) -> str:
    """Why it failed and what to do; or what came out, how good it is, and what to know about it."""
    if view.state == "failed" or (view.state == "stopped" and view.reason):
        return trouble(view.reason, view.remedy)
    if view.state == "stopped":
        return '<p class="note">Stopped. What was finished is kept: it goes on from there when you continue it.</p>'
    if view.state != "done" or view.report is None:
        return ""
    report, lines = view.report, []
    counts, quality = report.get("counts") or {}, report.get("quality") or {}
    if counts:
        used = f"{counts.get('used', 0)} of {plural(len(view.photos), 'photo')}"
        lines.append(f"<b>{plural(counts.get('gaussians', 0), 'Gaussian')}</b> from {used}")
    if quality.get("n_scored"):
        lines.append(f"{plural(quality['n_scored'], 'photo')} kept aside: <b>{quality['psnr_mean']:.1f} dB</b>")
    return (
        f'<p class="result">{"; ".join(lines)}.</p>' + listing(report.get("warnings") or (), "warnings") + _pictures(view, address)
    )


def _pictures(view: JobView, address: Address) -> str:
    """Preview and video of the result, folded: they are large."""
    if view.scene is None:
        return ""
    video, preview, parts = view.scene / "orbit.mp4", view.scene / "preview.png", []
    if video.is_file():
        parts.append(f'<video controls loop muted playsinline preload="none" src="{safe(address(video))}"></video>')
    if preview.is_file():
        shown = f'<img loading="lazy" src="{safe(address(preview))}" alt="Photo, rendering and depth side by side">'
        parts.append(f"<figure>{shown}<figcaption>Photo, rendering, depth</figcaption></figure>")
    return f'<details class="pictures"><summary>Video and pictures</summary>{"".join(parts)}</details>' if parts else ""


def draw_photos(view: JobView, address: Address) -> str:
    """The job's photos; those that cause trouble first and marked."""
    marked = [name for name in view.photos if name in view.offending or view.photo_words.get(name)]
    others = [name for name in view.photos if name not in marked]
    cards = "".join(_photo(view, name, address) for name in [*marked, *others][:MOST_PHOTOS])
    rest = len(view.photos) - MOST_PHOTOS
    more = f"<p>and {plural(rest, 'photo')} more</p>" if rest > 0 else ""
    title = f"Photos: {len(marked)} of {len(view.photos)} with trouble" if marked else f"Photos ({len(view.photos)})"
    shown = f'<ul class="thumbs small">{cards}</ul>{more}'
    return f'<details class="strip"{" open" if marked else ""}><summary>{title}</summary>{shown}</details>'


def _photo(view: JobView, name: str, address: Address) -> str:
    words = view.photo_words.get(name) or (("trouble",) if name in view.offending else ())
    small = thumbnail(view, name)
    shown = f'<img src="{safe(address(small))}" alt="{safe(name)}" loading="lazy">' if small else '<div class="nothing"></div>'
    marks = "".join(f'<span class="flag">{safe(word)}</span>' for word in words)
    kind, name = " lost" if name in view.offending else "", safe(name)
    return f'<li class="photo{kind}"><div class="frame">{shown}</div><div class="name" title="{name}">{name}</div>{marks}</li>'


def thumbnail(view: JobView, name: str) -> Path | None:
    """The small picture of a stored photo."""
    path = view.folder / "thumbs" / f"{name}.jpg"
    return path if path.is_file() else None


def plot_data(cameras: Path) -> str:
    """Early cameras and points as the plot wants them: y up, in the middle, about one unit in size; empty when there are none."""
    given = json.loads(cameras.read_text(encoding="utf-8"))
    frames = [frame for frame in given.get("frames", ()) if frame.get("registered", True)]
    points = [point for point in given.get("points", ()) if all(map(math.isfinite, point[:3]))]
    centres = [[row[3] for row in frame["T_world_cam"][:3]] for frame in frames]
    if not centres:
        return ""
    core = [point[:3] for point in points[:: max(1, len(points) // 500)]] or centres
    middle = [(a + b) / 2 for a, b in zip(_median(centres), _median(core), strict=True)]
    reach = max(_reach(middle, centres), _reach(middle, core)) or 1.0

    def moved(place: list[float]) -> list[float]:
        x, y, z = ((p - m) / reach for p, m in zip(place, middle, strict=True))
        return [round(x, 4), round(-y, 4), round(-z, 4)]  # the plot's y points up

    dots = [[*moved(point[:3]), *map(int, point[3:6])] for point in points if math.dist(middle, point[:3]) < 3 * reach]
    shown = [[moved(corner) for corner in _frustum(frame, 0.11 * reach)] for frame in frames]
    return json.dumps({"points": dots, "cameras": shown}, separators=(",", ":"))


def _median(places: list[list[float]]) -> list[float]:
    return [sorted(axis)[len(axis) // 2] for axis in zip(*places, strict=True)]


def _reach(middle: list[float], places: list[list[float]]) -> float:
    """How far most places lie from the middle; one that is lost far away does not count."""
    return sorted(math.dist(middle, place) for place in places)[int(0.92 * (len(places) - 1))]


def _frustum(frame: Mapping[str, Any], length: float) -> list[list[float]]:
    """Centre and four corners of a camera's picture, ``length`` in front of it, in the world."""
    T, K = frame["T_world_cam"], frame["K"]
    corners = [[0.0, 0.0, 0.0]]
    for u, v in ((0, 0), (frame["width"], 0), (frame["width"], frame["height"]), (0, frame["height"])):
        corners.append([(u - K[0][2]) / K[0][0] * length, (v - K[1][2]) / K[1][1] * length, length])
    return [[sum(T[i][j] * corner[j] for j in range(3)) + T[i][3] for i in range(3)] for corner in corners]
