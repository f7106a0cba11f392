"""Speed of the CPU rasteriser, forward and backward, and how near it comes to what the vector units allow.

    python tests/benchmarks/bench_rasteriser.py                 the scenes of the table in RESULTS.md
    python tests/benchmarks/bench_rasteriser.py --large         also 1 M at 1280x720 and 5 M with its memory
    NUMBA_NUM_THREADS=1 python tests/benchmarks/bench_rasteriser.py

Scene: seed 0, Gaussians uniform in the unit ball, sigma log-uniform 0.005 to 0.03 per axis, random rotations, opacity uniform
0.05 to 0.95, camera at distance 3, vertical field of view 60 degrees. Wall times are those of a busy or
quiet machine as it is; processor times count only what this process used and compare across loads.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from math import pi, tan
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numba
import numpy as np
import torch

from recon.records import Cameras, Gaussians
from render import drawing
from render.constants import TILE
from render.kernels import forward, jit, layout
from render.kernels.lanes import fma, load, splat, store
from render.kernels.tiles import pixel_interval
from render.rasterizer import load_rasterizer

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def ball(count: int, sh_degree: int) -> Gaussians:
    """The scene of the issue."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    low, high = np.log(0.005), np.log(0.03)
    sh = torch.randn(count, (sh_degree + 1) ** 2, 3, generator=g) * 0.1
    sh[:, 0] = (torch.rand(count, 3, generator=g) - 0.5) / 0.28209479
    return Gaussians(
        means=directions * torch.rand(count, 1, generator=g) ** (1 / 3),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=torch.exp(torch.rand(count, 3, generator=g) * (high - low) + low),
        opacities=torch.rand(count, generator=g) * 0.9 + 0.05,
        sh=sh,
    )


def camera(width: int, height: int) -> Cameras:
    """At (0, 0, -3), looking along +z."""
    T_world_cam = torch.eye(4)[None].clone()
    T_world_cam[0, 2, 3] = -3.0
    focal = height / 2 / tan(pi / 6)
    K = torch.tensor([[[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]])
    return Cameras(T_world_cam=T_world_cam, K=K, width=width, height=height)


def timed(function: Callable, *args) -> tuple[float, float]:
    """Wall and processor milliseconds (of all threads) of a call."""
    wall, busy = time.perf_counter(), time.process_time()
    function(*args)
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - busy) * 1e3


def fastest(run: Callable[[], tuple[float, float]], repeats: int) -> tuple[float, float, float]:
    """Minimum and median wall time and minimum processor time of ``run``, after one run that is not counted."""
    run()
    taken = [run() for _ in range(repeats)]
    walls = [wall for wall, _ in taken]
    return min(walls), statistics.median(walls), min(busy for _, busy in taken)


def bench_scene(name: str, gaussians: Gaussians, cameras: Cameras, repeats: int) -> None:
    """Print one row: forward without gradients, forward that keeps what the backward needs, backward."""
    draw = load_rasterizer("cpu")
    leaves = Gaussians(**{field: getattr(gaussians, field).clone().requires_grad_() for field in FIELDS})
    drawn = []

    def forward_only() -> tuple[float, float]:
        with torch.no_grad():
            return timed(draw, gaussians, cameras)

    def forward_kept() -> tuple[float, float]:
        drawn.clear()
        return timed(lambda: drawn.append(draw(leaves, cameras).color))

    def backward() -> tuple[float, float]:
        for field in FIELDS:
            getattr(leaves, field).grad = None
        return timed(lambda: drawn[0].backward(gradient, retain_graph=True))

    plain, kept = fastest(forward_only, repeats), fastest(forward_kept, repeats)
    gradient = torch.ones_like(drawn[0])
    back = fastest(backward, repeats)
    cells = " | ".join(f"{wall:.1f} ({usual:.1f}) [{busy:.1f}]" for wall, usual, busy in (plain, kept, back))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {name} | {cells} | {back[2] / plain[2]:.2f} | {peak_gb:.1f} |", flush=True)


@numba.njit(nogil=True)
def _peak(values, rounds):
    """Eight independent chains of fused multiply-adds on sixteen lanes."""
    a, b, c, d = load(values, 0), load(values, 16), load(values, 32), load(values, 48)
    e, f, g, h = load(values, 64), load(values, 80), load(values, 96), load(values, 112)
    x, y = splat(np.float32(0.999)), splat(np.float32(0.001))
    for _ in range(rounds):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
    store(values, 0, a + b + c + d + e + f + g + h)


@numba.njit
def _rows_drawn(starts, seen, hit_rows, splats, columns):
    """Tile rows (sixteen pixels each) that the hits looked at cover."""
    total = 0
    for tile in range(seen.size):
        top = tile // columns * TILE
        for hit in range(starts[tile], starts[tile] + seen[tile]):
            row = hit_rows[hit]
            low, high = pixel_interval(splats[row, layout.MEAN_Y] - top, splats[row, layout.EXTENT_Y], 0, TILE - 1)
            total += max(0, high - low + 1)
    return total


def roofline(gaussians: Gaussians, cameras: Cameras, repeats: int) -> None:
    """Where the time goes on one thread, and the inner loop's rate against a loop of nothing but multiply-adds."""
    settings = drawing.Settings.of(gaussians, cameras)
    arrays = drawing.arrays_of(gaussians)
    row = drawing.camera_array(cameras, settings)[0]
    wanted = settings.wanted_tiles(0)
    pictures = tuple(
        np.empty(s, np.float32) for s in ((settings.height, settings.width, 3), *[(settings.height, settings.width)] * 2)
    )
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with jit.guard():
            view = drawing.draw_view(arrays, row, settings, wanted, pictures, True)
            tiles = (view.tile_order, view.starts, view.hit_rows, view.splats, settings.background, wanted.shape[1], *pictures)
            draw_ms = fastest(lambda: timed(forward.draw, *tiles, view.saved, view.seen), repeats)[2]
            whole_ms = fastest(lambda: timed(drawing.draw_view, arrays, row, settings, wanted, pictures, False), repeats)[2]
    finally:
        numba.set_num_threads(before)
    values = np.ones(128, np.float32)
    _peak(values, 1)
    rounds = 2_000_000
    peak_ms = fastest(lambda: timed(_peak, values, rounds), repeats)[2]
    fma_per_s = rounds * 8 * 16 / peak_ms * 1e3
    evaluations = 16 * _rows_drawn(view.starts, view.seen, view.hit_rows, view.splats, wanted.shape[1])
    rate = evaluations / draw_ms * 1e3
    print(f"one thread: whole picture {whole_ms:.1f} ms, of which drawing tiles {draw_ms:.1f} ms")
    print(f"tile hits {view.hit_rows.size}, looked at before every pixel was finished {int(view.seen.sum())}")
    print(f"pixel evaluations {evaluations / 1e6:.1f} M at {rate / 1e9:.2f} G/s; multiply-add lanes {fma_per_s / 1e9:.1f} G/s")
    print(f"so one pixel evaluation takes the time of {fma_per_s / rate:.1f} multiply-adds at the machine's peak")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each measurement")
    parser.add_argument("--large", action="store_true", help="also 1 M at 1280x720 and 5 M")
    options = parser.parse_args()
    layer = jit.prepare()
    print(
        f"{numba.get_num_threads()} threads ({layer}), {options.repeats} runs: wall minimum (median) [processor, all threads], ms\n"
    )
    print("| scene | forward | forward, gradients kept | backward | backward / forward (processor) | peak memory so far, GB |")
    print("|---|---|---|---|---|---|")
    small, large = camera(640, 360), camera(1280, 720)
    bench_scene("100k SH0 640x360", ball(100_000, 0), small, options.repeats)
    bench_scene("100k SH3 640x360", ball(100_000, 3), small, options.repeats)
    bench_scene("500k SH0 640x360", ball(500_000, 0), small, options.repeats)
    if options.large:
        bench_scene("1 M SH0 1280x720", ball(1_000_000, 0), large, options.repeats)
        bench_scene("5 M SH0 1280x720", ball(5_000_000, 0), large, max(2, options.repeats // 5))
    print()
    roofline(ball(100_000, 0), small, options.repeats)


if __name__ == "__main__":
    main()
