"""Everything that a run on a CPU compiles, compiled ahead of the first one: drawing, depth, fusing, refinement.

Input: nothing. Output: the seconds it took, and Numba's cache on disk. Does not: warm the plane sweep or exports.
"""

from __future__ import annotations

import time

import torch

from models.registry import load_predictor, load_splat_head, load_updater
from recon.fuse import FuseConfig, fuse
from recon.neighbours import choose_neighbours
from recon.polishing.targets import Targets
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Prediction
from recon.refining import refine, with_degree
from render.rasterizer import load_rasterizer, warm

__all__ = ["warm_up"]

VIEWS, HEIGHT, WIDTH = 3, 48, 64
FOCAL_PX, APART, WALL_Z = 60.0, 0.2, 4.0


def warm_up() -> float:
    """Draw, estimate, fuse and refine a wall of 64 x 48 pixels; return the seconds it took."""
    began = time.perf_counter()
    warm()
    posed, ranges = wall(), torch.tensor([[1.0, 8.0]]).repeat(VIEWS, 1)
    progress = Progress()
    load_predictor("mini", device="cpu")(posed, choose_neighbours(posed, count=2), ranges, progress)
    sure = torch.full((HEIGHT, WIDTH), 0.95)
    sure[:, : WIDTH // 3] = 0.02  # guesses go other ways
    known = Prediction(
        cameras=posed.cameras,
        depth=tuple(torch.full((HEIGHT, WIDTH), WALL_Z) for _ in range(VIEWS)),
        confidence=(sure,) * VIEWS,
    )
    fused = fuse(posed, known, load_splat_head(device="cpu"), FuseConfig(max_gaussians=600), progress)
    updater = load_updater(device="cpu")
    if updater is not None:
        targets = Targets(posed, "cpu", 1 << 26)
        refine(with_degree(fused.gaussians, 1), targets, load_rasterizer("cpu"), updater, rounds=1, progress=progress)
    return time.perf_counter() - began


def wall() -> PosedViews:
    """A textured wall before three cameras side by side."""
    T_world_cam = torch.eye(4, dtype=torch.float64).repeat(VIEWS, 1, 1)
    T_world_cam[:, 0, 3] = APART * torch.arange(VIEWS)
    K = torch.tensor([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64).repeat(VIEWS, 1, 1)
    shift = round(FOCAL_PX * APART / WALL_Z)
    picture = torch.rand(HEIGHT, WIDTH + shift * VIEWS, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    return PosedViews(
        names=tuple(f"{i}" for i in range(VIEWS)),
        cameras=Cameras(T_world_cam=T_world_cam, K=K, width=(WIDTH,) * VIEWS, height=(HEIGHT,) * VIEWS),
        read=lambda i: (picture[:, shift * i : shift * i + WIDTH].contiguous(), valid),
    )
