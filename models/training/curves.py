"""Draw the log of a training stretch: one small chart per number, against minutes.

Input: ``log.jsonl`` as ``stretch`` writes it. Output: ``curves.svg`` beside it. Does not: judge, smooth, or need a
plotting library.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path

__all__ = ["draw_curves", "read_curves"]

WIDTH, HEIGHT, GAP, COLUMNS = 210, 120, 16, 4
COLORS = {"validation": "#2f6fb5", "training": "#c2671b"}
GREY = "#6b7683"
Curve = list[tuple[float, float]]


def read_curves(log: Path) -> dict[tuple[str, str], Curve]:
    """Read (minutes, value) of every number of a log, by ('validation' or 'training', name); a line cut off is left out."""
    curves: dict[tuple[str, str], Curve] = {}
    for line in log.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        kind = "validation" if "validation" in record else "training"
        numbers = record["validation"] if kind == "validation" else record
        for name, value in numbers.items():
            if name not in ("step", "minutes") and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault((kind, name), []).append((float(record["minutes"]), float(value)))
    return dict(sorted(curves.items(), key=lambda item: item[0][0] == "training"))


def draw_curves(log: Path) -> Path:
    """Write ``curves.svg`` beside a log and return its path."""
    curves = read_curves(log)
    rows = -(-len(curves) // COLUMNS)
    parts = []
    for place, ((kind, name), curve) in enumerate(curves.items()):
        left, top = (place % COLUMNS) * (WIDTH + GAP) + GAP, (place // COLUMNS) * (HEIGHT + GAP) + GAP
        parts.append(f"<g transform='translate({left} {top})'>{_panel(f'{kind}: {name}', curve, COLORS[kind])}</g>")
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    target = log.with_name("curves.svg")
    target.write_text(
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' font-size='11' fill='{GREY}' "
        f"font-family='sans-serif'><rect width='{width}' height='{height}' fill='#fff'/>{''.join(parts)}</svg>\n"
    )
    return target


def _panel(title: str, curve: Curve, color: str) -> str:
    """One chart: its title with the last value, its lowest and highest value, and the last minute."""
    minutes, values = [m for m, _ in curve], [v for _, v in curve]
    low, high, last = min(values), max(values), max(*minutes, 1e-9)
    span = (high - low) or 1.0
    inner = HEIGHT - 40
    points = [(m / last * WIDTH, 20 + inner * (high - v) / span) for m, v in curve]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2' fill='{color}'><title>{m:g} min: {v:.4g}</title></circle>"
        for (x, y), (m, v) in zip(points, curve, strict=True)
    )
    bottom = HEIGHT - 6
    return (
        f"<text y='10' fill='{color}'>{html.escape(title)} {values[-1]:.4g}</text>"
        f"<path d='M0 20V{20 + inner}H{WIDTH}' fill='none' stroke='{GREY}' stroke-opacity='.5'/>"
        f"<polyline points='{line}' fill='none' stroke='{color}'/>{dots}"
        f"<text y='{bottom}'>{low:.4g} to {high:.4g}</text><text x='{WIDTH}' y='{bottom}' text-anchor='end'>{last:g} min</text>"
    )
