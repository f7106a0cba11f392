"""VGGT-1B: cameras, depth and points of all views in one pass.

Input: images in [0, 1] whose sides are multiples of 14. Output: pose codes, depth, world points and their confidences.
Does not: track points (the checkpoint's track head is not read).

    images -> ViT-L (per view) -> 24 pairs of blocks (view, all views) -> four taps -> depth head, point head
                                                                       -> camera token of the last -> camera head

Source: Wang et al., VGGT: Visual Geometry Grounded Transformer, CVPR 2025, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap, dense_head_keys
from ..layers.aggregator import PairedAggregator
from ..layers.camera_heads import IterativeCameraHead, decode_pose, invert_rigid
from ..layers.dense_head import DenseConfig, DenseHead, in_chunks
from ..layers.patch_vit import PATCH, PatchVit, normalise, vit_large
from ..layers.transformer import BlockConfig
from .geometry import Geometry, KnownCameras
from .precision import backbone_precision

DIM = 1024
DEPTH = 24
TAPS = (4, 11, 17, 23)
"""Pairs of blocks whose outputs feed the dense heads; the camera head reads the last."""


@dataclass(frozen=True, kw_only=True)
class VggtOutput:
    """Raw outputs."""

    pose_codes: Float[Tensor, "I V 9"]
    """World to camera, one per refinement round; the last is the answer."""
    depth: Float[Tensor, "V H W"]
    depth_conf: Float[Tensor, "V H W"]
    """1 + exp, so > 1."""
    points_world: Float[Tensor, "V H W 3"] | None
    """The point head's own answer, in the world of the first view, when asked for."""
    points_conf: Float[Tensor, "V H W"] | None


def dense_config(channels: int, hidden: int = 32) -> DenseConfig:
    """Describe a dense head of this family."""
    return DenseConfig(dim_in=2 * DIM, features=256, widths=(256, 512, 1024, 1024), channels=channels, hidden=hidden)


class VggtBackbone(nn.Module):
    """Patch encoder and aggregator."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_vit = PatchVit(vit_large())
        self.aggregator = PairedAggregator(BlockConfig(dim=DIM, heads=16, norm_eps=1e-5, qk_norm=True), DEPTH)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> list[Float[Tensor, "V P C"]]:
        """Return the tokens of the four taps, special tokens first, from images in [0, 1]."""
        grid = (images.shape[2] // PATCH, images.shape[3] // PATCH)
        patches = self.patch_vit(normalise(images))[:, 1 + self.patch_vit.config.registers :]
        return self.aggregator(patches, grid, TAPS)


class Vggt(nn.Module):
    """Backbone, camera head, depth head and point head."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.backbone = VggtBackbone()
        self.camera_head = IterativeCameraHead(2 * DIM)
        self.depth_head = DenseHead(dense_config(2))
        self.point_head = DenseHead(dense_config(4))

    def forward(self, images: Float[Tensor, "V 3 H W"], *, points: bool = False, head_chunk: int = 8) -> VggtOutput:
        """Predict cameras and depth.

        Args:
            points: also run the point head.
            head_chunk: views a dense head takes at a time.
        """
        size = (images.shape[2], images.shape[3])
        with backbone_precision(images.device, self.compute_dtype):
            taps = self.backbone(images)
        pose_codes = self.camera_head(taps[-1][:, 0].float())
        taps = [tap[:, PairedAggregator.SPECIALS :].float() for tap in taps]
        raw = in_chunks(lambda some: self.depth_head(some, size), taps, head_chunk)
        raw_points = in_chunks(lambda some: self.point_head(some, size), taps, head_chunk) if points else None
        return VggtOutput(
            pose_codes=pose_codes,
            depth=raw[:, 0].exp(),
            depth_conf=1.0 + raw[:, 1].exp(),
            points_world=None if raw_points is None else signed_exp(raw_points[:, :3]).permute(0, 2, 3, 1),
            points_conf=None if raw_points is None else 1.0 + raw_points[:, 3].exp(),
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict in our conventions; the world is the first view's camera, nearly."""
        out = self(images, head_chunk=head_chunk)
        T_cam_world, K = decode_pose(out.pose_codes[-1], images.shape[2], images.shape[3])
        return Geometry(T_world_cam=invert_rigid(T_cam_world), K=K, depth=out.depth, confidence=1.0 - 1.0 / out.depth_conf)


def signed_exp(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Undo a signed logarithm: sign(x) (exp|x| - 1)."""
    return x.sign() * x.abs().expm1()


def backbone_keys(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """List the rules for the patch encoder and the aggregator."""
    return ((f"{published}patch_embed.", f"{ours}patch_vit."), (published, f"{ours}aggregator."))


def camera_head_keys(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """List the rules for the iterative camera head."""
    return ((published, ours), (f"{published}poseLN_modulation.1.", f"{ours}modulation."))


def vggt_keys() -> KeyMap:
    """Map the published names."""
    return KeyMap(
        prefixes=(
            *backbone_keys("aggregator.", "backbone."),
            *camera_head_keys("camera_head.", "camera_head."),
            *dense_head_keys("depth_head.", "depth_head."),
            *dense_head_keys("point_head.", "point_head."),
        ),
        unused={
            "aggregator.patch_embed.mask_token": "training only",
            "track_head.": "point tracks are not offered",
        },
    )
