"""A small scene with known truth, its photos and a clock that counts looks instead of seconds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recon.polishing.schedule import ScheduleConfig
from recon.posed import PosedViews
from recon.records import Cameras, Gaussians

WIDTH, HEIGHT = 64, 48
SMALL_STEPS = ScheduleConfig(means_px=0.05, color=0.03, scales=0.01, quats=0.005, opacities=0.02, quarter_until=0.0, half_until=0.0)
"""A schedule for pictures this small and runs of some dozen steps."""


class CountingTimer:
    """Each look at it is one hundredth of a second later, so that a run takes the same steps on any machine."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return 0.01 * self.looks


def true_scene(count: int = 400, seed: int = 0) -> Gaussians:
    """Coloured blobs on a wavy wall two units away."""
    g = torch.Generator().manual_seed(seed)
    xy = (torch.rand(count, 2, generator=g) - 0.5) * torch.tensor([3.0, 2.4])
    z = 2 + 0.25 * torch.sin(2 * xy[:, :1])
    return Gaussians(
        means=torch.cat([xy, z], dim=1),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=0.06 + 0.06 * torch.rand(count, 3, generator=g),
        opacities=0.6 + 0.35 * torch.rand(count, generator=g),
        sh=torch.randn(count, 1, 3, generator=g) * 0.8,
    )


def cameras_on_arc(count: int) -> Cameras:
    """Cameras side by side that all look at the middle of the wall."""
    T = torch.eye(4).repeat(count, 1, 1)
    for i, x in enumerate(torch.linspace(-0.5, 0.5, count).tolist()):
        angle = math.atan2(-x, 2.0)
        T[i, :3, :3] = torch.tensor([[math.cos(angle), 0, math.sin(angle)], [0, 1.0, 0], [-math.sin(angle), 0, math.cos(angle)]])
        T[i, :3, 3] = torch.tensor([x, 0.12 * (-1) ** i, 0.0])
    K = torch.tensor([[53.0, 0, WIDTH / 2], [0, 53.0, HEIGHT / 2], [0, 0, 1]]).repeat(count, 1, 1)
    return Cameras(T_world_cam=T, K=K, width=WIDTH, height=HEIGHT, names=tuple(f"photo_{i}.png" for i in range(count)))


@cache
def rasterizer():
    """The CPU kernels."""
    from render.rasterizer import load_rasterizer

    return load_rasterizer("cpu")


def photos_of(scene: Gaussians, cameras: Cameras) -> torch.Tensor:
    """Render ``V H W 3`` in [0, 1]."""
    with torch.no_grad():
        return rasterizer()(scene, cameras).color.clamp(0, 1)


def posed_photos(images: torch.Tensor, cameras: Cameras) -> PosedViews:
    """Photos held in memory, all pixels valid."""
    valid = torch.ones(images.shape[1:3], dtype=torch.bool)
    return PosedViews(names=cameras.names or (), cameras=cameras, read=lambda i: (images[i], valid))


def worn(scene: Gaussians, seed: int = 1) -> Gaussians:
    """The scene with grey, displaced blobs: what polishing has to repair."""
    g = torch.Generator().manual_seed(seed)
    return replace(scene, means=scene.means + 0.03 * torch.randn(scene.means.shape, generator=g), sh=scene.sh * 0.3)


def write_capture(folder: Path, count: int, *, start: Gaussians | None = None) -> Path:
    """Write photos/ and a scene folder with scene.ply and cameras.json; returns the scene folder."""
    from recon.ply import write_ply

    cameras = cameras_on_arc(count)
    images = photos_of(true_scene(), cameras)
    photos, scene = folder / "photos", folder / "scene"
    photos.mkdir(parents=True)
    scene.mkdir()
    for i, name in enumerate(cameras.names or ()):
        Image.fromarray((images[i].numpy() * 255).round().astype(np.uint8)).save(photos / name)
    write_ply(scene / "scene.ply", start if start is not None else worn(true_scene()))
    frames = [
        {
            "name": name, "width": WIDTH, "height": HEIGHT, "K": cameras.K[i].tolist(), "distortion": [0.0] * 4,
            "T_world_cam": cameras.T_world_cam[i].tolist(), "registered": True, "holdout": False,
        }
        for i, name in enumerate(cameras.names or ())
    ]  # fmt: skip
    (scene / "cameras.json").write_text(json.dumps({"format": 1, "frames": frames}))
    return scene
