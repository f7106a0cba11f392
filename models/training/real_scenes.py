"""A few shrunken sets of real photos with reference cameras: what a stretch is judged by besides held-out worlds, never trained on.

Input: the pack that ``data/pack_training.py`` writes. Output: ``RealScene`` records, and numbers for the log.
Does not: read image formats, find cameras, or train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from recon.depth_range import choose_depth_range
from recon.errors import CannotReconstruct
from recon.fuse import FuseConfig, SplatHead, fuse
from recon.geometry import inside_image, project, sample_image, transform
from recon.neighbours import choose_neighbours
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Prediction, Rasterizer, RasterOptions

from .textures import whole_pictures

__all__ = ["HeadExam", "RealScene", "depth_on_photos", "load_scenes"]

Array = np.ndarray
NEIGHBOURS = 4
REFERENCES = 4
"""Photos of a scene whose depth is judged."""
WITHIN = 0.05
EXAM_PHOTOS, EXAM_HELD_OUT = 8, (2, 5)
"""Photos of a scene, from its first on, by which a head is judged, and those of them that are held out from it."""
EXAM_FUSE = FuseConfig(max_gaussians=20_000, shell=1000, recolor_steps=0)


@dataclass(frozen=True, kw_only=True)
class RealScene:
    """V photos of one size, undistorted, with reference cameras and sparse points."""

    name: str
    photos: UInt8[Array, "V H W 3"]
    K: Float[Array, "V 3 3"]
    T_world_cam: Float[Array, "V 4 4"]
    points_world: Float[Array, "M 3"]
    visibility: Bool[Array, "V M"]
    """Which photo observed which point."""

    @cached_property
    def posed(self) -> PosedViews:
        """The photos as the product's stages take them."""
        height, width = self.photos.shape[1:3]
        cameras = Cameras(
            T_world_cam=torch.from_numpy(self.T_world_cam).float(), K=torch.from_numpy(self.K).float(), width=width, height=height
        )
        valid = torch.ones(height, width, dtype=torch.bool)
        return PosedViews(
            names=tuple(f"{self.name} {i}" for i in range(len(self.photos))),
            cameras=cameras,
            read=lambda i: (torch.from_numpy(self.photos[i]).float() / 255, valid),
            points_world=torch.from_numpy(self.points_world).float(),
            visibility=torch.from_numpy(self.visibility),
        )

    def relative_errors(self, view: int, depth: Float[Tensor, "h w"]) -> Float[Tensor, " M"]:
        """How far a view's depth map is from the sparse points that the view observed, over their depth."""
        cameras, observed = self.posed.cameras, torch.from_numpy(self.visibility[view])
        points = transform(cameras.T_cam_world[view], torch.from_numpy(self.points_world).float()[observed])
        pixels, z = project(points, cameras.K[view])
        inside = inside_image(pixels, cameras.width[view], cameras.height[view]) & (z > 0)
        scale = torch.tensor([depth.shape[1] / cameras.width[view], depth.shape[0] / cameras.height[view]])
        found = sample_image(depth[..., None].float(), pixels[inside] * scale, mode="nearest")[:, 0]
        return (found / z[inside] - 1).abs()


def load_scenes(path: Path) -> list[RealScene]:
    """Read the scenes that ``data/pack_training.py`` writes.

    Raises:
        ValueError: the file holds none.
    """
    try:
        with np.load(path) as pack:
            return [
                RealScene(
                    name=str(name),
                    photos=whole_pictures(pack[f"{i}_differences"]),
                    **{key: pack[f"{i}_{key}"] for key in ("K", "T_world_cam", "points_world", "visibility")},
                )
                for i, name in enumerate(pack["scenes"])
            ]
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path} holds no scenes of python -m data.pack_training: {error}") from error


def depth_on_photos(predictor, scenes: Sequence[RealScene]) -> dict[str, float]:
    """Median relative error and share within 5% at sparse points, on average over scenes; nothing without scenes.

    Args:
        predictor: as ``models.registry.DepthPredictor``.
    """
    medians, shares = [], []
    for scene in scenes:
        posed = scene.posed
        judged = sorted({round(i) for i in np.linspace(0, len(posed) - 1, min(REFERENCES, len(posed)))})
        neighbours = choose_neighbours(posed, count=NEIGHBOURS)
        asked = tuple(neighbours[i] if i in judged else () for i in range(len(posed)))
        depth = predictor(posed, asked, choose_depth_range(posed), Progress()).depth
        error = torch.cat([scene.relative_errors(i, depth[i]) for i in judged])
        if len(error):
            medians.append(float(error.median()))
            shares.append(float((error < WITHIN).float().mean()))
    if not medians:
        return {}
    return {"photos_median_error": float(np.mean(medians)), "photos_within_5%": float(np.mean(shares))}


class HeadExam:
    """Held-out photos of real scenes, drawn from what a head makes of depth that is estimated once.

    Args:
        predictor: as ``models.registry.DepthPredictor``; where the photos' depth comes from.
        rasterizer: draws on ``device``.
    """

    def __init__(self, scenes: Sequence[RealScene], predictor, rasterizer: Rasterizer, device: str) -> None:
        self.rasterizer, self.device = rasterizer, device
        self.rows: list[tuple[RealScene, list[int], PosedViews, Prediction]] = []
        for scene in scenes:
            used = range(min(EXAM_PHOTOS, len(scene.posed)))
            held = [i for i in EXAM_HELD_OUT if i in used]
            inputs = scene.posed.select([i for i in used if i not in held])
            neighbours = choose_neighbours(inputs, count=NEIGHBOURS)
            self.rows.append((scene, held, inputs, predictor(inputs, neighbours, choose_depth_range(inputs), Progress())))

    @torch.no_grad()
    def psnr(self, head: SplatHead) -> float | None:
        """Mean over scenes of the PSNR of held-out photos; None without scenes."""
        means = []
        for scene, held, inputs, prediction in self.rows:
            try:
                gaussians = fuse(inputs, prediction, head, EXAM_FUSE, Progress()).gaussians
            except CannotReconstruct:
                means.append(0.0)
                continue
            cameras = scene.posed.cameras.select(held).to(self.device)
            drawn = self.rasterizer(gaussians.to(self.device), cameras, RasterOptions()).color.clamp(0, 1).cpu()
            photos = torch.stack([scene.posed.image(i) for i in held])
            means.append(float((-10 * torch.log10(((drawn - photos) ** 2).mean(dim=(1, 2, 3)) + 1e-8)).mean()))
        return float(np.mean(means)) if means else None
