"""Small charts as SVG text.

Input: numbers. Output: SVG that stands alone inside a page. Does not: use scripts, fonts or anything from outside.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from ..records import Cameras

BLUE, GREY = "#2f6fb5", "#8b97a5"


def curve(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str, *, width: int = 520, height: int = 220) -> str:
    """A line through points, with the ends of both axes written out."""
    low, high = min(y), max(y)
    span_x, span_y = max(x) - min(x) or 1.0, high - low or 1.0
    left, top, inner_w, inner_h = 56, 24, width - 76, height - 64
    points = " ".join(
        f"{left + inner_w * (a - min(x)) / span_x:.1f},{top + inner_h * (1 - (b - low) / span_y):.1f}"
        for a, b in zip(x, y, strict=True)
    )
    text = f"font-size='11' fill='{GREY}'"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='{html.escape(y_name)}'>"
        f"<path d='M{left} {top}V{top + inner_h}H{left + inner_w}' fill='none' stroke='{GREY}'/>"
        f"<polyline points='{points}' fill='none' stroke='{BLUE}' stroke-width='2'/>"
        f"<text x='{left}' y='14' {text}>{html.escape(y_name)}</text>"
        f"<text x='{left - 6}' y='{top + 8}' text-anchor='end' {text}>{high:,.4g}</text>"
        f"<text x='{left - 6}' y='{top + inner_h}' text-anchor='end' {text}>{low:,.4g}</text>"
        f"<text x='{left}' y='{top + inner_h + 16}' {text}>{min(x):.4g}</text>"
        f"<text x='{left + inner_w}' y='{top + inner_h + 16}' text-anchor='end' {text}>{max(x):.4g} {html.escape(x_name)}</text>"
        "</svg>"
    )


def bars(rows: Sequence[tuple[str, float, str]], *, width: int = 720) -> str:
    """Horizontal bars: name, length, what is written beside it."""
    if not rows:
        return ""
    longest = max(value for _, value, _ in rows) or 1.0
    lines = []
    for i, (name, value, label) in enumerate(rows):
        y, length = 20 * i, max(0.0, (width - 330) * value / longest)
        lines.append(
            f"<text x='190' y='{y + 14}' text-anchor='end' font-size='12' fill='{GREY}'>{html.escape(name[-28:])}</text>"
            f"<rect x='200' y='{y + 4}' width='{length:.1f}' height='12' fill='{BLUE}'/>"
            f"<text x='{206 + length:.1f}' y='{y + 14}' font-size='12' fill='{GREY}'>{html.escape(label)}</text>"
        )
    return f"<svg viewBox='0 0 {width} {20 * len(rows) + 4}' width='{width}' role='img'>{''.join(lines)}</svg>"


def cameras_from_above(cameras: Cameras, *, side: int = 420) -> str:
    """Positions and viewing directions of cameras on the ground plane (world y is down: x to the right, z away)."""
    T = cameras.T_world_cam.detach().cpu().double().numpy()
    at, look = T[:, [0, 2], 3], T[:, [0, 2], 2]
    center, span = (at.min(0) + at.max(0)) / 2, float(np.ptp(at, axis=0).max()) or 1.0
    scale = (side - 100) / span
    marks = []
    for i in range(len(T)):
        x, y = side / 2 + scale * (at[i, 0] - center[0]), side / 2 - scale * (at[i, 1] - center[1])
        name = html.escape(cameras.names[i]) if cameras.names else str(i)
        marks.append(
            f"<g><title>{name}</title><circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{BLUE}'/>"
            f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{x + 24 * look[i, 0]:.1f}' y2='{y - 24 * look[i, 1]:.1f}' stroke='{BLUE}'/></g>"
        )
    frame = f"<rect width='{side}' height='{side}' fill='none' stroke='{GREY}'/>"
    return (
        f"<svg viewBox='0 0 {side} {side}' width='{side}' role='img' aria-label='cameras from above'>{frame}{''.join(marks)}</svg>"
    )
