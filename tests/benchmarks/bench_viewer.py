"""How fast the server draws for visitors of the viewer.

    python tests/benchmarks/bench_viewer.py [--scene DIR | --gaussians 500000 --sh-degree 0] [--seconds 8] [--visitors 1 2 5]

Input: a scene folder, or none: then half a million Gaussians on the walls of a room are made up. Real visitors connect through
viser's protocol on this machine, keep moving, and count the pictures that reach them (JPEG, with depth), as a browser would.
Output: a table. Per row: pictures per second at each visitor, the level the drawing settled at (share of the Gaussians, size),
how much that picture differs from the full one (PSNR), and how long the full picture took to come after the visitor stood still.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from viewer_page import Page, wait_until

from app.scene_files import load_scene
from app.viewer import SceneViewer
from app.viewing.levels import LEVELS
from app.viewing.pictures import Look
from recon.geometry import rgb_to_sh0
from recon.records import Cameras, Gaussians, Scene
from render.rasterizer import load_rasterizer

STEP_S = 1.0 / 30.0
"""A hand moves the mouse about so often."""


def room(count: int, sh_degree: int) -> Scene:
    """Gaussians on the walls of a room, seen from eight cameras in its middle."""
    generator = torch.Generator().manual_seed(7)
    wall = torch.randint(0, 6, (count,), generator=generator)
    at = torch.rand(count, 3, generator=generator) * 2 - 1
    axis, side = wall // 2, (wall % 2) * 2.0 - 1.0
    at[torch.arange(count), axis] = side * (1 + 0.02 * torch.randn(count, generator=generator))
    size = math.sqrt(24.0 / count)
    scales = size * (0.4 + torch.rand(count, 3, generator=generator))
    scales[torch.arange(count), axis] *= 0.2
    pattern = 0.5 + 0.5 * torch.sin(7 * at + torch.tensor([0.0, 2.0, 4.0])) * torch.cos(31 * at.roll(1, 1))
    shine = 0.05 * torch.randn(count, (sh_degree + 1) ** 2 - 1, 3, generator=generator)
    gaussians = Gaussians(
        means=at * torch.tensor([4.0, 2.0, 4.0]),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=scales * 3.0,
        opacities=0.5 + 0.49 * torch.rand(count, generator=generator),
        sh=torch.cat([rgb_to_sh0(pattern)[:, None], shine], dim=1),
    )
    angle = torch.arange(8) * (2 * math.pi / 8)
    T_world_cam = torch.eye(4).repeat(8, 1, 1)
    T_world_cam[:, 0, 0] = T_world_cam[:, 2, 2] = torch.cos(angle)
    T_world_cam[:, 0, 2], T_world_cam[:, 2, 0] = torch.sin(angle), -torch.sin(angle)
    K = torch.tensor([[400.0, 0.0, 320.0], [0.0, 400.0, 180.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
    return Scene(gaussians=gaussians, cameras=Cameras(T_world_cam=T_world_cam, K=K, width=(640,) * 8, height=(360,) * 8))


def psnr_of_level(viewer: SceneViewer, level: int) -> float:
    """How a coarse picture differs from the full one at the size of the coarse one, dB."""
    assert viewer.stage is not None
    visitor = next(iter(viewer.visitors.values()))
    eye, painter = visitor.eye.fitted(LEVELS[level].long_side), viewer.stage.painter
    sets = painter.sets

    def both() -> float:
        shares = LEVELS[level].share, 1.0
        coarse, full = (painter.draw(sets.get(Look(), share), eye, Look()).color[0].clamp(0, 1) for share in shares)
        return -10 * math.log10(max(float((coarse - full).square().mean()), 1e-10))

    return painter.ask(both).result(timeout=120)


def measure(viewer: SceneViewer, visitors: int, size: tuple[int, int], seconds: float) -> str:
    """Let visitors move for a while; one row of the table."""
    pages = [Page(viewer.server.get_port(), *size) for _ in range(visitors)]
    try:
        for page in pages:
            page.set("Drawn", "on the server") if page.control("Drawn")[1]["value"] != "on the server" else None
        for page in pages:
            wait_until(lambda page=page: len(page.pictures) > 1)
        move(pages, 3.0)  # the pace settles
        before = [len(page.pictures) for page in pages]
        began = time.perf_counter()
        move(pages, seconds)
        took = time.perf_counter() - began
        rates = [(len(page.pictures) - count) / took for page, count in zip(pages, before, strict=True)]
        level = max(visitor.easel.pace.level for visitor in viewer.visitors.values())
        stood = time.perf_counter()
        wait_until(lambda: not any(visitor.easel.full_due for visitor in viewer.visitors.values()))
        full_s = time.perf_counter() - stood
        shown = f"{LEVELS[level].share:.0%} of the Gaussians, {min(LEVELS[level].long_side, size[0])} px"
        least, mean = min(rates), float(np.mean(rates))
        return f"| {visitors} | {mean:.1f} | {least:.1f} | {shown} | {psnr_of_level(viewer, level):.1f} | {full_s:.2f} |"
    finally:
        for page in pages:
            page.socket.close()
        wait_until(lambda: not viewer.visitors)


def move(pages: list[Page], seconds: float) -> None:
    """Sway every visitor to and fro."""
    end, step = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        step += 1
        for page in pages:
            page.move((0.05 * math.cos(step / 10), 0.01 * math.sin(step / 7), 0.0))
        time.sleep(STEP_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=None)
    parser.add_argument("--gaussians", type=int, default=500_000)
    parser.add_argument("--sh-degree", type=int, default=0, choices=range(4), help="of the made-up scene")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--visitors", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--size", type=int, nargs=2, default=(480, 270))
    given = parser.parse_args()
    scene = room(given.gaussians, given.sh_degree) if given.scene is None else load_scene(given.scene)
    viewer = SceneViewer(port=0, rasterizer=load_rasterizer("cpu"))
    try:
        viewer.show(scene)
        print(f"{len(scene.gaussians):,} Gaussians, SH degree {scene.gaussians.sh_degree}, {given.size[0]}x{given.size[1]}\n")
        print("| visitors | pictures/s, mean | slowest | drawn while moving | PSNR to the full one, dB | full one after, s |")
        print("|---|---|---|---|---|---|")
        for visitors in given.visitors:
            print(measure(viewer, visitors, tuple(given.size), given.seconds), flush=True)
    finally:
        viewer.stop()


if __name__ == "__main__":
    main()
