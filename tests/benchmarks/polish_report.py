"""Tables and curves from the results of bench_polish.py.

    python tests/benchmarks/polish_report.py full.json [more.json ...] --chart tests/benchmarks/polish_curves.svg

Input: JSON files of bench_polish.py. Output: Markdown on stdout, mean PSNR against seconds of both methods as SVG.
Does not: measure.
"""

from __future__ import annotations

import argparse
import html
import json
from pathlib import Path

COLORS = {"ours": "#2f6fb5", "plain 3DGS": "#c2671b"}
GREY = "#6b7683"


def by_set(rows: list[dict]) -> dict[str, dict[str, dict]]:
    """Rows by set, then by method."""
    found: dict[str, dict[str, dict]] = {}
    for row in rows:
        found.setdefault(row["set"], {})[row["method"]] = row
    return found


def table(rows: list[dict], marks: list[str]) -> str:
    """Both methods side by side, and their means over the sets that both finished."""
    lines = [
        "| set | photos | start | " + " | ".join(f"{m} s ours / plain" for m in marks) + " | SSIM | Gaussians |",
        "|" + "---|" * (len(marks) + 5),
    ]
    sums = {(m, method): 0.0 for m in marks for method in COLORS}
    both = {name: pair for name, pair in by_set(rows).items() if all(m in pair for m in COLORS)}
    for name, pair in both.items():
        ours, plain = pair["ours"], pair["plain 3DGS"]
        for m in marks:
            for method in COLORS:
                sums[m, method] += pair[method]["scores"][m]["psnr"] / len(both)
        cells = [f"{ours['scores'][m]['psnr']:.2f} / {plain['scores'][m]['psnr']:.2f}" for m in marks]
        first, last = ours["final"], plain["final"]
        end = f"{first['ssim']:.3f} / {last['ssim']:.3f} | {first['gaussians']:,} / {last['gaussians']:,}"
        lines.append(f"| {name} | {ours['photos']} | {ours['start']['psnr']:.2f} | {' | '.join(cells)} | {end} |")
    means = [f"**{sums[m, 'ours']:.2f} / {sums[m, 'plain 3DGS']:.2f}**" for m in marks]
    return "\n".join([*lines, f"| mean | | | {' | '.join(means)} | | |"])


def chart(rows: list[dict], *, width: int = 560, height: int = 320) -> str:
    """Mean PSNR of both methods against seconds, with every point's number in a tooltip."""
    both = [pair for pair in by_set(rows).values() if all(m in pair for m in COLORS)]
    seconds = sorted({float(m) for pair in both for m in pair["ours"]["scores"]})
    lines = {
        method: [sum(pair[method]["scores"][f"{s:g}"]["psnr"] for pair in both) / len(both) for s in seconds] for method in COLORS
    }
    low, high = min(min(v) for v in lines.values()) - 0.5, max(max(v) for v in lines.values()) + 0.5
    left, top, inner_w, inner_h = 50, 30, width - 80, height - 80

    def at(s: float, value: float) -> tuple[float, float]:
        return left + inner_w * s / seconds[-1], top + inner_h * (high - value) / (high - low)

    parts = [f"<path d='M{left} {top}V{top + inner_h}H{left + inner_w}' fill='none' stroke='{GREY}'/>"]
    for value in range(int(low) + 1, int(high) + 1):
        y = at(0, value)[1]
        parts.append(f"<path d='M{left} {y:.1f}h{inner_w}' stroke='{GREY}' stroke-opacity='.2'/>")
        parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{value}</text>")
    for s in seconds:
        parts.append(f"<text x='{at(s, low)[0]:.1f}' y='{top + inner_h + 16}' text-anchor='middle'>{s:g}</text>")
    for k, (method, values) in enumerate(lines.items()):
        points = [at(s, v) for s, v in zip(seconds, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{COLORS[method]}' stroke-width='2'/>")
        for (x, y), s, v in zip(points, seconds, values, strict=True):
            tip = html.escape(f"{method}, {s:g} s: {v:.2f} dB")
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{COLORS[method]}'><title>{tip}</title></circle>")
        parts.append(f"<text x='{left + inner_w - 90}' y='{top + inner_h - 30 + 16 * k}' fill='{COLORS[method]}'>{method}</text>")
    title = f"PSNR of test photos, dB, mean over {len(both)} sets, against seconds after cameras"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' font-size='11' fill='{GREY}' "
        f"font-family='sans-serif'><rect width='{width}' height='{height}' fill='#fff'/>"
        f"<text x='{left}' y='16'>{title}</text>{''.join(parts)}</svg>\n"
    )


def main() -> None:
    """Print tables and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--marks", default="10,30,60")
    parser.add_argument("--chart", type=Path, default=None)
    options = parser.parse_args()
    rows = [row for file in options.files for row in json.loads(file.read_text())]
    print(table(rows, options.marks.split(",")))
    if options.chart:
        options.chart.write_text(chart(rows))


if __name__ == "__main__":
    main()
