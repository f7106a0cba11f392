"""Reliability diagram of the depth network's confidence: of the pixels that it is so sure of, how many are right.

Right means within half a plane of the 64 inverse-depth planes between the near and far of a view, which is what confidence was
trained to foretell. Judged on held-out procedural worlds, where truth is exact, and on real photos at the points of structure from
motion (those are easier: textured, and seen by several photos). ``--work`` holds the cameras that ``bench_model.py`` keeps.

    python tests/benchmarks/bench_reliability.py --work /tmp/model --chart tests/benchmarks/reliability.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_model import DEVICE, SETS, at_points, capture_of, depth_of

from app.run import Tools, build_tools
from models.training.head_trainer import capture_to_posed
from models.training.worlds import Worlds
from recon.depth_range import choose_depth_range
from recon.neighbours import choose_neighbours
from recon.progress import Progress

BINS = 10
PLANES = 64
SEED = 880_001
VIEWS, HEIGHT, WIDTH = 5, 256, 320
COLORS = {"held-out worlds": "#c2671b", "real photos": "#2f6fb5"}
GREY = "#6b7683"


def is_right(depth: torch.Tensor, truth: torch.Tensor, depth_range: torch.Tensor) -> torch.Tensor:
    """Whether depth lies within half a plane of the truth."""
    step = (1 / depth_range[0] - 1 / depth_range[1]) / (PLANES - 1)
    return (1 / depth - 1 / truth).abs() < 0.5 * step


def on_worlds(count: int, tools: Tools) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence of every pixel whose surface lies in the range, and whether depth is right there."""
    worlds, predictor = Worlds(None, SEED), tools.load_predictor("mini", device=DEVICE, weights=None)
    sure, right = [], []
    for _ in range(count):
        capture = worlds.capture(VIEWS, HEIGHT, WIDTH)
        posed, ranges = capture_to_posed(capture, range(VIEWS)), torch.from_numpy(capture.depth_range).float()
        prediction = predictor(posed, choose_neighbours(posed, count=4), ranges, Progress())
        for i in range(VIEWS):
            truth = torch.from_numpy(capture.depth[2][i]).float()
            solid = (truth > ranges[i, 0]) & (truth < ranges[i, 1])
            sure.append(prediction.confidence[i][solid])
            right.append(is_right(prediction.depth[i], truth, ranges[i])[solid])
    return torch.cat(sure), torch.cat(right)


def on_photos(options: argparse.Namespace, tools: Tools) -> tuple[torch.Tensor, torch.Tensor]:
    """The same at the points of structure from motion; every set counts alike, by as many points of each."""
    sure, right = [], []
    generator = torch.Generator().manual_seed(0)
    for name in options.sets:
        capture = capture_of(name, tools, options)
        prediction, ranges = depth_of("shipped", name, capture.inputs, tools, options), choose_depth_range(capture.inputs)
        set_sure, set_right = [], []
        for i, depth, confidence, truth in at_points(capture, prediction):
            seen = (truth > ranges[i, 0]) & (truth < ranges[i, 1])
            set_sure.append(confidence[seen])
            set_right.append(is_right(depth[seen], truth[seen], ranges[i]))
        chosen = torch.randperm(sum(map(len, set_sure)), generator=generator)[: options.points]
        sure.append(torch.cat(set_sure)[chosen])
        right.append(torch.cat(set_right)[chosen])
    return torch.cat(sure), torch.cat(right)


def binned(sure: torch.Tensor, right: torch.Tensor) -> list[tuple[float, float, float]]:
    """Per bin of confidence: its share of all, mean confidence, share that is right (nan where empty)."""
    which = (sure * BINS).long().clamp(0, BINS - 1)
    rows = []
    for k in range(BINS):
        here = which == k
        rows.append((float(here.float().mean()), float(sure[here].mean()), float(right[here].float().mean())))
    return rows


def chart(found: dict[str, list[tuple[float, float, float]]], *, side: int = 300) -> str:
    """Share that is right against confidence, a circle per bin, its area the bin's share; the diagonal is perfect."""
    left, top = 50, 30

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * (1 - y)

    parts = [
        f"<path d='M{left} {top}V{top + side}H{left + side}' fill='none' stroke='{GREY}'/>",
        f"<path d='M{left} {top + side}L{left + side} {top}' stroke='{GREY}' stroke-dasharray='4 4'/>",
    ]
    for k in range(0, 11, 2):
        (x, _), (_, y) = at(k / 10, 0), at(0, k / 10)
        parts.append(f"<text x='{x:.1f}' y='{top + side + 16}' text-anchor='middle'>{k / 10:g}</text>")
        parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{k / 10:g}</text>")
    for k, (name, rows) in enumerate(found.items()):
        drawn = [(*at(sure, right), share, sure, right) for share, sure, right in rows if share > 0]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in drawn)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{COLORS[name]}'/>")
        for x, y, share, sure, right in drawn:
            tip = f"{name}: confidence {sure:.2f}, right {100 * right:.0f}%, {100 * share:.0f}% of all"
            radius = 3 + 14 * share**0.5
            shape = f"cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='{COLORS[name]}' fill-opacity='.6'"
            parts.append(f"<circle {shape}><title>{tip}</title></circle>")
        parts.append(f"<text x='{left + 12}' y='{top + 16 + 16 * k}' fill='{COLORS[name]}'>{name}</text>")
    parts.append(f"<text x='{left + side / 2}' y='{top + side + 34}' text-anchor='middle'>confidence</text>")
    whole = side + 80
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {whole} {whole}' width='{whole}' font-size='11' fill='{GREY}' "
        f"font-family='sans-serif'><rect width='{whole}' height='{whole}' fill='#fff'/>"
        f"<text x='{left}' y='16'>Share of depths within half a plane</text>{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench_model"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--worlds", type=int, default=48)
    parser.add_argument("--points", type=int, default=3_000, help="points of each set")
    parser.add_argument("--chart", type=Path, default=None, help="SVG")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    tools = build_tools()
    judged = {"held-out worlds": on_worlds(options.worlds, tools), "real photos": on_photos(options, tools)}
    found = {name: binned(*pair) for name, pair in judged.items()}
    print("| confidence | " + " | ".join(f"{name}: share | mean | right" for name in found) + " |")
    print("|---" * (1 + 3 * len(found)) + "|")
    for k in range(BINS):
        cells = [
            f"{100 * share:.1f}% | {sure:.2f} | {100 * right:.0f}%" for share, sure, right in (rows[k] for rows in found.values())
        ]
        print(f"| {k / BINS:.1f} to {(k + 1) / BINS:.1f} | {' | '.join(cells)} |")
    for name, rows in found.items():
        gap = sum(share * abs(sure - right) for share, sure, right in rows if share > 0)
        right = judged[name][1].float()
        print(f"{name}: expected calibration error {gap:.3f}, {len(right):,} depths, {right.mean():.1%} right")
    if options.chart:
        options.chart.write_text(chart(found))


if __name__ == "__main__":
    main()
